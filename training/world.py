"""Draws the world: 128x128 pictures of :class:`training.scenes.Scene`, every named attribute visible.

The things are glyphs of Google's Noto Color Emoji font (SIL Open Font License; Debian package
``fonts-noto-color-emoji``, or any file that the environment variable ``EMOJI_FONT`` names), the places and styles
are procedural. A picture is a pure function of its seed.

    python -m training.world                 # writes a contact sheet to look at
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps

from training import scenes
from training.scenes import Scene, Thing

SIZE = 128
"""Width and height of a picture in pixels."""
_FINE = 2 * SIZE  # backgrounds are drawn twice as large and averaged, because PIL's polygons have hard edges
FONT_PATHS = (
    *(Path(path) for path in [os.environ.get("EMOJI_FONT")] if path),
    Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"),
    Path("/usr/share/fonts/noto/NotoColorEmoji.ttf"),
    Path("/usr/share/fonts/google-noto-emoji/NotoColorEmoji.ttf"),
)
_GLYPH_PIXELS = 109  # the only size the font's bitmaps come in

Colour = tuple[int, int, int]

INK: dict[str, Colour] = {
    "red": (225, 30, 35), "orange": (250, 130, 15), "yellow": (250, 215, 20), "green": (35, 165, 55),
    "blue": (30, 95, 230), "purple": (135, 50, 190), "pink": (250, 120, 185), "black": (38, 38, 44),
    "white": (243, 244, 247),
}  # fmt: skip
"""The colour that a tinted thing's middle tone gets."""
PLAIN: dict[str, Colour] = {
    "white": (250, 250, 250), "black": (14, 14, 18), "gray": (140, 140, 145), "red": (205, 50, 55),
    "orange": (240, 150, 60), "yellow": (246, 222, 95), "green": (95, 185, 95), "blue": (85, 150, 228),
    "purple": (145, 95, 198), "pink": (246, 172, 202),
}  # fmt: skip


class FontMissingError(RuntimeError):
    """The emoji font that the world is drawn from is not installed."""


# ---------------------------------------------------------------------------------------------------------------
# Sprites


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    for path in FONT_PATHS:
        if path.exists():
            return ImageFont.truetype(str(path), _GLYPH_PIXELS)
    raise FontMissingError("Noto Color Emoji is not installed (Debian: apt install fonts-noto-color-emoji).")


def font_is_installed() -> bool:
    """Whether the font that pictures are drawn from can be found."""
    return any(path.exists() for path in FONT_PATHS)


@functools.cache
def _glyph(noun: str) -> Image.Image:
    if noun == "decoration":
        return _decoration()
    image = Image.new("RGBA", (180, 180), (0, 0, 0, 0))
    ImageDraw.Draw(image).text((90, 90), scenes.GLYPH[noun], font=_font(), embedded_color=True, anchor="mm")
    # Faint sparks around some glyphs (the rocket's stars) would blow up the box: crop to what is well visible.
    box = image.getchannel("A").point(lambda a: 255 if a > 60 else 0).getbbox()
    assert box is not None
    return image.crop(box)


def _decoration() -> Image.Image:
    image = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    for angle, ink in zip(range(0, 360, 60), ("red", "yellow", "blue", "pink", "green", "orange"), strict=True):
        x, y = 128 + 80 * math.cos(math.radians(angle)), 128 + 80 * math.sin(math.radians(angle))
        draw.ellipse((x - 44, y - 44, x + 44, y + 44), fill=(*INK[ink], 255))
    return image.reduce(2)


def _tint(sprite: Image.Image, colour: str) -> Image.Image:
    """Colour a sprite by its luminance: dark stays dark, the middle becomes the ink, light a light tint of it."""
    rgba = np.asarray(sprite).astype(np.float32)
    luminance = rgba[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    opaque = rgba[..., 3] > 128
    low, middle = np.quantile(luminance[opaque], (0.05, 0.5))
    middle = float(np.clip(middle, low + 0.08, 0.9))
    ink = np.array(INK[colour], np.float32)
    if colour == "black":
        dark, light = ink * 0.35, np.array([150, 150, 160], np.float32)
    elif colour == "white":
        dark, light = np.array([60, 62, 75], np.float32), np.array([255, 255, 255], np.float32)
    else:
        dark, light = ink * 0.22, ink + 0.55 * (255 - ink)
    knots = np.array([0.0, min(0.5 * middle, 0.25), middle, 1.0], np.float32)
    steps = np.stack([dark * 0.5, dark + 0.25 * (ink - dark), ink, light])
    ramp = np.stack([np.interp(luminance, knots, steps[:, c]) for c in range(3)], axis=-1)
    out = np.concatenate([0.93 * ramp + 0.07 * rgba[..., :3], rgba[..., 3:]], axis=-1)
    return Image.fromarray(out.clip(0, 255).astype(np.uint8), "RGBA")


_FUR_LEVELS = 8


def _fur(sprite: Image.Image, amount: float) -> Image.Image:
    """Grow hair on a sprite: strokes from points near the outline outwards, and a coat of strokes inside."""
    margin = 22
    canvas = ImageOps.expand(sprite, margin, (0, 0, 0, 0))
    rgb = np.asarray(canvas.convert("RGB")).astype(int)
    alpha = canvas.getchannel("A")
    inside = np.asarray(alpha.filter(ImageFilter.MinFilter(5))) > 200
    outline = inside & ~(np.asarray(alpha.filter(ImageFilter.MinFilter(9))) > 200)
    slope_y, slope_x = np.gradient(np.asarray(alpha.filter(ImageFilter.GaussianBlur(5))).astype(np.float32))
    rng = random.Random(0)
    under = Image.new("RGBA", canvas.size, (0, 0, 0, 0))
    over = canvas.copy()
    for mask, image, every, length in ((outline, under, 1, 20 * amount + 3), (inside, over, 14, 9 * amount)):
        draw = ImageDraw.Draw(image)
        ys, xs = np.nonzero(mask)
        for i in rng.sample(range(len(ys)), len(ys) // every):
            y, x = int(ys[i]), int(xs[i])
            angle = math.atan2(-slope_y[y, x], -slope_x[y, x]) + rng.gauss(0, 0.45)
            shade = rng.choice((0.86, 1.0, 1.12))
            ink = tuple(min(255, int(v * shade)) for v in rgb[y, x])
            reach = length * rng.uniform(0.5, 1.0)
            draw.line((x, y, x + reach * math.cos(angle), y + reach * math.sin(angle)), fill=(*ink, 255), width=2)
    under.alpha_composite(over)
    box = under.getbbox()
    assert box is not None
    return under.crop(box)


@functools.lru_cache(maxsize=4096)
def _sprite(noun: str, colour: str | None, fur_level: int) -> Image.Image:
    sprite = _glyph(noun)
    if colour is not None:
        sprite = _tint(sprite, colour)
    if fur_level:
        sprite = _fur(sprite, fur_level / _FUR_LEVELS)
    return sprite


_FACES_ONE_WAY = ("clock", "book", "guitar", "key")  # a mirrored one looks wrong


@dataclass
class _Placed:
    """Where a sprite landed on the canvas, in pixels."""

    left: float
    top: float
    width: int
    height: int
    mirrored: bool

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The pixel at a fraction of the unmirrored sprite."""
        return self.left + (1 - x if self.mirrored else x) * self.width, self.top + y * self.height


class _Canvas:
    """A picture being drawn, and how well each thing on it can be seen."""

    def __init__(self, background: Image.Image, rng: random.Random, colourless: bool) -> None:
        self.image = background
        self.colourless = colourless
        self.rng = rng
        self.least_visible = 1.0

    def put(
        self, thing: Thing, size: float, x: float, *, middle: float | None = None, base: float | None = None,
        checked: bool = True, mirror: bool | None = None,
    ) -> _Placed:  # fmt: skip
        """Paste a thing of ``size`` pixels (its longer side), its middle at ``x`` and its foot at ``base``."""
        sprite = _sprite(thing.noun, thing.colour, math.ceil(thing.fluffy * _FUR_LEVELS))
        scale = size / max(sprite.size)
        width, height = max(2, round(sprite.width * scale)), max(2, round(sprite.height * scale))
        sprite = sprite.resize((width, height), Image.Resampling.BILINEAR)
        flip = self.rng.random() < 0.5 if mirror is None else mirror
        flip = flip and thing.noun not in _FACES_ONE_WAY
        if flip:
            sprite = ImageOps.mirror(sprite)
        left = x - width / 2
        top = base - height if base is not None else (SIZE / 2 if middle is None else middle) - height / 2
        spot = (round(left), round(top))
        if checked:
            self.least_visible = min(self.least_visible, _contrast(self.image, sprite, spot, self.colourless))
        self.image.paste(sprite, spot, sprite)
        return _Placed(spot[0], spot[1], width, height, flip)


def _contrast(image: Image.Image, sprite: Image.Image, spot: tuple[int, int], colourless: bool) -> float:
    """The share of a sprite that differs clearly from what it covers, in luminance only where colours are lost."""
    behind = image.crop((*spot, spot[0] + sprite.width, spot[1] + sprite.height)).resize(
        (16, 16), Image.Resampling.BOX
    )
    small = np.asarray(sprite.resize((16, 16), Image.Resampling.BOX)).astype(np.int16)
    difference = small[..., :3] - np.asarray(behind).astype(np.int16)
    opaque = small[..., 3] > 128
    if not opaque.any():
        return 0.0
    distance = np.abs(difference @ (0.9, 1.77, 0.33)) if colourless else np.abs(difference).sum(-1)
    return float((distance[opaque] > 70).mean())


# ---------------------------------------------------------------------------------------------------------------
# Backgrounds


def _jitter(colour: Colour, rng: random.Random, by: int = 12) -> Colour:
    shift = rng.randint(-by, by)  # common to the channels, so that the hue stays
    r, g, b = (max(0, min(255, v + shift + rng.randint(-by // 3, by // 3))) for v in colour)
    return r, g, b


def _gradient(top: Colour, bottom: Colour, height: int) -> Image.Image:
    ramp = np.linspace(top, bottom, max(height, 1)).astype(np.uint8)[:, None]
    return Image.fromarray(ramp, "RGB").resize((_FINE, max(height, 1)), Image.Resampling.NEAREST)


class _Landscape:
    """A background under construction on the fine canvas; ``y`` and sizes are in fine pixels."""

    def __init__(self, rng: random.Random, top: Colour, bottom: Colour) -> None:
        self.rng = rng
        self.image = _gradient(_jitter(top, rng), _jitter(bottom, rng), _FINE)
        self.draw = ImageDraw.Draw(self.image)
        self.horizon = int(_FINE * rng.uniform(0.54, 0.66))

    def wave(self, y: float, height: float, period: float) -> list[tuple[float, float]]:
        """A wavy line across the picture."""
        phase = self.rng.uniform(0, 2 * math.pi)
        return [(x, y + height * math.sin(x / period + phase)) for x in range(0, _FINE + 9, 8)]

    def ground(self, top: Colour, bottom: Colour, roughness: float = 4) -> None:
        """Fill everything below the horizon with a gradient."""
        line = self.wave(self.horizon, roughness, self.rng.uniform(28, 70))
        start = min(int(y) for _, y in line)
        mask = Image.new("L", (_FINE, _FINE - start), 0)
        outline = [(x, y - start) for x, y in line]
        ImageDraw.Draw(mask).polygon([*outline, (_FINE, _FINE), (0, _FINE)], fill=255)
        colours = (_jitter(top, self.rng), _jitter(bottom, self.rng))
        self.image.paste(_gradient(*colours, _FINE - start), (0, start), mask)

    def ridge(self, y: float, height: float, period: float, colour: Colour) -> None:
        """A hill line, filled downwards."""
        self.draw.polygon(
            [*self.wave(y, height, period), (_FINE, _FINE), (0, _FINE)], fill=_jitter(colour, self.rng)
        )

    def stars(self, count: int, bottom: int) -> None:
        """Scatter stars above ``bottom``."""
        for _ in range(count):
            x, y, r = (
                self.rng.uniform(0, _FINE),
                self.rng.uniform(0, bottom),
                self.rng.choice((1.5, 1.5, 2.0, 3.0)),
            )
            shade = self.rng.randint(200, 255)
            self.draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 255, shade))

    def tufts(self, colour: Colour, count: int) -> None:
        """Blades of grass."""
        ink = _jitter(colour, self.rng)
        for _ in range(count):
            x, y = self.rng.randint(0, _FINE), self.rng.randint(self.horizon + 12, _FINE)
            self.draw.line((x, y, x - 4, y - 9), fill=ink, width=2)
            self.draw.line((x, y, x + 4, y - 9), fill=ink, width=2)

    def cloud(self, x: float, y: float, width: float, colour: Colour) -> None:
        """One puffy cloud, its middle at (x, y)."""
        for dx, dy, r in ((-0.33, 0.03, 0.17), (-0.1, -0.08, 0.22), (0.14, -0.04, 0.19), (0.34, 0.05, 0.15)):
            cx, cy, radius = x + dx * width, y + dy * width, r * width
            self.draw.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=colour)
        box = (x - 0.45 * width, y, x + 0.45 * width, y + 0.2 * width)
        self.draw.rounded_rectangle(box, radius=0.1 * width, fill=colour)


def _grass(rng: random.Random) -> _Landscape:
    land = _Landscape(rng, (105, 180, 245), (205, 232, 250))
    land.ridge(land.horizon - 8, 14, rng.uniform(40, 80), (150, 205, 110))
    land.ground((112, 192, 80), (58, 140, 48))
    land.tufts((70, 150, 50), 26)
    return land


def _beach(rng: random.Random) -> _Landscape:
    land = _Landscape(rng, (95, 190, 245), (205, 235, 250))
    land.horizon -= 24
    land.ground((25, 120, 185), (80, 195, 215), roughness=0)
    land.horizon += 40
    land.ridge(land.horizon - 5, 5, 33, (245, 250, 252))
    land.ridge(land.horizon, 5, 33, (243, 216, 160))
    return land


def _snow(rng: random.Random) -> _Landscape:
    land = _Landscape(rng, (150, 178, 212), (205, 218, 236))
    land.ridge(land.horizon - 10, 14, rng.uniform(40, 80), (222, 230, 244))
    land.ground((248, 250, 254), (222, 230, 244))
    for _ in range(26):
        x, y, r = rng.uniform(0, _FINE), rng.uniform(0, land.horizon), rng.uniform(1.5, 3.5)
        land.draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 255, 255))
    return land


def _desert(rng: random.Random) -> _Landscape:
    land = _Landscape(rng, (250, 185, 105), (255, 228, 175))
    land.ridge(land.horizon - 6, 16, rng.uniform(30, 60), (236, 186, 110))
    land.ground((228, 172, 95), (196, 132, 66), roughness=10)
    land.ridge(_FINE * 0.9, 12, rng.uniform(30, 60), (205, 145, 75))
    return land


def _sea(rng: random.Random) -> _Landscape:
    land = _Landscape(rng, (70, 180, 225), (12, 60, 135))
    for _ in range(2):
        x = rng.uniform(0.1, 0.9) * _FINE
        ray = ((x, 0), (x + 22, 0), (x + 60, 0.6 * _FINE), (x - 10, 0.6 * _FINE))
        land.draw.polygon(ray, fill=_jitter((80, 170, 215), rng, 6))
    land.ridge(_FINE * 0.93, 6, 40, (175, 165, 130))
    for _ in range(rng.randint(8, 14)):
        x, y, r = rng.uniform(0, _FINE), rng.uniform(0, _FINE * 0.9), rng.uniform(3, 8)
        land.draw.ellipse((x - r, y - r, x + r, y + r), outline=(205, 240, 255), width=2)
    for _ in range(3):
        x, reach = rng.uniform(0, _FINE), rng.uniform(30, 60)
        weed = [(x + 6 * math.sin(k), _FINE - k * reach / 6) for k in range(7)]
        land.draw.line(weed, fill=(35, 140, 90), width=6)
    return land


def _night(rng: random.Random) -> _Landscape:
    land = _Landscape(rng, (10, 12, 48), (40, 46, 105))
    land.horizon += 14
    land.ridge(land.horizon - 6, 10, rng.uniform(40, 80), (26, 36, 62))
    land.ground((24, 42, 44), (12, 22, 28))
    return land


def _sunset(rng: random.Random) -> _Landscape:
    land = _Landscape(rng, (92, 48, 125), (255, 165, 75))
    x, r = rng.uniform(0.2, 0.8) * _FINE, rng.uniform(34, 46)
    land.draw.ellipse((x - r, land.horizon - r, x + r, land.horizon + r), fill=(255, 222, 120))
    land.ground((82, 50, 76), (40, 25, 45))
    return land


def _space(rng: random.Random) -> _Landscape:
    land = _Landscape(rng, (8, 6, 24), (38, 14, 66))
    x, y, r = rng.choice((0.12, 0.88)) * _FINE, rng.uniform(0.1, 0.25) * _FINE, rng.uniform(22, 32)
    colour = _jitter(rng.choice(((205, 130, 85), (110, 150, 205), (190, 165, 120))), rng)
    land.draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    land.draw.arc((x - 1.7 * r, y - 0.5 * r, x + 1.7 * r, y + 0.5 * r), -20, 200, fill=(235, 225, 200), width=5)
    return land


def _city(rng: random.Random) -> _Landscape:
    land = _Landscape(rng, (140, 190, 235), (215, 228, 238))
    land.horizon += 10
    x = -10
    while x < _FINE:
        width, height = rng.randint(30, 48), rng.randint(50, 125)
        top = land.horizon - height
        land.draw.rectangle((x, top, x + width, land.horizon + 6), fill=_jitter((112, 122, 142), rng, 24))
        for wy in range(top + 8, land.horizon - 6, 16):
            for wx in range(x + 7, x + width - 6, 12):
                land.draw.rectangle((wx, wy, wx + 5, wy + 8), fill=(245, 226, 150))
        x += width + rng.randint(0, 5)
    land.ground((150, 150, 152), (150, 150, 152), roughness=0)
    land.draw.rectangle((0, land.horizon + 16, _FINE, _FINE), fill=_jitter((82, 84, 90), rng, 8))
    y, start = (land.horizon + 16 + _FINE) // 2, rng.randint(-40, 0)
    for dash in range(start, _FINE, 56):
        land.draw.rectangle((dash, y - 3, dash + 30, y + 3), fill=(232, 228, 210))
    return land


def _rain(rng: random.Random) -> _Landscape:
    land = _Landscape(rng, (92, 104, 122), (150, 160, 172))
    for _ in range(4):
        land.cloud(rng.uniform(0, _FINE), rng.uniform(0, 40), rng.uniform(90, 140), _jitter((72, 80, 96), rng, 8))
    land.ground((98, 116, 112), (70, 86, 84))
    for _ in range(3):
        x, y = rng.uniform(0, _FINE), rng.uniform(land.horizon + 16, _FINE)
        land.draw.ellipse((x - 36, y - 7, x + 36, y + 7), fill=(140, 158, 172))
    return land


def _forest(rng: random.Random) -> _Landscape:
    land = _Landscape(rng, (150, 200, 215), (190, 220, 200))
    land.horizon += 12
    for row, colour in enumerate(((52, 112, 74), (28, 88, 52), (18, 70, 40))):
        x = rng.uniform(-20, 0)
        while x < _FINE + 20:
            height, half = rng.uniform(95, 140) - 14 * row, rng.uniform(20, 27)
            foot = land.horizon - 10 + 8 * row
            land.draw.rectangle((x - 4, foot - 20, x + 4, foot + 4), fill=(86, 58, 40))
            ink = _jitter(colour, rng, 8)
            for part in range(3):
                top, wide = foot - height + part * height * 0.26, half * (0.55 + 0.225 * part)
                land.draw.polygon(
                    ((x, top), (x - wide, top + height * 0.4), (x + wide, top + height * 0.4)), fill=ink
                )
            x += rng.uniform(34, 50)
    land.ground((64, 122, 58), (38, 84, 40))
    land.tufts((40, 92, 40), 16)
    return land


def _river(rng: random.Random) -> _Landscape:
    land = _Landscape(rng, (120, 190, 245), (212, 235, 250))
    land.horizon -= 16
    land.ridge(land.horizon - 6, 10, rng.uniform(40, 80), (135, 190, 105))
    land.ground((122, 196, 88), (74, 156, 58))
    y, period = land.horizon + 34, rng.uniform(24, 34)
    bank = land.wave(y, 9, period)
    width = rng.uniform(38, 46)
    far = [(x, v + width + 3 * math.sin(x / 19)) for x, v in reversed(bank)]
    land.draw.polygon([*bank, *far], fill=_jitter((58, 138, 220), rng, 8))
    land.draw.line(bank, fill=(228, 214, 168), width=5)
    land.draw.line(far, fill=(228, 214, 168), width=5)
    for _ in range(7):
        x, v = rng.choice(bank)
        land.draw.arc((x, v + 10, x + 22, v + 22), 200, 340, fill=(190, 225, 250), width=3)
    return land


def _mountains(rng: random.Random) -> _Landscape:
    land = _Landscape(rng, (115, 175, 235), (214, 230, 244))
    for layer, colour in enumerate(((152, 164, 186), (112, 122, 146))):
        x = rng.uniform(-60, -20)
        while x < _FINE + 60:
            height, half = rng.uniform(100, 140) - 36 * layer, rng.uniform(56, 84)
            foot = land.horizon + 10
            land.draw.polygon(
                ((x, foot - height), (x - half, foot), (x + half, foot)), fill=_jitter(colour, rng, 8)
            )
            cap = 0.30
            peak = (x, foot - height)
            teeth = [(x + half * cap * s, foot - height * (1 - cap) + d) for s, d in
                     ((-1, 0), (-0.5, -8), (0, 5), (0.5, -8), (1, 0))]  # fmt: skip
            land.draw.polygon([peak, *teeth], fill=(248, 250, 253))
            x += half * rng.uniform(0.9, 1.3)
    land.ground((120, 170, 96), (82, 134, 70))
    return land


def _sky(rng: random.Random) -> _Landscape:
    land = _Landscape(rng, (82, 168, 245), (170, 215, 252))
    for i in range(5):
        x = (i + rng.uniform(0.2, 0.8)) * _FINE / 5
        y = (0.12, 0.88, 0.45, 0.8, 0.25)[i] * _FINE + rng.uniform(-20, 20)
        land.cloud(x, y, rng.uniform(70, 110), (250, 252, 255))
    return land


def _room(rng: random.Random) -> _Landscape:
    wall = _jitter(rng.choice(((236, 220, 190), (205, 222, 214), (226, 208, 222), (206, 214, 232))), rng, 6)
    land = _Landscape(rng, wall, wall)
    land.horizon = int(_FINE * rng.uniform(0.64, 0.70))
    x, y = rng.choice((0.16, 0.62)) * _FINE, 0.10 * _FINE
    land.draw.rectangle((x, y, x + 62, y + 72), fill=(250, 250, 248))
    for left, top in ((5, 5), (34, 5), (5, 39), (34, 39)):
        land.draw.rectangle((x + left, y + top, x + left + 23, y + top + 28), fill=(140, 200, 245))
    land.draw.rectangle((0, land.horizon, _FINE, _FINE), fill=_jitter((178, 126, 82), rng, 10))
    land.draw.rectangle((0, land.horizon - 8, _FINE, land.horizon), fill=(248, 244, 236))
    for row in range(land.horizon + 18, _FINE, 22):
        land.draw.line((0, row, _FINE, row), fill=(142, 96, 60), width=2)
    return land


_PLACES: dict[str, Callable[[random.Random], _Landscape]] = {
    "grass": _grass, "beach": _beach, "snow": _snow, "desert": _desert, "sea": _sea, "night": _night,
    "sunset": _sunset, "space": _space, "city": _city, "rain": _rain, "forest": _forest, "river": _river,
    "mountains": _mountains, "sky": _sky, "room": _room,
}  # fmt: skip
_GROUNDLESS = ("sea", "space", "sky")


def _add_to_sky(land: _Landscape, addition: str) -> None:
    rng, draw = land.rng, land.draw
    if addition == "rainbow":
        x, y, r = rng.uniform(0.35, 0.65) * _FINE, land.horizon + 10, rng.uniform(112, 132)
        for band, ink in enumerate(
            ((228, 50, 50), (245, 150, 40), (250, 225, 60), (70, 185, 80), (60, 120, 230), (135, 70, 200))
        ):
            s = r - 6 * band
            draw.arc((x - s, y - s, x + s, y + s), 180, 360, fill=ink, width=7)
    elif addition == "sun":
        x, y, r = rng.choice((0.13, 0.87)) * _FINE, 0.14 * _FINE, 20
        for ray in range(12):
            c, s = math.cos(ray * math.pi / 6), math.sin(ray * math.pi / 6)
            draw.line((x + 26 * c, y + 26 * s, x + 37 * c, y + 37 * s), fill=(255, 205, 40), width=5)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 212, 50))
    elif addition == "moon":
        x, y, r = rng.choice((0.35, 0.65)) * _FINE, 0.14 * _FINE, 25
        disc = Image.new("L", (_FINE, _FINE), 0)
        ImageDraw.Draw(disc).ellipse((x - r, y - r, x + r, y + r), fill=255)
        ImageDraw.Draw(disc).ellipse((x - r + 16, y - r - 5, x + r + 16, y + r - 5), fill=0)
        land.image.paste((250, 238, 180), (0, 0), disc)
    elif addition == "clouds":
        for i in range(3):
            land.cloud(
                (i + rng.uniform(0.25, 0.75)) * _FINE / 3,
                rng.uniform(0.08, 0.24) * _FINE,
                rng.uniform(64, 92),
                (252, 252, 254),
            )
    elif addition == "fireworks":
        for i in range(3):
            x, y = (i + rng.uniform(0.3, 0.7)) * _FINE / 3, rng.uniform(0.12, 0.32) * _FINE
            ink = rng.choice(((255, 90, 90), (255, 220, 90), (110, 230, 255), (255, 140, 240), (140, 255, 140)))
            for ray in range(14):
                c, s = math.cos(ray * math.pi / 7), math.sin(ray * math.pi / 7)
                draw.line((x + 8 * c, y + 8 * s, x + 32 * c, y + 32 * s), fill=ink, width=3)


def _crowd(land: _Landscape, amount: float) -> None:
    """People at the back of the ground."""
    rng = land.rng
    for _ in range(round(3 + 27 * amount)):
        x, foot = rng.uniform(0, _FINE), land.horizon + rng.uniform(6, 30)
        body = _jitter(rng.choice(tuple(INK.values())), rng)
        skin = rng.choice(((245, 205, 165), (205, 150, 105), (120, 80, 55)))
        land.draw.rectangle((x - 4, foot - 14, x + 4, foot), fill=(45, 48, 70))
        land.draw.rounded_rectangle((x - 7, foot - 34, x + 7, foot - 13), radius=5, fill=body)
        land.draw.ellipse((x - 6, foot - 46, x + 6, foot - 34), fill=skin)


def _background(scene: Scene, rng: random.Random) -> tuple[Image.Image, float | None]:
    """The background and its ground line in pixels (None where things float)."""
    if scene.background in PLAIN:
        return Image.new("RGB", (SIZE, SIZE), _jitter(PLAIN[scene.background], rng, 6)), None
    land = _PLACES[scene.background](rng)
    if scene.background in ("night", "space"):
        # Without the adjective a few stars, with it up to a sky full of them.
        few = 12 if scene.background == "night" else 24
        count = round(24 + 150 * scene.weather_amount) if scene.weather == "starry" else few
        land.stars(count, land.horizon - 10 if scene.background == "night" else _FINE)
    if scene.addition is not None:
        sky = land.image.copy() if scene.addition == "rainbow" else None
        _add_to_sky(land, scene.addition)
        if sky is not None:  # the arc ends at the horizon
            land.image.paste(sky.crop((0, land.horizon, _FINE, _FINE)), (0, land.horizon))
    if scene.weather == "crowded":
        _crowd(land, scene.weather_amount)
    picture = land.image.reduce(2)
    return picture, None if scene.background in _GROUNDLESS else land.horizon / 2


def _weather(image: Image.Image, kind: str, amount: float, rng: random.Random) -> Image.Image:
    """Snow, rain or fog in front of the whole scene."""
    if kind == "snowy":
        image = Image.blend(image, Image.new("RGB", image.size, (226, 232, 242)), 0.10 + 0.28 * amount)
        draw = ImageDraw.Draw(image)
        for _ in range(round(10 + 100 * amount)):
            x, y, r = rng.uniform(0, SIZE), rng.uniform(0, SIZE), rng.choice((1.0, 1.5, 1.5, 2.0))
            draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 255, 255))
    elif kind == "rainy":
        image = Image.blend(image, Image.new("RGB", image.size, (84, 98, 120)), 0.16 + 0.26 * amount)
        _streaks(image, round(14 + 76 * amount), rng)
    elif kind == "foggy":
        veil = (0.25 + 0.5 * amount) * np.linspace(0.85, 1.0, SIZE)
        mask = Image.fromarray((255 * veil).astype(np.uint8)[:, None], "L").resize(image.size)
        image.paste((226, 230, 234), (0, 0), mask)
    return image


def _streaks(image: Image.Image, count: int, rng: random.Random) -> None:
    draw = ImageDraw.Draw(image)
    for _ in range(count):
        x, y, length = rng.uniform(0, SIZE + 8), rng.uniform(-8, SIZE), rng.uniform(7, 12)
        draw.line((x, y, x - 0.35 * length, y + length), fill=(196, 214, 236))


# ---------------------------------------------------------------------------------------------------------------
# Things in their places

_SINGLE = {None: (56, 70), "big": (92, 108), "small": (31, 38)}
_PAIRED = {None: (46, 56), "big": (60, 66), "small": (28, 34)}


def _size(thing: Thing, rng: random.Random, table: dict) -> float:
    return rng.uniform(*table[thing.size])


def _compose(scene: Scene, canvas: _Canvas, ground: float | None, rng: random.Random) -> None:
    def base() -> float | None:
        return None if ground is None else rng.uniform(ground + 0.45 * (SIZE - ground), 0.96 * SIZE)

    first = scene.things[0]
    second = scene.things[1] if len(scene.things) == 2 else None
    if second is None:
        if first.count == 1:
            size = _size(first, rng, _SINGLE)
            room = max(0.0, SIZE - size) / 2
            x, middle = SIZE / 2 + rng.uniform(-0.75, 0.75) * room, SIZE / 2 + rng.uniform(-0.7, 0.7) * room
            canvas.put(first, size, x, middle=middle, base=base())
        else:
            _row(first, canvas, SIZE, 0, {2: (46, 56), 3: (37, 41)}[first.count], base(), rng)
        return

    if scene.relation in ("beside", "left", "right"):
        first_is_left = {"left": True, "right": False}.get(scene.relation, rng.random() < 0.5)
        foot, middle = base(), rng.uniform(0.38, 0.62) * SIZE
        for thing, on_left in ((first, first_is_left), (second, not first_is_left)):
            foot_here = None if foot is None else foot + rng.uniform(-4, 2)
            if thing.count == 2:
                _row(thing, canvas, 66, 0 if on_left else SIZE - 66, (30, 33), foot_here, rng)
            else:
                x = SIZE * (rng.uniform(0.24, 0.29) if on_left else rng.uniform(0.71, 0.76))
                canvas.put(thing, _size(thing, rng, _PAIRED), x, middle=middle, base=foot_here)
    elif scene.relation in ("above", "under"):
        upper, lower = (first, second) if scene.relation == "above" else (second, first)
        x = rng.uniform(0.36, 0.64) * SIZE
        foot = None if ground is None else rng.uniform(0.94, 0.98) * SIZE
        canvas.put(lower, min(_size(lower, rng, _PAIRED), 58), x, middle=0.74 * SIZE, base=foot)
        canvas.put(upper, min(_size(upper, rng, _PAIRED), 56), x + rng.uniform(-12, 12), middle=0.25 * SIZE)
    elif scene.relation == "on":
        seat = (scenes.RIDEABLE if scene.riding else scenes.SUPPORTS)[second.noun]
        foot = rng.uniform(0.93, 0.97) * SIZE
        below = canvas.put(second, rng.uniform(68, 80), rng.uniform(0.42, 0.58) * SIZE, base=foot)
        x, y = below.at(*seat)
        size = min(rng.uniform(40, 48), y + 2)
        canvas.put(first, size, x, base=y + 0.06 * size)
    elif scene.relation == "wearing":
        head_x, head_y, share = scenes.HEADS[first.noun]
        size = {None: rng.uniform(66, 76), "big": rng.uniform(88, 96), "small": rng.uniform(48, 54)}[first.size]
        foot = base()
        foot = max(foot, size + 24) if foot is not None else min(0.5 * SIZE + 0.5 * size + 10, SIZE - 2)
        wearer = canvas.put(first, size, SIZE / 2 + rng.uniform(-0.5, 0.5) * (SIZE - size) / 2, base=foot)
        x, y = wearer.at(head_x, head_y)
        canvas.put(second, max(share * wearer.width * 1.15, 22), x, base=y + 3, mirror=wearer.mirrored)
    elif scene.relation == "with":
        size = rng.uniform(88, 100)
        middle = rng.uniform(0.48, 0.54) * SIZE
        foot = None if ground is None else min(0.97 * SIZE, max(ground + 20, middle + size / 2))
        holder = canvas.put(first, size, SIZE / 2 + rng.uniform(-8, 8), middle=middle, base=foot)
        for fx, fy in (
            ((0.22, 0.60), (0.52, 0.68), (0.80, 0.58))
            if first.noun != "tree"
            else ((0.25, 0.42), (0.55, 0.22), (0.75, 0.46))
        ):
            x, y = holder.at(fx, fy)
            canvas.put(second, 0.29 * size, x + rng.uniform(-2, 2), middle=y + rng.uniform(-2, 2))


def _row(thing: Thing, canvas: _Canvas, width: float, left: float, size: tuple[int, int], foot: float | None,
         rng: random.Random) -> None:  # fmt: skip
    """Several of a kind side by side."""
    middle = rng.uniform(0.35, 0.65) * SIZE
    each = rng.uniform(*size)
    for i in range(thing.count):
        x = left + width * (i + 0.5) / thing.count + rng.uniform(-2, 2)
        base = None if foot is None else foot + rng.uniform(-5, 1)
        canvas.put(thing, each, x, middle=middle + rng.uniform(-8, 8), base=base)


# ---------------------------------------------------------------------------------------------------------------
# Styles


def _luminance(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L")).astype(np.float32)


def _sketch(image: Image.Image, rng: random.Random) -> Image.Image:
    """Colour dodge of the picture with its blurred negative: what remains are the lines, with some shading."""
    gray = image.convert("L")
    shade = _luminance(gray)
    blurred = np.asarray(ImageOps.invert(gray).filter(ImageFilter.GaussianBlur(2.5))).astype(np.float32)
    lines = np.clip(shade * 255 / (256 - blurred), 0, 255)
    out = 255 - 1.35 * (255 - lines) - 0.16 * (255 - shade)
    return Image.fromarray(np.clip(out, 0, 255).astype(np.uint8), "L").convert("RGB")


def _pixel(image: Image.Image, rng: random.Random) -> Image.Image:
    small = (
        image.resize((32, 32), Image.Resampling.BOX).quantize(28, method=Image.Quantize.FASTOCTREE).convert("RGB")
    )
    return small.resize((SIZE, SIZE), Image.Resampling.NEAREST)


def _watercolour(image: Image.Image, rng: random.Random) -> Image.Image:
    """Flat washes with soft edges, thinner towards the middle of each, on rough paper that shows at the border."""
    wash = image.filter(ImageFilter.MedianFilter(5)).filter(ImageFilter.GaussianBlur(0.8))
    noise = np.random.default_rng(rng.getrandbits(32)).integers(0, 256, (9, 9), dtype=np.uint8)
    cloudy = Image.fromarray(noise, "L").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    edges = np.asarray(wash.filter(ImageFilter.FIND_EDGES).convert("L")).astype(np.float32)
    pigment = np.asarray(wash).astype(np.float32)
    thin = 0.10 + 0.42 * np.asarray(cloudy).astype(np.float32) / 255
    out = pigment + (255 - pigment) * thin[..., None] - 0.8 * np.minimum(edges, 110)[..., None]
    ramp = np.minimum(np.arange(SIZE), np.arange(SIZE)[::-1])
    border = np.minimum(ramp[:, None], ramp[None]) + 5 * np.asarray(cloudy).astype(np.float32) / 255
    paper = np.clip((8 - border) / 3, 0, 1)[..., None]
    out = out * (1 - paper) + np.array([252, 250, 244]) * paper
    return Image.fromarray(np.clip(out, 0, 255).astype(np.uint8))


def _neon(image: Image.Image, rng: random.Random) -> Image.Image:
    """Outlines as glowing tubes in the saturated colour of what they bound."""
    smooth = image.filter(ImageFilter.GaussianBlur(0.8))
    edges = smooth.filter(ImageFilter.FIND_EDGES)
    r, g, b = edges.split()
    strength = ImageChops.lighter(ImageChops.lighter(r, g), b).point(lambda v: min(255, max(0, 4 * v - 60)))
    ImageDraw.Draw(strength).rectangle((0, 0, SIZE - 1, SIZE - 1), outline=0, width=2)
    hue, saturation, _ = image.filter(ImageFilter.MaxFilter(3)).convert("HSV").split()
    vivid = Image.merge(
        "HSV", (hue, saturation.point(lambda v: min(255, int(1.6 * v))), Image.new("L", image.size, 255))
    )
    tubes = Image.composite(vivid.convert("RGB"), Image.new("RGB", image.size), strength)
    glow = tubes.filter(ImageFilter.BoxBlur(3))
    lit = ImageChops.add(ImageChops.add(tubes, glow), Image.new("RGB", image.size, (10, 7, 26)))
    return lit


def _mono(image: Image.Image, rng: random.Random) -> Image.Image:
    return image.convert("L").convert("RGB")


_ROWS, _COLUMNS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


def _drawing(image: Image.Image, rng: random.Random) -> Image.Image:
    """Wax crayon: wobbly shapes, few bright colours, dark outlines and the strokes' grain on white paper."""
    a, b = rng.uniform(0, 6), rng.uniform(0, 6)
    rows = _ROWS + 2.0 * np.sin(_COLUMNS / 11 + a) + 1.0 * np.sin(_ROWS / 8 + b)
    columns = _COLUMNS + 2.0 * np.sin(_ROWS / 12 + b) + 1.0 * np.sin(_COLUMNS / 8 + a)
    flat = image.filter(ImageFilter.MedianFilter(3))
    index = np.clip(rows, 0, SIZE - 1).astype(np.intp), np.clip(columns, 0, SIZE - 1).astype(np.intp)
    wobbly = np.asarray(flat)[index]
    lines = flat.filter(ImageFilter.GaussianBlur(1)).filter(ImageFilter.FIND_EDGES).convert("L")
    ImageDraw.Draw(lines).rectangle((0, 0, SIZE - 1, SIZE - 1), outline=0, width=3)
    outline = np.asarray(lines)[index]
    hsv = np.asarray(Image.fromarray(wobbly).convert("HSV")).astype(np.float32)
    hsv[..., 1] = np.clip(hsv[..., 1] * 1.35, 0, 255)
    hsv[..., 2] = np.clip(np.round(hsv[..., 2] / 64) * 64 + 10, 0, 255)
    colour = np.asarray(Image.fromarray(hsv.astype(np.uint8), "HSV").convert("RGB")).astype(np.float32)
    stroke = np.sin((_ROWS + _COLUMNS) * 0.7 + 2.5 * np.sin(_ROWS / 15 + a))
    bare = np.clip(0.08 + 0.15 * stroke, 0, 0.3)[..., None]
    out = colour + (255 - colour) * bare
    ink = np.clip((outline.astype(np.float32) - 18) / 30, 0, 0.85)[..., None]
    out = out * (1 - ink) + np.array([45, 35, 50]) * ink
    return Image.fromarray(out.clip(0, 255).astype(np.uint8))


_STYLES: dict[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "sketch": _sketch,
    "pixel": _pixel,
    "watercolour": _watercolour,
    "neon": _neon,
    "mono": _mono,
    "drawing": _drawing,
}

# ---------------------------------------------------------------------------------------------------------------
# The whole picture


def draw(scene: Scene, rng: random.Random) -> tuple[Image.Image, float]:
    """Draw a scene.

    Returns the picture (RGB, 128x128) and how visible its least visible thing is before the style, in [0, 1].
    """
    background, ground = _background(scene, rng)
    canvas = _Canvas(background, rng, scene.style in scenes.COLOURLESS_STYLES)
    _compose(scene, canvas, ground, rng)
    image = canvas.image
    if scene.background == "rain":
        _streaks(image, 46, rng)
    if scene.weather in scenes.DAYS:
        image = _weather(image, scene.weather, scene.weather_amount, rng)
    if scene.style is not None:
        image = _STYLES[scene.style](image, rng)
    return image, canvas.least_visible


@dataclass(frozen=True)
class Example:
    """A picture with everything that is known about it."""

    image: Image.Image
    caption: str
    scene: Scene


LEAST_CONTRAST = 0.45
"""A scene whose things stand out less than this from what is behind them is drawn again."""


def example(seed: int, novel: bool = False) -> Example:
    """The captioned picture of a seed; with ``novel`` it shows a pair that training never sees."""
    rng = random.Random(f"{'novel' if novel else 'seen'}/{seed}")
    while True:
        scene = scenes.sample(rng, novel)
        caption = scenes.caption(scene, rng)
        image, visible = draw(scene, rng)
        if visible >= LEAST_CONTRAST:
            return Example(image, caption, scene)


def contact_sheet(examples: list[tuple[Image.Image, str]], columns: int = 8) -> Image.Image:
    """Pictures in a grid with their captions underneath."""
    rows = -(-len(examples) // columns)
    cell_width, cell_height = SIZE + 6, SIZE + 40
    sheet = Image.new("RGB", (columns * cell_width, rows * cell_height), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(9)
    for i, (image, text) in enumerate(examples):
        x, y = i % columns * cell_width, i // columns * cell_height
        sheet.paste(image, (x, y))
        line, lines = "", []
        for word in text.split():
            if pen.textlength(f"{line} {word}", font=font) > SIZE:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}".strip()
        pen.multiline_text((x, y + SIZE + 1), "\n".join([*lines, line]), fill="black", font=font, spacing=0)
    return sheet


def main() -> None:
    """Write a contact sheet."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("world.png"))
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--novel", action="store_true", help="scenes with pairs that training never sees")
    options = parser.parse_args()
    made = [example(seed, options.novel) for seed in range(options.first, options.first + options.count)]
    contact_sheet([(e.image, e.caption) for e in made]).save(options.out)


if __name__ == "__main__":
    main()
