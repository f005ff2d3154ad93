"""Paths that are not the sampler's: towards one data point, from data to noise, a warped grid, the exact flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from playground.errors import RecipeError
from playground.fields import Field, rows
from playground.guidance import APG, Guidance, ZeroStar
from playground.plane.arrows import asked, step_at
from playground.plane.flow import SIGHT, between, exact_field, flow, source_noise, weak_field, zoom
from playground.plane.mixtures import Mixture
from playground.plane.packing import pack
from playground.plane.recipe import PlaneFlow
from playground.plane.reference import Slope, integrate
from playground.schedules import as_time
from playground.solvers import SOLVERS, InTime


@dataclass(frozen=True)
class Film:
    """Points that move: values [F, ..., D] at times [F]; zoom as `Flow.zoom`; `name` of the array in `to_bytes`."""

    name: str
    values: Tensor
    times: Tensor
    zoom: Tensor
    point: tuple[float, ...] | None = None

    def to_bytes(self) -> bytes:
        """For the page: the values divided by the zoom of their time; times, zoom and the point in the header."""
        array = (self.values / rows(self.zoom, self.values)).clamp(-SIGHT, SIGHT).numpy()
        header = {} if self.point is None else {"point": list(self.point)}
        return pack({self.name: array}, times=self.times.tolist(), zoom=self.zoom.tolist(), **header)


def _film(recipe: PlaneFlow, name: str, values: Tensor, times: Tensor, point: Tensor | None = None) -> Film:
    at = None if point is None else tuple(float(v) for v in point)
    return Film(name, values.float(), times, zoom(recipe.schedule(), times), at)


def conditional_paths(recipe: PlaneFlow, point: Sequence[float], times: Tensor, count: int = 60) -> Film:
    """x_t = alpha x_0 + sigma eps for one data point x_0 and `count` draws of noise: [F, count, D].

    The conditional flow; the marginal one is its average over the data points that x_t may have come from.
    """
    path, at = recipe.schedule(), as_time(times)
    noise = source_noise(recipe, count).double()
    x0 = torch.as_tensor(point, dtype=torch.float64)
    a, s = path.alpha(at)[:, None, None], path.sigma(at)[:, None, None]
    return _film(recipe, "conditional", a * x0 + s * noise, at, x0)


def data_of(recipe: PlaneFlow) -> Mixture:
    """The distribution that a recipe's flow ends in: its class's part, or all of the target."""
    return recipe.data() if recipe.label < 0 else recipe.data().restricted(recipe.label)


def noising_paths(recipe: PlaneFlow, times: Tensor, count: int = 200) -> Film:
    """The same for data points drawn from the target, or its class, each with its own noise: [F, count, D]."""
    path, at = recipe.schedule(), as_time(times)
    x0 = data_of(recipe).sample(count, torch.Generator().manual_seed(recipe.seed))
    noise = source_noise(recipe, count).double()
    a, s = path.alpha(at)[:, None, None], path.sigma(at)[:, None, None]
    return _film(recipe, "noising", a * x0 + s * noise, at)


def warped_grid(recipe: PlaneFlow, field: Field | None = None, size: int = 21, reach: float = 2.4) -> Film:
    """A regular grid in noise space, [-reach, reach] standard deviations, and where the recipe's solver takes it.

    [F, size, size, D]; on the line [F, size, 1]. A uniform source ends at sqrt 3.
    """
    if recipe.source == "uniform":
        reach = min(reach, 3**0.5)
    axis = torch.linspace(-reach, reach, size)
    if recipe.dimension == 1:
        noise = axis[:, None]
    else:
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        noise = torch.stack([x, y], -1).reshape(-1, 2)
    result = flow(recipe, field, noise=noise)
    shape = [size] * recipe.dimension
    return _film(recipe, "grid", result.frames.unflatten(1, shape), result.times)


def no_exact_path(recipe: PlaneFlow) -> str:
    """Why particles follow no curve that could be called exact, in one sentence; "" if they do."""
    (row,) = recipe.plan(recipe.schedule()).rows
    rule, solver = row.guidance, SOLVERS[recipe.solver]
    if solver.stochastic and recipe.eta > 0:
        return "A solver that draws noise has no single exact curve."
    if rule.renoises and rule.w != 1:
        return "This rule changes what a solver does in a step: it has no field, and so no exact curve."
    if isinstance(rule, APG) and rule.momentum != 0 and rule.w != 1:
        return "With momentum guidance depends on the steps taken so far: there is no exact curve."
    return ""


@torch.no_grad()
def exact_paths(
    recipe: PlaneFlow, times: Tensor, count: int = 8, field: Field | None = None, tolerance: float = 1e-6
) -> Film:
    """Where the flow itself takes the first `count` particles, without a solver's error: [F, count, D].

    The flow is that of the field which the recipe's particles follow: guided inside the window, if it is guided.
    Dormand-Prince to a tolerance, from the recipe's first time; below t_min (1e-4 at least) a particle goes
    straight to its expected data point.

    Args:
        field: who answers; by default the exact field.

    Raises:
        RecipeError: where particles follow no field of (x, t) alone (`no_exact_path`).
        NonFiniteError: when the tolerance cannot be held.
    """
    if why := no_exact_path(recipe):
        raise RecipeError(why)
    field = field or exact_field(recipe)
    path = field.schedule
    (row,) = recipe.plan(path).rows
    last = max(path.t_min, 1e-4 if path.t_min == 0 else 0.0)
    at = as_time(times)
    rule = row.guidance
    weak = weak_field(recipe) if rule.weak else None
    # Where the rule begins or ends to act the velocity jumps: no step of the reference may cross that.
    jumps = {rule.low, rule.high, *(row.times[1:] if isinstance(rule, ZeroStar) else ())}
    within = {t for t in (*at.tolist(), *jumps) if last < t < row.times[0]}
    stops = [row.times[0], *sorted(within, reverse=True), last]

    def slope_between(t: float, s: float) -> Slope:
        step, inside = step_at(row.times, (t + s) / 2), rule.inside((t + s) / 2)
        acts = rule if inside else Guidance()
        acts = replace(acts, low=0.0, high=1.0)
        return lambda time, y: asked(field, y, time, recipe.label, acts, weak, step).velocity

    x = float(path.sigma(stops[0])) * source_noise(recipe, count).double()
    states = [x]
    for t, s in pairwise(stops):
        x, _ = integrate(slope_between(t, s), x, t, s, tolerance)
        states.append(x)
    states.append(asked(field, x, last, recipe.label, rule, weak, recipe.steps - 1).x0)
    stop_times = torch.tensor([*stops, 0.0], dtype=torch.float64)
    return _film(recipe, "exact", between(InTime(path), stop_times, torch.stack(states), at), at)
