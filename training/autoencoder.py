"""Trains the autoencoder: 128x128 pictures to 8x16x16 latents of zero mean and unit variance, and back.

    python -m training.autoencoder joint   --steps 5000    # encoder and decoder; normalises and freezes the encoder
    python -m training.autoencoder decoder --steps 10000   # the decoder alone, any number of times, any time later

The result is a diffusers folder, ``<work>/autoencoder``. The denoiser depends on the encoder only, so the
decoder may be improved without touching the denoiser.

``AutoencoderTiny`` (Ollin Boer Bohan's TAESD) is trained on 64x64 crops, five times faster than whole pictures,
with an L1 loss on pixels and on their differences, which is what keeps outlines crisp.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from PIL import Image
from torch import nn

from training import common, data, world
from training.muon import MuonAndAdam

LATENT_CHANNELS = 12
CROP = 64
NOISE = 0.04
"""Standard deviation of noise added to latents in training, so that the decoder tolerates imperfect ones."""


def build(latent_channels: int = LATENT_CHANNELS, width: int = 48) -> AutoencoderTiny:
    """An untrained autoencoder.

    The default initialisation stalls: ReLU convolutions get Kaiming's, the last convolution of each residual block
    starts small so that blocks begin near the identity, and the output begins at mid-gray.
    """
    model = AutoencoderTiny(
        encoder_block_out_channels=(width,) * 4,
        decoder_block_out_channels=(width,) * 4,
        num_encoder_blocks=(0, 1, 3, 3),
        num_decoder_blocks=(3, 3, 3, 0),  # at full resolution convolutions cost most and add least
        latent_channels=latent_channels,
        scaling_factor=1.0,
    )
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, AutoencoderTinyBlock):
                module.conv[4].weight.mul_(0.3)
        model.encoder.layers[-1].weight.mul_(0.3)
        model.decoder.layers[-1].weight.mul_(0.1)
        model.decoder.layers[-1].bias.fill_(0.5)
    return model.to(memory_format=torch.channels_last)


def _differences(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x[:, :, 1:] - x[:, :, :-1], x[:, :, :, 1:] - x[:, :, :, :-1]


def reconstruction_loss(made: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """L1 on pixels, on neighbouring differences and on 4x4 means, plus the squared error that PSNR measures."""
    edges = sum(F.l1_loss(a, b) for a, b in zip(_differences(made), _differences(true), strict=True))
    return (
        F.l1_loss(made, true)
        + edges
        + 0.5 * F.l1_loss(F.avg_pool2d(made, 4), F.avg_pool2d(true, 4))
        + 4 * F.mse_loss(made, true)
    )


def _crops(pictures: np.ndarray, batch: int, rng: np.random.Generator) -> torch.Tensor:
    """Random 64x64 crops on the latent grid, each at its own place: [B, 3, 64, 64] in [-1, 1]."""
    steps = (world.SIZE - CROP) // 8 + 1
    chosen = rng.integers(0, len(pictures), batch)
    corners = rng.integers(0, steps, (batch, 2)) * 8
    crops = [pictures[i, y : y + CROP, x : x + CROP] for i, (y, x) in zip(chosen, corners, strict=True)]
    return common.to_signed(torch.from_numpy(np.stack(crops))).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def encode(model: AutoencoderTiny, pictures: np.ndarray, batch: int = 64) -> torch.Tensor:
    """Latents of uint8 pictures [N, H, W, 3], float16 [N, C, H/8, W/8]."""
    device = next(model.parameters()).device
    out = []
    for start in range(0, len(pictures), batch):
        x = common.to_signed(torch.from_numpy(np.array(pictures[start : start + batch])).to(device))
        with common.autocast(device):
            out.append(model.encoder(x.contiguous(memory_format=torch.channels_last)).half().cpu())
    return torch.cat(out)


@torch.no_grad()
def normalise(model: AutoencoderTiny, pictures: np.ndarray) -> None:
    """Fold the latents' mean and standard deviation per channel into the encoder and undo them in the decoder.

    Afterwards the model's own scaling factor is 1 and every diffusers pipeline works unchanged. The decoder's
    clamp, tanh(x / 3) * 3, makes undoing it approximate; training the decoder afterwards makes up for that.
    """
    latents = encode(model, pictures).float()
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    last, first = model.encoder.layers[-1], model.decoder.layers[0]
    last.weight.div_(std[:, None, None, None])
    last.bias.copy_((last.bias - mean) / std)
    first.bias.add_((first.weight.sum((2, 3)) * mean).sum(1))
    first.weight.mul_(std[None, :, None, None])


@torch.no_grad()
def evaluate(model: AutoencoderTiny, pictures: np.ndarray, batch: int = 32) -> tuple[float, torch.Tensor]:
    """Mean PSNR in dB of the full-precision round trip, and the first reconstructions."""
    device = next(model.parameters()).device
    scores, first = [], None
    for start in range(0, len(pictures), batch):
        x = common.to_signed(torch.from_numpy(np.array(pictures[start : start + batch])).to(device))
        y = model.decoder(model.encoder(x)).clamp(-1, 1)
        scores.append(common.psnr(x, y))
        first = y if first is None else first
    assert first is not None
    return torch.cat(scores).mean().item(), first


def held_out_pictures(count: int) -> np.ndarray:
    """Pictures of seeds that nothing is trained on, uint8 [N, H, W, 3]."""
    first = common.HELD_OUT_SEEDS
    return np.stack([np.asarray(world.example(seed).image) for seed in range(first, first + count)])


def _report(model: AutoencoderTiny, path: Path) -> float:
    pictures = held_out_pictures(256)
    score, made = evaluate(model, pictures)
    rows = [
        np.concatenate(list(rows), 1)
        for i in (0, 8, 16)
        for rows in (pictures[i : i + 8], common.to_pixels(made)[i : i + 8].numpy())
    ]
    Image.fromarray(np.concatenate(rows)).save(path)
    print(f"PSNR on 256 held-out scenes: {score:.2f} dB (originals and round trips: {path})")
    return score


def _outer(model: AutoencoderTiny) -> list[nn.Parameter]:
    layers = (model.encoder.layers[0], model.encoder.layers[-1], model.decoder.layers[0], model.decoder.layers[-1])
    return [layer.weight for layer in layers]


def train(
    work: Path, phase: str, steps: int, batch: int, threads: int, minutes: float, start: Path | None = None
) -> None:
    """Train one phase, resuming from its checkpoint if there is one."""
    device = common.prepare(threads)
    checkpoint, folder = work / f"autoencoder-{phase}.pt", work / "autoencoder"
    pictures, _ = data.load(work, "scenes")
    if phase == "decoder":
        start = start or folder
    model = AutoencoderTiny.from_pretrained(start, torch_dtype=torch.float32) if start else build()
    model = model.to(device, memory_format=torch.channels_last).train()
    if phase == "decoder":
        model.encoder.requires_grad_(False)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = MuonAndAdam(parameters, _outer(model), muon_rate=0.02, adam_rate=2e-3, weight_decay=1e-3)
    average = common.Average(parameters)
    step = 0
    if checkpoint.exists():
        state = common.load_checkpoint(checkpoint, device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.load(state["average"])
        step = state["step"]

    def save() -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average.values}
        common.save_checkpoint(checkpoint, state | {"step": step})

    progress, saved = common.Progress(steps, step, f"autoencoder ({phase})"), time.monotonic()
    while step < steps:
        # The step is the seed, so that a resumed run sees what an uninterrupted one would have seen.
        rng, noise = np.random.default_rng((step, phase == "decoder")), torch.Generator(device).manual_seed(step)
        x = _crops(pictures, batch, rng).to(device)
        with common.autocast(device):
            with torch.set_grad_enabled(phase == "joint"):
                z = model.encoder(x)
            jitter = torch.randn(z.shape, generator=noise, device=device)
            y = model.decoder(z + NOISE * jitter).float()
        loss = reconstruction_loss(y, x)
        if phase == "joint":
            moments = z.float().mean((0, 2, 3)).square().mean() + (z.float().std((0, 2, 3)) - 1).square().mean()
            loss = loss + 0.01 * moments
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step(min(1.0, (step + 1) / 100) * common.cooldown(step, steps))
        average.update(step)
        step += 1
        with torch.no_grad():
            progress.update(batch, loss=loss.item(), psnr=common.psnr(x, y.clamp(-1, 1)).mean().item())
        if time.monotonic() - saved > 60 * minutes:
            save()
            saved = time.monotonic()
    save()

    with average.applied():
        model.eval()
        if phase == "joint":
            normalise(model, pictures[:4096])
        _report(model, work / f"autoencoder-{phase}.png")
        model.save_pretrained(folder)


def main() -> None:
    """Train one phase of the autoencoder; an interrupted phase resumes from its checkpoint."""
    parser = common.parser(main.__doc__)
    parser.add_argument("phase", choices=("joint", "decoder"))
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--from", dest="start", type=Path, help="autoencoder folder to start from")
    parser.add_argument("--minutes", type=float, default=5, help="minutes between checkpoints")
    o = parser.parse_args()
    train(o.work, o.phase, o.steps, o.batch, o.threads, o.minutes, o.start)


if __name__ == "__main__":
    main()
