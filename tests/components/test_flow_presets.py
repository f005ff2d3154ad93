"""Every preset of the tab 2D flow shows what it says it shows."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from components.tabs.flow import PRESETS
from playground.plane import Flow, PlaneFlow, exact_paths, flow, tilted_density
from playground.plane.density import BOX, grid_points
from playground.plane.metrics import sliced_wasserstein
from playground.plane.quality import distance
from playground.plane.targets import LINES


@cache
def preset(group: str, name: str, **more: Any) -> Flow:
    changes, _ = PRESETS[group][1][name]
    return flow(PlaneFlow(**{"dimension": 1 if changes.get("target") in LINES else 2, **changes, **more}))


def test_more_steps_and_a_higher_order_lower_the_truncation_error() -> None:
    def error(name: str) -> float:
        """How far particles end from where the exact flow takes them."""
        result = preset("Truncation error", name, particles=200)
        exact = exact_paths(result.recipe, result.times[-1:], 200)
        return float((exact.values[-1] - result.x).abs().mean())

    few, many, heun = (error(n) for n in ("Euler, 4 steps", "Euler, 32 steps", "Heun, 4 steps"))
    assert many < 0.3 * few and heun < 0.5 * few


def test_heun_beats_euler_at_equal_cost() -> None:
    """Eight evaluations: the preset's four steps of Heun, and eight of Euler."""
    heun = preset("Truncation error", "Heun, 4 steps", particles=200)
    euler = preset("Truncation error", "Euler, 4 steps", particles=200, steps=8)
    # Neither asks at t = 0 more often than its formula says.
    assert heun.count.evaluations <= euler.count.evaluations == 8
    exact = exact_paths(heun.recipe, heun.times[-1:], 200).values[-1]
    assert float((heun.x - exact).abs().mean()) < float((euler.x - exact).abs().mean())


def test_the_smarter_grid_ends_nearer_to_the_data() -> None:
    uniform, karras = (distance(preset("A smarter time grid", n))[0] for n in ("uniform", "Karras"))
    assert karras < 0.5 * uniform


@pytest.mark.slow
def test_noise_repairs_a_wrong_field() -> None:
    still, noisy = (
        distance(preset("Noise while sampling", n))[0] for n in ("wrong field", "wrong field and noise")
    )
    assert noisy < 0.9 * still


def test_noise_hurts_a_right_field() -> None:
    still, noisy = (
        distance(preset("Noise while sampling", n))[0] for n in ("right field", "right field and noise")
    )
    assert noisy > 1.2 * still


def test_guidance_goes_from_no_class_to_one_and_beyond() -> None:
    group = "Guidance on three Gaussians"
    mean = PlaneFlow(target="three").data().means[0]
    along = [float(preset(group, f"w = {w}").x.double().mean(0) @ mean / mean.norm()) for w in (0, 1, 4)]
    assert along[0] == pytest.approx(0, abs=0.1) and along[1] == pytest.approx(1, abs=0.1)
    assert along[2] > 1.3
    spread = [float(preset(group, f"w = {w}").x.std(0).norm()) for w in (0, 1, 4)]
    assert spread[0] > spread[1] > spread[2]


def test_guided_samples_are_not_those_of_the_tilted_density() -> None:
    """Their means are farther apart than chance would have it."""
    result = preset("Guidance on three Gaussians", "guided is not tilted")
    recipe = result.recipe
    tilted = tilted_density(recipe, recipe.label, recipe.w, box=2 * BOX, size=128)
    cells = tilted.values[0].double().flatten() * (4 * BOX / 128) ** 2
    points = grid_points(2 * BOX, 128)
    assert float(cells.sum()) == pytest.approx(1, abs=1e-3)
    draws = points[torch.multinomial(cells, 20_000, replacement=True, generator=torch.Generator().manual_seed(0))]
    chance = sliced_wasserstein(draws[:2000], draws[2000:])
    assert sliced_wasserstein(result.x, draws) > 3 * chance
    error = float(draws.std(0).norm()) / recipe.particles**0.5
    assert float((result.x.double().mean(0) - cells @ points).norm()) > 5 * error


def test_autoguidance_moves_samples_to_where_data_are_dense() -> None:
    off, on = (preset("Autoguidance", n) for n in ("off", "w = 2"))
    data = off.recipe.data()
    assert float(data.log_density(on.x).mean()) > float(data.log_density(off.x).mean()) + 0.1


def test_conditional_paths_are_straight_and_marginal_ones_bend() -> None:
    result = preset("Conditional and marginal", "both paths", particles=300)
    ends = result.frames[[0, -1]]
    chord = torch.lerp(ends[0], ends[1], 0.5)
    middle = exact_paths(result.recipe, torch.tensor([0.5]), 300).values[0]
    assert float((middle - chord).norm(dim=-1).mean()) > 0.1
