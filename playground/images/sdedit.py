"""SDEdit: noise a guide to a level t0, and denoise it from there (Meng et al. 2022).

    x_t0 = alpha(t0) guide + sigma(t0) eps,   then any solver from t0 down to 0.

A small t0 stays faithful to the guide, a large one is realistic. Strength is nothing but this noise level; what
other programs call strength is converted in `strengths.py`. With a mask only the marked region is made anew: after
every step the rest is put back at the step's own noise level, and at the end the guide itself shows through.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Annotated, ClassVar, Self

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from playground.fields import Count, rows
from playground.images.examples import EXAMPLES
from playground.images.guides import coarse, fit_both, mask_tensor, to_tensor
from playground.images.models import TextToImageModel
from playground.images.text_to_image import Generated, Progress
from playground.images.text_to_image import run as run_rows
from playground.noise import repeated_seed, start_noise
from playground.plan import Plan, Row
from playground.recipes import PROMPT_LIMIT, RECIPES, TextToImage
from playground.reuse import Prefixes
from playground.sampling import Control, Evaluated
from playground.schedules import Schedule

GUIDE = "guide"
"""The name of the guide in a plan that is not run yet; a run names guides by their content."""


class SDEdit(TextToImage):
    """A guide picture, noised to t0 and denoised under a prompt."""

    tab: ClassVar[str] = "sdedit"

    prompt: str = Field(
        EXAMPLES["beach"].prompt,
        title="prompt",
        max_length=PROMPT_LIMIT,
        description="the condition c: what the strokes are to become; AND in capitals joins parts",
    )
    guide: str = Field(
        "beach",
        title="guide",
        max_length=64,
        description="the picture to start from: an example, or by its content",
    )
    mask: str = Field("", title="mask", max_length=64, description="what is made anew; without one everything is")
    t0: float = Field(
        0.6,
        title="strength t₀",
        ge=0,
        le=1,
        json_schema_extra={"step": 0.01},
        description="the noise level that the guide gets: 0 gives it back, 1 forgets it",
    )
    repeats: int = Field(
        1,
        title="repeats K",
        ge=1,
        le=4,
        json_schema_extra={"step": 1},
        description="how often the result is noised to t₀ and denoised again, with fresh noise",
    )
    strip: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (), title="strip over t₀", max_length=8, description="noise levels run side by side, each for every seed"
    )

    def singles(self) -> list[Self]:
        """The recipe of each picture on its own: for a strip along t0 first, then seed by seed."""
        alone = super().singles()
        if not self.strip:
            return alone
        return [one.model_copy(update={"strip": (), "t0": t0}) for one in alone for t0 in self.strip]

    def _row(self, schedule: Schedule) -> Row:
        row = super()._row(schedule)
        alone = self.t0 >= schedule.t_max - 1e-9
        return replace(row, times=from_level(row.times, self.t0, schedule), guide=None if alone else GUIDE)


def from_level(times: Sequence[float], t0: float, schedule: Schedule) -> tuple[float, ...]:
    """The part of a grid that a run from the noise level t0 walks: t0 itself, then the grid's times below it.

    At t_max this is the whole grid, which starts from noise alone as text to image does: a trace of the guide would
    be left where alpha(t_max) > 0. Between t_max and the first time of a grid that starts lower ("leading"), t0
    takes that one's place. At t0 = 0 there is nothing to walk.
    """
    if t0 >= schedule.t_max - 1e-9:
        return tuple(times)
    if t0 <= 0:
        return (0.0,)
    start = float(schedule.clamp(t0))
    # A time that is the same up to rounding is the grid's own: no step of length zero.
    on_grid = next((t for t in times if abs(t - start) < 1e-6), start)
    below = tuple(t for t in times if t < on_grid)
    return (on_grid, *(below if len(below) < len(times) else below[1:]))


@dataclass
class Level:
    """A noise level in all the words for it.

    Attributes:
        t0: the time where sampling starts.
        runs, steps: the steps that one pass runs, and those of the whole grid.
        passes: how often they are run: the repeats K.
        alpha, sigma: x = alpha guide + sigma eps.
        snr: (alpha/sigma)^2; infinite at t0 = 0.
        evaluations: model calls of one picture (NFE), repeats included.
        noise_only: whether the guide plays no part.
    """

    t0: float
    runs: int
    steps: int
    passes: int
    alpha: float
    sigma: float
    snr: float
    evaluations: int
    noise_only: bool


def level(recipe: SDEdit, schedule: Schedule) -> Level:
    """What a recipe's t0 means on a model's schedule."""
    row = recipe.but(strip=(), pictures=1, sweep=()).plan(schedule).rows[0]
    t = row.times[0]
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    cost = Plan((row,)).cost(schedule).evaluations * recipe.repeats
    ratio = (alpha / sigma) ** 2 if sigma else float("inf")
    return Level(t, len(row.times) - 1, recipe.steps, recipe.repeats, alpha, sigma, ratio, cost, row.guide is None)


class Keep(Control):
    """Puts the guide back outside a mask after each step, at the step's own noise level.

    Args:
        guide: latents [C, h, w].
        mask: [h, w], 1 where the run is free and 0 where the guide is kept.
        seeds: per row of the plan; its start noise is the noise that the kept part carries.
        schedule: gives the levels.
    """

    def __init__(self, guide: Tensor, mask: Tensor, seeds: Sequence[int], schedule: Schedule):
        self.guide, self.mask, self.schedule = guide, mask, schedule
        self.noise = torch.stack([start_noise(seed, tuple(guide.shape)) for seed in seeds])
        self._name = _name(guide) + _name(mask) + repr(tuple(seeds))

    def after_step(self, plan_rows: list[int], step: int, x: Tensor, s: Tensor) -> Tensor:
        eps, guide, free = self.noise[plan_rows].to(x), self.guide.to(x), self.mask.to(x)
        kept = rows(self.schedule.alpha(s), x) * guide + rows(self.schedule.sigma(s), x) * eps
        return free * x + (1 - free) * kept

    def reads(self, step: int) -> Hashable:
        return self._name


def _name(value: Tensor) -> str:
    return blake2b(value.detach().float().cpu().numpy().tobytes(), digest_size=16).hexdigest()


@dataclass
class Edited(Generated):
    """What SDEdit made.

    Attributes:
        guide: [3, H, W] in [-1, 1], the guide as it entered.
        starts: [R, C, h, w] the latents that sampling started from, in the last pass.
        told: what was done to the guide to fit, in words.
        free: [H, W], 1 where the picture was made anew; None when it was so everywhere.
    """

    recipe: SDEdit
    guide: Tensor | None = None
    starts: Tensor | None = None
    told: str = ""
    free: Tensor | None = None

    @property
    def distances(self) -> Tensor:
        """[R] how far each picture is from the guide: L2 in pixels, as a root mean square per value in 1/255.

        With a mask only over the part that was made anew.
        """
        assert self.guide is not None
        squares = ((self.pictures - self.guide) * 127.5).double().square().mean(1)
        where = torch.ones_like(squares[0]) if self.free is None else self.free.double()
        return ((squares * where).sum((1, 2)) / where.sum()).sqrt()


def run(
    recipe: SDEdit,
    model: TextToImageModel,
    guide: Image.Image,
    mask: Image.Image | None = None,
    prefixes: Prefixes | None = None,
    weak: TextToImageModel | None = None,
) -> Iterator[Evaluated | Progress | Edited]:
    """Run a recipe; between any two denoiser calls something is yielded.

    Args:
        recipe: what to do; `guide` and `mask` name the pictures, which are given here.
        model: on what.
        guide: RGB, of any size: it is cut to the model's shape and scaled.
        mask: white where the picture is to be made anew, of the guide's size.
        prefixes: steps of earlier runs, to begin with and to add to.
        weak: the weaker model of autoguidance.

    Yields:
        Evaluated after a denoiser call, Progress after a step, Edited at the end.

    Raises:
        RecipeError: for a mask of another size, or one that marks nothing.
    """
    path, shape = model.denoiser.schedule, model.denoiser.shape
    size = model.picture_size
    free = None
    fitted, marked, told = fit_both(guide, mask, size)
    if marked is not None:
        free = mask_tensor(marked, size)
    pixels = to_tensor(fitted)
    latents = model.autoencoder.encode(pixels)[0].float().cpu()

    plan = recipe.plan(path)
    starts = {_name(latents): latents}
    names: list[str] = [_name(latents)] * len(plan.rows)
    parts: list[Generated] = []
    length = max(len(r.times) - 1 for r in plan.rows)
    for repeat in range(recipe.repeats):
        turn = Plan(
            tuple(
                replace(row, seed=repeated_seed(row.seed, repeat), guide=row.guide and name)
                for row, name in zip(plan.rows, names, strict=True)
            )
        )
        controls: list[Control] = []
        if free is not None:
            cells = coarse(free, (shape[1], shape[2]))[0, 0]
            controls.append(Keep(latents, cells, [r.seed for r in turn.rows], path))
        for event in run_rows(recipe, model, controls, prefixes, weak, turn, starts):
            if isinstance(event, Generated):
                parts.append(event)
            elif isinstance(event, Progress):
                yield replace(event, step=repeat * length + event.step, steps=recipe.repeats * length)
            else:
                yield event
        begun = torch.stack([begin(row, starts, path, shape) for row in turn.rows])
        names = [_name(z) for z in parts[-1].latents]
        starts = dict(zip(names, parts[-1].latents, strict=True))

    last = parts[-1]
    pictures = last.pictures
    if free is not None:
        pictures = free * pictures + (1 - free) * pixels
    yield Edited(
        recipe=recipe,
        latents=last.latents,
        pictures=pictures,
        trace=[record for part in parts for record in part.trace],
        count=Count(sum(p.count.evaluations for p in parts), sum(p.count.sample_forwards for p in parts)),
        seconds=sum(p.seconds for p in parts),
        decoding=sum(p.decoding for p in parts),
        taken_over=sum(p.taken_over for p in parts),
        guide=pixels[0],
        starts=begun,
        told=told,
        free=None if free is None else free[0, 0],
    )


def begin(row: Row, guides: dict[str, Tensor], schedule: Schedule, shape: tuple[int, ...]) -> Tensor:
    """Where a row starts, [C, h, w]: alpha(t0) guide + sigma(t0) eps."""
    x = float(schedule.sigma(row.times[0])) * start_noise(row.seed, shape)
    return x if row.guide is None else x + float(schedule.alpha(row.times[0])) * guides[row.guide]


def edit(
    recipe: SDEdit,
    model: TextToImageModel,
    guide: Image.Image,
    mask: Image.Image | None = None,
    prefixes: Prefixes | None = None,
    weak: TextToImageModel | None = None,
) -> Edited:
    """Run a recipe to its end."""
    for event in run(recipe, model, guide, mask, prefixes, weak):  # noqa: B007
        pass
    assert isinstance(event, Edited)
    return event


RECIPES[SDEdit.tab] = SDEdit
