import copy
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, StableDiffusionImg2ImgPipeline, StableDiffusionPipeline

from playground.devices import Device, choose_device
from playground.errors import ModelError
from playground.images.models import (
    ASSETS,
    BUNDLED,
    Autoencoder,
    is_hub_id,
    load_model,
    locate,
    to_images,
    to_uint8,
)
from playground.images.text_to_image import generate
from playground.recipes import TextToImage
from training.package import plainly_loaded

CPU = choose_device("cpu")


def is_a_sentence(text):
    return text.endswith(".") and text.count(". ") == 0 and "\n" not in text and "Traceback" not in text


# Tokens.


@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_tokens_fill_the_context_and_say_where_they_stand(models, name):
    prompt = "a red  cat"
    tokens = models[name].text.tokens(prompt)
    assert len(tokens) == models[name].text.length
    assert [(t.text, prompt[t.start : t.end]) for t in tokens if t.kind == "word"] == [
        ("a", "a"),
        ("red", "red"),
        ("cat", "cat"),
    ]
    assert [t.kind for t in tokens[:5]] == ["special", "word", "word", "word", "special"]
    assert {t.kind for t in tokens[5:]} == {"padding"}


@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_token_numbers_are_those_the_network_reads(models, name):
    text = models[name].text
    ids = text.tokenizer("a red cat", padding="max_length", max_length=text.length).input_ids
    assert [t.id for t in text.tokens("a red cat")] == ids


def test_unknown_words_are_tokens_of_their_own_kind(models):
    prompt = "a purple cat"
    tokens = models["sd2"].text.tokens(prompt)
    assert [(t.text, t.kind) for t in tokens[1:4]] == [("a", "word"), ("purple", "unknown"), ("cat", "word")]


def test_unknown_words_are_named_once(models):
    (note,) = models["sd2"].text.notes("purple cat on Purple purple xylophone, grass")
    assert "“purple”" in note
    assert "“xylophone”" in note
    assert "“,”" not in note
    assert note.count("“purple”") == 1
    assert is_a_sentence(note)


def test_many_or_long_unknown_words_make_a_short_note(models):
    (note,) = models["sd2"].text.notes("q" * 500 + " u v w x y z u1")
    assert len(note) < 250
    assert "and more" in note


@pytest.mark.parametrize("prompt", ["", "a red cat", "A RED cat"])
def test_nothing_is_noted_of_a_prompt_that_is_read(models, prompt):
    assert models["sd2"].text.notes(prompt) == []


def test_a_prompt_that_is_too_long_is_noted(models):
    text = models["sd2"].text
    assert text.notes("cat " * (text.length - 2)) == []
    (note,) = text.notes("cat " * (text.length - 1))
    assert note == f"The prompt has {text.length - 1} tokens, of which the model reads {text.length - 2}."
    assert len(text.tokens("cat " * 100)) == text.length


@pytest.mark.parametrize("prompt", ["<script>", "قطة", "🐱" * 50, "\0", "x" * 10_000, "</s> <pad>"])
@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_any_text_can_be_encoded(models, name, prompt):
    text = models[name].text
    assert bool(torch.isfinite(text.encode([prompt])).all())
    assert len(text.tokens(prompt)) == text.length
    assert all(is_a_sentence(n) for n in text.notes(prompt))


# Token states.


@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_states_are_those_of_the_pipeline(models, pipelines, name):
    expected, empty = pipelines[name].encode_prompt("a red cat", "cpu", 1, True)
    states = models[name].text.encode(["a red cat", ""])
    torch.testing.assert_close(states, torch.cat([expected, empty]), rtol=0, atol=1e-5)


class Counts:
    def __init__(self, network):
        self.network, self.calls = network, 0

    def __call__(self, ids):
        self.calls += 1
        return self.network(ids)


@pytest.fixture
def counted(models, monkeypatch):
    text = load_text(models["sd2"])
    return text, text.network


def load_text(model):
    from playground.images.models import TextEncoder

    text = TextEncoder(model.text.tokenizer, model.text.network, CPU, remember=3)
    text.network = Counts(text.network)
    return text


def test_a_prompt_is_encoded_once(counted):
    text, network = counted
    first = text.encode(["cat", "dog", "cat"])
    assert network.calls == 2
    assert torch.equal(first[0], first[2])
    assert torch.equal(text.encode(["dog"])[0], first[1])
    assert network.calls == 2


def test_words_can_be_read_while_prompts_are_encoded(counted):
    """A fast tokenizer keeps its padding as state: unguarded, some prompts would lose theirs."""
    text, _ = counted
    over = threading.Event()

    def reads():
        while not over.is_set():
            text.notes("a red cat beside a dog")

    readers = [threading.Thread(target=reads) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        shapes = {text._context(f"a cat {i}", return_tensors="pt").input_ids.shape for i in range(1500)}
    finally:
        over.set()
        for reader in readers:
            reader.join()
    assert shapes == {(1, text.length)}


def test_only_the_last_prompts_are_remembered(counted):
    text, network = counted
    text.encode(["cat", "dog"])
    text.encode(["cat"])  # makes "dog" the oldest
    text.encode(["red", "blue"])
    assert network.calls == 4
    text.encode(["cat"])
    assert network.calls == 4
    text.encode(["dog"])
    assert network.calls == 5


def test_what_is_remembered_takes_no_more_than_its_room(counted, monkeypatch):
    text, network = counted
    monkeypatch.setattr("playground.images.models.REMEMBERED", 2 * text.encode(["cat"]).nbytes)
    text.encode(["dog"])
    text.encode(["cat"])
    assert network.calls == 2
    text.encode(["red"])  # in the place of "dog"
    text.encode(["cat"])
    assert network.calls == 3
    text.encode(["dog"])
    assert network.calls == 4


def test_what_a_run_asks_for_in_every_step_is_read_once(counted, monkeypatch):
    text, network = counted
    monkeypatch.setattr("playground.images.models.REMEMBERED", 1)
    for _ in range(3):
        assert len(text.encode(["a", "red", "green", "cat", "dog"])) == 5
    assert network.calls == 5


def test_more_prompts_than_are_remembered_are_all_encoded(counted):
    text, _ = counted
    assert len(text.encode(["a", "red", "green", "cat", "dog"])) == 5


def test_states_do_not_depend_on_the_neighbours(counted, models):
    text, _ = counted
    assert torch.equal(text.encode(["cat", "dog", "sky"])[1:2], load_text(models["sd2"]).encode(["dog"]))


# The denoiser.


def test_kind_and_path_come_from_the_checkpoint(models):
    found = {name: (m.denoiser.kind, m.denoiser.schedule.name, m.denoiser.shape) for name, m in models.items()}
    assert found == {
        "sd1": ("eps", "discrete", (4, 8, 8)),
        "sd2": ("v", "discrete", (4, 8, 8)),
        "flow": ("velocity", "linear", (4, 8, 8)),
    }


class Hears:
    """Stands in for a UNet and notes the timesteps it is told."""

    def __init__(self, network):
        self.config, self.state_dict, self.told = network.config, network.state_dict, []

    def __call__(self, x, timestep, return_dict, **condition):
        self.told.append(timestep)
        return (x,)


def denoiser_with(model, config):
    from playground.images.models import Denoiser

    return Denoiser(Hears(model.denoiser.network), config, model.text, CPU, "test")


@pytest.mark.parametrize(
    ("config", "t", "expected"),
    [
        ({"beta_schedule": "linear"}, [1.0, 0.5, 0.001, 0.4005], [999, 499, 0, 399.5]),
        ({"beta_schedule": "linear", "num_train_timesteps": 100}, [1.0, 0.5, 0.01], [99, 49, 0]),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, [1.0, 0.5, 0.001], [1000, 500, 1]),
    ],
)
def test_network_is_told_its_own_timesteps(models, config, t, expected):
    denoiser = denoiser_with(models["sd1"], config)
    x = torch.zeros(len(t), 4, 8, 8)
    denoiser.predict(x, torch.tensor(t, dtype=torch.float64), denoiser.encode([""] * len(t)))
    (told,) = denoiser.network.told
    torch.testing.assert_close(told, torch.tensor(expected, dtype=torch.float32), rtol=0, atol=1e-3)


@pytest.mark.parametrize("levels", [100, 1000, 1024])
def test_flow_timesteps_follow_the_number_of_levels(models, levels):
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=levels)
    scheduler.set_timesteps(sigmas=[1.0, 0.5])
    denoiser = denoiser_with(models["sd1"], dict(scheduler.config) | {"_class_name": type(scheduler).__name__})
    told = denoiser.timestep(torch.tensor([1.0, 0.5], dtype=torch.float64))
    assert told.tolist() == scheduler.timesteps.tolist() == [levels, levels / 2]


def test_output_that_is_not_known_is_named(models):
    with pytest.raises(ModelError, match="'score'") as caught:
        denoiser_with(models["sd1"], {"prediction_type": "score"})
    assert is_a_sentence(str(caught.value))


def test_identity_tells_models_apart(models):
    assert len({m.denoiser.identity for m in models.values()}) == 3


def test_identity_changes_with_any_layer_and_not_with_the_folder(folders, tmp_path):
    shutil.copytree(folders["sd1"], tmp_path / "copy")
    a, b = load_model(str(folders["sd1"]), CPU), load_model(str(tmp_path / "copy"), CPU)
    assert a.denoiser.identity == b.denoiser.identity
    before = b.denoiser.identity
    with torch.no_grad():
        b.denoiser.network.conv_out.weight.mul_(1.01)
    assert denoiser_with(b, {}).identity.split("/")[0] != before.split("/")[0]


# The autoencoder.


def small_autoencoder(**config):
    torch.manual_seed(0)
    return AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4, **config).eval()


@pytest.mark.parametrize(("scale", "shift"), [(0.18215, None), (1.5305, 0.0609)])
def test_latents_are_scaled_and_shifted_as_diffusers_says(scale, shift):
    network = small_autoencoder(scaling_factor=scale, shift_factor=shift)
    ours, latents = Autoencoder(network, CPU), torch.randn(3, 4, 8, 8)
    with torch.no_grad():
        expected = network.decode(latents / scale + (shift or 0)).sample.clamp(-1, 1)
        pictures = expected
        back = (network.encode(pictures).latent_dist.mode() - (shift or 0)) * scale
    torch.testing.assert_close(ours.decode(latents), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.encode(pictures), back, rtol=0, atol=1e-5)


def test_pictures_stay_within_their_range(models):
    for model in models.values():
        pictures = model.autoencoder.decode(50 * torch.randn(2, 4, 8, 8))
        assert float(pictures.abs().max()) <= 1


def test_bytes_are_those_of_the_image_processor():
    from diffusers.image_processor import VaeImageProcessor

    pictures = torch.linspace(-1.2, 1.2, 2 * 3 * 5 * 7).reshape(2, 3, 5, 7)
    expected = VaeImageProcessor().postprocess(pictures, output_type="pil")
    for ours, theirs in zip(to_images(pictures), expected, strict=True):
        assert ours.tobytes() == theirs.tobytes()
    assert to_uint8(pictures).shape == (2, 5, 7, 3)


# Loading.


def test_a_model_is_called_as_its_folder_or_as_told(folders):
    assert load_model(str(folders["sd2"]), CPU).name == "sd2"
    assert load_model(str(folders["sd2"]), CPU, name="mine").name == "mine"


def test_networks_are_loaded_for_sampling_only(models):
    for model in models.values():
        for network in (model.denoiser.network, model.text.network, model.autoencoder.network):
            assert not network.training
            assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_threads_keep_their_precision_while_a_model_is_loaded(folders, dtype):
    seen, over = set(), threading.Event()

    def watch():
        while not over.wait(0.0005):  # a pause, or the loading thread would hardly be let in
            seen.add(torch.get_default_dtype())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(3):
            model = load_model(str(folders["sd1"]), Device(torch.device("cpu"), dtype))
    finally:
        over.set()
        watcher.join()
    assert seen == {torch.float32}
    networks = (model.denoiser.network, *(e.network for e in model.text.encoders))
    assert {p.dtype for network in networks for p in network.parameters()} == {dtype}
    assert {b.dtype for n in networks for b in n.buffers() if b.is_floating_point()} <= {dtype, torch.float32}


def test_models_loaded_at_once_get_their_own_precision(folders):
    wanted = [torch.float16, torch.float32] * 4
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda d: load_model(str(folders["sd1"]), Device(torch.device("cpu"), d)), wanted))
    assert [next(m.denoiser.network.parameters()).dtype for m in found] == wanted
    assert torch.get_default_dtype() == torch.float32


def test_a_word_level_model_lists_its_words(models):
    assert models["sd2"].vocabulary["words"] == sorted(
        ["a", "red", "green", "cat", "dog", "on", "the", "grass", "blue", "sky"]
    )


def test_a_model_that_can_spell_anything_has_no_list_of_words(models):
    assert len(models["sd1"].text.tokenizer) < 100  # however few pieces it has
    assert models["sd1"].vocabulary is None


def test_a_model_may_say_its_words_and_examples_itself(folders, tmp_path):
    shutil.copytree(folders["sd2"], tmp_path / "told")
    stated = {"words": {"animals": ["cat", "dog"]}, "examples": ["a cat"]}
    (tmp_path / "told" / "vocabulary.json").write_text(json.dumps(stated))
    model = load_model(str(tmp_path / "told"), CPU)
    assert model.vocabulary == {"animals": ["cat", "dog"]}
    assert model.examples == ("a cat",)


def missing(folder, tmp):
    return str(tmp / "nowhere"), "There is no model"


def pickled(folder, tmp):
    file = tmp / "model.ckpt"
    file.write_bytes(b"\x80\x04.")
    return str(file), "pickle"


def other_file(folder, tmp):
    file = tmp / "model.png"
    file.write_bytes(b"")
    return str(file), "is a file"


def no_tensors(folder, tmp):
    file = tmp / "model.safetensors"
    file.write_bytes(b"no tensors")
    return f"{file}@{folder}", "'model' could not be loaded"


def no_model(folder, tmp):
    return str(tmp), "no model_index.json"


def bin_only(folder, tmp):
    shutil.copytree(folder, tmp / "m")
    weights = next((tmp / "m" / "unet").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    return str(tmp / "m"), "only pickled weights for its unet"


def no_weights(folder, tmp):
    shutil.copytree(folder, tmp / "m")
    next((tmp / "m" / "vae").glob("*.safetensors")).unlink()
    return str(tmp / "m"), "no weights for its vae"


def damaged_index(folder, tmp):
    shutil.copytree(folder, tmp / "m")
    (tmp / "m" / "model_index.json").write_text('{"_class_name": ')
    return str(tmp / "m"), "model_index.json is damaged"


def index_of_another_shape(folder, tmp):
    shutil.copytree(folder, tmp / "m")
    (tmp / "m" / "model_index.json").write_text("[1, 2]")
    return str(tmp / "m"), "model_index.json is damaged"


def index_of_a_million_brackets(folder, tmp):
    shutil.copytree(folder, tmp / "m")
    (tmp / "m" / "model_index.json").write_text("[" * 1_000_000)
    return str(tmp / "m"), "model_index.json is damaged"


def unknown_betas(folder, tmp):
    shutil.copytree(folder, tmp / "m")
    file = tmp / "m" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"beta_schedule": "sigmoid"}))
    return str(tmp / "m"), "the beta schedule 'sigmoid' is not known here"


def no_noise(folder, tmp):
    shutil.copytree(folder, tmp / "m")
    file = tmp / "m" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"beta_start": 0, "beta_end": 0}))
    return str(tmp / "m"), "m"


def damaged_vocabulary(folder, tmp):
    shutil.copytree(folder, tmp / "m")
    (tmp / "m" / "vocabulary.json").write_text('{"words": ')
    return str(tmp / "m"), "m"


def other_family(folder, tmp):
    shutil.copytree(folder, tmp / "m")
    index = json.loads((tmp / "m" / "model_index.json").read_text())
    (tmp / "m" / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}))
    return str(tmp / "m"), "is a FluxPipeline"


def damaged_weights(folder, tmp):
    shutil.copytree(folder, tmp / "m")
    next((tmp / "m" / "unet").glob("*.safetensors")).write_bytes(b"no weights")
    return str(tmp / "m"), "could not be loaded"


def no_tokenizer(folder, tmp):
    shutil.copytree(folder, tmp / "m")
    shutil.rmtree(tmp / "m" / "tokenizer")
    return str(tmp / "m"), "could not be loaded"


def not_on_the_hub(folder, tmp):
    return "nobody/nothing-of-this-name", "neither a folder here nor"


@pytest.mark.parametrize(
    "case",
    [
        missing,
        pickled,
        other_file,
        no_tensors,
        no_model,
        bin_only,
        no_weights,
        damaged_index,
        index_of_another_shape,
        index_of_a_million_brackets,
        unknown_betas,
        no_noise,
        damaged_vocabulary,
        other_family,
        damaged_weights,
        no_tokenizer,
        not_on_the_hub,
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(folders, tmp_path, case):
    path, said = case(folders["sd2"], tmp_path)
    with pytest.raises(ModelError) as caught:
        load_model(path, CPU)
    assert said in str(caught.value)
    assert is_a_sentence(str(caught.value))
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("path", ["", "no such model", "../..", ".hidden/model", "\0", "a/b/c"])
def test_odd_names_are_no_models(path):
    with pytest.raises(ModelError):
        locate(path)


@pytest.mark.parametrize(
    "path",
    [
        "~nobody-of-this-name/model",
        "x" * 200,
        "a" * 300 + "/" + "b" * 5000,
        "x" * 300,
        "名" * 200,  # characters of three bytes: a recipe takes 200 of them
        pytest.param(__file__ + "/model", id="below-a-file"),
        "with\0nothing",
    ],
    ids=lambda path: path[:12].replace("\0", "0"),
)
def test_names_that_the_file_system_refuses_are_no_models(path):
    with pytest.raises(ModelError) as caught:
        locate(path)
    assert is_a_sentence(str(caught.value))
    assert len(str(caught.value)) < 120


CACHED = """
import sys
from playground.images.models import load_model
here, there = (load_model(name) for name in sys.argv[1:])
print(there.name, here.denoiser.identity == there.denoiser.identity)
"""


def test_a_model_of_the_hub_is_loaded_by_its_id(folders, tmp_path):
    """From the hub's own cache, as it is after a download."""
    cache = tmp_path / "models--somebody--tiny"
    shutil.copytree(folders["sd1"], cache / "snapshots" / "0123abcd")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0123abcd")
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CACHED, str(folders["sd1"]), "somebody/tiny"],
        env=environment, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.split() == ["somebody/tiny", "True"], done.stderr


def test_any_text_may_be_asked_whether_it_is_a_hub_id():
    is_hub_id("名" * 90 + "/" + "名" * 90)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("owner/name", True),
        ("runwayml/stable-diffusion-v1-5", True),
        ("o" * 96 + "/" + "n" * 96, True),
        ("o" * 97 + "/name", False),
        ("owner/" + "n" * 97, False),
        ("owner", False),
        ("a/b/c", False),
        (".hidden/name", False),
    ],
)
def test_hub_ids_are_owner_and_name_of_at_most_96_characters(name, expected):
    assert is_hub_id(name) is expected


def test_the_bundled_model_runs_in_plain_diffusers():
    """As its model card says: nothing but the folder's name, and from there to img2img."""
    pipeline = StableDiffusionPipeline.from_pretrained(ASSETS / BUNDLED, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a cat on the grass", num_inference_steps=1, guidance_scale=4).images[0]
    assert picture.size == (128, 128)
    again = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    again.set_progress_bar_config(disable=True)
    edited = again("a cat", image=picture, strength=1.0, num_inference_steps=1).images[0]
    assert edited.size == picture.size
    width = pipeline.text_encoder.config.hidden_size
    assert ControlNetModel.from_unet(pipeline.unet).config.cross_attention_dim == width


def test_a_packaged_folder_gets_one_precision_wherever_it_is_loaded(pipelines, tmp_path):
    folder = tmp_path / "packaged"
    halves = copy.deepcopy(pipelines["sd1"]).to(torch.float16)
    halves.save_pretrained(folder)
    plainly_loaded(folder)
    loaded = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    assert {part.dtype for part in (loaded.unet, loaded.vae, loaded.text_encoder)} == {torch.float32}
    wanted = halves.text_encoder.float().state_dict()
    assert all(torch.equal(v, wanted[k]) for k, v in loaded.text_encoder.state_dict().items())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs a C++ compiler")
@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_a_compiled_denoiser_whose_rows_are_apart_makes_the_same_latents(folders, models, name, monkeypatch):
    compiled = load_model(str(folders[name]), CPU, compiled=True)
    monkeypatch.setattr("playground.images.models.usual_threads", lambda: 2)
    compiled.denoiser.apart = True
    recipe = TextToImage(prompt="a red cat", w=4.0, steps=3, seed=3)
    ours, theirs = (generate(recipe, m).latents for m in (compiled, models[name]))
    assert float((ours - theirs).abs().max()) < 1e-4 * max(1.0, float(theirs.std()))
    assert compiled.denoiser._compiled_for == {(1, 1)}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs a C++ compiler")
@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_a_compiled_denoiser_makes_the_same_latents(folders, models, name):
    compiled = load_model(str(folders[name]), CPU, compiled=True)
    assert compiled.denoiser.compiled
    recipe = TextToImage(prompt="a red cat", w=4.0, steps=3, seed=3, solver="dpmpp_2m")
    said = []
    compiled.denoiser.tell = said.append
    ours, theirs = (generate(recipe, m).latents for m in (compiled, models[name]))
    assert float((ours - theirs).abs().max()) < 1e-4 * max(1.0, float(theirs.std()))
    assert said and said[0] and "being compiled for 2 sample-forwards" in said[0] and said[-1] is None
    told = len(said)
    generate(recipe.but(seed=4), compiled)
    assert len(said) == told  # the same number of rows is compiled once
