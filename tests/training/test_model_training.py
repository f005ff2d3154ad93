"""The training: resuming repeats an uninterrupted run, and nothing depends on what it should not."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from safetensors.torch import save_file

from playground.images.verifier import Verifier
from training import (
    autoencoder,
    common,
    data,
    denoiser,
    evaluate,
    latents,
    package,
    sampling,
    scenes,
    text,
    verifier,
    world,
)

needs_font = pytest.mark.skipif(
    not world.font_is_installed(), reason="the emoji font is missing: apt install fonts-noto-color-emoji"
)
DEVICE = torch.device("cpu")


def _trainer(seed: int = 0) -> denoiser.Trainer:
    torch.manual_seed(seed)
    tokenizer = text.build_tokenizer()
    encoder = text.build_text_encoder(tokenizer, width=32, layers=1)
    unet = denoiser.build_unet(4, 32, channels=(16, 32))
    return denoiser.Trainer(tokenizer, encoder, unet, DEVICE, warmup=3)


@pytest.fixture(scope="module")
def batches() -> denoiser.Batches:
    rng = random.Random(0)
    truths = [scenes.sample(rng) for _ in range(20)]
    images = torch.randn(20, 4, 16, 16, generator=torch.Generator().manual_seed(0)).half()
    return denoiser.Batches(images, truths, text.Captioner(text.build_tokenizer()), batch=4, dropout=0.25)


def _weights(trainer: denoiser.Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.parameters])


def test_resuming_repeats_an_uninterrupted_run(batches, tmp_path):
    whole = _trainer()
    losses = [whole.update(*batches(whole.step)) for _ in range(6)]

    broken = _trainer()
    for _ in range(3):
        broken.update(*batches(broken.step))
    common.save_checkpoint(tmp_path / "checkpoint.pt", broken.state())
    resumed = _trainer(seed=7)
    resumed.restore(common.load_checkpoint(tmp_path / "checkpoint.pt", DEVICE))
    again = [resumed.update(*batches(resumed.step)) for _ in range(3)]

    assert again == pytest.approx(losses[3:], rel=1e-4)
    torch.testing.assert_close(_weights(resumed), _weights(whole), rtol=1e-3, atol=1e-5)
    for a, b in zip(resumed.average.values, whole.average.values, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    assert resumed.counters()["samples"] == whole.counters()["samples"] == 24


def test_cooling_ends_at_rest_with_the_weights_themselves(batches):
    trainer = _trainer()
    moved, before = [], _weights(trainer)
    for _ in trainer.cool(batches, 40):
        moved.append(float((_weights(trainer) - before).norm()))
        before = _weights(trainer)
    assert trainer.step == 40 and trainer.samples == 160
    assert max(moved[-2:]) < 0.2 * max(moved)  # the rate is a twentieth by then
    torch.testing.assert_close(torch.cat([v.flatten() for v in trainer.average.values]), _weights(trainer))


def test_a_model_folder_alone_is_enough_to_go_on(batches, tmp_path):
    trainer = _trainer()
    for _ in range(2):
        trainer.update(*batches(trainer.step))
    trainer.save_averaged(tmp_path)
    again = denoiser.from_folder(tmp_path, DEVICE)
    assert again.step == again.first == 2
    for p, value in zip(again.parameters, trainer.average.values, strict=True):
        torch.testing.assert_close(p.detach(), value, rtol=2e-3, atol=2e-3)  # half precision on disk
    assert np.isfinite(again.update(*batches(again.step)))


def test_batches_depend_on_the_step_only_and_visit_every_scene(batches):
    for a, b in zip(batches(3), batches(3), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(batches(3)[0], batches(4)[0])
    assert sorted(batches._order(0)) == list(range(20))
    assert batches._order(0) != batches._order(1)


def test_velocity_is_that_of_the_noisy_latents(batches):
    noisy, t, ids, v, weights = batches(0)
    alpha, sigma = (x[t].view(-1, 1, 1, 1) for x in denoiser.alphas_and_sigmas())
    clean = alpha * noisy - sigma * v
    known = batches.images.float().flatten(1)
    distance = torch.cdist(clean.flatten(1), known).min(1).values
    assert distance.max() < 1e-2
    assert ids.shape == (4, scenes.MAX_TOKENS)
    torch.testing.assert_close(weights, denoiser.loss_weights(batches.images.float().var().item())[t])


def test_timesteps_cover_the_schedule():
    weights = denoiser.timestep_weights()
    assert weights.sum().item() == pytest.approx(1, abs=1e-5)
    assert weights.min() > 0
    alpha, sigma = denoiser.alphas_and_sigmas()
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones(1000))
    assert alpha[-1] < 0.01  # near-zero terminal SNR: black and white backgrounds are possible


def test_average_follows_power_weights():
    parameter = torch.nn.Parameter(torch.zeros(1))
    average = common.Average([parameter])
    for step in range(1000):
        with torch.no_grad():
            parameter.fill_(float(step))
        average.update(step)
    # Weights proportional to step^gamma: the mean lies at (gamma + 1) / (gamma + 2) of the way.
    expected = 1000 * (common.Average.GAMMA + 1) / (common.Average.GAMMA + 2)
    assert average.values[0].item() == pytest.approx(expected, rel=0.01)
    with average.applied():
        assert parameter.item() == average.values[0].item()
    assert parameter.item() == 999


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """Smooth random pictures, so that few components say much."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((12, 3, 8, 8)).astype(np.float32))
    fine = torch.nn.functional.interpolate(coarse, size=64, mode="bicubic").clamp(0, 1)
    return (255 * fine).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def test_the_encoder_is_the_principal_components(pictures):
    model = autoencoder.build(latent_channels=24, width=8)
    mean, components, deviations = autoencoder.principal_components(pictures, 24)
    gram = torch.einsum("acyx,bcyx->ab", components, components)
    torch.testing.assert_close(gram, torch.eye(24), atol=1e-4, rtol=0)
    autoencoder.write_encoder(model, mean, components, deviations)
    latents = autoencoder.encode(model, pictures).float()

    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    scale = autoencoder.LARGEST_DEVIATION * (deviations / deviations[0]).sqrt() / deviations
    kernel = components * scale[:, None, None, None]
    direct = torch.nn.functional.conv2d(x, kernel, stride=8) - (kernel * mean).sum((1, 2, 3))[None, :, None, None]
    torch.testing.assert_close(latents, direct, atol=4e-3, rtol=0)
    spread = latents.std((0, 2, 3))
    assert spread[0].item() == pytest.approx(autoencoder.LARGEST_DEVIATION, rel=0.02)
    assert (spread[:-1] >= spread[1:] - 1e-3).all()  # from coarse to fine


def test_decoder_training_resumes_and_improves(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(autoencoder, "CROP", 32)
    monkeypatch.setattr(autoencoder.world, "SIZE", 64)
    monkeypatch.setattr(autoencoder.data, "load", lambda folder, name: (pictures, []))
    monkeypatch.setattr(autoencoder, "held_out_pictures", lambda count: np.concatenate([pictures] * 3)[:32])
    torch.manual_seed(0)
    model = autoencoder.build(latent_channels=24, width=8)
    autoencoder.write_encoder(model, *autoencoder.principal_components(pictures, 24))
    model.save_pretrained(tmp_path / "autoencoder")
    before, _ = autoencoder.evaluate(model, pictures)
    autoencoder.train_decoder(tmp_path, 3, 4, 5, DEVICE)
    autoencoder.train_decoder(tmp_path, 30, 4, 5, DEVICE)
    trained = autoencoder.AutoencoderTiny.from_pretrained(tmp_path / "autoencoder")
    after, _ = autoencoder.evaluate(trained, pictures)
    assert after > before
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(trained.encoder.state_dict()[name], value)


@pytest.fixture(scope="module")
def model() -> sampling.Model:
    trainer = _trainer()
    with torch.no_grad():  # the output starts at zero, which would hide the prompt
        torch.nn.init.normal_(trainer.unet.conv_out.weight, std=0.1)
    return sampling.Model(
        trainer.tokenizer, trainer.text_encoder.eval(), trainer.unet.eval(), autoencoder.build(4, 8).eval()
    )


def test_sampling_depends_on_the_seed_and_not_on_the_batch(model):
    captions = ["a cat", "a dog on the grass", "a cat"]
    together = sampling.generate(model, captions, [1, 2, 3], steps=2)
    alone = sampling.generate(model, captions[1:2], [2], steps=2)
    assert together.shape == (3, 3, 128, 128)
    torch.testing.assert_close(together[1:2], alone, atol=1e-3, rtol=0)
    for w in (0.0, 1.0):
        assert sampling.generate(model, captions[:1], [1], guidance=w, steps=2).isfinite().all()


def test_an_interrupted_evaluation_keeps_what_was_drawn(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "STEPS", 2)
    captions = ["a cat", "a dog on the grass"]
    made = evaluate.drawn(tmp_path / "weights", model, captions, 3.0)
    assert "w = 3" in capsys.readouterr().err
    assert made.shape == (2, 3, 128, 128)
    expected = sampling.generate(model, captions, range(2), 3.0, 2)
    assert (made - expected).abs().max() <= 1 / 127.5

    def refused(*_, **__):
        raise AssertionError("drawn again")

    monkeypatch.setattr(sampling, "generate", refused)
    assert torch.equal(evaluate.drawn(tmp_path / "weights", model, captions, 3.0), made)
    for captions_, w, folder in (
        (captions, 4.0, "weights"),
        (["a cat"], 3.0, "weights"),
        (captions, 3.0, "others"),
    ):
        with pytest.raises(AssertionError, match="drawn again"):
            evaluate.drawn(tmp_path / folder, model, captions_, w)


def test_weights_tell_model_folders_apart(tmp_path):
    for name, value in (("a", 0.0), ("b", 0.0), ("c", 1.0)):
        (tmp_path / name / "unet").mkdir(parents=True)
        save_file({"w": torch.full((2,), value)}, tmp_path / name / "unet" / "model.safetensors")
    (tmp_path / "b" / "README.md").write_text("A card.")
    prints = [evaluate.fingerprint(tmp_path / name) for name in "abc"]
    assert prints[0] == prints[1] != prints[2]


@needs_font
def test_a_folder_is_packaged_evaluated_and_its_card_tells_of_just_its_weights(batches, tmp_path, monkeypatch):
    trainer = _trainer()
    for _ in range(2):
        trainer.update(*batches(trainer.step))
    trainer.aligned = 4
    trainer.save_averaged(tmp_path / "denoiser")
    torch.manual_seed(0)
    small = AutoencoderTiny(
        latent_channels=4, encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4
    )
    small.save_pretrained(tmp_path / "autoencoder")
    Verifier(verifier.labels(), (8, 8, 16, 16), 12).save(tmp_path / "verifier")
    (tmp_path / "verifier" / "README.md").write_text("Of the judge.")
    monkeypatch.setattr(package, "SHEET_PICTURES", 2)
    monkeypatch.setattr(evaluate, "STEPS", 2)
    monkeypatch.setattr(evaluate, "SCALES", (0.0, 4.0))
    folder = tmp_path / "packaged"

    def called(main, *options):
        monkeypatch.setattr("sys.argv", ["x", "--work", str(tmp_path), "--threads", "1", *map(str, options)])
        main()
        return (folder / "README.md").read_text()

    card = called(package.main, "--out", folder)
    assert "Not evaluated yet." in card and "features were drawn towards its own" in card
    few = ("--prompts", 4, "--sweep-prompts", 2, "--sweep-pictures", 2)
    called(evaluate.main, "--model", folder, *few)
    numbers = json.loads((tmp_path / "evaluation.json").read_text())["numbers"]
    assert set(numbers) >= {"noun", "all", "ceiling_all", "psnr", "seconds_per_picture", "megabytes"}
    # The folder may bring its own judge, with what is said of it.
    card = called(package.main, "--out", folder, "--verifier", folder / "verifier")
    assert "4 held-out prompts" in card and "Short of its aims" in card
    assert json.loads((folder / package.FIGURES).read_text()) == numbers
    assert (folder / "verifier" / "README.md").read_text() == "Of the judge."
    assert len(StableDiffusionPipeline.from_pretrained(folder, safety_checker=None).unet.state_dict()) > 10
    trainer.update(*batches(trainer.step))
    trainer.save_averaged(tmp_path / "denoiser")
    assert "Not evaluated yet." in called(package.main, "--out", folder)


def test_scenes_that_were_not_all_drawn_are_drawn_again(tmp_path, monkeypatch):
    (tmp_path / "some.jsonl").write_text("")
    np.save(tmp_path / "some.npy", np.zeros((2, 1), np.uint8))

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "tqdm", stopped)
    with pytest.raises(KeyboardInterrupt):
        data.render(tmp_path, "some", 0, 3, 1)
    assert not (tmp_path / "some.jsonl").exists()


def test_latents_with_pairs_that_are_kept_from_training_are_refused(tmp_path):
    rng = random.Random(0)
    for novel in (False, True):
        truths = [scenes.sample(rng), scenes.sample(rng, novel)]
        (tmp_path / "000.jsonl").write_text("".join(json.dumps(t.to_json()) + "\n" for t in truths))
        np.save(tmp_path / "000.npy", np.zeros((2, 4, 16, 16), np.float16))
        if novel:
            with pytest.raises(ValueError, match="kept from training"):
                latents.load(tmp_path)
        else:
            assert latents.load(tmp_path)[1] == truths


def test_the_examples_are_of_known_words():
    ids = text.build_tokenizer().get_vocab()
    assert all(word in ids for prompt in package.EXAMPLES for word in prompt.split())


def test_the_exported_vocabulary_is_the_tokenizers():
    words = {word for group in package.vocabulary()["words"].values() for word in group}
    ids = text.build_tokenizer().get_vocab()
    assert set(ids) == words | {text.PAD, text.UNKNOWN, text.BEGIN, text.END}


def test_plain_attention_is_attention():
    torch.manual_seed(0)
    unet = denoiser.build_unet(8, 32, (16, 32)).eval()
    for parameter in unet.parameters():  # a new one has branches that are zero
        torch.nn.init.normal_(parameter, std=0.1)
    asked = (torch.randn(2, 8, 16, 16), torch.tensor([3, 700]), torch.randn(2, 32, 32))
    with torch.no_grad():
        fused = unet(*asked).sample
        unet.set_attn_processor(denoiser.PlainAttention())
        plain = unet(*asked).sample
    torch.testing.assert_close(plain, fused, rtol=1e-4, atol=1e-5)
