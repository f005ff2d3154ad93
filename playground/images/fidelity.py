"""What guidance buys and what it costs: fidelity to the prompt, and diversity, over the scale w.

The figure of classifier-free guidance (Ho & Salimans 2022: Inception score against FID over w), measured for one
prompt with the scene verifier in Inception's place:

    fidelity     the probability that the verifier gives to what the prompt names
    diversity    the mean distance between pictures of different seeds in the verifier's last layer, as a part of
                 what it is without guidance (w = 1), where the model draws from its own distribution

Both are means over seeds, with standard errors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from playground.errors import RecipeError
from playground.guidance import RULES, Composed, Guidance
from playground.images.tradeoff import fitted
from playground.images.verifier import Features, Labels, Verifier
from playground.recipes import TextToImage

SCALES = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 9.0, 15.0)
"""The scales that are measured; 1 is among them, for diversity is told as a part of what it is there."""

SEEDS = 16
LEAST = 2
"""Seeds from which on there is something to tell: a distance is between two pictures."""


@dataclass(frozen=True)
class Named:
    """What a prompt names of the things that a verifier knows, as indices into its labels.

    Attributes:
        things: (noun, its colour's logit or None) for each.
        place: the background, None where none is named.
    """

    things: tuple[tuple[int, int | None], ...]
    place: int | None

    def words(self, labels: Labels) -> list[str]:
        """What is named, in words."""
        nouns, colours = labels.nouns, ("", *labels.colours)
        said = [f"{colours[colour or 0]} {nouns[noun]}".strip() for noun, colour in self.things]
        return said + ([labels.backgrounds[self.place]] if self.place is not None else [])


def _singular(word: str, nouns: Sequence[str]) -> str:
    """The noun that a word is a regular plural of, or the word itself."""
    for ending, instead in (("ies", "y"), ("es", ""), ("s", "")):
        stem = word.removesuffix(ending) + instead
        if word.endswith(ending) and stem in nouns and word not in nouns:
            return stem
    return word


def named(recipe: TextToImage, labels: Labels) -> Named:
    """What a recipe's prompt names; of a prompt whose parts are joined by AND, the parts that are wanted.

    A colour belongs to the next noun. A colour's name alone is never read as a plain background.

    Raises:
        RecipeError: when it names nothing that the verifier knows.
    """
    condition = recipe.condition()
    parts = condition.parts if isinstance(condition, Composed) else ((condition, 1.0),)
    things: list[tuple[int, int | None]] = []
    place = None
    for text, weight in parts:
        colour = None
        for found in re.findall(r"[a-z]+", str(text).lower()) if weight > 0 else ():
            word = _singular(found, labels.nouns)
            if word in labels.colours:
                colour = 1 + labels.colours.index(word)
            elif word in labels.nouns:
                if (thing := (labels.nouns.index(word), colour)) not in things:
                    things.append(thing)
                colour = None
            elif word in labels.backgrounds:
                place = labels.backgrounds.index(word)
                colour = None
    if not things and place is None:
        raise RecipeError(
            "The prompt names no thing and no place that the scene verifier knows, so that fidelity cannot be "
            "measured."
        )
    return Named(tuple(things), place)


def parts(recipe: TextToImage, seeds: int = SEEDS) -> list[TextToImage]:
    """The sweeps over `SCALES` whose pictures are measured, one for each seed.

    Raises:
        RecipeError: for a rule that does not follow w.
    """
    rule = RULES[recipe.rule]
    if rule is Guidance or rule.renoises:
        raise RecipeError(
            f"Fidelity and diversity are measured over w, which {rule.title!r} does not follow: take another "
            "guidance rule."
        )
    alone = recipe.but(sweep=SCALES, across="none", values=(), pictures=1)
    return [alone.but(seed=(recipe.seed + i) % 2**31) for i in range(seeds)]


@dataclass
class Fidelity:
    """The curve over w.

    Attributes:
        w: scales.
        fidelity: mean over the seeds of the mean probability of what is named; 0 to 1.
        fidelity_error: its standard error over the seeds.
        diversity: mean distance between two pictures, as a part of that at w = 1.
        diversity_error: its standard error, by leaving out one seed at a time (jackknife).
        seeds: how many.
        words: what is named, and looked for.
    """

    w: list[float]
    fidelity: list[float]
    fidelity_error: list[float]
    diversity: list[float]
    diversity_error: list[float]
    seeds: int
    words: list[str]


@dataclass
class Seen:
    """What the verifier saw in one seed's pictures.

    Attributes:
        probability: [W] of what is named.
        layer: [W, D] its last layer.
    """

    probability: Tensor
    layer: Tensor


def probability(verifier: Verifier, seen: Features, asked: Named) -> Tensor:
    """[B] the mean probability, over all that is named, that it is in the picture; 0 to 1."""
    nouns = verifier.noun_logits(seen).sigmoid()
    told = []
    for noun, colour in asked.things:
        told.append(nouns[:, noun])
        if colour is not None:
            at = torch.full((len(nouns),), noun, device=nouns.device)
            told.append(verifier.colour_logits(seen, at).softmax(-1)[:, colour])
    if asked.place is not None:
        told.append(verifier.background_logits(seen).softmax(-1)[:, asked.place])
    return torch.stack(told).mean(0)


@torch.no_grad()
def look(verifier: Verifier, pictures: Tensor, asked: Named) -> Seen:
    """What the verifier sees in the pictures [W, 3, H, W] in [-1, 1] of one seed."""
    seen = verifier(fitted(pictures))
    return Seen(probability(verifier, seen, asked), seen.maps[-1].float().flatten(1))


def _spread(distances: Tensor) -> Tensor:
    """The mean of the distances [..., S, S] between two different of S pictures."""
    count = distances.shape[-1]
    return distances.sum((-2, -1)) / (count * (count - 1))


def curve(seeds: Sequence[Seen], words: Sequence[str], scales: Sequence[float] = SCALES) -> Fidelity:
    """The curve that the pictures of several seeds make.

    Args:
        seeds: at least two, each with one picture per scale.
        scales: w = 1 is among them.
    """
    probabilities = torch.stack([s.probability for s in seeds])  # [S, W]
    layers = torch.stack([s.layer for s in seeds], 1)  # [W, S, D]
    count, plain = len(seeds), list(scales).index(1.0)
    distances = torch.cdist(layers, layers, compute_mode="donot_use_mm_for_euclid_dist")  # [W, S, S]

    def relative(kept: list[int]) -> Tensor:
        spread = _spread(distances[:, kept][:, :, kept])
        return spread / spread[plain]

    everyone = list(range(count))
    error = torch.full((len(scales),), float("nan"))
    if count > LEAST:
        without = torch.stack([relative([j for j in everyone if j != i]) for i in everyone])
        error = ((without - without.mean(0)).square().sum(0) * (count - 1) / count).sqrt()
    return Fidelity(
        w=list(scales),
        fidelity=probabilities.mean(0).tolist(),
        fidelity_error=(probabilities.std(0) / count**0.5).tolist(),
        diversity=relative(everyone).tolist(),
        diversity_error=error.tolist(),
        seeds=count,
        words=list(words),
    )
