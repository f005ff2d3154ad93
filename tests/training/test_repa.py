"""Representation alignment: what is predicted, from what, and that it can be interrupted."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from playground.images.verifier import Verifier
from training import autoencoder, common, denoiser, scenes, text, verifier
from training.repa import Alignment, LinearDecoder

DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """Smooth random pictures, so that few components say much."""
    coarse = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    fine = nn.functional.interpolate(coarse, size=128, mode="bicubic").clamp(0, 1)
    return (255 * fine).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@pytest.fixture(scope="module")
def decode(pictures: torch.Tensor) -> LinearDecoder:
    model = autoencoder.build(latent_channels=24, width=8)
    autoencoder.write_encoder(model, *autoencoder.principal_components(pictures.numpy(), 24))
    return LinearDecoder(model, pictures)


@pytest.fixture(scope="module")
def batches() -> denoiser.Batches:
    truths = [scenes.sample(random.Random(i)) for i in range(20)]
    images = torch.randn(20, 24, 16, 16, generator=torch.Generator().manual_seed(0))
    return denoiser.Batches(images, truths, text.Captioner(text.build_tokenizer()), batch=4, dropout=0.25)


def _trainer(pictures: torch.Tensor, decode: LinearDecoder, seed: int = 0) -> denoiser.Trainer:
    torch.manual_seed(0)
    seeing = Verifier(verifier.labels(), widths=(8, 8, 8, 16), whole=16)
    torch.manual_seed(seed)
    tokenizer = text.build_tokenizer()
    encoder = text.build_text_encoder(tokenizer, width=32, layers=1)
    unet = denoiser.build_unet(24, 32, channels=(16, 32))
    made = denoiser.Trainer(tokenizer, encoder, unet, DEVICE, warmup=3)
    made.alignment = Alignment(unet, seeing, decode, pictures)
    return made


def test_the_linear_decoder_leaves_nothing_that_a_linear_map_could_explain(pictures, decode):
    model = autoencoder.build(latent_channels=24, width=8)
    autoencoder.write_encoder(model, *autoencoder.principal_components(pictures.numpy(), 24))
    signed = common.to_signed(pictures)
    latents = model.encode(signed).latents.detach()
    left = signed - decode(latents)
    squares = nn.functional.pixel_unshuffle(left, 8).permute(0, 2, 3, 1).flatten(0, 2)
    inputs = nn.functional.pad(latents.permute(0, 2, 3, 1).flatten(0, 2), (0, 1), value=1.0)
    # Least squares: what is left is orthogonal to every input.
    covariance = inputs.T @ squares / len(inputs)
    assert covariance.abs().max() < 1e-3 * inputs.std() * signed.std()
    assert common.psnr(decode(latents), signed).mean() > 20


def test_alignment_reads_the_clean_latents_of_the_batch(pictures, decode, batches):
    trainer = _trainer(pictures, decode)
    noisy, t, ids, v, weights = batches(0)
    seen = []
    real = trainer.alignment.loss
    trainer.alignment.loss = lambda clean: seen.append(clean) or real(clean)
    trainer.update(noisy, t, ids, v, weights)
    distance = torch.cdist(seen[0].flatten(1), batches.images.flatten(1)).min(1).values
    assert distance.max() < 1e-2


def test_alignment_teaches_the_middle_and_leaves_the_verifier_alone(pictures, decode, batches):
    trainer = _trainer(pictures, decode)
    noisy, t, ids, v, _ = batches(0)
    alpha, sigma = (x[t].view(-1, 1, 1, 1) for x in denoiser.alphas_and_sigmas())

    def loss() -> torch.Tensor:
        trainer.unet(noisy, t, trainer.text_encoder(ids)[0])
        return trainer.alignment.loss(alpha * noisy - sigma * v)

    first = loss()
    first.backward()
    assert 0 < first.item() < 2
    assert trainer.unet.mid_block.resnets[0].conv2.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in trainer.alignment.verifier.parameters())
    assert trainer.unet.conv_out.weight.grad is None  # after the places that are listened to
    for _ in range(20):
        trainer.alignment.step()
        last = loss()
        last.backward()
    assert last.item() < first.item() - 0.1


def test_an_aligned_run_resumes_and_the_loss_told_is_that_of_v(pictures, decode, batches, tmp_path):
    whole = _trainer(pictures, decode)
    losses = [whole.update(*batches(whole.step)) for _ in range(4)]

    broken = _trainer(pictures, decode)
    for _ in range(2):
        broken.update(*batches(broken.step))
    common.save_checkpoint(tmp_path / "checkpoint.pt", broken.state())
    resumed = _trainer(pictures, decode, seed=7)
    resumed.restore(common.load_checkpoint(tmp_path / "checkpoint.pt", DEVICE))
    assert [resumed.update(*batches(resumed.step)) for _ in range(2)] == pytest.approx(losses[2:], rel=1e-4)
    for a, b in zip(resumed.alignment.heads.parameters(), whole.alignment.heads.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)

    # Without alignment the checkpoint serves as well, and the first loss, before any update, is the same.
    plain = _trainer(pictures, decode)
    plain.alignment = None
    assert plain.update(*batches(0)) == pytest.approx(losses[0], rel=1e-6)
    plain.restore(common.load_checkpoint(tmp_path / "checkpoint.pt", DEVICE))
    assert plain.step == 2
