"""SDEdit against its own ends, against diffusers' img2img, and with masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionImg2ImgPipeline
from PIL import Image

from playground.errors import RecipeError
from playground.fields import Count
from playground.images.guides import to_tensor
from playground.images.sdedit import SDEdit, edit, from_level, level
from playground.images.strengths import of_diffusers
from playground.images.text_to_image import generate
from playground.noise import repeated_seed
from playground.recipes import TextToImage
from playground.reuse import Prefixes

STEPS = 5
RECIPE = SDEdit(prompt="a red cat", negative="green dog", w=4.0, steps=STEPS, seed=21, solver="ddim", t0=0.6)


@pytest.fixture(scope="module")
def guide(models):
    width, height = models["sd1"].picture_size
    y, x = np.mgrid[:height, :width] / (height - 1)
    return Image.fromarray((np.stack([x, y, 1 - x], -1) * 255).astype(np.uint8))


@pytest.fixture(scope="module")
def half(guide):
    mask = Image.new("L", guide.size, 0)
    mask.paste(255, (0, 0, guide.width // 2, guide.height))
    return mask


def encoded(model, guide):
    return model.autoencoder.encode(to_tensor(guide))


# The two ends


def test_at_one_it_is_text_to_image(models, guide):
    model = models["sd1"]
    made = edit(RECIPE.but(t0=1.0), model, guide)
    fields = {n: getattr(RECIPE, n) for n in TextToImage.model_fields}
    plain = generate(TextToImage(**fields), model)
    assert torch.equal(made.latents, plain.latents) and torch.equal(made.pictures, plain.pictures)


def test_at_zero_the_guide_comes_back_through_the_autoencoder(models, guide):
    model = models["sd1"]
    made = edit(RECIPE.but(t0=0.0), model, guide)
    assert torch.equal(made.latents, encoded(model, guide))
    assert torch.equal(made.pictures, model.autoencoder.decode(encoded(model, guide)))
    assert made.count == Count(0, 0) and made.trace == []


# Where a run starts


@pytest.mark.parametrize("t0", [0.2, 0.35, 0.6, 0.95])
def test_a_run_starts_at_the_level_of_the_slider(models, guide, t0):
    path = models["sd1"].denoiser.schedule
    times = RECIPE.but(t0=t0).plan(path).rows[0].times
    full = RECIPE.but(t0=1.0).plan(path).rows[0].times
    assert times[0] == pytest.approx(t0) and times[-1] == 0
    assert set(times[1:]) == {t for t in full if t < times[0]}


def test_a_level_on_the_grid_makes_no_step_of_length_zero(models):
    path = models["sd1"].denoiser.schedule
    full = RECIPE.but(t0=1.0).plan(path).rows[0].times
    for k, t in enumerate(full):
        assert from_level(full, t, path) == full[k:]


def test_a_grid_that_starts_below_t_max_takes_the_level_of_the_slider(models, guide):
    path, recipe = models["sd1"].denoiser.schedule, RECIPE.but(grid="leading")
    full = recipe.but(t0=1.0).plan(path).rows[0]
    assert full.guide is None and full.times[0] == pytest.approx(0.802)
    for t0 in (full.times[0], 0.9, 0.999):
        row = recipe.but(t0=t0).plan(path).rows[0]
        assert row.guide is not None and row.times == (t0, *full.times[1:])
        assert not level(recipe.but(t0=t0), path).noise_only


def test_the_start_is_the_guide_with_the_noise_of_the_seed(models, guide):
    model = models["sd1"]
    path = model.denoiser.schedule
    made = edit(RECIPE, model, guide)
    noise = torch.randn((4, 8, 8), generator=torch.Generator().manual_seed(21))
    x = float(path.alpha(0.6)) * encoded(model, guide)[0] + float(path.sigma(0.6)) * noise
    assert torch.allclose(made.trace[0].x[0], x, atol=1e-5) and torch.allclose(made.starts[0], x, atol=1e-5)


def test_the_level_in_all_words(models):
    path = models["sd1"].denoiser.schedule
    told = level(RECIPE.but(solver="heun", repeats=2), path)
    assert (told.runs, told.steps, told.passes) == (3, 5, 2)
    assert told.evaluations == 2 * (2 * 3 - 1)
    assert told.alpha**2 + told.sigma**2 == pytest.approx(1) and not told.noise_only
    assert told.snr == pytest.approx((told.alpha / told.sigma) ** 2)
    assert level(RECIPE.but(t0=1.0), path).noise_only
    assert level(RECIPE.but(t0=0.0), path).snr == float("inf")


# Against diffusers


STARTS = [
    *((solver, "trailing", strength) for solver in ("ddim", "dpmpp_2m") for strength in (0.2, 0.5, 0.6, 0.8)),
    # diffusers' DPM-Solver places "leading" steps on a grid of its own.
    ("ddim", "leading", 0.6),
    ("ddim", "leading", 1.0),
]


@pytest.mark.parametrize(("solver", "grid", "strength"), STARTS)
def test_latents_are_those_of_img2img(models, pipelines, guide, solver, grid, strength):
    scheduler = {"ddim": DDIMScheduler, "dpmpp_2m": DPMSolverMultistepScheduler}[solver]
    model, theirs = models["sd1"], pipelines["sd1"]
    pipeline = StableDiffusionImg2ImgPipeline(**theirs.components, requires_safety_checker=False)
    options = {"timestep_spacing": grid}
    if solver == "ddim":
        options |= {"clip_sample": False, "set_alpha_to_one": True}
    pipeline.scheduler = scheduler.from_config(theirs.scheduler.config, **options)
    t0 = of_diffusers(strength, STEPS).t0(grid, model.denoiser.schedule)
    ours = edit(RECIPE.but(t0=t0, solver=solver, grid=grid), model, guide)
    expected = pipeline(
        RECIPE.prompt,
        image=encoded(model, guide),
        strength=strength,
        num_inference_steps=STEPS,
        guidance_scale=RECIPE.w,
        negative_prompt=RECIPE.negative,
        generator=torch.Generator().manual_seed(RECIPE.seed),
        output_type="latent",
    ).images
    assert torch.allclose(ours.latents, expected, atol=1e-4)


# Masks


def test_outside_the_mask_the_picture_is_the_guide(models, guide, half):
    made = edit(RECIPE, models["sd1"], guide, half)
    pixels = to_tensor(guide)
    free = guide.width // 2
    assert torch.equal(made.pictures[..., free:], pixels[..., free:])
    assert (made.pictures[..., :free] - pixels[..., :free]).abs().mean() > 0.01


def test_the_kept_part_has_the_noise_of_each_level(models, guide, half):
    model = models["sd1"]
    path = model.denoiser.schedule
    made = edit(RECIPE, model, guide, half)
    noise = torch.randn((4, 8, 8), generator=torch.Generator().manual_seed(21))
    for record in made.trace:
        t = float(record.t[0])
        x = float(path.alpha(t)) * encoded(model, guide)[0] + float(path.sigma(t)) * noise
        assert torch.allclose(record.x[0, :, :, 4:], x[:, :, 4:], atol=1e-5)
    assert torch.allclose(made.latents[0, :, :, 4:], encoded(model, guide)[0, :, :, 4:], atol=1e-5)


def test_a_mask_over_everything_is_no_mask(models, guide):
    model = models["sd1"]
    everything = Image.new("L", guide.size, 255)
    assert torch.equal(edit(RECIPE, model, guide, everything).pictures, edit(RECIPE, model, guide).pictures)


def test_the_mask_acts_on_what_follows_it(models, guide, half):
    """Not only pasted over: the free part is another than without a mask."""
    model = models["sd1"]
    masked, plain = edit(RECIPE, model, guide, half), edit(RECIPE, model, guide)
    assert not torch.allclose(masked.latents[..., :4], plain.latents[..., :4], atol=1e-3)


def test_bad_masks_are_refused(models, guide):
    with pytest.raises(RecipeError, match="must agree"):
        edit(RECIPE, models["sd1"], guide, Image.new("L", (3, 3), 255))
    with pytest.raises(RecipeError, match="empty"):
        edit(RECIPE, models["sd1"], guide, Image.new("L", guide.size, 0))


def test_guide_and_mask_of_another_size_are_cut_alike(models):
    model = models["sd1"]
    width, height = model.picture_size
    wide = Image.new("RGB", (3 * width, height), "blue")
    wide.paste("red", (2 * width, 0, 3 * width, height))
    mask = Image.new("L", wide.size, 0)
    mask.paste(255, (width, 0, width + width // 2, height))
    made = edit(RECIPE, model, wide, mask)
    assert "middle" in made.told
    right = made.pictures[0, :, :, width // 2 :]
    assert torch.equal(right, to_tensor(Image.new("RGB", (width - width // 2, height), "blue"))[0])


# Every family


@pytest.mark.parametrize("name", ["sd2", "flow", "sdxl", "sd3"])
def test_ends_start_and_mask_with_every_family(models, large_models, name):
    model = (models | large_models)[name]
    path, shape, (width, height) = model.denoiser.schedule, model.denoiser.shape, model.picture_size
    y, x = np.mgrid[:height, :width] / (height - 1)
    guide = Image.fromarray((np.stack([x, y, 1 - x], -1) * 255).astype(np.uint8))
    latents = encoded(model, guide)

    back = edit(RECIPE.but(t0=0.0), model, guide)
    assert torch.equal(back.latents, latents) and back.count == Count(0, 0)
    fields = {n: getattr(RECIPE, n) for n in TextToImage.model_fields}
    assert torch.equal(
        edit(RECIPE.but(t0=1.0), model, guide).latents, generate(TextToImage(**fields), model).latents
    )

    mask = Image.new("L", guide.size, 0)
    mask.paste(255, (0, 0, width // 2, height))
    made = edit(RECIPE, model, guide, mask)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(RECIPE.seed))
    start = float(path.alpha(0.6)) * latents[0] + float(path.sigma(0.6)) * noise
    assert torch.allclose(made.starts[0], start, atol=1e-5)
    assert torch.equal(made.pictures[..., width // 2 :], to_tensor(guide)[..., width // 2 :])
    assert not torch.equal(made.pictures[..., : width // 2], to_tensor(guide)[..., : width // 2])


# Rows, repeats, reuse


def test_a_strip_is_its_own_single_runs(models, guide):
    model = models["sd1"]
    strip = edit(RECIPE.but(strip=(0.0, 0.3, 0.6, 1.0), pictures=2), model, guide)
    assert len(strip.pictures) == 8
    for one, latents in zip(
        RECIPE.but(strip=(0.0, 0.3, 0.6, 1.0), pictures=2).singles(), strip.latents, strict=True
    ):
        assert torch.allclose(edit(one, model, guide).latents[0], latents, atol=1e-4), one.t0


def test_repeats_noise_the_result_again_with_fresh_noise(models, guide):
    model = models["sd1"]
    twice = edit(RECIPE.but(repeats=2), model, guide)
    once = edit(RECIPE, model, guide)
    path = model.denoiser.schedule
    noise = torch.randn((4, 8, 8), generator=torch.Generator().manual_seed(repeated_seed(21, 1)))
    x = float(path.alpha(0.6)) * once.latents[0] + float(path.sigma(0.6)) * noise
    assert torch.allclose(twice.trace[len(once.trace)].x[0], x, atol=1e-5)
    assert twice.count.evaluations == 2 * once.count.evaluations
    assert len({repeated_seed(21, k) for k in range(4)} | {repeated_seed(22, k) for k in range(4)}) == 8


def test_counts_are_those_of_the_plan(models, guide):
    model = models["sd1"]
    for recipe in (RECIPE, RECIPE.but(strip=(0.2, 0.6, 0.9)), RECIPE.but(solver="heun")):
        assert edit(recipe, model, guide).count == recipe.plan(model.denoiser.schedule).cost(
            model.denoiser.schedule
        )


def test_other_guides_and_masks_share_no_steps(models, guide, half):
    model, prefixes = models["sd1"], Prefixes()
    edit(RECIPE, model, guide, prefixes=prefixes)
    assert edit(RECIPE, model, guide, prefixes=prefixes).taken_over == 3
    assert edit(RECIPE, model, guide.rotate(90), prefixes=prefixes).taken_over == 0
    assert edit(RECIPE, model, guide, half, prefixes=prefixes).taken_over == 0
    again = edit(RECIPE, model, guide, half, prefixes=prefixes)
    assert again.taken_over == 3
    assert torch.equal(again.pictures, edit(RECIPE, model, guide, half).pictures)


def test_the_plain_start_and_a_guide_share_no_answer(models, guide):
    """Rows at t_max without the guide and rows below with it must not be taken for one another."""
    recipe = RECIPE.but(strip=(1.0, 0.6), steps=STEPS)
    rows = recipe.plan(models["sd1"].denoiser.schedule).rows
    assert rows[0].first_question(("cond", "x"), rows[0].times[0]) != rows[1].first_question(
        ("cond", "x"), rows[1].times[0]
    )
