"""Guidance rules on models of pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.guiders import AdaptiveProjectedGuidance, ClassifierFreeZeroStarGuidance

from playground.errors import RecipeError
from playground.fields import Count
from playground.guidance import RULES
from playground.images.text_to_image import Generated, Progress, generate, run, with_both_branches
from playground.noise import start_noise
from playground.recipes import TextToImage
from playground.reuse import Prefixes
from playground.sharing.views import RunViews

STEPS = 5
RECIPE = TextToImage(prompt="a red cat", negative="green dog", w=6.0, steps=STEPS, seed=21, solver="ddim")


def close(ours: torch.Tensor, expected: torch.Tensor) -> bool:
    return float((ours - expected).abs().max()) < 1e-4 * max(1.0, float(expected.std()))


@pytest.mark.parametrize("phi", [0.3, 1.0])
@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_rescale_is_that_of_the_pipeline(models, pipelines, family, phi):
    pipeline = pipelines[family]
    kept, pipeline.scheduler = (
        pipeline.scheduler,
        DDIMScheduler.from_config(
            {**pipeline.scheduler.config, "skip_prk_steps": None},
            timestep_spacing="trailing",
            set_alpha_to_one=True,
            clip_sample=False,
        ),
    )
    try:
        expected = pipeline(
            RECIPE.prompt,
            negative_prompt=RECIPE.negative,
            num_inference_steps=STEPS,
            guidance_scale=RECIPE.w,
            guidance_rescale=phi,
            latents=start_noise(RECIPE.seed, (4, 8, 8))[None] * float(models[family].denoiser.schedule.sigma(1.0)),
            output_type="latent",
        ).images
    finally:
        pipeline.scheduler = kept
    ours = generate(RECIPE.but(rule="rescale", rescale_phi=phi), models[family]).latents
    assert close(ours, expected)


def test_apg_is_a_loop_with_the_guider_of_diffusers(models):
    """x0 is what the guider is given; momentum and cap carry over from step to step."""
    model = models["sd2"]
    path, field = model.denoiser.schedule, model.denoiser
    guider = AdaptiveProjectedGuidance(
        guidance_scale=RECIPE.w - 1,
        adaptive_projected_guidance_rescale=8.0,
        adaptive_projected_guidance_momentum=-0.4,
        eta=0.25,
        use_original_formulation=True,
    )
    from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer

    guider.momentum_buffer = MomentumBuffer(-0.4)
    recipe = RECIPE.but(rule="apg", apg_eta=0.25, apg_cap=8.0, apg_momentum=-0.4)
    (row,) = recipe.plan(path).rows
    x = start_noise(recipe.seed, field.shape)[None] * float(path.sigma(row.times[0]))
    for t, s in zip(row.times, row.times[1:], strict=False):
        at = torch.tensor([t], dtype=torch.float64)
        with torch.no_grad():
            u, c = (field.predict(x, at, field.encode([told])) for told in (recipe.negative, recipe.prompt))
        x0 = guider.forward(c.x0, u.x0).pred
        eps = c.replaced("x0", x0).eps
        x = float(path.alpha(s)) * x0 + float(path.sigma(s)) * eps
    assert close(generate(recipe, model).latents, x)


def test_zero_star_is_a_loop_with_the_guider_of_diffusers(models):
    model = models["flow"]
    field = model.denoiser
    recipe = RECIPE.but(rule="zero_star", zero_star_still=2, solver="euler", grid="uniform")
    (row,) = recipe.plan(field.schedule).rows
    guider = ClassifierFreeZeroStarGuidance(guidance_scale=recipe.w, zero_init_steps=2)
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=list(row.times[:-1]))
    x = start_noise(recipe.seed, field.shape)[None]
    for step, t in enumerate(scheduler.timesteps):
        guider.set_state(step=step, num_inference_steps=STEPS, timestep=t)
        at = torch.tensor([row.times[step]], dtype=torch.float64)
        with torch.no_grad():
            u, c = (field.predict(x, at, field.encode([told])) for told in (recipe.negative, recipe.prompt))
        x = scheduler.step(guider.forward(c.velocity, u.velocity).pred, t, x).prev_sample
    done = generate(recipe, model)
    assert close(done.latents, x)
    assert done.count == Count(3, 6)  # theirs asks in the steps that stand still, too


# Autoguidance.


AUTO = RECIPE.but(rule="auto", weak_model="weak", w=2.0)


def test_autoguidance_asks_both_models(models):
    strong, weak = models["sd1"], models["sd2"]
    result = generate(AUTO, strong, weak=weak)
    assert result.count == Count(2 * STEPS, 2 * STEPS)
    record = result.trace[0]
    with torch.no_grad():
        at = record.t
        bad = weak.denoiser.predict(record.x, at, weak.denoiser.encode(["a red cat"]))
        good = strong.denoiser.predict(record.x, at, strong.denoiser.encode(["a red cat"]))
    torch.testing.assert_close(record.uncond, bad.x0, rtol=0, atol=1e-3)
    torch.testing.assert_close(record.eps_cond, good.eps, rtol=0, atol=1e-4)
    torch.testing.assert_close(record.guided, bad.x0 + 2 * (good.x0 - bad.x0), rtol=0, atol=1e-2)


def test_autoguidance_without_its_model_is_one_sentence(models):
    with pytest.raises(RecipeError, match="needs a weak model"):
        generate(AUTO, models["sd1"])


def test_models_of_other_noise_levels_are_refused(models):
    with pytest.raises(RecipeError, match="other latents or noise levels"):
        generate(AUTO, models["sd1"], weak=models["flow"])


def test_what_the_weak_model_would_say_can_be_looked_at(models):
    result = generate(AUTO.but(w=1.0), models["sd1"], weak=models["sd2"])
    assert result.count == Count(STEPS, STEPS)
    record, extra = with_both_branches(result, models["sd1"], 0, models["sd2"])
    assert extra == Count(1, 1)
    like = generate(AUTO, models["sd1"], weak=models["sd2"]).trace[0]
    torch.testing.assert_close(record.uncond, like.uncond, rtol=0, atol=1e-4)
    views = RunViews(result, lambda make: make(models["sd1"]), lambda: models["sd2"])
    assert views.png("film-0-1-all.png").startswith(b"\x89PNG")


def test_another_weak_model_is_another_run(models):
    prefixes = Prefixes()
    first = generate(AUTO, models["sd1"], prefixes=prefixes, weak=models["sd2"])
    again = generate(AUTO.but(w=3.0), models["sd1"], prefixes=prefixes, weak=models["sd2"])
    same = generate(AUTO, models["sd1"], prefixes=prefixes, weak=models["sd2"])
    other = generate(AUTO, models["sd1"], prefixes=prefixes, weak=models["sd1"])
    assert (first.taken_over, again.taken_over, same.taken_over, other.taken_over) == (0, 0, STEPS, 0)


# Composed prompts.


def test_a_composed_prompt_is_one_run_of_its_parts(models):
    model = models["sd2"]
    recipe = RECIPE.but(prompt="a red cat AND grass :0.5", w=1.0)
    result = generate(recipe, model)
    assert result.count == Count(STEPS, 3 * STEPS)
    record = result.trace[0]
    with torch.no_grad():
        told = model.denoiser.encode(["a red cat", "grass", "green dog"])
        a, b, u = model.denoiser.predict(record.x.expand(3, -1, -1, -1), record.t.expand(3), told).eps
    torch.testing.assert_close(record.eps_cond[0], u + (a - u) + 0.5 * (b - u), rtol=0, atol=1e-4)


def test_steps_are_taken_over_only_from_the_same_u(models):
    # At w = 1 the parts of a composed prompt still lean on u.
    prefixes, model = Prefixes(), models["sd2"]
    recipe = RECIPE.but(prompt="a red cat AND grass", w=1.0)
    first = generate(recipe, model, prefixes=prefixes)
    other = generate(recipe.but(negative="dog"), model, prefixes=prefixes)
    assert other.taken_over == 0
    assert not torch.equal(first.latents, other.latents)
    assert torch.equal(other.latents, generate(recipe.but(negative="dog"), model).latents)


# Tables: two axes.


@pytest.mark.parametrize(
    ("across", "values", "rule"),
    [("steps", (2, 4), "cfg"), ("low", (0.0, 0.5), "apg"), ("rescale_phi", (0.2, 1.0), "rescale")],
)
def test_a_table_is_its_single_pictures(models, across, values, rule):
    model = models["sd2"]
    recipe = RECIPE.but(sweep=(1.0, 4.0), across=across, values=values, rule=rule, solver="dpmpp_2m")
    events = list(run(recipe, model))
    table = events[-1]
    assert isinstance(table, Generated)
    assert table.count == recipe.plan(model.denoiser.schedule).cost(model.denoiser.schedule)
    for i, single in enumerate(recipe.singles()):
        alone = generate(single, model)
        assert close(table.latents[i : i + 1], alone.latents)
        assert len(table.norms(i).t) == single.steps
        np.testing.assert_allclose(table.norms(i).difference, alone.norms().difference, rtol=1e-3)
    for event in events:
        if isinstance(event, Progress):
            assert event.steps == max(s.steps for s in recipe.singles())
            assert bool(torch.isfinite(event.x0).all())  # rows that have arrived keep their last prediction
    views = RunViews(table, lambda make: make(model))
    assert views.png("picture-3.png").startswith(b"\x89PNG")


def test_the_parts_of_d_make_up_d(models):
    norms = generate(RECIPE, models["sd2"]).norms()
    result = generate(RECIPE, models["sd2"])
    for record, along, across in zip(result.trace, norms.along, norms.across, strict=True):
        d = (record.cond - record.uncond)[0].double()
        assert along**2 + across**2 == pytest.approx(float(d.square().mean()), rel=1e-6)
        assert along * float((d * record.cond[0].double()).sum()) > 0
    kept = generate(RECIPE.but(rule="apg", apg_eta=0.0), models["sd2"]).trace[2]
    moved = (kept.guided - kept.cond)[0].double()
    assert abs(float((moved * kept.cond[0].double()).sum())) < 1e-4 * float(moved.norm() * kept.cond[0].norm())


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 50])
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_ends_at_numbers_with_any_number_of_steps(models, rule, steps):
    weak = "itself" if RULES[rule].weak else ""
    recipe = RECIPE.but(rule=rule, steps=steps, weak_model=weak)
    made = generate(recipe, models["sd2"], weak=models["sd2"] if weak else None)
    assert bool(torch.isfinite(made.latents).all()) and float(made.latents.abs().max()) < 1e3
