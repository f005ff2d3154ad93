"""How far solvers and samples are from the truth: distances between clouds, and errors against the cost."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from playground.distributions import energy_distance as energy_distance
from playground.errors import RecipeError
from playground.fields import Field
from playground.grids import ALIGNED, make_grid
from playground.guidance import Guidance
from playground.plan import Plan, Row
from playground.plane.flow import Cloud, exact_field, source_noise
from playground.plane.recipe import PlaneFlow
from playground.plane.reference import transporting
from playground.sampling import Finished, Snapshot, sample
from playground.schedules import Schedule
from playground.solvers import SOLVERS


def sliced_wasserstein(x: Tensor, y: Tensor, projections: int = 64, seed: int = 0) -> float:
    """The 2-Wasserstein distance of two clouds [N, D] and [M, D], root mean square over random directions.

    (Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters".) On the line it is the distance itself.
    Clouds of unequal size are compared at the quantiles of the smaller one.
    """
    size = min(len(x), len(y))
    a, b = (_slices(v, size, projections, seed) for v in (x, y))
    return float((a - b).square().mean().sqrt())


def chance_distance(draw: Callable[[int], Tensor], truth: Tensor, share: float = 0.95, clouds: int = 40) -> float:
    """What `sliced_wasserstein` to `truth` stays below, in this share of cases, for draws of the same law.

    Args:
        draw: (number of the cloud) -> a cloud [N, D] of the law, N at most the size of `truth`.
    """
    seen = [draw(k) for k in range(clouds)]
    known = _slices(truth, len(seen[0]))
    distances = [float((_slices(x, len(x)) - known).square().mean().sqrt()) for x in seen]
    return float(torch.tensor(distances, dtype=torch.float64).quantile(share))


def _slices(x: Tensor, size: int, projections: int = 64, seed: int = 0) -> Tensor:
    """A cloud [N, D] projected on random directions, and its `size` quantiles there: [P, size]."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(projections if x.shape[1] > 1 else 1, x.shape[1], generator=generator).double()
    directions /= directions.norm(dim=1, keepdim=True)
    values = (directions @ x.double().T).sort().values
    return values if len(x) == size else _quantiles(values, size)


def _quantiles(values: Tensor, size: int) -> Tensor:
    """Values [P, N], sorted, at the middles of `size` equal shares of them: [P, size]."""
    at = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    last = values.shape[1] - 1
    place = (at * (last + 1) - 0.5).clamp(0, last)
    low = place.floor().long().clamp(max=max(last - 1, 0))
    return torch.lerp(values[:, low], values[:, (low + 1).clamp(max=last)], place - low)


@dataclass(frozen=True)
class ErrorRow:
    """One point of the charts error against NFE.

    Attributes:
        solver: its name; steps: of the grid; evaluations: of the field, counted.
        error: median distance of the particles from where the exact flow takes them; NaN for solvers that draw
            noise, which end elsewhere. (The few particles between two modes, which fall to the other one, would
            rule the mean.)
        marginal: sliced Wasserstein distance of the particles from exact draws of the end's marginal.
        floor: what 95% of clouds of as many exact draws stay below.
        eta: how much noise a stochastic solver drew.
        budget: what it was given.
        radius: root mean square of the exact solutions' norms, in units of which an error can be told.
    """

    solver: str
    steps: int
    evaluations: int
    error: float
    marginal: float
    floor: float
    eta: float = 1.0
    budget: int = 0
    radius: float = 1.0


CHART_RATIOS = (20.0, 0.05)
"""sigma/alpha where the comparison starts and ends: below the infinite one of pure noise, and above 0, since the
jump to clean data leaves an error that no number of steps removes."""


def chart_times(schedule: Schedule, steps: int, grid: str = "log_snr") -> tuple[float, ...]:
    """A grid's steps between CHART_RATIOS (as far as the path goes); by default of equal length in log sigma/alpha.

    A grid that ends elsewhere is stretched in t: all solvers have to arrive at one level to be compared there.

    Raises:
        RecipeError: for a grid that belongs to a checkpoint's table.
    """
    if grid in ALIGNED:
        raise RecipeError("Align Your Steps was made for Stable Diffusion's noise levels: the plane has others.")
    high = min(CHART_RATIOS[0], float(schedule.noise_ratio(schedule.t_max)))
    low = max(CHART_RATIOS[1], float(schedule.noise_ratio(schedule.t_min)))
    first, last = schedule.t_at_ratio(torch.tensor([high, low], dtype=torch.float64)).tolist()
    inner = copy.copy(schedule)
    inner.t_min, inner.t_max = last, first
    times = make_grid(grid, inner, steps + 1)[:-1]  # without the jump to clean data
    times = last + (times - times[-1]) * (first - last) / (times[0] - times[-1])
    times[0], times[-1] = first, last
    return tuple(times.tolist())


def errors_against_nfe(*args: Any, **options: Any) -> Iterator[ErrorRow]:
    """The rows of `measured_errors`, which has the same arguments, without the Nones in between."""
    return (row for row in measured_errors(*args, **options) if row is not None)


def affordable(solver: str, budget: int, equal: Literal["nfe", "steps"]) -> int:
    """The steps that a solver takes within a budget (see `measured_errors`); 0 where it is less than it needs."""
    steps = budget if equal == "steps" else budget // SOLVERS[solver].evaluations
    return steps if steps >= SOLVERS[solver].minimum_steps else 0


def measured_errors(
    recipe: PlaneFlow,
    solvers: Sequence[str],
    budgets: Sequence[int] = (8, 16, 32, 64, 128),
    particles: int = 1000,
    field: Field | None = None,
    grid: str = "log_snr",
    equal: Literal["nfe", "steps"] = "nfe",
    etas: Sequence[float] = (),
) -> Iterator[ErrorRow | None]:
    """Errors of solvers at several costs, in float64: rows as they are ready, cheap ones first. None in between
    says that it can be stopped there; the exact solution, which comes first, takes hundreds of evaluations.

    All start from the same exact draws of the marginal at the noisy end and are compared at the other end with the
    exact flow (Dormand-Prince, tolerance 1e-10) and with exact draws. The target, path, class, seed and eta are the
    recipe's; guidance is off, because no marginal is known under it.

    Args:
        solvers: names from `SOLVERS`.
        budgets: evaluations, of which a solver takes as many whole steps as they pay for; or, with `equal`, steps.
            Where they do not pay for as many as it needs at least, it has no row.
        particles: per run.
        field: the recipe's exact field by default.
        grid: where the steps are placed (`chart_times`).
        etas: amounts of noise that stochastic solvers draw; the recipe's own by default.

    Raises:
        RecipeError: for a recipe that cannot be run, with one of the solvers as with its own.
    """
    for name in solvers:
        # Its own grid may start at pure noise, where some cannot; these runs start below.
        recipe.but(solver=name, variable="auto", grid="log_snr").check()
    field = field or exact_field(recipe)
    schedule, mixture = field.schedule, exact_field(recipe).of_class(recipe.label)
    start, *_, end = chart_times(schedule, 2, grid)

    def marginal(t: float, seed: int, count: int = particles) -> Tensor:
        x0 = mixture.sample(count, torch.Generator().manual_seed(seed))
        noise = source_noise(recipe.model_copy(update={"seed": seed + 2**31}), count).double()
        return schedule.alpha(t) * x0 + schedule.sigma(t) * noise

    x = marginal(start, recipe.seed)
    exact, _ = yield from transporting(field, x, start, end, 1e-10, recipe.label)
    radius = float(exact.square().sum(-1).mean().sqrt())
    truth = marginal(end, recipe.seed + 1, 20 * particles)
    floor = chance_distance(lambda k: marginal(end, recipe.seed + 2 + k), truth)
    cloud = Cloud(field, particles)
    label = None if recipe.label < 0 else recipe.label
    for budget in sorted(budgets):
        for name, eta in itertools.product(solvers, etas or (recipe.eta,)):
            steps = affordable(name, budget, equal)
            if not steps:
                continue
            times = chart_times(schedule, steps, grid)
            row = Row(recipe.seed, times, name, Guidance(), label, None, None, eta)
            begin = Snapshot(0, x[None], None, {})
            for result in sample(Plan((row,)), cloud, dtype=torch.float64, start=begin):  # noqa: B007
                yield None
            assert isinstance(result, Finished)
            draws = SOLVERS[name].stochastic and eta > 0
            gap = (result.x[0] - exact).norm(dim=-1).median()
            yield ErrorRow(
                solver=name,
                steps=steps,
                evaluations=result.count.evaluations,
                error=math.nan if draws else float(gap),
                marginal=sliced_wasserstein(result.x[0], truth),
                floor=floor,
                eta=eta,
                budget=budget,
                radius=radius,
            )


@dataclass(frozen=True)
class PathCurves:
    """alpha, sigma, the log-SNR and the steps of a recipe over t, as lists for charts.

    Attributes:
        t: fine times; alpha, sigma, log_snr: at them (log_snr cut to [-20, 20]).
        grid: the recipe's own times; step: the length of each of its steps, at the time it starts.
    """

    t: list[float]
    alpha: list[float]
    sigma: list[float]
    log_snr: list[float]
    grid: list[float]
    step: list[float]


def path_curves(recipe: PlaneFlow, points: int = 200) -> PathCurves:
    """What the path and the time grid of a recipe look like."""
    path = recipe.schedule()
    t = torch.linspace(0, path.t_max, points, dtype=torch.float64)
    (row,) = recipe.plan(path).rows
    grid = torch.tensor(row.times, dtype=torch.float64)
    return PathCurves(
        t=t.tolist(),
        alpha=path.alpha(t).tolist(),
        sigma=path.sigma(t).tolist(),
        log_snr=path.log_snr(t).clamp(-20, 20).tolist(),
        grid=grid.tolist(),
        step=(-grid.diff()).tolist(),
    )
