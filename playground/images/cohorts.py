"""Many pictures of one solver: how they are distributed, and how many of them show what their prompts ask for.

A solver that draws noise of its own in each step has no single solution to be far from. Over several seeds its
pictures have a distribution, and that can be compared with the distribution of the converged solutions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

from pydantic import Field
from torch import Tensor

from playground.distributions import chance_level, energy_coefficient
from playground.fields import Count
from playground.images.comparison import Cell, Comparison, Walked, walk
from playground.images.models import TextToImageModel
from playground.images.reading import Ask, asks, read, share_right
from playground.images.text_to_image import Progress
from playground.images.verifier import Verifier
from playground.plan import Plan
from playground.recipes import PROMPT_LIMIT, TextToImage
from playground.sampling import Evaluated
from playground.schedules import Schedule

SEEDS = 16
"""Pictures of a distribution."""
PROMPTS = 48
"""Prompts of a share."""
TRUTH_STEPS = 60
"""Of DPM-Solver++(2M), in the place of the ODE's solution."""
ELSEWHERE = 100_000
"""The reference's seeds lie this far from those it is compared with: two independent samples."""


class Cohort(TextToImage):
    """Pictures of one solver: of one prompt from many seeds, or of many prompts, each from a seed of its own.

    Every picture draws its own noise, as text to image does.
    """

    tab: ClassVar[str] = "samplers/cohort"

    pictures: int = Field(SEEDS, title="seeds", ge=2, le=64)
    prompts: tuple[Annotated[str, Field(max_length=PROMPT_LIMIT)], ...] = Field((), title="prompts", max_length=64)

    @classmethod
    def of(cls, recipe: TextToImage, **changes: object) -> Self:
        """That of a recipe's problem, with changes."""
        fields = {
            n: getattr(recipe, n) for n in TextToImage.model_fields if n not in ("pictures", "sweep", "across")
        }
        return cls.make(**fields | {"values": ()} | changes)

    @classmethod
    def cell(cls, recipe: Comparison, cell: Cell, **changes: object) -> Self:
        """That of a cell of a comparison."""
        return cls.of(recipe, solver=cell.solver, steps=cell.steps, **changes)

    @classmethod
    def converged(cls, recipe: TextToImage) -> Self:
        """Close to solutions of the ODE, of other seeds. Over so many, an error well below their spread is none."""
        seed = (recipe.seed + ELSEWHERE) % 2**31
        return cls.of(
            recipe, solver="dpmpp_2m", steps=TRUTH_STEPS, grid="log_snr", variable="auto", eta=1.0, seed=seed
        )

    def texts(self) -> list[str]:
        return [*self.prompts, self.negative] if self.prompts else super().texts()

    def singles(self) -> list[Self]:
        own = self.prompts or (self.prompt,) * self.pictures
        alone = {"prompts": (), "sweep": (), "across": "none", "values": ()}
        return [self.model_copy(update={**alone, "prompt": p, "seed": self.seed + i}) for i, p in enumerate(own)]

    def plan(self, schedule: Schedule) -> Plan:
        return Plan(tuple(single._row(schedule) for single in self.singles()))


@dataclass
class Drawn:
    """A finished cohort: latents [N, C, H, W] and pictures [N, 3, H, W] in [-1, 1]."""

    recipe: Cohort
    latents: Tensor
    pictures: Tensor
    count: Count
    seconds: float

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self.latents.nbytes + self.pictures.nbytes


def run(recipe: Cohort, model: TextToImageModel) -> Iterator[Evaluated | Progress | Drawn]:
    """Run a cohort.

    Yields:
        Evaluated after a denoiser call; Progress; Drawn at the end.
    """
    for event in walk(recipe.plan(model.denoiser.schedule), model):
        if isinstance(event, Walked):
            yield Drawn(recipe, event.latents, event.pictures, event.count, event.seconds)
        else:
            yield event


def draw(recipe: Cohort, model: TextToImageModel) -> Drawn:
    """Run to the end."""
    *_, event = run(recipe, model)
    assert isinstance(event, Drawn)
    return event


@dataclass(frozen=True)
class Apart:
    """A point of the charts of distributions.

    Attributes:
        solver, eta, budget: whose; evaluations: of each picture.
        distance: energy coefficient of its latents and the reference's, 0 for equal distributions; it may fall
            below 0 by its sampling error.
        chance: what 95% of samples of one distribution stay below.
    """

    solver: str
    eta: float
    budget: int
    evaluations: int
    distance: float
    chance: float


def apart(drawn: Drawn, reference: Drawn, budget: int) -> Apart:
    """How far a cohort is from the reference as a distribution."""
    x, y = drawn.latents.flatten(1), reference.latents.flatten(1)
    return Apart(
        solver=drawn.recipe.solver,
        eta=drawn.recipe.eta,
        budget=budget,
        evaluations=drawn.count.evaluations,
        distance=energy_coefficient(x, y),
        chance=chance_level(x, y),
    )


@dataclass(frozen=True)
class Quality:
    """A point of the chart of quality against cost.

    Attributes:
        solver, eta, budget: whose; evaluations: of each picture.
        share: of the prompts that the verifier reads right, all that they ask for; low, high: its 95% interval.
        nouns: share of the prompts whose nouns are right.
        prompts: how many.
    """

    solver: str
    eta: float
    budget: int
    evaluations: int
    share: float
    low: float
    high: float
    nouns: float
    prompts: int


def asked_of(model: TextToImageModel, verifier: Verifier, count: int = PROMPTS) -> list[Ask]:
    """The prompts of a share: always the same for a model."""
    return asks(verifier.labels, lambda prompt: not model.text.notes(prompt), count)


def quality(drawn: Drawn, asked: Sequence[Ask], verifier: Verifier, budget: int) -> Quality:
    """What the verifier reads in a cohort of these prompts."""
    verdicts = read(verifier, drawn.pictures, asked)
    share, low, high = share_right(verdicts)
    return Quality(
        solver=drawn.recipe.solver,
        eta=drawn.recipe.eta,
        budget=budget,
        evaluations=drawn.count.evaluations,
        share=share,
        low=low,
        high=high,
        nouns=sum(v["noun"] for v in verdicts) / len(verdicts) if verdicts else math.nan,
        prompts=len(verdicts),
    )
