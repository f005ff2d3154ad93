"""Stable Diffusion XL and 3: what diffusers' pipelines make of the same noise, and every call of the engine."""

from __future__ import annotations

import gc
import json
import shutil
import weakref

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from playground.backend import Backend, Result
from playground.batches import Batches
from playground.devices import Device, choose_device
from playground.errors import ModelError
from playground.fields import Count
from playground.grids import make_grid
from playground.guidance import RULES
from playground.images.cohorts import Cohort, draw
from playground.images.comparison import Comparison, compare, converge
from playground.images.models import Autoencoder, TakeTurns, load_model, readings, take_turns
from playground.images.text_to_image import (
    Generated,
    film_frame,
    generate,
    latent_channels,
    noised,
    with_both_branches,
)
from playground.noise import start_noise
from playground.recipes import TextToImage
from playground.reuse import Prefixes
from playground.sharing.views import RunViews
from playground.solvers import SOLVERS

CPU = choose_device("cpu")
STEPS = 5
RECIPE = TextToImage(
    prompt="a red cat", negative="green dog", w=4.0, steps=STEPS, seed=21, solver="euler", grid="trailing"
)
NAMES = ("sdxl", "sd3", "sd3 without t5")
CHANNELS = {"sdxl": 4, "sd3": 16, "sd3 without t5": 16}


def pipeline_latents(pipelines, name, recipe, output="latent", **more):
    """What diffusers makes of a recipe from the same noise, on the same levels."""
    pipeline = pipelines[name]
    noise = start_noise(recipe.seed, (CHANNELS[name], 8, 8))[None]
    more = {"negative_prompt": recipe.negative or None, **more}
    if name == "sdxl":
        pipeline.scheduler = EulerDiscreteScheduler.from_config(
            pipeline.scheduler.config, timestep_spacing=recipe.grid
        )
        pipeline.scheduler.set_timesteps(recipe.steps)
        first = float(pipeline.scheduler.sigmas[0])
        # Its x is ours divided by alpha, and it multiplies what it is given by its first level's own factor.
        noise = noise * first / float(pipeline.scheduler.init_noise_sigma)
    else:
        pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0 if recipe.grid == "shifted" else 1.0)
        more["sigmas"] = np.linspace(1, 1 / recipe.steps, recipe.steps)
    return pipeline(
        recipe.prompt,
        num_inference_steps=recipe.steps,
        guidance_scale=recipe.w,
        latents=noise,
        height=16,
        width=16,
        output_type=output,
        **more,
    ).images


CASES = [
    ("sdxl", "trailing"),
    ("sdxl", "leading"),
    ("sd3", "uniform"),
    ("sd3", "shifted"),
    ("sd3 without t5", "shifted"),
]


@pytest.mark.parametrize("negative", ["", "green dog"])
@pytest.mark.parametrize("w", [1.0, 4.0])
@pytest.mark.parametrize(("name", "grid"), CASES)
def test_latents_are_those_of_the_pipeline(large_models, large_pipelines, name, grid, w, negative):
    recipe = RECIPE.but(grid=grid, w=w, negative=negative)
    expected = pipeline_latents(large_pipelines, name, recipe)
    ours = generate(recipe, large_models[name]).latents
    # Untrained networks under guidance let latents, and with them rounding, grow: which differs between processors.
    assert float((ours - expected).abs().max()) < 1e-4 * max(1.0, float(expected.abs().max()))
    assert float((ours - expected).norm() / expected.norm()) < 5e-5


@pytest.mark.parametrize(("name", "grid"), [("sdxl", "trailing"), ("sd3", "shifted")])
def test_pictures_are_those_of_the_pipeline(large_models, large_pipelines, name, grid):
    recipe = RECIPE.but(grid=grid)
    (expected,) = pipeline_latents(large_pipelines, name, recipe, output="pil")
    (ours,) = generate(recipe, large_models[name]).images
    assert np.abs(np.asarray(ours, dtype=int) - np.asarray(expected, dtype=int)).max() <= 2


@pytest.mark.parametrize("name", NAMES)
def test_kind_path_and_shape(large_models, name):
    denoiser = large_models[name].denoiser
    flow = name != "sdxl"
    assert (denoiser.kind, denoiser.schedule.name) == (("velocity", "linear") if flow else ("eps", "discrete"))
    assert denoiser.shape == (CHANNELS[name], 8, 8)


def test_models_have_identities_of_their_own(large_models):
    assert len({model.denoiser.identity for model in large_models.values()}) == 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", [{"prompt": "a blue dog"}, {"negative": ""}, {"w": 2.0}, {"seed": 5}])
def test_every_setting_shows_in_the_latents(large_models, name, change):
    a, b = (generate(recipe, large_models[name]).latents for recipe in (RECIPE, RECIPE.but(**change)))
    assert float((a - b).abs().max()) > 1e-3


# Every call of the engine.


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_is_its_single_runs(large_models, name):
    model, scales = large_models[name], (0.0, 1.0, 4.0)
    swept = generate(RECIPE.but(sweep=scales), model)
    assert swept.latents.shape == (3, CHANNELS[name], 8, 8)
    for i, w in enumerate(scales):
        alone = generate(RECIPE.but(w=w), model)
        size = max(1.0, float(alone.latents.std()))
        assert float((swept.latents[i] - alone.latents[0]).abs().max()) < 1e-4 * size


@pytest.mark.parametrize("name", NAMES)
def test_a_window_computes_only_what_it_needs(large_models, name):
    model = large_models[name]
    times = make_grid(RECIPE.grid, model.denoiser.schedule, STEPS)[:-1]
    inside = int(((times >= 0.3) & (times <= 0.7)).sum())
    result = generate(RECIPE.but(low=0.3, high=0.7), model)
    assert result.count == Count(STEPS, STEPS + inside)
    assert 0 < inside < STEPS
    step = next(i for i, r in enumerate(result.trace) if not r.known["uncond"][0])
    record, extra = with_both_branches(result, model, step)
    assert extra == Count(1, 1)
    assert bool(torch.isfinite(record.uncond).all())


@pytest.mark.parametrize("name", NAMES)
def test_moving_the_end_of_the_window_repeats_only_the_steps_behind_it(large_models, name):
    model, prefixes, steps = large_models[name], Prefixes(), 20
    times = RECIPE.but(steps=steps).plan(model.denoiser.schedule).rows[0].times

    def until(step):
        return RECIPE.but(steps=steps, low=(times[step - 1] + times[step]) / 2)

    assert generate(until(15), model, prefixes=prefixes).count == Count(20, 15 * 2 + 5)
    again = generate(until(12), model, prefixes=prefixes)
    assert again.count == Count(8, 8) and again.taken_over == 12
    assert torch.equal(again.latents, generate(until(12), model).latents)


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_composed_of_parts(large_models, name):
    """c - u of a composed prompt is the weighted sum of its parts' (Liu et al. 2022, eq. 11)."""
    model = large_models[name]
    recipe = RECIPE.but(prompt="a red cat AND a dog :0.5 AND NOT a green dog", negative="", steps=1)
    result = generate(recipe, model)
    assert result.count == Count(1, 4)
    record = result.trace[0]

    def asked(prompt):
        with torch.no_grad():
            return model.denoiser.predict(record.x, record.t, model.denoiser.encode([prompt])).x0

    u = asked("")
    parts = [(1.0, "a red cat"), (0.5, "a dog"), (-1.0, "a green dog")]
    expected = u + sum(weight * (asked(prompt) - u) for weight, prompt in parts)
    torch.testing.assert_close(record.cond, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["sdxl", "sd3"])
def test_comparisons_of_solvers_are_the_runs_they_stand_for(large_models, name):
    model = large_models[name]
    recipe = Comparison(prompt="a red cat", solvers=("ddim", "dpmpp_2m"), budgets=(3, 5), w=3, seed=5)
    result = compare(recipe, model)
    assert [(c.solver, c.steps) for c in result.run_cells] == [
        (solver, steps) for solver in recipe.solvers for steps in recipe.budgets
    ]
    for cell, latents in zip(result.run_cells, result.latents, strict=True):
        single = TextToImage(prompt="a red cat", solver=cell.solver, steps=cell.steps, w=3, seed=5)
        alone = generate(single, model).latents[0]
        assert float((latents - alone).norm()) < 1e-3 * float(alone.norm())
    (reference,) = recipe.references().values()
    assert bool(converge(reference, model).latents.isfinite().all())
    drawn = draw(Cohort.of(single, solver="ancestral", steps=3, pictures=2), model)
    alone = generate(single.but(solver="ancestral", steps=3, seed=6), model).latents[0]
    assert float((drawn.latents[1] - alone).norm()) < 1e-3 * float(alone.norm())


@pytest.mark.parametrize("name", NAMES)
def test_short_memory_halves_batches_down_to_a_row(large_models, name, monkeypatch):
    model, seen = large_models[name], []
    forward = model.denoiser._forward

    def short(x, t, condition):
        seen.append(len(x))
        if len(x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(x, t, condition)

    expected = generate(RECIPE.but(pictures=2), model)
    monkeypatch.setattr(model.denoiser, "batches", Batches())
    monkeypatch.setattr(model.denoiser, "_forward", short)
    made = generate(RECIPE.but(pictures=2), model)
    assert seen[:3] == [4, 2, 1] and set(seen[3:]) == {1}
    bound = 1e-3 * float(expected.latents.abs().max())
    torch.testing.assert_close(made.latents, expected.latents, rtol=0, atol=bound)


@pytest.mark.parametrize("solver", [name for name, s in SOLVERS.items() if not s.needs_table])
@pytest.mark.parametrize("name", NAMES)
def test_solvers_run_and_cost_what_the_plan_says(large_models, name, solver):
    model = large_models[name]
    recipe = RECIPE.but(solver=solver, grid="karras")
    result = generate(recipe, model)
    assert isinstance(result, Generated)
    assert bool(torch.isfinite(result.latents).all())
    assert result.count == recipe.plan(model.denoiser.schedule).cost(model.denoiser.schedule)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", NAMES)
def test_every_rule_guides_and_is_none_at_one(large_models, name, rule):
    model = large_models[name]
    recipe = RECIPE.but(solver="ddim", weak_model="itself" if RULES[rule].weak else "")
    # A weak model that is the model itself has nothing to guide away from, whatever w is.
    weak = model if RULES[rule].weak else None
    plain = generate(recipe.but(rule="none"), model).latents
    one = generate(recipe.but(rule=rule, w=1.0), model, weak=weak).latents
    size = max(1.0, float(plain.std()))
    assert float((one - plain).abs().max()) < 1e-4 * size
    guided = generate(recipe.but(rule=rule, w=0.6 if RULES[rule].renoises else 5.0), model, weak=weak).latents
    assert bool(torch.isfinite(guided).all())
    same = rule == "none" or RULES[rule].weak
    assert (float((guided - plain).abs().max()) < 1e-3 * size) is same


@pytest.mark.parametrize("solver", [name for name, s in SOLVERS.items() if s.needs_table])
def test_schedulers_of_diffusers_run_on_sdxl_and_say_that_sd3_has_no_table(large_models, solver):
    recipe = RECIPE.but(solver=solver)
    assert bool(torch.isfinite(generate(recipe, large_models["sdxl"]).latents).all())
    with pytest.raises(ValueError, match="the linear path has none"):
        generate(recipe, large_models["sd3"])


@pytest.mark.parametrize("name", NAMES)
def test_what_the_page_shows_of_a_run(large_models, name):
    model = large_models[name]
    result = generate(RECIPE.but(pictures=2), model)
    assert [i.size for i in result.images] == [(16, 16)] * 2
    assert [p.size for p in film_frame(result.trace[2], model, 1)] == [(16, 16)] * 4
    assert len(latent_channels(result.latents[0])) == CHANNELS[name]
    assert len(noised(result, model, [0.0, 0.5, 1.0])) == 3
    norms = result.norms()
    assert len(norms.cosine) == STEPS and all(abs(c) <= 1 + 1e-9 for c in norms.cosine)


@pytest.mark.parametrize("name", NAMES)
def test_the_backend_runs_them_and_their_views_are_pictures(large_folders, name):
    backend = Backend({name: str(large_folders[name])}, CPU)
    try:
        *_, last = backend.run(RECIPE.but(model=name))
        assert isinstance(last, Result)
        views = RunViews(last.value, lambda make: backend.call(make, name))
        for file in ("picture-0.png", "film-0-1.png", "film-0-1-all.png", "noise-0-20.png", "latents-0.png"):
            assert views.png(file).startswith(b"\x89PNG")
    finally:
        backend.close()


@pytest.mark.parametrize("name", NAMES)
def test_latents_come_back_from_their_picture(large_models, name):
    autoencoder = large_models[name].autoencoder
    with torch.no_grad():
        latents = autoencoder.encode(torch.rand(2, 3, 16, 16) * 2 - 1)
    assert latents.shape == (2, CHANNELS[name], 8, 8)


# Text.


@pytest.mark.parametrize("prompt", ["", "a red cat", "cat " * 40])
def test_states_of_sdxl_are_those_of_the_pipeline(large_models, large_pipelines, prompt):
    expected, empty, pooled, no_pooled = large_pipelines["sdxl"].encode_prompt(prompt or "x", "x", "cpu", 1, True)
    told = large_models["sdxl"].text.condition([prompt or "x", ""])
    torch.testing.assert_close(told["encoder_hidden_states"][:1, :, :16], expected[:, :, :16], rtol=0, atol=1e-5)
    # Where the prompt was dropped in training stood zeros.
    assert not bool(empty.any() or no_pooled.any())
    assert torch.equal(told["encoder_hidden_states"][1:], empty)
    assert torch.equal(told["text_embeds"][1:], no_pooled)
    assert pooled.shape == told["text_embeds"][:1].shape == (1, 12)


def test_one_space_is_the_empty_text_that_the_pipeline_encodes(large_models, large_pipelines):
    """The pipeline tells an empty negative prompt from none; here none is "", and the empty text is a space."""
    model, pipe = large_models["sdxl"], large_pipelines["sdxl"]
    states, empty, _, no_pooled = pipe.encode_prompt("", None, "cpu", 1, True, negative_prompt="")
    assert bool(empty.any()) and torch.equal(states, empty)
    told = model.text.condition([" "])
    torch.testing.assert_close(told["encoder_hidden_states"], empty, rtol=0, atol=1e-5)
    torch.testing.assert_close(told["text_embeds"], no_pooled, rtol=0, atol=1e-5)
    results = []
    for negative, theirs in (("", None), (" ", "")):
        latents = generate(RECIPE.but(negative=negative), model).latents
        results.append(latents)
        expected = pipeline_latents(large_pipelines, "sdxl", RECIPE.but(negative=negative), negative_prompt=theirs)
        assert float((latents - expected).abs().max()) < 1e-4 * max(1.0, float(expected.std()))
    assert not torch.allclose(*results, atol=1e-2)


def test_an_sdxl_trained_with_empty_texts_is_told_the_empty_text(large_folders, tmp_path, large_pipelines):
    shutil.copytree(large_folders["sdxl"], tmp_path / "m")
    file = tmp_path / "m" / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"force_zeros_for_empty_prompt": False}))
    told = load_model(str(tmp_path / "m"), CPU).text.condition([""])
    states, _, pooled, _ = large_pipelines["sdxl"].encode_prompt("", None, "cpu", 1, False)
    torch.testing.assert_close(told["encoder_hidden_states"], states, rtol=0, atol=1e-5)
    torch.testing.assert_close(told["text_embeds"], pooled, rtol=0, atol=1e-5)
    assert bool(states.any())


@pytest.mark.parametrize("name", ["sd3", "sd3 without t5"])
@pytest.mark.parametrize("prompt", ["", "a red cat", "cat " * 300])
def test_states_of_sd3_are_those_of_the_pipeline(large_models, large_pipelines, name, prompt):
    states, _, pooled, _ = large_pipelines[name].encode_prompt(prompt, None, None, "cpu", 1, False)
    told = large_models[name].text.condition([prompt])
    torch.testing.assert_close(told["encoder_hidden_states"], states, rtol=0, atol=1e-5)
    torch.testing.assert_close(told["pooled_projections"], pooled, rtol=0, atol=1e-5)
    assert states.shape == (1, 16 + 256, 48)
    assert bool(states[:, 16:].any()) == (name == "sd3")


@pytest.mark.parametrize(
    ("name", "lengths"), [("sdxl", [16, 16]), ("sd3", [16, 16, 256]), ("sd3 without t5", [16, 16])]
)
def test_every_encoder_shows_its_tokens(large_models, name, lengths):
    text = large_models[name].text
    assert [len(e.tokens("a red cat")) for e in text.encoders] == lengths
    for encoder in text.encoders:
        assert "cat" in [t.text for t in encoder.tokens("a red cat") if t.kind == "word"]
        kinds = [t.kind for t in encoder.tokens("a red cat")]
        assert kinds[-1] == "padding" and "padding" not in kinds[: kinds.index("padding")]
    assert text.tokens("a red cat") == text.encoders[0].tokens("a red cat")
    # On show are those that read something of their own: T5, and not CLIP a second time.
    shown = [0, 2] if name == "sd3" else [0]
    assert readings(text, "a red cat") == [text.encoders[i].tokens("a red cat") for i in shown]


def test_summaries_count_what_a_prompt_becomes(large_models):
    assert large_models["sdxl"].text.summary == (
        "Two encoders read the same 16 tokens, which become 16 × (16 + 24) numbers, and 12 for the whole prompt. "
        "No prompt is zeros, as in training; one space is an empty text."
    )
    assert large_models["sd3"].text.summary == (
        "Two encoders read the same 16 tokens, which become 16 × (16 + 24) numbers, and 28 for the whole prompt; "
        "T5 reads 256 tokens of its own, shown last."
    )
    assert large_models["sd3 without t5"].text.summary.endswith("; T5 is not loaded.")


def test_notes_say_which_encoder_reads_how_much(large_models):
    assert large_models["sdxl"].text.notes("cat " * 20) == [
        "The prompt has 20 tokens, of which the model reads 14."
    ]
    notes = large_models["sd3"].text.notes("cat " * 20)
    assert notes == ["The prompt has 20 tokens, of which CLIP reads 14."]
    assert large_models["sd3"].text.notes("cat " * 300)[1].endswith("of which T5 reads 255.")
    assert large_models["sd3"].text.notes("a red cat") == []


# Sizes, precision.


def test_sdxl_is_told_its_own_size_uncropped(large_models):
    denoiser = large_models["sdxl"].denoiser
    told = denoiser.encode(["a cat", ""])
    assert told["time_ids"].tolist() == [[16, 16, 0, 0, 16, 16]] * 2


def test_the_sizes_matter(large_models, large_folders):
    before = generate(RECIPE, large_models["sdxl"]).latents
    other = load_model(str(large_folders["sdxl"]), CPU)
    other.denoiser.sizes = (900, 16, 5, 0, 16, 16)
    assert float((generate(RECIPE, other).latents - before).abs().max()) > 1e-3


@pytest.mark.parametrize(("overflows", "dtype"), [(True, torch.float32), (False, torch.float16)])
def test_half_precision_is_not_asked_of_an_autoencoder_that_overflows(large_folders, overflows, dtype):
    from diffusers import AutoencoderKL

    half = Device(torch.device("cpu"), torch.float16)
    vae = AutoencoderKL.from_pretrained(large_folders["sdxl"] / "vae", torch_dtype=torch.float16)
    autoencoder = Autoencoder(vae, half, overflows)
    assert {p.dtype for p in vae.parameters()} == {dtype}
    assert autoencoder.decode(torch.zeros(1, 4, 8, 8)).dtype == torch.float32


def test_which_autoencoder_overflows_is_what_its_configuration_says(large_folders):
    half = Device(torch.device("cpu"), torch.float16)
    found = {}
    for name in ("sdxl", "sd3"):
        model = load_model(str(large_folders[name]), half)
        found[name] = next(model.autoencoder.network.parameters()).dtype
        assert next(model.denoiser.network.parameters()).dtype == torch.float16
    assert found == {"sdxl": torch.float32, "sd3": torch.float16}


# Loading.


def is_a_sentence(text):
    return text.endswith(".") and text.count(". ") == 0 and "\n" not in text and "Traceback" not in text


@pytest.mark.parametrize("part", ["unet", "text_encoder_2"])
def test_pickled_parts_are_refused(large_folders, tmp_path, part):
    shutil.copytree(large_folders["sdxl"], tmp_path / "m")
    weights = next((tmp_path / "m" / part).glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelError, match=f"only pickled weights for its {part}") as caught:
        load_model(str(tmp_path / "m"), CPU)
    assert is_a_sentence(str(caught.value))


def test_levels_that_are_not_known_are_refused(large_folders, tmp_path):
    shutil.copytree(large_folders["sdxl"], tmp_path / "m")
    file = tmp_path / "m" / "model_index.json"
    index = json.loads(file.read_text()) | {"scheduler": ["diffusers", "EDMEulerScheduler"]}
    file.write_text(json.dumps(index))
    with pytest.raises(ModelError, match="EDM's noise levels") as caught:
        load_model(str(tmp_path / "m"), CPU)
    assert is_a_sentence(str(caught.value))


def test_a_folder_that_holds_half_precision_alone_is_loaded(large_folders, large_models, tmp_path):
    shutil.copytree(large_folders["sdxl"], tmp_path / "m")
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        for file in (tmp_path / "m" / part).glob("*.safetensors"):
            file.rename(file.with_suffix(".fp16.safetensors"))
    loaded = load_model(str(tmp_path / "m"), CPU)
    assert loaded.denoiser.identity == large_models["sdxl"].denoiser.identity


# Networks that take turns on the device.


class Place(torch.nn.Module):
    """A network that notes where it is moved."""

    def __init__(self, name, log):
        super().__init__()
        self.name, self.log = name, log

    def to(self, where):
        self.log.append((self.name, str(where)))
        return self

    def forward(self, x):
        self.log.append((self.name, "called"))
        return x


def test_networks_take_turns_on_the_device():
    log: list[tuple[str, str]] = []
    text, denoiser = Place("text", log), Place("denoiser", log)
    TakeTurns(torch.device("cuda")).join([denoiser, text])
    assert log == [("denoiser", "cpu"), ("text", "cpu")]
    log.clear()
    for network in (text, denoiser, denoiser, text):
        network(torch.zeros(1))
    assert log == [
        ("text", "cuda"),
        ("text", "called"),
        ("text", "cpu"),
        ("denoiser", "cuda"),
        ("denoiser", "called"),
        ("denoiser", "called"),
        ("denoiser", "cpu"),
        ("text", "cuda"),
        ("text", "called"),
    ]


def test_an_autoencoder_takes_its_turn_with_either_half():
    log: list[tuple[str, str]] = []

    class Halves(Place):
        def encode(self, x):
            return self.forward(x)

        def decode(self, z, scale=1.0):
            self.log.append((self.name, f"decodes at {scale:g}"))
            return z

    denoiser, autoencoder = Place("denoiser", log), Halves("autoencoder", log)
    TakeTurns(torch.device("cuda")).join([denoiser, autoencoder])
    log.clear()
    denoiser(torch.zeros(1))
    autoencoder.decode(torch.zeros(1), scale=2.0)
    autoencoder.encode(torch.zeros(1))
    assert log == [
        ("denoiser", "cuda"),
        ("denoiser", "called"),
        ("denoiser", "cpu"),
        ("autoencoder", "cuda"),
        ("autoencoder", "decodes at 2"),
        ("autoencoder", "called"),
    ]


def test_a_network_that_does_not_fit_leaves_the_device():
    log: list[tuple[str, str]] = []

    class TooLarge(Place):
        def to(self, where):
            super().to(where)
            if str(where) != "cpu":
                raise torch.OutOfMemoryError("CUDA out of memory")

    small, large = Place("small", log), TooLarge("large", log)
    TakeTurns(torch.device("cuda")).join([small, large])
    log.clear()
    with pytest.raises(torch.OutOfMemoryError):
        large(torch.zeros(1))
    small(torch.zeros(1))
    assert log == [("large", "cuda"), ("large", "cpu"), ("small", "cuda"), ("small", "called")]


def test_models_take_turns_with_each_other_until_they_are_gone():
    log: list[tuple[str, str]] = []
    first, second = Place("first", log), Place("second", log)
    device = torch.device("meta", 7)  # of this test alone
    take_turns([first], device)
    take_turns([second], device)
    log.clear()
    first(torch.zeros(1))
    second(torch.zeros(1))
    assert log == [
        ("first", "meta:7"),
        ("first", "called"),
        ("first", "cpu"),
        ("second", "meta:7"),
        ("second", "called"),
    ]
    gone = weakref.ref(second)
    del second
    gc.collect()
    assert gone() is None
    first(torch.zeros(1))
    assert log[5:] == [("first", "meta:7"), ("first", "called")]


@pytest.mark.parametrize("name", ["sdxl", "sd3"])
def test_taking_turns_changes_nothing_but_the_place(large_folders, large_models, name):
    model = load_model(str(large_folders[name]), Device(torch.device("cpu"), torch.float32, offload=True))
    assert model.denoiser.identity == large_models[name].denoiser.identity
    assert torch.equal(generate(RECIPE, model).latents, generate(RECIPE, large_models[name]).latents)


def test_an_offloaded_autoencoder_works_in_tiles(large_folders):
    model = load_model(str(large_folders["sdxl"]), Device(torch.device("cpu"), torch.float32, offload=True))
    network, seen = model.autoencoder.network, []
    network.decoder.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0].shape[-2:]))
    network.encoder.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0].shape[-2:]))
    picture = model.autoencoder.decode(torch.zeros(1, 4, 96, 64))
    assert picture.shape == (1, 3, 192, 128) and len(seen) > 1 and max(max(size) for size in seen) == 64
    seen.clear()
    assert model.autoencoder.encode(picture).shape == (1, 4, 96, 64)
    assert len(seen) > 1 and max(max(size) for size in seen) == 128


def test_an_offloaded_tiny_autoencoder_is_as_it_was():
    """Its tiles are made for another layout, and it takes little memory."""
    plain, model = load_model(), load_model(device=Device(torch.device("cpu"), torch.float32, offload=True))
    z = torch.randn(1, plain.denoiser.shape[0], 96, 72, generator=torch.Generator().manual_seed(0))
    picture = plain.autoencoder.decode(z)
    torch.testing.assert_close(model.autoencoder.decode(z), picture, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        model.autoencoder.encode(picture), plain.autoencoder.encode(picture), rtol=0, atol=1e-4
    )


def test_offloading_is_for_gpus():
    with pytest.raises(ModelError) as caught:
        choose_device("cpu", offload=True)
    assert is_a_sentence(str(caught.value))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["sdxl", "sd3"])
def test_on_a_gpu_one_network_is_there_at_a_time(large_folders, name):
    model = load_model(str(large_folders[name]), choose_device("cuda", "float32", offload=True))
    result = generate(RECIPE, model)
    plain = generate(RECIPE, load_model(str(large_folders[name]), choose_device("cuda", "float32")))
    torch.testing.assert_close(result.latents, plain.latents, rtol=1e-4, atol=1e-4 * float(plain.latents.std()))
    networks = (model.denoiser.network, *(e.network for e in model.text.encoders))
    places = [next(n.parameters()).device.type for n in networks]
    assert places == ["cpu"] * len(places)
    assert next(model.autoencoder.network.parameters()).device.type == "cuda"
