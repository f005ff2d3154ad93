"""Does a picture show what its prompt asks for? Prompts whose meaning is known, and the verifier's verdict.

The prompts are put together from what a scene verifier can tell apart, so what they ask for is known without
reading English; those with words that the model does not know are not asked.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from playground.images.tradeoff import fitted
from playground.images.verifier import Labels, Verifier

PLACES = {
    "grass": "on the grass",
    "beach": "on the beach",
    "snow": "in the snow",
    "desert": "in the desert",
    "sea": "in the sea",
    "night": "at night",
    "sunset": "at sunset",
    "space": "in space",
    "city": "in the city",
    "rain": "in the rain",
    "forest": "in the forest",
    "river": "by the river",
    "mountains": "in the mountains",
    "sky": "in the sky",
    "room": "in a room",
}
"""How a background is said; one that is not here is a plain colour."""

RELATIONS = {"left": "to the left of", "right": "to the right of", "above": "above", "under": "under"}


@dataclass(frozen=True)
class Ask:
    """A prompt and what it asks for.

    Attributes:
        prompt: in words.
        nouns: one, or two of which the first stands to the second as `relation` says.
        colour: of the first; None: not spoken of.
        relation, background: as the verifier's labels name them; None: not spoken of.
    """

    prompt: str
    nouns: tuple[str, ...]
    colour: str | None = None
    relation: str | None = None
    background: str | None = None


def asks(labels: Labels, known: Callable[[str], bool], count: int, seed: int = 0) -> list[Ask]:
    """Prompts of which no two are alike: half of them of one thing, half of two, as far as words allow.

    Args:
        labels: of the verifier.
        known: whether the model knows all words of a prompt.
        count: how many; fewer where the labels and words do not give so many.
        seed: of the choice.
    """
    rng = random.Random(seed)
    kinds: tuple[dict[str, Ask], ...] = ({}, {})
    for things, found in enumerate(kinds, 1):
        # A prompt of two things is more often one that the model does not know all words of.
        for _ in range(400 * count):
            if len(found) == count:
                break
            ask = _drawn(labels, rng, things)
            if ask is not None and known(ask.prompt):
                found.setdefault(ask.prompt, ask)
    one, two = (list(found.values()) for found in kinds)
    pairs = min(len(two), max(count // 2, count - len(one)))
    return [*one[: count - pairs], *two[:pairs]]


def _drawn(labels: Labels, rng: random.Random, things: int) -> Ask | None:
    relations = [r for r in labels.relations if r in RELATIONS]
    if len(labels.nouns) < things or (things == 2 and not relations):
        return None
    nouns = tuple(rng.sample(labels.nouns, things))
    background = rng.choice(labels.backgrounds)
    # In its own colour on a plain ground of the same one a thing is named without being seen.
    colours = [c for c in labels.colours if c != background]
    colour = rng.choice(colours) if colours and rng.random() < 0.5 else None
    relation = rng.choice(relations) if things == 2 else None
    subject = with_article(f"{colour} {nouns[0]}" if colour else nouns[0])
    if relation:
        subject += f" {RELATIONS[relation]} {with_article(nouns[1])}"
    where = PLACES.get(background) or f"on {with_article(background)} background"
    return Ask(f"{subject} {where}", nouns, colour, relation, background)


def with_article(words: str) -> str:
    """Words with "a" or "an" before them."""
    return f"{'an' if words[0] in 'aeiou' and not words.startswith('uni') else 'a'} {words}"


def shows(nouns: Tensor, wanted: Iterable[int]) -> bool:
    """Whether a picture's noun logits [N] say that these are in it: they are the most probable ones, and each is
    more likely there than not."""
    asked = sorted(set(wanted))
    return sorted(nouns.topk(len(asked)).indices.tolist()) == asked and bool((nouns[asked] > 0).all())


@torch.no_grad()
def read(verifier: Verifier, pictures: Tensor, asked: Sequence[Ask]) -> list[dict[str, bool]]:
    """For each picture [B, 3, H, W] in [-1, 1], whether the verifier reads what was asked, by attribute.

    noun: `shows` them. colour, relation: of the thing they were asked of. count: one of the first. place: where it
    was asked for.
    """
    verdicts = []
    labels = verifier.labels
    for start in range(0, len(asked), 32):
        part = asked[start : start + 32]
        seen = verifier(fitted(pictures[start : start + 32]))
        slots = [
            torch.tensor([labels.nouns.index(a.nouns[min(k, len(a.nouns) - 1)]) for a in part]) for k in (0, 1)
        ]
        nouns, colours = verifier.noun_logits(seen), verifier.colour_logits(seen, slots[0]).argmax(-1)
        counts = verifier.count_logits(seen, slots[0]).argmax(-1)
        relations = verifier.relation_logits(seen, *slots).argmax(-1)
        backgrounds = verifier.background_logits(seen).argmax(-1)
        for i, ask in enumerate(part):
            verdict = {"noun": shows(nouns[i], map(labels.nouns.index, ask.nouns))}
            if ask.colour:
                verdict["colour"] = int(colours[i]) == 1 + labels.colours.index(ask.colour)
            if 1 in labels.counts:
                verdict["count"] = labels.counts[int(counts[i])] == 1
            if ask.relation:
                verdict["relation"] = labels.relations[int(relations[i])] == ask.relation
            if ask.background:
                verdict["place"] = labels.backgrounds[int(backgrounds[i])] == ask.background
            verdicts.append(verdict)
    return verdicts


def share_right(verdicts: Sequence[dict[str, bool]]) -> tuple[float, float, float]:
    """The share of pictures that show all that was asked, and its 95% interval (Wilson 1927)."""
    n, right, z = len(verdicts), sum(all(v.values()) for v in verdicts), 1.96
    p = right / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return p, min(p, middle - half), max(p, middle + half)
