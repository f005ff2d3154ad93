"""The field itself: velocities on a grid, and how far a learned field is from the exact one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from playground.fields import Field, Prediction, rows
from playground.guidance import Guidance, guided
from playground.plan import Row
from playground.plane.density import BOX, Density, grid_points
from playground.plane.flow import zoom
from playground.plane.mixtures import ExactField
from playground.plane.packing import pack
from playground.sampling import answers_of
from playground.schedules import as_time

NOWHERE = 1e-13
"""Of the highest density in the view: where there is less, no particle of a uniform source comes."""


@dataclass(frozen=True)
class Arrows:
    """Velocities dx/dt at the middles of the cells of a grid.

    Attributes:
        values: [T, G, G, 2] (on the line [T, G, 1]) float32; row 0 is the lowest y. Time runs from data to noise,
            so a particle that is being sampled moves against them.
        times: [T]; zoom: [T] by how much the grid is scaled, as `Flow.zoom`; box: half its width before that.
        there: as values without the last dimension, bool: false where no particle can be, and the velocity is 0;
            None for a field that is defined everywhere.
    """

    values: Tensor
    times: Tensor
    zoom: Tensor
    box: float
    there: Tensor | None = None

    def to_bytes(self) -> bytes:
        """For the page: "arrows", velocities divided by the zoom of their time."""
        array = (self.values / rows(self.zoom, self.values)).numpy()
        known = {} if self.there is None else {"there": self.there.numpy().astype("u1")}
        return pack({"arrows": array, **known}, times=self.times.tolist(), zoom=self.zoom.tolist(), box=self.box)


@torch.no_grad()
def asked(
    field: Field,
    x: Tensor,
    t: float,
    label: int = -1,
    rule: Guidance | None = None,
    weak: Field | None = None,
    step: int = 0,
) -> Prediction:
    """What a field says at points x [B, D] and one time: one guided evaluation, with nothing remembered.

    Args:
        label: the class c, -1 for none.
        rule: how c and u are combined; None for c alone.
        weak: the field in the place of u, for a rule that wants a weaker one.
        step: of the run, for a rule whose first steps stand still.
    """
    t = float(field.schedule.clamp(t))
    row = Row(0, (t, 0.0), "ddim", rule or Guidance(), None if label < 0 else label)
    times = torch.full((len(x),), t, dtype=torch.float64)
    needed = row.guidance.branches(t, step)
    if not needed:  # a rule whose first steps stand still
        return Prediction("velocity", torch.zeros_like(x), x, times, field.schedule)
    answers = {b: answers_of([row] * len(x), b, x, times, field, weak) for b in needed}
    if len(answers) == 1:
        return next(iter(answers.values()))
    return guided([row.guidance] * len(x), answers, row.guidance.start(x))[0]


def step_at(grid: Sequence[float], t: float) -> int:
    """The step of a falling time grid [N + 1] that asks at t, or that t lies in: 0 to N - 1."""
    return min(max(sum(g >= t - 1e-9 for g in grid) - 1, 0), len(grid) - 2)


def reached(exact: ExactField, x: Tensor, t: float, label: int = -1) -> Tensor:
    """Where particles of a uniform source's flow come, of the points x [B, D] of a view: [B] bool.

    Beyond, the closed form goes on as an extrapolation that grows without bound.
    """
    log_density = exact.log_density(x.double(), float(exact.schedule.clamp(t)), label)
    return log_density > log_density.max() + math.log(NOWHERE)


def _points(box: float, size: int, dim: int) -> Tensor:
    points = grid_points(box, size) if dim == 2 else grid_points(box, size)[:size, :1]
    return points.float()


def arrows(
    field: Field,
    times: Sequence[float] | Tensor = (0.5,),
    box: float = BOX,
    size: int = 24,
    label: int = -1,
    rule: Guidance | None = None,
    weak: Field | None = None,
    grid: Sequence[float] = (1.0, 0.0),
    within: ExactField | None = None,
) -> Arrows:
    """The velocity on a grid over time, exact or learned, guided or not: [T, size, size, 2].

    Args:
        label, rule, weak: as in `asked`.
        grid: the run's times, for a rule whose first steps stand still.
        within: the exact field of a uniform source, to leave out what its particles cannot reach.
    """
    at = torch.as_tensor(times, dtype=torch.float64)
    zooms = zoom(field.schedule, at)
    dim = field.shape[0]
    points = _points(box, size, dim)
    frames, there = [], []
    for t, z in zip(at.tolist(), zooms.tolist(), strict=True):
        velocity = asked(field, z * points, t, label, rule, weak, step_at(grid, t)).velocity
        if within is not None:
            there.append(reached(within, z * points, t, label))
            velocity = torch.where(there[-1][:, None], velocity, 0.0)
        frames.append(velocity)
    cells = (len(at), *[size] * dim)
    known = torch.stack(there).reshape(cells) if there else None
    return Arrows(torch.stack(frames).reshape(*cells, dim), at, zooms, box, known)


def error_map(learned: Field, exact: Field, t: float, box: float = BOX, size: int = 64, label: int = -1) -> Density:
    """|learned - exact| in the velocity, on a grid at one time: [1, size, size] (on the line [1, size]).

    With a uniform source 0 where no particle can be.
    """
    z = zoom(exact.schedule, as_time(t).reshape(1))
    dim = exact.shape[0]
    points = float(z[0]) * _points(box, size, dim)
    gap = asked(learned, points, t, label).velocity - asked(exact, points, t, label).velocity
    error = gap.norm(dim=-1)
    if isinstance(exact, ExactField) and exact.source == "uniform":
        error = torch.where(reached(exact, points, float(t), label), error, 0.0)
    return Density(error.reshape(1, *[size] * dim), as_time(t).reshape(1), z, box, "errors")
