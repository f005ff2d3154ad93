"""Checkpoints as single files in their authors' layout: the same model as from a folder, without the network."""

from __future__ import annotations

import shutil
from pathlib import Path

import original
import pytest
import torch
from safetensors.torch import load_file, save_file

from playground.devices import choose_device
from playground.errors import ModelError
from playground.images.models import load_model, locate, model_list, needs_hub
from playground.images.text_to_image import generate
from playground.recipes import TextToImage

CPU = choose_device("cpu")
NAMES = ("sd1", "sd2", "sdxl", "sd3", "sd3 without t5")
RECIPE = TextToImage(prompt="a red cat", w=4.0, steps=3, seed=21, grid="uniform")


def is_a_sentence(text):
    return text.endswith(".") and text.count(". ") == 0 and "\n" not in text and "Traceback" not in text


@pytest.fixture(scope="module")
def every_folder(folders, sd2_folder, large_folders):
    return {"sd1": folders["sd1"], "sd2": sd2_folder, **large_folders}


@pytest.fixture(scope="module")
def files(every_folder, tmp_path_factory):
    """The single files, and for each a folder that holds its configuration and tokenizers alone."""
    root = tmp_path_factory.mktemp("single")
    made = {}
    for name in NAMES:
        config = root / f"{name} configuration"
        shutil.copytree(every_folder[name], config, ignore=shutil.ignore_patterns("*.safetensors"))
        made[name] = original.write(every_folder[name], root / f"{name}.safetensors"), config
    return made


@pytest.fixture(params=[True, False], ids=["with accelerate", "without accelerate"])
def accelerate(request, monkeypatch):
    """diffusers fills networks in two ways, and this project does not ask for accelerate."""
    from diffusers.utils import is_accelerate_available

    if request.param and not is_accelerate_available():
        pytest.skip("accelerate is not installed")
    for module in ("single_file_model", "single_file_utils"):
        monkeypatch.setattr(f"diffusers.loaders.{module}.is_accelerate_available", lambda: request.param)


@pytest.mark.usefixtures("accelerate")
@pytest.mark.parametrize("name", NAMES)
def test_a_single_file_is_the_model_of_its_folder(files, every_folder, name):
    file, config = files[name]
    model, expected = load_model(f"{file}@{config}", CPU), load_model(str(every_folder[name]), CPU)
    assert model.name == name
    assert model.denoiser.identity == expected.denoiser.identity

    def parts(m):
        return m.denoiser, m.autoencoder, *m.text.encoders

    for one, other in zip(parts(model), parts(expected), strict=True):
        ours, theirs = one.network.state_dict(), other.network.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    # Weights that lie otherwise in memory may round otherwise.
    a, b = generate(RECIPE, model).latents, generate(RECIPE, expected).latents
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.std()))
    assert model.text.tokens("a red cat") == expected.text.tokens("a red cat")


def test_a_file_without_t5_is_read_with_a_configuration_that_has_it(files):
    (file, _), (_, config) = files["sd3 without t5"], files["sd3"]
    model = load_model(f"{file}@{config}", CPU)
    assert len(model.text.encoders) == 2
    assert model.text.summary.endswith("T5 is not loaded.")


@pytest.mark.usefixtures("accelerate")
@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("sd1", "model.diffusion_model.middle_block.1.norm.weight"),
        ("sd1", "first_stage_model.decoder.conv_in.weight"),
        ("sd1", "cond_stage_model.transformer.text_model.final_layer_norm.weight"),
        ("sdxl", "model.diffusion_model.input_blocks.2.0.op.weight"),
        ("sd3", "text_encoders.clip_g.transformer.text_model.final_layer_norm.weight"),
    ],
)
def test_a_file_that_lacks_weights_is_refused_and_not_filled_at_random(files, tmp_path, name, lost):
    file, config = files[name]
    tensors = load_file(file)
    del tensors[lost]
    save_file(tensors, tmp_path / "part.safetensors")
    with pytest.raises(ModelError) as caught:
        load_model(f"{tmp_path / 'part.safetensors'}@{config}", CPU)
    assert str(caught.value) == "The file of the model 'part' lacks weights that its configuration asks for."
    assert is_a_sentence(str(caught.value))
    assert torch.nn.Module.load_state_dict.__qualname__ == "Module.load_state_dict"


@pytest.mark.parametrize("name", NAMES)
def test_a_file_alone_says_what_to_pass(files, monkeypatch, name):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    file, _ = files[name]
    with pytest.raises(ModelError) as caught:
        load_model(str(file), CPU)
    assert str(caught.value) == (
        f"{name}.safetensors holds weights alone: pass where its configuration is, as FILE@FOLDER with a folder in "
        "diffusers' layout, or as FILE@OWNER/NAME with a model of its kind on the hub."
    )


def test_a_configuration_of_another_family_is_refused(files):
    (file, _), (_, config) = files["sd1"], files["sdxl"]
    with pytest.raises(ModelError) as caught:
        load_model(f"{file}@{config}", CPU)
    assert is_a_sentence(str(caught.value))


def test_other_tensors_are_no_model(files, tmp_path):
    file = tmp_path / "adapter.safetensors"
    save_file({"lora_unet_down": torch.zeros(2)}, file)
    with pytest.raises(ModelError) as caught:
        load_model(f"{file}@{files['sd1'][1]}", CPU)
    assert is_a_sentence(str(caught.value))


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.bin"])
def test_pickles_are_refused_with_a_configuration_as_well(files, tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04.")
    for given in (tmp_path / name, f"{tmp_path / name}@{files['sd1'][1]}"):
        with pytest.raises(ModelError, match="only safetensors are loaded"):
            locate(str(given))


def test_a_folder_that_is_no_configuration_is_refused(files, tmp_path):
    with pytest.raises(ModelError, match=r"no model_index\.json"):
        locate(f"{files['sd1'][0]}@{tmp_path}")


def test_files_are_named_by_their_stem(files):
    file, config = files["sd1"]
    assert list(model_list([f"{file}@{config}", str(files["sdxl"][0])])) == ["sd1", "sdxl", "emoji"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [("owner/name", True), ("/a/model.safetensors@owner/name", True), ("/a/b@/c/d", False), ("emoji", False)],
)
def test_the_hub_is_needed_where_something_on_it_is_named(given, expected):
    assert needs_hub(given) is expected


def test_an_at_sign_in_the_name_of_a_file_is_part_of_it(files, tmp_path):
    file, config = files["sd1"]
    odd = tmp_path / "me@home"
    odd.mkdir()
    shutil.copy(file, odd / "model.safetensors")
    assert Path(locate(str(odd / "model.safetensors"))).name == "model.safetensors"
    assert load_model(f"{odd / 'model.safetensors'}@{config}", CPU).name == "model"
