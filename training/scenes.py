"""What a scene contains and how it is said in English: the ground truth and the captions.

A :class:`Scene` is the complete, structured truth about a picture. ``training.world`` draws it, the verifier is
trained on it, and :func:`caption` renders it as one of many English sentences from a fixed, finite vocabulary.
Nothing here needs a font or an image library.
"""

from __future__ import annotations

import dataclasses
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

# ---------------------------------------------------------------------------------------------------------------
# Nouns

GLYPHS: dict[str, str] = {
    "animal": "cat🐈 dog🐕 rabbit🐇 fox🦊 bear🐻 lion🦁 tiger🐅 panda🐼 koala🐨 pig🐖 frog🐸 monkey🐒 "
    "horse🐎 cow🐄 sheep🐑 camel🐪 giraffe🦒 zebra🦓 elephant🐘 mouse🐁 hedgehog🦔 squirrel🐿 "
    "deer🦌 bird🐦 owl🦉 penguin🐧 duck🦆 flamingo🦩 parrot🦜 fish🐟 shark🦈 whale🐳 dolphin🐬 "
    "octopus🐙 crab🦀 turtle🐢 snail🐌 dinosaur🦕 dragon🐉 unicorn🦄 butterfly🦋 bee🐝 spider🕷",
    "food": "apple🍎 pear🍐 banana🍌 lemon🍋 strawberry🍓 cherry🍒 watermelon🍉 pineapple🍍 carrot🥕 "
    "pizza🍕 burger🍔 cake🎂 cupcake🧁 cookie🍪 doughnut🍩 egg🥚 mushroom🍄 pumpkin🎃",
    "vehicle": "car🚗 bus🚌 truck🚚 tractor🚜 train🚂 bicycle🚲 motorcycle🏍 rocket🚀 airplane✈ "
    "helicopter🚁 boat⛵ ship🚢 skateboard🛹",
    "building": "house🏠 castle🏰 tent⛺ church⛪ fountain⛲",
    "plant": "tree🌳 palm🌴 cactus🌵 tulip🌷 sunflower🌻 rose🌹",
    "object": "star⭐ umbrella☂ balloon🎈 guitar🎸 drum🥁 ball⚽ clock⏰ crown👑 hat🎩 cap🧢 bow🎀 heart❤ "
    "robot🤖 ghost👻 alien👽 snowman⛄ gift🎁 chair🪑 book📕 key🔑 teapot🫖",
    # Drawn, not a glyph: what "a cake with decorations" shows before an edit names something else.
    "ornament": "decoration",
}
"""Every noun with the glyph it is drawn from, by kind."""

ALIASES = {
    "bicycle": "bike",
    "airplane": "plane",
    "rabbit": "bunny",
    "doughnut": "donut",
    "motorcycle": "motorbike",
}
IRREGULAR_PLURALS = {
    "sheep": "sheep", "deer": "deer", "fish": "fish", "mouse": "mice", "octopus": "octopuses",
    "strawberry": "strawberries", "cherry": "cherries", "butterfly": "butterflies", "bunny": "bunnies",
    "snowman": "snowmen",
}  # fmt: skip
NUMBERS = {2: "two", 3: "three"}


def _split_glyphs() -> Iterator[tuple[str, str, str]]:
    for kind, row in GLYPHS.items():
        for entry in row.split():
            name = entry.rstrip("".join(c for c in entry if not c.isascii()))
            yield name, kind, entry[len(name) :]


KIND: dict[str, str] = {name: kind for name, kind, _ in _split_glyphs()}
GLYPH: dict[str, str] = {name: glyph for name, _, glyph in _split_glyphs()}
NOUNS: tuple[str, ...] = tuple(KIND)
COMMON_NOUNS: tuple[str, ...] = tuple(n for n in NOUNS if KIND[n] != "ornament")

# Where a hat sits: (x, y, width) as fractions of the sprite, x and y at the middle of the brim.
HEADS: dict[str, tuple[float, float, float]] = {
    "cat": (0.24, 0.14, 0.40), "dog": (0.42, 0.06, 0.52), "fox": (0.50, 0.22, 0.50),
    "bear": (0.50, 0.10, 0.50), "lion": (0.50, 0.10, 0.52), "panda": (0.50, 0.10, 0.52),
    "koala": (0.50, 0.14, 0.50), "pig": (0.34, 0.14, 0.46), "frog": (0.50, 0.16, 0.52),
    "monkey": (0.40, 0.08, 0.46), "owl": (0.50, 0.10, 0.56), "penguin": (0.40, 0.06, 0.56),
    "duck": (0.22, 0.05, 0.34), "octopus": (0.45, 0.10, 0.46), "elephant": (0.36, 0.12, 0.42),
    "tiger": (0.20, 0.12, 0.36), "sheep": (0.27, 0.30, 0.34), "ghost": (0.50, 0.06, 0.52),
    "alien": (0.50, 0.06, 0.60), "pumpkin": (0.50, 0.22, 0.52), "mouse": (0.34, 0.30, 0.34),
    "dinosaur": (0.26, 0.06, 0.26), "robot": (0.50, 0.30, 0.56), "cow": (0.20, 0.16, 0.30),
}  # fmt: skip
WEARABLES = ("hat", "crown", "cap", "bow")
# Where the feet of whoever is on top stand: (x, y) as fractions of the sprite below.
RIDEABLE: dict[str, tuple[float, float]] = {
    "bicycle": (0.45, 0.45), "motorcycle": (0.45, 0.42), "skateboard": (0.45, 0.30), "car": (0.50, 0.10),
    "bus": (0.50, 0.06), "truck": (0.55, 0.06), "tractor": (0.50, 0.10), "train": (0.55, 0.30),
    "boat": (0.35, 0.80), "ship": (0.45, 0.42), "horse": (0.52, 0.42), "camel": (0.55, 0.20),
    "elephant": (0.60, 0.16), "cow": (0.58, 0.24), "pig": (0.60, 0.20), "turtle": (0.62, 0.18),
    "dolphin": (0.50, 0.25), "whale": (0.55, 0.55), "dinosaur": (0.55, 0.52), "tiger": (0.58, 0.26),
    "giraffe": (0.58, 0.55), "sheep": (0.60, 0.10), "rocket": (0.42, 0.45), "airplane": (0.50, 0.40),
}  # fmt: skip
SUPPORTS: dict[str, tuple[float, float]] = {
    "house": (0.45, 0.14), "castle": (0.50, 0.12), "tent": (0.50, 0.08), "tree": (0.50, 0.08),
    "mushroom": (0.50, 0.06), "pumpkin": (0.45, 0.18), "burger": (0.50, 0.06), "cookie": (0.50, 0.06),
    "doughnut": (0.50, 0.10), "egg": (0.50, 0.05), "watermelon": (0.50, 0.35), "gift": (0.50, 0.12),
    "drum": (0.50, 0.32), "book": (0.50, 0.06), "chair": (0.55, 0.58), "ball": (0.50, 0.05),
    "church": (0.62, 0.48), "apple": (0.50, 0.16), "star": (0.50, 0.10), "heart": (0.50, 0.16),
}  # fmt: skip
RIDERS = tuple(n for n in NOUNS if KIND[n] == "animal" or n in ("robot", "ghost", "alien", "snowman"))
DECORABLE = ("cake", "pizza", "cookie", "tree", "gift", "house")
TOPPINGS = (
    "strawberry", "cherry", "apple", "lemon", "banana", "carrot", "mushroom", "egg", "heart", "star", "rose",
    "tulip", "butterfly", "bow", "ball", "key", "fish", "cookie",
)  # fmt: skip
FLUFFY = (
    "cat", "dog", "rabbit", "fox", "bear", "lion", "panda", "koala", "monkey", "sheep", "camel", "mouse",
    "squirrel", "owl", "penguin", "duck", "bird", "horse",
)  # fmt: skip

# ---------------------------------------------------------------------------------------------------------------
# Everything that is not a noun

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black", "white")
UNTINTED = ("pizza", "burger", "watermelon", "zebra", "decoration", "cake", "cookie", "spider", "fountain")
"""Nouns that are never recoloured: the result would not be recognised as the noun or as the colour."""
SIZES = {"big": ("big", "big", "large", "huge"), "small": ("small", "small", "little", "tiny")}
DEGREES = ("slightly", "", "very")
AMOUNT = {"slightly": (0.12, 0.28), "": (0.40, 0.65), "very": (0.82, 1.0)}
"""How much of a graded adjective is drawn, as a range in [0, 1], for each adverb."""

PLACES: dict[str, tuple[str, ...]] = {
    "grass": ("on the {} grass", "in the {} meadow"),
    "beach": ("on the {} beach", "at the {} beach"),
    "snow": ("in the {} snow",),
    "desert": ("in the {} desert",),
    "sea": ("under the sea", "in the sea"),
    "night": ("at night", "on a {} night"),
    "sunset": ("at sunset",),
    "space": ("in {} space",),
    "city": ("in the {} city",),
    "rain": ("in the rain",),
    "forest": ("in the {} forest",),
    "river": ("next to a {} river", "by the {} river"),
    "mountains": ("in the {} mountains",),
    "sky": ("in the {} sky",),
    "room": ("in a {} room",),
}
"""Phrases for each place; ``{}`` takes a graded adjective where the place admits one."""
PLAIN_COLOURS = ("white", "black", "gray", "red", "orange", "yellow", "green", "blue", "purple", "pink")
BACKGROUNDS = tuple(PLACES) + PLAIN_COLOURS

WEATHER: dict[str, tuple[str, ...]] = {
    "snowy": ("grass", "beach", "desert", "city", "forest", "river", "mountains"),
    "rainy": ("grass", "beach", "desert", "city", "forest", "river", "mountains"),
    "foggy": ("grass", "beach", "desert", "city", "forest", "river", "mountains"),
    "crowded": ("grass", "beach", "desert", "city", "snow", "room"),
    "starry": ("night", "space"),
}
"""Graded adjectives of a place, and the places they fit."""
DAYS = ("snowy", "rainy", "foggy")
"""Those that can also be said of the day: "on a very snowy day"."""

ADDITIONS = {
    "rainbow": "a rainbow",
    "sun": "the sun",
    "moon": "the moon",
    "clouds": "clouds",
    "fireworks": "fireworks",
}
ADDITION_PLACES: dict[str, tuple[str, ...]] = {
    "rainbow": ("grass", "beach", "desert", "city", "river", "mountains", "snow", "sky", "forest", "rain"),
    "sun": ("grass", "beach", "desert", "city", "river", "mountains", "snow", "sky", "forest"),
    "moon": ("night", "space", "sunset"),
    "clouds": ("grass", "beach", "desert", "city", "river", "mountains", "snow", "forest", "sunset"),
    "fireworks": ("night", "sunset", "space"),
}

STYLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "sketch": (("a pencil sketch of", "a sketch of"), ("pencil sketch",)),
    "pixel": (("pixel art of", "a pixel art picture of"), ("pixel art",)),
    "watercolour": (
        ("a watercolour of", "a watercolor of", "a watercolour painting of"),
        ("watercolour", "watercolor"),
    ),
    "neon": (("a neon sign of", "neon art of"), ("neon sign",)),
    "mono": (("a black and white picture of", "a black and white photo of"), ("black and white",)),
    "drawing": (("a children's drawing of", "a child's drawing of"), ("children's drawing",)),
}
"""Per style: phrases that open a caption, and tags that close it after a comma."""
COLOURLESS_STYLES = ("sketch", "mono")
STYLE_PLACES: dict[str, tuple[str, ...]] = {
    "sketch": ("white", "city", "mountains", "forest", "space", "room"),
    "neon": ("black", "city", "mountains", "forest", "space", "sky"),
    "mono": (
        "white",
        "black",
        "gray",
        "city",
        "mountains",
        "forest",
        "space",
        "sea",
        "night",
        "room",
        "beach",
        "river",
    ),
}
"""Where a style removes what tells places apart, the places that stay recognisable."""

RELATIONS: dict[str, tuple[str, ...]] = {
    "beside": ("next to", "next to", "beside", "and"),
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "above": ("above", "over"),
    "under": ("under", "below"),
    "on": ("on", "on top of"),
    "wearing": ("wearing",),
    "with": ("with", "decorated with"),
}
"""How two things stand to each other; ``beside`` leaves open who is left, ``on`` may become "riding"."""

MAX_TOKENS = 32
"""Context length of the text encoder, begin and end tokens included; no caption is longer."""


# ---------------------------------------------------------------------------------------------------------------
# The truth about one picture


@dataclass(frozen=True)
class Thing:
    """One kind of thing in a scene: how many there are and what can be said of each."""

    noun: str
    count: int = 1
    colour: str | None = None
    size: str | None = None
    fluffy: float = 0.0
    """Amount of fur in [0, 1]; 0 means an ordinary one."""


@dataclass(frozen=True)
class Scene:
    """Everything a caption may mention, and nothing else: the positions are the drawing's own affair."""

    things: tuple[Thing, ...]
    """One thing, or two when ``relation`` says how the first stands to the second."""
    background: str
    """One of ``BACKGROUNDS``."""
    relation: str | None = None
    riding: bool = False
    style: str | None = None
    weather: str | None = None
    weather_amount: float = 0.0
    addition: str | None = None
    background_named: bool = True
    """Whether the caption speaks of the background."""

    def to_json(self) -> dict[str, object]:
        """The scene as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, record: dict) -> Scene:
        """Inverse of :meth:`to_json`."""
        return cls(**{**record, "things": tuple(Thing(**t) for t in record["things"])})


# ---------------------------------------------------------------------------------------------------------------
# Pairs kept from training

HELD_OUT_SHARE = 10
_SALT = "pairs"


def is_held_out(a: str, b: str) -> bool:
    """Whether the unordered pair (noun and colour, or noun and noun) is kept from training.

    The rule is a hash of the two words, so it never depends on the order, the size or the seed of a data set.
    """
    first, second = sorted((a, b))
    return zlib.crc32(f"{_SALT}/{first}/{second}".encode()) % HELD_OUT_SHARE == 0


def pairs(scene: Scene) -> list[tuple[str, str]]:
    """The noun-colour and noun-noun pairs of a scene."""
    found = [(t.noun, t.colour) for t in scene.things if t.colour]
    if len(scene.things) == 2:
        found.append((scene.things[0].noun, scene.things[1].noun))
    return found


def is_novel(scene: Scene) -> bool:
    """Whether the scene shows a pair that training never sees."""
    return any(is_held_out(a, b) for a, b in pairs(scene))


# ---------------------------------------------------------------------------------------------------------------
# Sampling scenes


def degree_of(amount: float) -> str:
    """The adverb that names an amount in [0, 1]."""
    return next(d for d, (_, high) in AMOUNT.items() if amount <= high)


def _amount(rng: random.Random) -> float:
    low, high = AMOUNT[rng.choices(DEGREES, (0.25, 0.45, 0.30))[0]]
    return round(rng.uniform(low, high), 3)


def _thing(rng: random.Random, nouns: tuple[str, ...], style: str | None, sized: bool = True) -> Thing:
    noun = rng.choice(nouns)
    colour = None
    if style not in COLOURLESS_STYLES and noun not in UNTINTED and rng.random() < 0.38:
        colour = rng.choice(COLOURS[:7] if style == "neon" else COLOURS)  # black and white leave no neon colour
    size = rng.choices((None, "big", "small"), (0.64, 0.18, 0.18))[0] if sized else None
    fluffy = _amount(rng) if noun in FLUFFY and style not in ("neon", "pixel") and rng.random() < 0.18 else 0.0
    return Thing(noun, colour=colour, size=size, fluffy=fluffy)


def _draw_scene(rng: random.Random) -> Scene:
    style = rng.choice(tuple(STYLES)) if rng.random() < 0.24 else None
    legible = STYLE_PLACES.get(style or "", BACKGROUNDS)
    places = [p for p in legible if p in PLACES]
    plains = [p for p in legible if p in PLAIN_COLOURS]
    background = rng.choice(places) if rng.random() < 0.68 else rng.choice(plains)

    relation, riding = None, False
    kind = rng.random()
    if kind < 0.40:
        one = _thing(rng, COMMON_NOUNS, style)
        count = rng.choices((1, 2, 3), (0.60, 0.22, 0.18))[0]
        things: tuple[Thing, ...] = (dataclasses.replace(one, count=count, size=one.size if count == 1 else None),)
    else:
        relation = rng.choices(
            ("beside", "left", "right", "above", "under", "on", "wearing", "with"),
            (24, 11, 11, 12, 12, 18, 7, 5),
        )[0]
        if relation == "on":
            riding = rng.random() < 0.6
            first = _thing(rng, RIDERS if riding else COMMON_NOUNS, style, sized=False)
            below = tuple(RIDEABLE if riding else SUPPORTS)
            second = _thing(rng, below, style, sized=False)
        elif relation == "wearing":
            first, second = _thing(rng, tuple(HEADS), style), _thing(rng, WEARABLES, style, sized=False)
        elif relation == "with":
            first = _thing(rng, DECORABLE, style, sized=False)
            topping = rng.choice(TOPPINGS) if rng.random() < 0.85 else "decoration"
            second = dataclasses.replace(_thing(rng, (topping,), style, sized=False), count=3)
        else:
            first, second = _thing(rng, COMMON_NOUNS, style), _thing(rng, COMMON_NOUNS, style)
            if relation in ("beside", "left", "right") and rng.random() < 0.15:
                first = dataclasses.replace(first, count=2, size=None)
        things = (first, second)

    weather, amount, addition = None, 0.0, None
    if background in PLACES and style not in ("sketch", "neon"):
        weathers = [w for w, where in WEATHER.items() if background in where]
        if style == "watercolour":  # its washes and these two make mud of each other
            weathers = [w for w in weathers if w not in ("rainy", "foggy")]
        if weathers and rng.random() < 0.28:
            weather, amount = rng.choice(weathers), _amount(rng)
        fitting = [a for a, where in ADDITION_PLACES.items() if background in where]
        colourful = style != "mono" and weather not in ("foggy", "rainy")
        if fitting and colourful and rng.random() < 0.16:
            addition = rng.choice(fitting)
    named = weather is not None or rng.random() < 0.88
    return Scene(things, background, relation, riding, style, weather, amount, addition, named)


def _is_sensible(scene: Scene) -> bool:
    if len(scene.things) == 2 and scene.things[0].noun == scene.things[1].noun:
        return False
    for thing in scene.things:
        # A colour on itself, or black in the dark, would be named without being seen.
        if thing.colour is not None and thing.colour == scene.background:
            return False
        if thing.colour == "black" and scene.background in ("night", "space", "sunset"):
            return False
        if thing.colour == "white" and scene.background in ("snow", "white"):
            return False
    return True


def sample(rng: random.Random, novel: bool = False) -> Scene:
    """A random scene: one that training may see, or with ``novel`` one that shows a held-out pair."""
    while True:
        scene = _draw_scene(rng)
        if _is_sensible(scene) and is_novel(scene) == novel:
            return scene


# ---------------------------------------------------------------------------------------------------------------
# Captions


def plural(noun: str) -> str:
    """The plural of a noun of this world."""
    if noun in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[noun]
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def article(phrase: str) -> str:
    """The indefinite article that goes before a phrase."""
    return "an" if phrase[0] in "aeiou" and not phrase.startswith("uni") else "a"


def _join(*words: str | None) -> str:
    return " ".join(w for w in words if w)


def _noun_phrase(thing: Thing, rng: random.Random, bare: bool = False) -> str:
    name = ALIASES[thing.noun] if thing.noun in ALIASES and rng.random() < 0.3 else thing.noun
    size = rng.choice(SIZES[thing.size]) if thing.size else None
    fluffy = _join(degree_of(thing.fluffy), "fluffy") if thing.fluffy else None
    adjectives = _join(size, fluffy, thing.colour)
    if thing.count > 1:
        return _join(None if bare else NUMBERS[thing.count], adjectives, plural(name))
    phrase = _join(adjectives, name)
    determiner = rng.choices((article(phrase), "the", "one"), (0.86, 0.10, 0.04))[0]
    return _join(determiner, phrase)


def _place_phrase(scene: Scene, rng: random.Random) -> str:
    if scene.background in PLAIN_COLOURS:
        return f"on {article(scene.background)} {scene.background} background"
    if scene.weather is None:
        # "on a night" without an adjective is not English.
        phrase = rng.choice([p for p in PLACES[scene.background] if not p.endswith("a {} night")])
        return " ".join(phrase.format("").split())
    adjective = _join(degree_of(scene.weather_amount), scene.weather)
    if scene.weather in DAYS and rng.random() < 0.25:
        plain = " ".join(PLACES[scene.background][0].format("").split())
        return f"{plain} on a {adjective} day"
    return rng.choice([p for p in PLACES[scene.background] if "{}" in p]).format(adjective)


def caption(scene: Scene, rng: random.Random) -> str:
    """One English sentence that says what the scene shows; ``rng`` chooses among the ways to say it."""
    subject = _noun_phrase(scene.things[0], rng)
    if scene.relation is not None:
        says = rng.choice(RELATIONS[scene.relation])
        if scene.riding and rng.random() < 0.75:
            says = "riding"
        elif scene.things[1].noun == "decoration":
            says = "with"
        subject = _join(subject, says, _noun_phrase(scene.things[1], rng, bare=scene.relation == "with"))
    place = _place_phrase(scene, rng) if scene.background_named else None
    addition = None
    if scene.addition is not None:
        where = "in the background" if rng.random() < 0.7 else "in the sky"
        addition = _join(rng.choice(("and", "with")), ADDITIONS[scene.addition], where)

    opening, tag = None, None
    if scene.style is not None:
        openings, tags = STYLES[scene.style]
        if rng.random() < 0.75:
            opening = rng.choice(openings)
        else:
            tag = rng.choice(tags)
    elif rng.random() < 0.12:
        opening = rng.choice(("a picture of", "a photo of", "an image of"))

    if place is not None and opening is None and rng.random() < 0.12:
        sentence = f"{place}, {_join(subject, addition)}"
    elif opening is None and tag is None and rng.random() < 0.08:
        verb = "are" if scene.things[0].count > 1 else "is"
        sentence = _join("there", verb, subject, place, addition)
    else:
        sentence = _join(opening, subject, place, addition)
    return sentence if tag is None else f"{sentence}, {tag}"


def vocabulary() -> dict[str, list[str]]:
    """Every word a caption can contain, grouped by kind; a word stands in the first group that has it."""
    names = [*COMMON_NOUNS, *ALIASES.values()]
    groups: dict[str, list[str]] = {
        "nouns": names,
        "plurals": [*(plural(n) for n in names), plural("decoration")],
        "colours": [*COLOURS, "gray"],
        "sizes": [w for words in SIZES.values() for w in words],
        "counts": ["one", *NUMBERS.values()],
        "adjectives": [*WEATHER, "fluffy"],
        "degrees": [d for d in DEGREES if d],
        "relations": _words(*(p for ps in RELATIONS.values() for p in ps), "riding"),
        "places": _words(*(p.replace("{}", "") for ps in PLACES.values() for p in ps), "on a background day"),
        "additions": _words(*ADDITIONS.values(), "and with in the background sky"),
        "styles": _words(*(p for both in STYLES.values() for ps in both for p in ps)),
        "grammar": _words("a an the there is are picture photo image of"),
    }
    seen: set[str] = set()
    unique: dict[str, list[str]] = {}
    for group, words in groups.items():
        unique[group] = [w for w in dict.fromkeys(words) if w not in seen]
        seen.update(words)
    return unique


def _words(*phrases: str) -> list[str]:
    return [word for phrase in phrases for word in phrase.split()]
