"""Text to image: run a recipe on a model, and look at how the picture came about."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from playground.fields import Count, rows
from playground.guidance import Branch
from playground.images.models import TextToImageModel, to_images
from playground.noise import start_noise
from playground.plan import Plan
from playground.recipes import TextToImage
from playground.reuse import Kept, Prefixes, chain, nbytes
from playground.sampling import Answer, Control, Evaluated, Finished, Stepped, answers_of, sample


@dataclass
class StepRecord:
    """What one step saw at its first evaluation, for all R rows of the plan (on the CPU, float32).

    Attributes:
        known: per branch, for which rows it was computed: guidance does not need every branch everywhere. The
            others hold NaN.
        t: [R] float64 times.
        x: [R, C, H, W] the latents x_t.
        cond, uncond, guided: [R, C, H, W] predictions of x0 with the prompt, without it, and combined.
        eps_cond, eps_uncond: [R, C, H, W] the same two as noise.
        noted: what the run's controls noted, in their order.
    """

    known: dict[Branch, list[bool]]
    t: Tensor
    x: Tensor
    cond: Tensor
    uncond: Tensor
    guided: Tensor
    eps_cond: Tensor
    eps_uncond: Tensor
    noted: tuple[Any, ...] = ()

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return sum(nbytes(v) for v in vars(self).values())


@dataclass
class GuidanceNorms:
    """Sizes and angles of the two predictions over the steps of one row; NaN where a branch is missing.

    With autoguidance u is what the weak model says.

    Attributes:
        t: times, one per step.
        uncond, cond, difference: root mean square of eps_u, eps_c and D = eps_c - eps_u.
        cosine: cosine between eps_c and eps_u.
        along, across: root mean square of the two parts of D in x0, D = x0_c - x0_u: along x0_c (negative where
            it points away from it) and across it. Their squares add up to that of D.
    """

    t: list[float] = field(default_factory=list)
    uncond: list[float] = field(default_factory=list)
    cond: list[float] = field(default_factory=list)
    difference: list[float] = field(default_factory=list)
    cosine: list[float] = field(default_factory=list)
    along: list[float] = field(default_factory=list)
    across: list[float] = field(default_factory=list)


@dataclass
class Progress:
    """A step is done.

    Attributes:
        step, steps: how far.
        count: evaluations and sample-forwards so far.
        x0: [R, C, H, W] the guided prediction of the picture, for a preview.
    """

    step: int
    steps: int
    count: Count
    x0: Tensor


@dataclass
class Generated:
    """Finished pictures, and everything that led to them.

    Attributes:
        recipe: what was asked for.
        latents: [R, C, H, W] where sampling ended (CPU, float32).
        pictures: [R, 3, H, W] in [-1, 1] (CPU).
        trace: one record per step.
        count: evaluations and sample-forwards of this run.
        seconds: wall time of the computation, waiting for a turn excluded.
        decoding: the part of these seconds that the decoder took.
        taken_over: steps, from the first, that an earlier run had done and this one did not repeat.
    """

    recipe: TextToImage
    latents: Tensor
    pictures: Tensor
    trace: list[StepRecord]
    count: Count
    seconds: float
    decoding: float = 0.0
    taken_over: int = 0

    @property
    def images(self) -> list[Image.Image]:
        return to_images(self.pictures)

    @property
    def nbytes(self) -> int:
        """Memory held, for bounded caches."""
        return self.latents.nbytes + self.pictures.nbytes + sum(r.nbytes for r in self.trace)

    def norms(self, row: int = 0, trace: Sequence[StepRecord] | None = None) -> GuidanceNorms:
        """How the two predictions of a row compare, step by step.

        Args:
            trace: the run's own, or one whose skipped branches have been computed (`with_both_branches`).
        """
        norms = GuidanceNorms()
        for record in self.trace if trace is None else trace:
            if record.t[row].isnan():  # other rows of the plan have more steps
                continue
            c, u = record.eps_cond[row].double(), record.eps_uncond[row].double()
            norms.t.append(float(record.t[row]))
            norms.uncond.append(float(u.square().mean().sqrt()))
            norms.cond.append(float(c.square().mean().sqrt()))
            norms.difference.append(float((c - u).square().mean().sqrt()))
            norms.cosine.append(float((c * u).sum() / (c.norm() * u.norm())))
            c, u = record.cond[row].double(), record.uncond[row].double()
            along = ((c - u) * c).sum() / c.norm()
            across = (c - u) - along * c / c.norm()
            norms.along.append(float(along) / c.numel() ** 0.5)
            norms.across.append(float(across.square().mean().sqrt()))
        return norms


def _record(answers: Sequence[Answer], size: int) -> StepRecord:
    """The first evaluation of a step, its lanes merged."""

    def gather(parts: list[tuple[list[int], Tensor]]) -> Tensor:
        like = answers[0].guided.x
        whole = torch.full((size, *like.shape[1:]), torch.nan)
        for index, value in parts:
            whole[index] = value.float().cpu()
        return whole

    def branch(name: Branch, kind: str) -> Tensor:
        parts = []
        for a in answers:
            if name in a.branches:
                index, p = a.branches[name]
                parts.append(([a.rows[i] for i in index], getattr(p, kind)))
        return gather(parts)

    t = torch.full((size,), torch.nan, dtype=torch.float64)
    for a in answers:
        t[a.rows] = a.guided.t
    known: dict[Branch, list[bool]] = {"cond": [False] * size, "uncond": [False] * size}
    for a in answers:
        for name, (index, _) in a.branches.items():
            for i in index:
                known[name][a.rows[i]] = True
    return StepRecord(
        known=known,
        t=t,
        x=gather([(a.rows, a.guided.x) for a in answers]),
        cond=branch("cond", "x0"),
        uncond=branch("uncond", "x0"),
        guided=gather([(a.rows, a.guided.x0) for a in answers]),
        eps_cond=branch("cond", "eps"),
        eps_uncond=branch("uncond", "eps"),
    )


def _limits(model: TextToImageModel, weak: TextToImageModel | None) -> tuple[int | None, ...]:
    """How many rows go into a call of each denoiser, as far as memory has said."""
    return tuple(m.denoiser.batches.limit for m in (model, weak) if m)


def run(
    recipe: TextToImage,
    model: TextToImageModel,
    controls: Sequence[Control] = (),
    prefixes: Prefixes | None = None,
    weak: TextToImageModel | None = None,
    plan: Plan | None = None,
    guides: Mapping[str, Tensor] | None = None,
) -> Iterator[Evaluated | Progress | Generated]:
    """Run a recipe; between any two denoiser calls something is yielded.

    Args:
        recipe: what to do.
        model: on what.
        controls: take part in the run.
        prefixes: steps of earlier runs, to begin with and to add to.
        weak: the weaker model of autoguidance.
        plan: what to run in the place of the recipe's own plan.
        guides: latents [C, H, W] by the names that the plan's rows start from.

    Yields:
        Evaluated after a denoiser call, Progress after a step, Generated at the end.
    """
    plan = plan or recipe.plan(model.denoiser.schedule)
    size, steps = len(plan.rows), max(len(row.times) - 1 for row in plan.rows)
    count = Count()
    spent, since = 0.0, time.perf_counter()
    other = weak.denoiser if weak else None
    where = (other.identity, other.batches.limit) if other else ()
    keys = chain(plan, model.denoiser, controls, where) if prefixes else ()
    done = prefixes.longest(keys) if prefixes else []
    limits, exact = _limits(model, weak), True
    trace: list[StepRecord] = [step.record for step in done]
    start = done[-1].snapshot if done else None
    x0 = torch.full((size, *model.denoiser.shape), torch.nan)
    for event in sample(plan, model.denoiser, controls, model.device.where, start=start, weak=other, guides=guides):
        if isinstance(event, Evaluated):
            first = [a for a in event.answers if a.stage == 0]
            if first:
                trace.append(_record(first, size))
                # A row that has arrived keeps its last prediction while others go on.
                x0 = torch.where(trace[-1].guided.isnan(), x0, trace[-1].guided)
            count = event.count
        elif isinstance(event, Stepped):
            trace[event.step].noted = tuple(c.noted() for c in controls)
            # Batches that memory has made smaller on the way round otherwise: these are not the steps of the keys.
            exact = exact and limits == _limits(model, weak)
            if prefixes and keys and exact:
                prefixes.put(keys[event.step + 1], Kept(event.snapshot, trace[event.step]), keys)
        # The clock stands still while whoever runs this does something else.
        spent += time.perf_counter() - since
        if isinstance(event, Evaluated):
            yield event
        elif isinstance(event, Stepped):
            yield Progress(event.step + 1, steps, count, x0)
        since = time.perf_counter()
    assert isinstance(event, Finished)
    pictures = model.autoencoder.decode(event.x).cpu()  # a GPU has only been told to, until its answer is here
    decoding = time.perf_counter() - since
    spent += decoding
    latents = event.x.float().cpu()
    yield Generated(recipe, latents, pictures, trace, event.count, spent, decoding, len(done))


def generate(
    recipe: TextToImage,
    model: TextToImageModel,
    controls: Sequence[Control] = (),
    prefixes: Prefixes | None = None,
    weak: TextToImageModel | None = None,
) -> Generated:
    """Run a recipe to its end."""
    for event in run(recipe, model, controls, prefixes, weak):  # noqa: B007
        pass
    assert isinstance(event, Generated)
    return event


def with_both_branches(
    result: Generated,
    model: TextToImageModel,
    step: int,
    weak: TextToImageModel | None = None,
    row: int | None = None,
) -> tuple[StepRecord, Count]:
    """A step's record with the branches that guidance skipped, for someone who wants to look at them.

    Args:
        row: whose branches; by default those of all rows.

    Returns:
        The completed record, and the evaluations it cost, which the run did not need and does not count.
    """
    record, extra = result.trace[step], Count()
    plan = result.recipe.plan(model.denoiser.schedule)
    names: tuple[Branch, Branch] = ("cond", "uncond")
    for name in names:
        here = [not math.isnan(t) for t in record.t.tolist()]
        wanted = here if row is None else [there and i == row for i, there in enumerate(here)]
        missing = [i for i, known in enumerate(record.known[name]) if wanted[i] and not known]
        if not missing:
            continue
        counts = [m.denoiser.count for m in (model, weak) if m is not None]
        before = [replace(c) for c in counts]
        x, t = record.x[missing].to(model.device.where), record.t[missing]
        other = weak.denoiser if weak else None
        p = answers_of([plan.rows[i] for i in missing], name, x, t, model.denoiser, other)
        filled = {}
        for key, value in ((name, p.x0), (f"eps_{name}", p.eps)):
            filled[key] = getattr(record, key).clone()
            filled[key][missing] = value.float().cpu()
        known = [was or now for was, now in zip(record.known[name], wanted, strict=True)]
        record = replace(record, known={**record.known, name: known}, **filled)
        for now, then in zip(counts, before, strict=True):
            extra.evaluations += now.evaluations - then.evaluations
            extra.sample_forwards += now.sample_forwards - then.sample_forwards
    return record, extra


FILM_ROWS: tuple[str, ...] = ("x", "uncond", "cond", "guided")
"""The rows of the filmstrip: x_t, and x0 without the prompt, with it, and guided."""


def film_frame(record: StepRecord, model: TextToImageModel, row: int = 0) -> list[Image.Image | None]:
    """The four pictures of one row at one step (None where a branch was not computed), decoded now."""
    there = [
        i
        for i, name in enumerate(FILM_ROWS)
        if name not in ("cond", "uncond") or record.known[name][row]  # type: ignore[index]
    ]
    latents = torch.stack([getattr(record, FILM_ROWS[i])[row] for i in there])
    frame: list[Image.Image | None] = [None] * len(FILM_ROWS)
    for i, image in zip(there, to_images(model.autoencoder.decode(latents)), strict=True):
        frame[i] = image
    return frame


def noised(result: Generated, model: TextToImageModel, t: Sequence[float], row: int = 0) -> list[Image.Image]:
    """Forward noising: the finished picture's latents at times t, x_t = alpha x_0 + sigma eps, decoded.

    eps is the noise the picture started from. Where alpha(t_max) is not 0 a trace of the picture is left in
    the last frame, which sampling did not start with: it starts from sigma eps alone.
    """
    times = torch.tensor(t, dtype=torch.float64)
    z = result.latents[row : row + 1].expand(len(times), -1, -1, -1)
    seed = result.recipe.plan(model.denoiser.schedule).rows[row].seed
    eps = start_noise(seed, model.denoiser.shape)[None]
    path = model.denoiser.schedule
    x = rows(path.alpha(times), z) * z + rows(path.sigma(times), z) * eps
    return to_images(model.autoencoder.decode(x))


def latent_channels(latents: Tensor) -> list[Image.Image]:
    """The channels of latents [C, H, W] as grey pictures, all on one scale: mid-grey is 0, white is +3."""
    grey = ((latents / 3).clamp(-1, 1) / 2 + 0.5) * 255
    return [Image.fromarray(c) for c in grey.round().to(torch.uint8).numpy().astype(np.uint8)]
