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
from playground.guidance import RULES, Guidance
from playground.plane.arrows import arrows, error_map
from playground.plane.density import density, marginal, tilted_density
from playground.plane.flow import Flow, exact_field, flow, frame_times, weak_field
from playground.plane.packing import pack
from playground.plane.paths import conditional_paths, exact_paths, noising_paths, warped_grid
from playground.plane.recipe import PARTICLES, PlaneFlow
from playground.plane.targets import encode_mixture
from playground.recipes import rule_fields
from playground.solvers import SOLVERS

WORLD = ("target", "word", "points", "mixture", "bandwidth", "dimension", "source", "path", "label")
"""The fields of a recipe that decide the density over time."""
OWN = tuple(f for rule in RULES for f in rule_fields(rule).values() if f in PlaneFlow.model_fields)
GUIDANCE = ("rule", "w", "low", "high", "blur", *OWN)

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
        told["arrows"] = key(*WORLD, *GUIDANCE)
    return told


def reasons(recipe: PlaneFlow) -> dict[str, str]:
    """Views that a recipe does not have, and why, in one sentence each."""
    told = {}
    if recipe.label < 0:
        told["tilted"] = "Choose a class: the tilted density is p(x) p(c|x)^w."
    elif recipe.source != "gaussian":
        told["tilted"] = "The tilted density is shown for a Gaussian source."
    if recipe.field == "exact":
        told["errors"] = "The exact field has no error: train a field."
    return told


def rule_of(recipe: PlaneFlow) -> Guidance | None:
    """The guidance of the recipe's run; None where there is neither a class nor a weak field."""
    if recipe.label < 0 and not RULES[recipe.rule].weak:
        return None
    return recipe.plan(recipe.schedule()).rows[0].guidance


def _some_data(world: PlaneFlow) -> tuple[float, ...]:
    """The data point that conditional paths lead to before one has been chosen: a component's mean."""
    mixture = world.data()
    return tuple(mixture.means[int(mixture.means[:, 0].argmax())].tolist())


class FlowViews:
    """Binary files of one flow: `binary(name)` with one of the names below, each `.bin`.

    flow                particles and solver states
    density, line-A     closed-form p_t over time, in the plane and of coordinate A alone
    arrows              the velocity on a grid over time, guided as the run was
    tilted              p(x) p(c|x)^w
    exact               the converged solution from the first particles' starting points
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
        affordable = int(LIVE_WORK / (evaluations * len(recipe.data().weights)))
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
                return self._on_device(lambda: _exact_arrows(reduced(recipe, *WORLD, *GUIDANCE)))
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
        guided = recipe.label >= 0 and recipe.w != 1
        if guided or (SOLVERS[recipe.solver].stochastic and recipe.eta > 0):
            return pack({}, times=[])  # no single curve is the right one
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
    return tilted_density(world, world.label, world.w).to_bytes()


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
    times = view_times(recipe, ARROW_TIMES)
    weak = weak_field(recipe) if RULES[recipe.rule].weak else None
    return arrows(field, times, label=recipe.label, rule=rule_of(recipe), weak=weak).to_bytes()
