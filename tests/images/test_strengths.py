"""What other programs call strength, against what they do."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from playground.errors import RecipeError
from playground.grids import make_grid
from playground.images.strengths import (
    CONVENTIONS,
    of_automatic1111,
    of_comfyui,
    of_diffusers,
    same_point,
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
