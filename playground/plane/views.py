"""What can be looked at around a flow, by name, made when somebody looks at it.

The density, the field and the paths of a flow cost more than the flow itself; most of them are never asked for.
What depends on the world alone (target, path, source) is kept from one flow to the next.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b

import torch

from playground.fields import Field
from playground.guidance import RULES
from playground.plane.arrows import arrows, error_map
from playground.plane.density import density, marginal, tilted_density
from playground.plane.flow import Flow, exact_field, flow, frame_times, weak_field
from playground.plane.packing import pack
from playground.plane.paths import (
    conditional_paths,
    data_of,
    exact_paths,
    no_exact_path,
    noising_paths,
    warped_grid,
)
from playground.plane.recipe import PARTICLES, PlaneFlow
from playground.plane.targets import encode_mixture
from playground.recipes import rule_fields
from playground.solvers import SOLVERS

WORLD = ("target", "word", "points", "mixture", "bandwidth", "dimension", "source", "path", "label")
"""The fields of a recipe that decide the density over time."""
OWN = tuple(f for rule in RULES for f in rule_fields(rule).values() if f in PlaneFlow.model_fields)
GUIDANCE = ("rule", "w", "low", "high", "blur", *OWN)

TILTING = ("cfg", "apg", "zero_star")
"""Rules that are said to sample p(x) p(c|x)^w."""

LIVE_PARTICLES, LIVE_FRAMES = 1000, 32
"""At most, while a hand shapes a mixture."""
LIVE_WORK = 4e6
"""Kernel values (particles times components times evaluations) of such a flow: some 30 ms."""

DENSITY_TIMES, ARROW_TIMES, ERROR_TIMES, CURVES, CURVE_TIMES, PATHS = 33, 17, 9, 16, 25, 60
CONDITIONAL = re.compile(r"conditional(?:_(-?\d{1,3}\.\d{1,4})_(-?\d{1,3}\.\d{1,4}))?")


def reduced(recipe: PlaneFlow, *names: str) -> PlaneFlow:
    """The recipe with everything but these fields at its default: equal ones share what is made from them."""
    return PlaneFlow(**{name: getattr(recipe, name) for name in names})


def keys(recipe: PlaneFlow) -> dict[str, str]:
    """For each view, a text that changes when it does; views that are not named change with every flow."""

    def key(*names: str) -> str:
        values = [getattr(recipe, name) for name in names]
        return blake2b(repr(values).encode(), digest_size=12).hexdigest()

    world = key(*WORLD)
    told = dict.fromkeys(("density", "line-0", "line-1"), world)
    told["tilted"] = key(*WORLD, *GUIDANCE)
    if recipe.field == "exact":
        told["arrows"] = key(*_followed(recipe))
    return told


def _followed(recipe: PlaneFlow) -> tuple[str, ...]:
    """The fields of a recipe that decide which velocities its particles follow, where the field is exact."""
    stepwise = ("grid", "steps") if recipe.rule == "zero_star" else ()
    allowed = ("solver",) if RULES[recipe.rule].renoises else ()  # not with every solver
    return (*WORLD, *GUIDANCE, *stepwise, *allowed)


def reasons(recipe: PlaneFlow) -> dict[str, str]:
    """Views that a recipe does not have, and why, in one sentence each."""
    told = {}
    if recipe.label < 0:
        told["tilted"] = "Choose a class: the tilted density is p(x) p(c|x)^w."
    elif recipe.source != "gaussian":
        told["tilted"] = "The tilted density is shown for a Gaussian source."
    elif recipe.w < 0:
        told["tilted"] = "For w below 0 the tilted density p(x) p(c|x)^w need not have an integral."
    elif recipe.rule not in TILTING:
        told["tilted"] = "This rule does not raise p(c|x) to the power w: there is no tilted density to compare."
    if why := no_exact_path(recipe):
        told["exact"] = why
    if recipe.field == "exact":
        told["errors"] = "The exact field has no error: train a field."
    return told


def remarks(recipe: PlaneFlow) -> dict[str, str]:
    """What has to be known about a view of this recipe to read it rightly, in one sentence each."""
    told = {}
    (row,) = recipe.plan(recipe.schedule()).rows
    if row.guidance.w != 1 and row.guidance.renoises:
        told["arrows"] = "Particles do not follow these arrows exactly: their solver puts the noise of u back."
    elif row.guidance.w != 1 and getattr(row.guidance, "momentum", 0.0) != 0:
        told["arrows"] = "The arrows leave the momentum out, which depends on the steps taken so far."
    elif SOLVERS[recipe.solver].stochastic and recipe.eta > 0:
        told["arrows"] = "Particles of this solver follow the arrows only on average: it adds noise to them."
    if recipe.source == "uniform":
        nowhere = "Where no particle comes (less than 1e-13 of the highest density) nothing is drawn."
        told["arrows"] = f"{told['arrows']} {nowhere}" if "arrows" in told else nowhere
        told["errors"] = nowhere
    return told


def _some_data(world: PlaneFlow) -> tuple[float, ...]:
    """The data point that conditional paths lead to before one has been chosen: a component's mean."""
    mixture = data_of(world)
    return tuple(mixture.means[int(mixture.means[:, 0].argmax())].tolist())


class FlowViews:
    """Binary files of one flow: `binary(name)` with one of the names below, each `.bin`.

    flow                particles and solver states
    density, line-A     closed-form p_t over time, in the plane and of coordinate A alone
    arrows              the velocity on a grid over time, guided as the run was
    tilted              p_t(x) p_t(c|x)^w over time
    exact               the converged solution, guided as the run was, from the first particles' starting points
    conditional, conditional_X_Y    paths to one data point; noising: from data to noise; grid: a warped one
    errors              |learned - exact| of the velocity over time
    live:COMPONENTS     the flow of another mixture, for a hand that shapes one: rows as in JSON

    Args:
        flow: the run.
        on_device: runs a function where fields are asked (`Backend.compute` does).
    """

    def __init__(self, flow: Flow, on_device: Callable[[Callable[[], bytes]], bytes]):
        self.flow, self._on_device = flow, on_device
        self.field = flow.field if flow.recipe.field == "learned" else None
        self._kept: dict[str, bytes] = {}

    @property
    def nbytes(self) -> int:
        """Memory held, made files included."""
        return self.flow.nbytes + sum(map(len, self._kept.values()))

    def binary(self, name: str) -> bytes:
        """The file.

        Raises:
            KeyError: when a flow has no such view.
        """
        bare = name.removesuffix(".bin")
        if bare.startswith("live:"):
            return self._live(bare.removeprefix("live:"))
        if name not in self._kept:
            self._kept[name] = self._make(bare)
        return self._kept[name]

    def _live(self, text: str) -> bytes:
        """The flow of other components, with fewer particles where that is needed to be quick. Not kept."""
        if self.flow.recipe.target != "mixture" or self.field is not None:
            raise KeyError(text)
        try:
            mixture = encode_mixture([tuple(row) for row in json.loads(text)])
        except (ValueError, TypeError, RecursionError):
            raise KeyError(text) from None
        recipe = self.flow.recipe.but(mixture=mixture)
        recipe.check()
        schedule = recipe.schedule()
        evaluations = recipe.plan(schedule).cost(schedule).sample_forwards
        affordable = int(LIVE_WORK / (max(1, evaluations) * len(recipe.data().weights)))
        particles = max(PARTICLES[0], min(recipe.particles, LIVE_PARTICLES, affordable))
        quick = recipe.but(particles=particles)
        return self._on_device(lambda: flow(quick, frames=LIVE_FRAMES).to_bytes())

    def _make(self, name: str) -> bytes:
        recipe = self.flow.recipe
        if name == "flow":
            return self.flow.to_bytes()
        world = reduced(recipe, *WORLD)
        if name == "density" and recipe.dimension == 2:
            return _density(world)
        if match := re.fullmatch(r"line-([01])", name):
            return _line(world, int(match[1]) % recipe.dimension)
        if name in reasons(recipe):
            raise KeyError(name)
        if name == "arrows":
            if self.field is None:
                return self._on_device(lambda: _exact_arrows(reduced(recipe, *_followed(recipe))))
            field = self.field
            return self._on_device(lambda: _arrows(recipe, field))
        if name == "errors" and self.field is not None:
            field = self.field
            return self._on_device(lambda: _errors(recipe, field))
        if name == "tilted":
            return _tilted(reduced(recipe, *WORLD, "w"))
        if name == "exact":
            return self._on_device(self._exact)
        if name == "noising":
            return noising_paths(world.but(seed=recipe.seed), self.flow.times, PATHS).to_bytes()
        if name == "grid":
            few = recipe.but(particles=100)
            return self._on_device(lambda: warped_grid(few, self.field).to_bytes())
        if match := CONDITIONAL.fullmatch(name):
            x, y = match.groups()
            point = _some_data(world) if x is None else (float(x), float(y))
            return conditional_paths(recipe, point[: recipe.dimension], self.flow.times, PATHS).to_bytes()
        raise KeyError(name)

    def _exact(self) -> bytes:
        recipe = self.flow.recipe
        times = frame_times(recipe.schedule(), float(self.flow.times[0]), float(self.flow.times[-1]), CURVE_TIMES)
        return exact_paths(recipe, times, CURVES, self.field, 1e-4).to_bytes()


def view_times(recipe: PlaneFlow, count: int) -> torch.Tensor:
    """[count] times at which a view over time is made."""
    path = recipe.schedule()
    return frame_times(path, path.t_max, path.t_min, count)


@lru_cache(maxsize=32)
def _density(world: PlaneFlow) -> bytes:
    return density(world, None, view_times(world, DENSITY_TIMES), label=world.label).to_bytes()


@lru_cache(maxsize=64)
def _line(world: PlaneFlow, axis: int) -> bytes:
    return marginal(world, None, view_times(world, 2 * DENSITY_TIMES), axis, label=world.label).to_bytes()


@lru_cache(maxsize=32)
def _tilted(world: PlaneFlow) -> bytes:
    # Every cell costs a kernel value per component: fewer of them where there are many.
    few = len(world.data().weights) > 200
    times = view_times(world, ARROW_TIMES if few else DENSITY_TIMES)
    return tilted_density(world, world.label, world.w, size=48 if few else 96, times=times).to_bytes()


@lru_cache(maxsize=32)
def _exact_arrows(recipe: PlaneFlow) -> bytes:
    return _arrows(recipe, exact_field(recipe))


def _errors(recipe: PlaneFlow, field: Field) -> bytes:
    """The error map over time, all frames in one unit: the byte 255 is the largest error of all."""
    times, exact = view_times(recipe, ERROR_TIMES), exact_field(recipe)
    # The very end is left out: there the velocity of some paths grows without bound.
    times = times.clamp(min=0.02 * float(times[0]))
    maps = torch.cat([error_map(field, exact, float(t), size=48, label=recipe.label).values for t in times])
    top = float(maps.max())
    array = (255 * maps / max(top, 1e-12)).round().to(torch.uint8).numpy()
    return pack({"errors": array}, times=times.tolist(), maximum=top)


def _arrows(recipe: PlaneFlow, field: Field) -> bytes:
    times, (row,) = view_times(recipe, ARROW_TIMES), recipe.plan(recipe.schedule()).rows
    weak = weak_field(recipe) if row.guidance.weak else None
    exact = exact_field(recipe) if recipe.source == "uniform" else None
    label, rule, grid = recipe.label, row.guidance, row.times
    return arrows(field, times, label=label, rule=rule, weak=weak, grid=grid, within=exact).to_bytes()
