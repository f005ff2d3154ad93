"""What other programs call strength, against what they do."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from playground.errors import RecipeError
from playground.grids import make_grid
from playground.images.strengths import (
    CONVENTIONS,
    level_of,
    of_automatic1111,
    of_comfyui,
    of_diffusers,
    same_point,
    settings,
)
from playground.schedules import Discrete

TABLE = Discrete.from_betas(torch.linspace(1e-4, 0.02, 1000))
STRENGTHS = (0.0, 0.02, 0.1, 0.3, 0.5, 0.58, 0.75, 0.99, 1.0)


@pytest.mark.parametrize("steps", [1, 4, 10, 20, 50])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize("scheduler", [DDIMScheduler, EulerDiscreteScheduler])
def test_diffusers_starts_where_we_say(pipelines, steps, spacing, scheduler):
    from diffusers import StableDiffusionImg2ImgPipeline

    pipeline = StableDiffusionImg2ImgPipeline(**pipelines["sd1"].components)
    pipeline.scheduler = scheduler(
        beta_start=1e-4, beta_end=0.02, beta_schedule="linear", timestep_spacing=spacing, steps_offset=1
    )
    for strength in STRENGTHS:
        pipeline.scheduler.set_timesteps(steps)
        theirs, count = pipeline.get_timesteps(steps, strength, "cpu")
        ours = of_diffusers(strength, steps)
        assert ours.runs == count == len(theirs)
        if count:
            assert round(ours.t0(spacing, TABLE) * 1000) - 1 == int(theirs[0])


def test_known_traps_of_diffusers():
    assert of_diffusers(0.58, 50).runs == 28  # 50 * 0.58 is 28.999...
    assert of_diffusers(0.04, 20).runs == 0  # nothing is run
    leading = make_grid("leading", TABLE, 10)
    assert of_diffusers(0.1, 10).t0("leading", TABLE) == pytest.approx(float(leading[9]))
    assert of_diffusers(1.0, 10).t0("leading", TABLE) == pytest.approx(902 / 1000)


@pytest.mark.parametrize(
    ("strength", "steps", "runs"), [(0.0, 20, 1), (0.5, 20, 11), (0.75, 20, 16), (1.0, 20, 20), (0.999, 10, 10)]
)
def test_automatic1111_runs_one_step_more(strength, steps, runs):
    assert of_automatic1111(strength, steps).runs == runs


@pytest.mark.parametrize(
    ("denoise", "steps", "grid"), [(1.0, 20, 20), (0.5, 20, 40), (0.3, 20, 66), (0.87, 20, 22)]
)
def test_comfyui_keeps_the_cost(denoise, steps, grid):
    start = of_comfyui(denoise, steps)
    assert (start.steps, start.runs) == (grid, steps)


def test_strength_zero_runs_nothing_where_it_can():
    assert of_comfyui(0, 20).runs == of_diffusers(0, 20).runs == 0
    assert of_comfyui(0, 20).t0("trailing", TABLE) == 0


@pytest.mark.parametrize("convert", CONVENTIONS.values())
@pytest.mark.parametrize(("strength", "steps"), [(-0.1, 20), (1.1, 20), (float("nan"), 20), (0.5, 0)])
def test_impossible_strengths_are_refused(convert, strength, steps):
    with pytest.raises(RecipeError):
        convert(strength, steps)


@pytest.mark.parametrize("name", CONVENTIONS)
@pytest.mark.parametrize("steps", [1, 7, 20, 50])
def test_the_same_point_in_their_words(name, steps):
    for runs in range(steps + 1):
        strength = same_point(name, runs, steps)
        if strength is None:
            # AUTOMATIC1111 always runs a step, ComfyUI as well; its grids do not have every length.
            assert name != "diffusers"
            continue
        asked = runs if name == "ComfyUI" else steps
        start = CONVENTIONS[name](strength, asked)
        assert (start.runs, start.steps) == (runs, steps)


# The same point in every program


@pytest.mark.parametrize("grid", ["trailing", "leading", "karras"])
@pytest.mark.parametrize("t0", [0.05, 0.3, 0.58, 0.6, 0.99, 1.0])
def test_settings_for_a_level_lead_to_the_nearest_point_that_a_program_has(t0, grid):
    steps, told = 20, {s.program: s for s in settings(t0, 20, grid, TABLE)}
    for setting in told.values():
        assert setting.strength is not None and setting.steps == steps
        assert level_of(setting.program, setting.strength, steps, grid, TABLE) == pytest.approx(
            setting.t0, abs=1e-9
        )
        assert setting.strength == round(setting.strength, 4)
    own = make_grid(grid, TABLE, steps).tolist()
    for name in ("diffusers", "AUTOMATIC1111"):
        assert abs(told[name].t0 - t0) == pytest.approx(min(abs(t - t0) for t in own))
    longer = [float(make_grid(grid, TABLE, n)[n - steps]) for n in range(steps, 900)]
    assert abs(told["ComfyUI"].t0 - t0) == pytest.approx(min(abs(t - t0) for t in longer), abs=1e-9)
    assert told["ComfyUI"].runs == steps


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_strength_as_shown_is_kept_when_it_is_typed(name):
    """From a level to a strength and back once more: the point stays where it is."""
    for t0 in [i / 50 for i in range(1, 51)]:
        first = next(s for s in settings(t0, 20, "trailing", TABLE) if s.program == name)
        if first.strength is None:
            assert name == "AUTOMATIC1111" and t0 < 0.025
            continue
        there = level_of(name, first.strength, 20, "trailing", TABLE)
        again = next(s for s in settings(there, 20, "trailing", TABLE) if s.program == name)
        assert again.t0 == pytest.approx(first.t0) and again.strength == first.strength


def test_only_automatic1111_cannot_run_no_steps():
    told = {s.program: s for s in settings(0.0, 20, "trailing", TABLE)}
    assert told["AUTOMATIC1111"].strength is None and told["ComfyUI"].strength == 0
    assert level_of("ComfyUI", 0.0, 20, "trailing", TABLE) == 0
    assert 0 < told["diffusers"].strength < 1 / 20
    assert all(s.t0 == 0 for s in told.values())


def test_a_tiny_denoise_is_refused_before_a_grid_is_made():
    with pytest.raises(RecipeError, match="larger strength"):
        level_of("ComfyUI", 1e-6, 20, "trailing", TABLE)
    assert level_of("diffusers", 0.01, 20, "trailing", TABLE) == 0.0
