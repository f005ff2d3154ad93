"""Small things whose answers are known by hand, for the tests of the engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from playground.fields import Condition, Field, Kind, Prediction
from playground.plane.mixtures import Mixture
from playground.schedules import EDM, VP, Cosine, Discrete, Linear, Schedule
from playground.solvers import SOLVERS, Solver

OURS: dict[str, type[Solver]] = {name: kind for name, kind in SOLVERS.items() if not kind.needs_table}
"""The solvers that run on every path; diffusers' schedulers have tests of their own."""


def scaled_linear_betas() -> Tensor:
    """The betas of Stable Diffusion 1.x and 2.x."""
    return torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2


def every_schedule() -> list[Schedule]:
    return [Linear(), Cosine(), VP(), EDM(), Discrete.from_betas(scaled_linear_betas())]


def gaussian(variance: float = 1.0, dim: int = 1) -> Mixture:
    """N(0, variance I)."""
    return Mixture(torch.zeros(1, dim), variance * torch.eye(dim)[None])


def lopsided() -> Mixture:
    """Two unequal components on the line, so that no error cancels by symmetry."""
    return Mixture(
        torch.tensor([[-1.0], [1.5]]), torch.tensor([[[0.3]], [[0.1]]]), torch.tensor([0.3, 0.7]), [0, 1]
    )


def spread() -> Mixture:
    """Three correlated components in the plane, in two classes."""
    roots = torch.tensor([[[0.6, 0.0], [0.3, 0.4]], [[0.3, 0.0], [-0.2, 0.5]], [[0.8, 0.0], [0.1, 0.2]]])
    means = torch.tensor([[-1.0, 0.5], [1.2, -0.4], [0.3, 1.6]])
    return Mixture(means, roots @ roots.mT, torch.tensor([0.5, 0.2, 0.3]), [0, 1, 1])


def cdf(mixture: Mixture, x: Tensor, alpha: float, sigma: float) -> Tensor:
    """P(alpha x_0 + sigma eps <= x) for a mixture on the line; x [B]."""
    variance = alpha**2 * mixture.variances[:, 0] + sigma**2
    z = (x[:, None] - alpha * mixture.means[:, 0]) / variance.sqrt()
    return (mixture.weights * torch.special.ndtr(z)).sum(-1)


def transported(mixture: Mixture, schedule: Schedule, x: Tensor, t: float, s: float) -> Tensor:
    """Where the flow takes x [B] from t to s: on the line it keeps quantiles, F_s(x_s) = F_t(x_t)."""
    target = cdf(mixture, x, float(schedule.alpha(t)), float(schedule.sigma(t)))
    low, high = torch.full_like(x, -1e3), torch.full_like(x, 1e3)
    for _ in range(80):
        middle = (low + high) / 2
        below = cdf(mixture, middle, float(schedule.alpha(s)), float(schedule.sigma(s))) < target
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def silent(step: int, draw: int) -> Tensor:
    raise AssertionError("a deterministic solver drew noise")


def draws(shape: tuple[int, ...], seed: int = 0) -> Callable[[int, int], Tensor]:
    """A noise function in float64: the same step and draw are always the same numbers."""

    def noise(step: int, draw: int) -> Tensor:
        generator = torch.Generator().manual_seed(10_000 * seed + 10 * step + draw)
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    return noise


def integrate(
    solver: Solver,
    ask: Callable[[Tensor, Tensor], Prediction],
    x: Tensor,
    times: Sequence[float] | Tensor,
    noise: Callable[[int, int], Tensor] = silent,
) -> Tensor:
    """A solver on its own, without the driver: x [B, ...] from times[0] to times[-1].

    `noise(step, draw)` is what the solver draws, shaped like x; by default it must not draw any.
    """
    state = None
    grid = [float(t) for t in times]
    for step, (t, s) in enumerate(pairwise(grid)):
        full = torch.full((len(x),), 1.0, dtype=torch.float64)
        running = solver.step(x, t * full, s * full, state, partial(noise, step))
        query = next(running)
        while True:
            try:
                query = running.send(ask(query.x, query.t))
            except StopIteration as stop:
                x, state = stop.value
                break
    return x


def fitted_order(steps: Sequence[int], errors: Sequence[float]) -> float:
    """The slope of log error over log step size."""
    n = torch.tensor([math.log(1 / s) for s in steps], dtype=torch.float64)
    e = torch.tensor([math.log(v) for v in errors], dtype=torch.float64)
    return float(((n - n.mean()) * (e - e.mean())).sum() / ((n - n.mean()) ** 2).sum())


class Toy(Field):
    """A smooth made-up field that notes every call. Its condition is a number added to its answer; None is 0."""

    shape = (3,)

    def __init__(self, schedule: Schedule | None = None, kind: Kind = "v"):
        super().__init__()
        self.schedule, self.kind = schedule or VP(), kind
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []

    @property
    def identity(self) -> str:
        return "toy"

    def encode(self, conditions: Sequence[object]) -> Condition:
        return {"shift": torch.tensor([0.0 if c is None else float(c) for c in conditions])}  # type: ignore[arg-type]

    def evaluate(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        shift = condition["shift"]
        self.calls.append((x.clone(), t.clone(), shift.clone()))
        return x / (1 + x.square()) + t.to(x)[:, None] / 2 + shift.to(x)[:, None]
