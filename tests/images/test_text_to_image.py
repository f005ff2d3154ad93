import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from playground.errors import RecipeError
from playground.fields import Count
from playground.guidance import CFG
from playground.images.text_to_image import (
    FILM_ROWS,
    Generated,
    Progress,
    film_frame,
    generate,
    latent_channels,
    noised,
    run,
    with_both_branches,
)
from playground.noise import start_noise
from playground.plan import Plan, Row
from playground.recipes import TextToImage
from playground.sampling import Control, Evaluated
from playground.sampling import run as sample_plan
from playground.sharing.views import RunViews

STEPS = 5  # divides 1000, where DDIM of diffusers steps along its own grid
RECIPE = TextToImage(prompt="a red cat", negative="green dog", w=4.0, steps=STEPS, seed=21, solver="ddim")


def of_the_pipeline(pipelines, family, recipe, scheduler, output="latent"):
    """What diffusers makes of a recipe when it starts from the same x."""
    pipeline = pipelines[family]
    kept = pipeline.scheduler
    pipeline.scheduler = scheduler
    scheduler.set_timesteps(recipe.steps)
    noise = start_noise(recipe.seed, (4, 8, 8))[None]
    in_x = DPMSolverMultistepScheduler | UniPCMultistepScheduler
    if hasattr(scheduler, "sigmas") and not isinstance(scheduler, in_x):
        # Its x is ours divided by alpha, so it starts from sigma/alpha eps.
        start = noise * float(scheduler.sigmas[0])
    else:
        start = noise * float((1 - scheduler.alphas_cumprod[int(scheduler.timesteps[0])]).sqrt())
    try:
        return pipeline(
            recipe.prompt,
            negative_prompt=recipe.negative,
            num_inference_steps=recipe.steps,
            guidance_scale=recipe.w,
            latents=start / float(scheduler.init_noise_sigma),
            output_type=output,
        ).images
    finally:
        pipeline.scheduler = kept


def scheduler_like(pipelines, family, kind, **more):
    return kind.from_config({**pipelines[family].scheduler.config, "skip_prk_steps": None}, **more)


CASES = [
    ("ddim", "trailing", DDIMScheduler, {"set_alpha_to_one": True, "clip_sample": False}),
    ("ddim", "leading", DDIMScheduler, {"set_alpha_to_one": True, "clip_sample": False}),
    ("euler", "trailing", EulerDiscreteScheduler, {}),
    ("euler", "leading", EulerDiscreteScheduler, {}),
    ("euler", "karras", EulerDiscreteScheduler, {"use_karras_sigmas": True}),
    ("heun", "trailing", HeunDiscreteScheduler, {}),
    ("heun", "leading", HeunDiscreteScheduler, {}),
    ("heun", "karras", HeunDiscreteScheduler, {"use_karras_sigmas": True}),
    ("dpmpp_2m", "trailing", DPMSolverMultistepScheduler, {"final_sigmas_type": "zero"}),
    ("unipc", "trailing", UniPCMultistepScheduler, {"final_sigmas_type": "zero"}),
]


@pytest.mark.parametrize("w", [1.0, 4.0])
@pytest.mark.parametrize("family", ["sd1", "sd2"])
@pytest.mark.parametrize(("solver", "grid", "kind", "more"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_latents_are_those_of_the_pipeline(models, pipelines, family, solver, grid, kind, more, w):
    recipe = RECIPE.but(solver=solver, grid=grid, w=w)
    spacing = "linspace" if grid == "karras" else grid
    scheduler = scheduler_like(pipelines, family, kind, timestep_spacing=spacing, steps_offset=1, **more)
    expected = of_the_pipeline(pipelines, family, recipe, scheduler)
    ours = generate(recipe, models[family]).latents
    size = max(1.0, float(expected.std()))
    assert float((ours - expected).abs().max()) < 1e-4 * size


@pytest.mark.parametrize("family", ["sd1", "sd2", "flow"])
@pytest.mark.parametrize("change", [{"prompt": "a blue dog"}, {"negative": ""}, {"w": 2.0}, {"seed": 5}])
def test_every_setting_shows_in_the_latents(models, family, change):
    a, b = (generate(recipe, models[family]).latents for recipe in (RECIPE, RECIPE.but(**change)))
    assert float((a - b).abs().max()) > 1e-2


def test_2m_on_the_leading_grid_of_its_scheduler(models, pipelines):
    # Its "leading" steps by T // (N + 1), not T // N: a plan takes such levels as they are.
    model = models["sd1"]
    scheduler = scheduler_like(
        pipelines, "sd1", DPMSolverMultistepScheduler, timestep_spacing="leading", final_sigmas_type="zero"
    )
    expected = of_the_pipeline(pipelines, "sd1", RECIPE, scheduler)
    times = (*((t + 1) / 1000 for t in scheduler.timesteps.tolist()), 0.0)
    row = Row(RECIPE.seed, times, "dpmpp_2m", CFG(RECIPE.w), RECIPE.prompt, RECIPE.negative)
    ours = sample_plan(Plan((row,)), model.denoiser).x
    assert float((ours - expected).abs().max()) < 1e-4 * max(1.0, float(expected.std()))


@pytest.mark.parametrize(
    ("solver", "kind", "tolerance"),
    # Euler of diffusers works on x/alpha, which starts 4096 large: a float32 keeps three digits of its noise.
    [("ddim", DDIMScheduler, 1e-4), ("euler", EulerDiscreteScheduler, 1e-3)],
)
def test_latents_of_a_zero_terminal_snr_model(models, pipelines, folders, tmp_path, solver, kind, tolerance):
    import json
    import shutil

    from playground.images.models import load_model

    shutil.copytree(folders["sd2"], tmp_path / "zero")
    file = tmp_path / "zero" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rescale_betas_zero_snr": True}))
    model = load_model(str(tmp_path / "zero"), models["sd2"].device)
    own = {"set_alpha_to_one": True, "clip_sample": False} if solver == "ddim" else {}
    scheduler = scheduler_like(
        pipelines, "sd2", kind, timestep_spacing="trailing", rescale_betas_zero_snr=True, **own
    )
    scheduler.alphas_cumprod[-1] = 2**-24  # Euler's does so itself, DDIM's goes on with 0
    recipe = RECIPE.but(solver=solver)
    expected = of_the_pipeline(pipelines, "sd2", recipe, scheduler)
    torch.testing.assert_close(generate(recipe, model).latents, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_pictures_are_those_of_the_pipeline(models, pipelines, family):
    scheduler = scheduler_like(pipelines, family, EulerDiscreteScheduler, timestep_spacing="trailing")
    recipe = RECIPE.but(solver="euler")
    (expected,) = of_the_pipeline(pipelines, family, recipe, scheduler, output="pil")
    (ours,) = generate(recipe, models[family]).images
    difference = np.abs(np.asarray(ours, dtype=int) - np.asarray(expected, dtype=int))
    assert difference.max() <= 2
    assert np.asarray(ours).std() > 2


def test_pictures_are_those_of_a_pipeline_with_a_seeded_generator(models, pipelines):
    # Nothing is handed over but the seed: on the trailing grid Euler starts where ours does.
    pipeline = pipelines["sd1"]
    kept = pipeline.scheduler
    pipeline.scheduler = scheduler_like(pipelines, "sd1", EulerDiscreteScheduler, timestep_spacing="trailing")
    try:
        expected = pipeline(
            RECIPE.prompt,
            negative_prompt=RECIPE.negative,
            num_inference_steps=STEPS,
            guidance_scale=4.0,
            generator=torch.Generator().manual_seed(RECIPE.seed),
            output_type="latent",
        ).images
    finally:
        pipeline.scheduler = kept
    ours = generate(RECIPE.but(solver="euler"), models["sd1"]).latents
    assert float((ours - expected).abs().max()) < 1e-4 * max(1.0, float(expected.std()))


@pytest.mark.parametrize("w", [1.0, 4.0])
def test_flow_model_is_sampled_as_by_the_flow_scheduler(models, w):
    model, scheduler = models["flow"], FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[1 - i / STEPS for i in range(STEPS)])
    x = start_noise(RECIPE.seed, (4, 8, 8))[None]
    states = model.text.encode([RECIPE.negative, RECIPE.prompt])
    with torch.no_grad():
        for t in scheduler.timesteps:
            u, c = model.denoiser.network(torch.cat([x, x]), t, states).sample.chunk(2)
            x = scheduler.step(u + w * (c - u), t, x).prev_sample
    for solver in ("euler", "ddim"):
        ours = generate(RECIPE.but(solver=solver, w=w), model).latents
        torch.testing.assert_close(ours, x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["sd1", "sd2", "flow"])
def test_one_seed_is_one_picture_in_any_batch_layout(models, family):
    together = generate(RECIPE.but(pictures=3), models[family]).latents
    for i in range(3):
        alone = generate(RECIPE.but(seed=RECIPE.seed + i), models[family]).latents
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-4)


def test_a_sweep_is_its_own_single_runs(models):
    scales = (0.0, 1.0, 3.0)
    together = generate(RECIPE.but(sweep=scales), models["sd2"]).latents
    for i, w in enumerate(scales):
        alone = generate(RECIPE.but(w=w), models["sd2"]).latents
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-4)


def test_scale_zero_is_the_other_prompt_and_one_is_the_prompt(models):
    plain = RECIPE.but(w=1.0, negative="")
    swapped = generate(RECIPE.but(w=0.0), models["sd2"]).latents
    torch.testing.assert_close(swapped, generate(plain.but(prompt=RECIPE.negative), models["sd2"]).latents)
    torch.testing.assert_close(
        generate(RECIPE.but(w=1.0), models["sd2"]).latents, generate(plain, models["sd2"]).latents
    )


# Counting and events.


class Forwards:
    """Counts what really reaches the network."""

    def __init__(self, network, monkeypatch, denoiser):
        self.network, self.config, self.count = network, network.config, Count()
        monkeypatch.setattr(denoiser, "network", self)

    def __call__(self, x, *args, **named):
        self.count.evaluations += 1
        self.count.sample_forwards += len(x)
        return self.network(x, *args, **named)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (5, 10)),
        ({"w": 1.0}, (5, 5)),
        ({"w": 0.0}, (5, 5)),
        ({"rule": "none"}, (5, 5)),
        ({"pictures": 3}, (5, 30)),
        ({"solver": "heun"}, (9, 18)),
        ({"solver": "heun", "variable": "t", "w": 1.0}, (9, 9)),
        ({"solver": "euler", "variable": "snr"}, (5, 10)),
        ({"solver": "heun", "variable": "snr"}, (9, 18)),
        ({"sweep": (0.0, 1.0, 4.0)}, (5, 18)),  # all rows ask the same at first
        ({"low": 0.3, "high": 0.7}, (5, 7)),  # asks at 1, .8, .6, .4, .2
    ],
)
def test_counts_are_those_of_the_formulas_and_of_the_network(models, monkeypatch, changes, expected):
    model, recipe = models["sd2"], RECIPE.but(**changes)
    forwards = Forwards(model.denoiser.network, monkeypatch, model.denoiser)
    result = generate(recipe, model)
    assert (
        result.count
        == Count(*expected)
        == forwards.count
        == recipe.plan(model.denoiser.schedule).cost(model.denoiser.schedule)
    )


def test_a_run_tells_of_every_evaluation_and_every_step(models):
    events = list(run(RECIPE.but(solver="heun"), models["sd2"]))
    assert sum(isinstance(e, Evaluated) for e in events) == 2 * STEPS - 1
    progress = [e for e in events if isinstance(e, Progress)]
    assert [(p.step, p.steps) for p in progress] == [(i + 1, STEPS) for i in range(STEPS)]
    assert all(p.x0.shape == (1, 4, 8, 8) for p in progress)
    assert isinstance(events[-1], Generated)


def test_progress_keeps_the_count_of_its_own_moment(models):
    progress = [e for e in run(RECIPE, models["sd2"]) if isinstance(e, Progress)]
    assert [p.count for p in progress] == [Count(n, 2 * n) for n in (1, 2, 3, 4, 5)]


class Blurs(Control):
    """Halves what the solver hears."""

    def after_query(self, plan_rows, step, prediction):
        return prediction.replaced("x0", prediction.x0 / 2)


def test_previews_and_trace_show_what_the_controls_made_of_a_prediction(models):
    events = list(run(RECIPE, models["sd2"], [Blurs()]))
    first = events[-1].trace[0]
    mixed = first.uncond + 4 * (first.cond - first.uncond)
    torch.testing.assert_close(first.guided, mixed / 2, rtol=0, atol=1e-4)
    assert torch.equal(next(e for e in events if isinstance(e, Progress)).x0, first.guided)
    torch.testing.assert_close(events[-1].latents, events[-1].trace[-1].guided, rtol=0, atol=1e-5)


def test_a_recipe_that_cannot_start_is_refused_before_the_network_is_asked(models, monkeypatch):
    model = models["flow"]
    forwards = Forwards(model.denoiser.network, monkeypatch, model.denoiser)
    with pytest.raises(RecipeError, match="σ/α is infinite"):
        next(run(RECIPE.but(solver="euler", variable="sigma"), model))
    assert forwards.count == Count()


def test_closing_a_run_stops_the_network(models, monkeypatch):
    model = models["sd2"]
    forwards = Forwards(model.denoiser.network, monkeypatch, model.denoiser)
    events = run(RECIPE, model)
    next(events)
    events.close()
    assert forwards.count.evaluations == 1


def test_waiting_for_a_turn_is_not_counted_as_time(models):
    import time

    began, waited = time.perf_counter(), 0.0
    events = []
    for event in run(RECIPE, models["sd2"]):
        events.append(event)
        time.sleep(0.03)
        waited += 0.03
    assert 0 < events[-1].seconds < time.perf_counter() - began - waited + 0.01


# The trace.


@pytest.fixture(scope="module")
def result(models):
    return generate(RECIPE.but(pictures=2), models["sd2"])


def test_trace_has_the_times_and_latents_of_every_step(result, models):
    schedule = models["sd2"].denoiser.schedule
    assert [float(r.t[0]) for r in result.trace] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    noise = torch.stack([start_noise(RECIPE.seed + i, (4, 8, 8)) for i in range(2)])
    torch.testing.assert_close(result.trace[0].x, noise * float(schedule.sigma(1.0)))
    # A DDIM step by hand, from what the trace says.
    for now, after in zip(result.trace, result.trace[1:], strict=False):
        a, s = float(schedule.alpha(now.t[0])), float(schedule.sigma(now.t[0]))
        eps = (now.x - a * now.guided) / s
        x = float(schedule.alpha(after.t[0])) * now.guided + float(schedule.sigma(after.t[0])) * eps
        torch.testing.assert_close(after.x, x, rtol=0, atol=1e-4)
    torch.testing.assert_close(result.latents, result.trace[-1].guided, rtol=0, atol=1e-5)


def test_trace_holds_both_branches_and_their_combination(result, models):
    model = models["sd2"]
    for record in result.trace:
        for prompt, x0, eps in (
            (RECIPE.prompt, record.cond, record.eps_cond),
            (RECIPE.negative, record.uncond, record.eps_uncond),
        ):
            with torch.no_grad():
                p = model.denoiser.predict(record.x, record.t, model.denoiser.encode([prompt] * 2))
            torch.testing.assert_close(x0, p.x0, rtol=0, atol=1e-4)
            torch.testing.assert_close(eps, p.eps, rtol=0, atol=1e-4)
        torch.testing.assert_close(
            record.guided, record.uncond + 4 * (record.cond - record.uncond), rtol=0, atol=1e-4
        )


def test_norms_are_root_mean_squares_and_angles(result):
    for row in range(2):
        norms = result.norms(row)
        for i, record in enumerate(result.trace):
            c, u = record.eps_cond[row].flatten().numpy(), record.eps_uncond[row].flatten().numpy()
            assert norms.cond[i] == pytest.approx(np.sqrt(np.mean(c**2)), rel=1e-5)
            assert norms.uncond[i] == pytest.approx(np.sqrt(np.mean(u**2)), rel=1e-5)
            assert norms.difference[i] == pytest.approx(np.sqrt(np.mean((c - u) ** 2)), rel=1e-4)
            assert norms.cosine[i] == pytest.approx(c @ u / np.linalg.norm(c) / np.linalg.norm(u), rel=1e-5)


def test_what_was_not_computed_is_told(models):
    result = generate(RECIPE.but(sweep=(0.0, 1.0, 4.0), low=0.5), models["sd2"])
    assert result.trace[0].known == {"cond": [False, True, True], "uncond": [True, False, True]}
    assert result.trace[-1].known == {"cond": [True] * 3, "uncond": [False] * 3}
    for record in result.trace:  # what is not known holds no numbers
        for name, known in record.known.items():
            for value in (getattr(record, name), getattr(record, f"eps_{name}")):
                assert torch.isfinite(value).flatten(1).all(1).tolist() == known
                assert torch.isnan(value).flatten(1).all(1).tolist() == [not k for k in known]
        assert bool(torch.isfinite(record.guided).all())
    assert np.isnan(result.norms(1).difference).all()


def test_missing_branches_can_be_filled_in_and_are_counted_apart(models):
    model = models["sd2"]
    full = generate(RECIPE.but(w=2.0), model)
    result = generate(RECIPE.but(sweep=(0.0, 1.0, 2.0)), model)
    before = copy.deepcopy(result)
    record, extra = with_both_branches(result, model, 0)
    assert extra == Count(2, 2)
    assert record.known == {"cond": [True] * 3, "uncond": [True] * 3}
    for row in range(3):  # all rows start from one x
        torch.testing.assert_close(record.cond[row], full.trace[0].cond[0], rtol=0, atol=1e-4)
        torch.testing.assert_close(record.eps_uncond[row], full.trace[0].eps_uncond[0], rtol=0, atol=1e-4)
    # What was known is kept, and the result itself is as it was: asking again costs the same.
    for name in ("cond", "uncond"):
        for row in range(3):
            if before.trace[0].known[name][row]:
                assert torch.equal(getattr(record, name)[row], getattr(before.trace[0], name)[row])
    for name in ("t", "x", "guided"):
        assert torch.equal(getattr(record, name), getattr(before.trace[0], name))
    assert result.count == before.count
    for now, then in zip(result.trace, before.trace, strict=True):
        assert now.known == then.known
        for name in ("x", "cond", "uncond", "guided", "eps_cond", "eps_uncond"):
            torch.testing.assert_close(getattr(now, name), getattr(then, name), rtol=0, atol=0, equal_nan=True)
    assert np.isnan(result.norms(1).difference[0])
    assert with_both_branches(result, model, 0)[1] == Count(2, 2)


def test_nothing_is_computed_for_a_step_that_has_both_branches(result, models, monkeypatch):
    model = models["sd2"]
    forwards = Forwards(model.denoiser.network, monkeypatch, model.denoiser)
    record, extra = with_both_branches(result, model, 1)
    assert record is result.trace[1]
    assert extra == forwards.count == Count(0, 0)


def test_memory_of_a_result_is_what_its_tensors_hold(result):
    latents = 2 * 4 * 8 * 8 * 4
    pictures = result.pictures.numel() * 4
    assert result.nbytes == latents + pictures + STEPS * (6 * latents + 2 * 8)
    assert result.trace[0].nbytes == 6 * latents + 2 * 8


# Views.


def test_a_film_frame_shows_the_four_decoded_latents(result, models):
    from playground.images.models import to_images

    frame = film_frame(result.trace[2], models["sd2"], row=1)
    assert len(frame) == len(FILM_ROWS) == 4
    for name, image in zip(FILM_ROWS, frame, strict=True):
        z = getattr(result.trace[2], name)[1:2]
        (expected,) = to_images(models["sd2"].autoencoder.decode(z))
        difference = np.abs(np.asarray(image, dtype=int) - np.asarray(expected, dtype=int))
        assert difference.max() <= 1


def test_a_film_frame_leaves_out_what_was_not_computed(models):
    model, result = models["sd2"], generate(RECIPE.but(sweep=(1.0, 0.0)), models["sd2"])
    with_u, without_u = (film_frame(result.trace[0], model, row) for row in (1, 0))
    assert [image is None for image in without_u] == [False, True, False, False]
    assert [image is None for image in with_u] == [False, False, True, False]
    completed, _ = with_both_branches(result, model, 0)
    assert None not in film_frame(completed, model, 0)


def test_the_last_film_frame_of_ddim_is_the_picture(result, models):
    frame = film_frame(result.trace[STEPS - 1], models["sd2"], row=0)
    difference = np.abs(np.asarray(frame[3], dtype=int) - np.asarray(result.images[0], dtype=int))
    assert difference.max() <= 1


def test_noising_mixes_picture_and_start_noise(result, models):
    from playground.images.models import to_images

    model = models["sd2"]
    schedule, times = model.denoiser.schedule, [0.0, 0.3, 1.0]
    shown = noised(result, model, times, row=1)
    noise = start_noise(RECIPE.seed + 1, (4, 8, 8))
    for t, image in zip(times, shown, strict=True):
        z = float(schedule.alpha(t)) * result.latents[1] + float(schedule.sigma(t)) * noise
        (expected,) = to_images(model.autoencoder.decode(z[None]))
        assert np.abs(np.asarray(image, dtype=int) - np.asarray(expected, dtype=int)).max() <= 1
    assert shown[0].tobytes() == result.images[1].tobytes()


def test_latent_channels_share_one_grey_scale():
    latents = torch.stack([torch.full((2, 2), v) for v in (-9.0, -3.0, 0.0, 1.5, 3.0)])
    grey = [np.asarray(image)[0, 0] for image in latent_channels(latents)]
    assert grey == [0, 0, 128, 191, 255]


def test_looking_at_one_row_computes_the_skipped_branches_of_that_row_alone(models):
    model = models["sd2"]
    result = generate(RECIPE.but(w=0.0, pictures=3), model)
    views = RunViews(result, lambda make: make(model))
    assert all(math.isnan(v) for v in result.norms(1).cond)
    before = replace(model.denoiser.count)
    trace, extra = views.completed(1)
    made = model.denoiser.count.sample_forwards - before.sample_forwards
    assert extra == Count(STEPS, STEPS) and made == STEPS
    norms = result.norms(1, trace)
    assert all(math.isfinite(v) for v in (*norms.cond, *norms.uncond, *norms.cosine))
    assert not any(record.known["cond"][0] for record in trace)
    # Computed once, also for the filmstrip.
    views.completed(1)
    views.png("film-1-0-all.png")
    assert model.denoiser.count.sample_forwards - before.sample_forwards == STEPS
