"""Run the plane's experiment: a cloud of particles on the driver that also makes the pictures.

A cloud is one row of a plan. `Cloud` lets a field of points answer for it, so that solvers, guidance, grids and
counting are the very objects of `playground/sampling.py`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from playground.fields import Condition, Count, Field, rows
from playground.noise import start_noise
from playground.plane.learned import train
from playground.plane.mixtures import ExactField, uniform_from_normal
from playground.plane.packing import pack
from playground.plane.recipe import PARTICLES, PlaneFlow
from playground.sampling import Evaluated, Finished, Snapshot, Stepped, sample
from playground.schedules import EDM, Schedule, as_time
from playground.solvers import InSigma, InTime, Solver, Variable

SHOWN = 200
"""Particles whose solver states are kept."""
FRAME_NUMBERS = 1_000_000
"""Frames times particles times coordinates at most, of two bytes each: 100 frames of 5,000 particles."""


SIGHT = 16.0
"""Particles farther out than this are drawn here, long out of view: one that flies away must not coarsen the 16
bits of the others."""


class Cloud(Field):
    """A field of points that answers for whole clouds: a sample is `count` points, and shares one time.

    A sample-forward is one evaluation of the whole cloud; per particle the number is the same.

    Args:
        points: a field whose samples have shape (D,).
        count: points of a cloud.
    """

    cloud = True

    def __init__(self, points: Field, count: int):
        super().__init__()
        self.points, self.schedule, self.kind = points, points.schedule, points.kind
        self.shape = (count, *points.shape)

    @property
    def identity(self) -> str:
        return f"cloud/{self.shape[0]}/{self.points.identity}"

    def encode(self, conditions: Sequence[object]) -> Condition:
        return self.points.encode(conditions)

    def evaluate(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        answers = [
            # The points' own field sees the cloud as its batch, at one time and under one condition.
            self.points.evaluate(x[i], t[i : i + 1].expand(x.shape[1]), _repeated(condition, i, x.shape[1]))
            for i in range(len(x))
        ]
        return answers[0][None] if len(answers) == 1 else torch.stack(answers)


def _repeated(condition: Condition, row: int, count: int) -> Condition:
    return {k: v[row : row + 1].expand(count, *v.shape[1:]) for k, v in condition.items()}


@dataclass
class Flow:
    """Particles on their way from noise to data.

    Attributes:
        recipe: what was asked for.
        times: [F] falling frame times, from the start of sampling to its end.
        frames: [F, N, D] where the particles are. Between two states of the solver a particle is on the straight
            line, in the solver's own variable, that joins them: nothing is shown that it did not compute.
        solver_times: [S + 1] the grid.
        states: [S + 1, M, D] the solver's own states of the first M particles.
        labels: [N] class of the component each particle most probably belongs to at the end.
        zoom: [F] the size of p_t's noise and data, sqrt(alpha^2 + sigma^2), where it leaves the plane (EDM's path);
            1 on the others. frames / zoom stays in view.
        count: evaluations and sample-forwards.
        seconds: wall time of the sampling; a learned field's training is not in it.
        field: who answered, for points [B, D].
        history: of a learned field's training, (updates, loss, the exact field's loss) at each report.
        trained: seconds that this training took, over all its parts.
    """

    recipe: PlaneFlow
    times: Tensor
    frames: Tensor
    solver_times: Tensor
    states: Tensor
    labels: Tensor
    zoom: Tensor
    count: Count
    seconds: float
    field: Field
    history: list[tuple[int, float, float]] = dataclasses.field(default_factory=list)
    trained: float = 0.0

    @property
    def x(self) -> Tensor:
        """[N, D] where the particles end."""
        return self.frames[-1]

    @property
    def nbytes(self) -> int:
        """Memory held, for bounded caches."""
        return self.frames.nbytes + self.states.nbytes

    def to_bytes(self) -> bytes:
        """For the page, in `packing.pack`'s format: "frames" [F, N, D] and "states" [S + 1, M, D], both divided by
        the zoom of their time, and "labels" [N]. The header has times, zoom, solver_times, solver_zoom, count and
        seconds."""
        solver_zoom = zoom(self.recipe.schedule(), self.solver_times)
        arrays = {
            "frames": (self.frames / rows(self.zoom, self.frames)).clamp(-SIGHT, SIGHT).numpy(),
            "states": (self.states / rows(solver_zoom, self.states)).clamp(-SIGHT, SIGHT).numpy(),
            "labels": self.labels.numpy().astype(np.int16),
        }
        return pack(
            arrays,
            times=self.times.tolist(),
            zoom=self.zoom.tolist(),
            solver_times=self.solver_times.tolist(),
            solver_zoom=solver_zoom.tolist(),
            evaluations=self.count.evaluations,
            sample_forwards=self.count.sample_forwards,
            seconds=self.seconds,
        )


@dataclass(frozen=True)
class Moving:
    """A step is done: `step` of `steps`, the count so far, and the particles x [N, D] at time t."""

    step: int
    steps: int
    count: Count
    x: Tensor
    t: float


def zoom(schedule: Schedule, t: Tensor) -> Tensor:
    """How much a view of the plane is scaled at t [T]: 1, except on EDM's path, where x_t grows to 80."""
    if isinstance(schedule, EDM):
        return torch.sqrt(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2)
    return torch.ones_like(as_time(t))


def frame_times(schedule: Schedule, start: float, end: float, count: int) -> Tensor:
    """Times at which a film is drawn, [count] falling: even in t, or in sigma^(1/7) where the noise explodes."""
    if isinstance(schedule, EDM):
        ramp = torch.linspace(start ** (1 / 7), end ** (1 / 7), count, dtype=torch.float64) ** 7
        ramp[0], ramp[-1] = start, end
        return ramp
    return torch.linspace(start, end, count, dtype=torch.float64)


def exact_field(recipe: PlaneFlow) -> ExactField:
    """The closed-form field of a recipe, in the kind that is defined all along its path."""
    schedule = recipe.schedule()
    kind = "velocity" if schedule.t_min == 0 else "x0"
    return ExactField(recipe.data(), schedule, kind, recipe.source)  # type: ignore[arg-type]


def weak_field(recipe: PlaneFlow) -> ExactField:
    """What autoguidance goes away from: the exact field of the target blurred, so that it knows less of it."""
    schedule = recipe.schedule()
    kind = "velocity" if schedule.t_min == 0 else "x0"
    return ExactField(recipe.data().blurred(recipe.blur), schedule, kind, recipe.source)  # type: ignore[arg-type]


def drawn_in(solver: Solver, schedule: Schedule, times: Tensor) -> Variable:
    """The variable in which the way between two states is drawn: the solver's own, if it is finite."""
    own = getattr(solver, "variable", None)
    for variable in (own, InSigma(schedule)):
        if variable is not None and bool((variable.tau(times).isfinite() & (variable.scale(times) > 0)).all()):
            return variable
    return InTime(schedule)


def between(variable: Variable, times: Tensor, states: Tensor, at: Tensor) -> Tensor:
    """Points [F, ...] at times [F] on the straight lines, in a variable, through states [S + 1, ...]."""
    last = (torch.searchsorted(-times, -at, right=True) - 1).clamp(0, len(times) - 2)
    t, s = times[last], times[last + 1]
    share = ((variable.tau(at) - variable.tau(t)) / (variable.tau(s) - variable.tau(t))).clamp(0, 1)
    scale = variable.scale(at)
    first = rows(scale / variable.scale(t) * (1 - share), states)
    second = rows(scale / variable.scale(s) * share, states)
    return first * states[last] + second * states[last + 1]


def source_noise(recipe: PlaneFlow, count: int) -> Tensor:
    """The particles' noise [count, D], of unit variance: what sampling starts from, times sigma.

    The first ones are the same whatever the count, so that a smaller cloud is part of a larger one.
    """
    noise = start_noise(recipe.seed, (max(count, PARTICLES[1]), recipe.dimension))[:count]
    return uniform_from_normal(noise) if recipe.source == "uniform" else noise


def run(
    recipe: PlaneFlow, field: Field | None = None, frames: int | None = None, noise: Tensor | None = None
) -> Iterator[Evaluated | Moving | Flow]:
    """Run a recipe; between any two evaluations something is yielded.

    Args:
        field: who answers; by default the exact field.
        frames: how many frames; by default the recipe's, or fewer where that would be more than FRAME_NUMBERS.
        noise: [N, D] of unit variance to start from instead of the source's own; N may be any number.

    Yields:
        Evaluated after an evaluation, Moving after a step, Flow at the end.

    Raises:
        RecipeError: for a recipe that is impossible, in one sentence.
    """
    spent, since = 0.0, time.perf_counter()
    recipe.check()
    field = field or exact_field(recipe)
    schedule = field.schedule
    noise = source_noise(recipe, recipe.particles) if noise is None else noise
    cloud = Cloud(field, len(noise))
    plan = recipe.plan(schedule)
    (row,) = plan.rows
    solver_times = torch.tensor(row.times, dtype=torch.float64)
    x = (float(schedule.sigma(row.times[0])) * noise)[None]
    states = [x[0]]
    start = Snapshot(0, x, None, row.guidance.start(x))
    weak = Cloud(weak_field(recipe), len(noise)) if row.guidance.weak else None
    count = Count()
    for event in sample(plan, cloud, start=start, weak=weak):
        if isinstance(event, Evaluated):
            count = event.count
        elif isinstance(event, Stepped):
            states.append(event.x[0])
        spent += time.perf_counter() - since
        if isinstance(event, Evaluated):
            yield event
        elif isinstance(event, Stepped):
            yield Moving(len(states) - 1, recipe.steps, count, states[-1], row.times[event.step + 1])
        since = time.perf_counter()
    assert isinstance(event, Finished)
    frames = frames or max(16, min(recipe.frames, FRAME_NUMBERS // (len(noise) * recipe.dimension)))
    times = frame_times(schedule, row.times[0], row.times[-1], frames)
    path = torch.stack(states)
    variable = drawn_in(row.make_solver(schedule), schedule, solver_times)
    film = between(variable, solver_times, path, times)
    labels = recipe.data().classified(film[-1])
    yield Flow(
        recipe=recipe,
        times=times,
        frames=film,
        solver_times=solver_times,
        states=path[:, :SHOWN].clone(),
        labels=labels,
        zoom=zoom(schedule, times),
        count=event.count,
        seconds=spent + time.perf_counter() - since,
        field=field,
    )


def flow(
    recipe: PlaneFlow, field: Field | None = None, frames: int | None = None, noise: Tensor | None = None
) -> Flow:
    """Run a recipe to its end.

    Args:
        field: who answers; by default the recipe's, exact or learned (and then trained first).
        frames, noise: as `run`.

    Raises:
        RecipeError: for a recipe that is impossible, in one sentence.
    """
    if field is None and recipe.field == "learned":
        *_, training = train(recipe)
        field = training.field
        return replace(flow(recipe, field, frames, noise), history=training.history, trained=training.seconds)
    *_, event = run(recipe, field, frames, noise)
    assert isinstance(event, Flow)
    return event
