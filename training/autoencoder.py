"""Makes the autoencoder: 128x128 pictures to latents of 24 channels on a 16x16 grid, and back.

    python -m training.autoencoder encoder                 # seconds: nothing is trained
    python -m training.autoencoder decoder --steps 20000   # any time, any number of times; resumes

The encoder is linear: the first 24 principal components of 8x8 patches, written into ``AutoencoderTiny``'s layers.
They are there at once, they keep more than an encoder that was trained for half an hour on two cores, and they
order the latent's channels from coarse to fine. The decoder (Ollin Boer Bohan's TAESD architecture) is trained: it
knows what things look like and restores what the components leave out. As the denoiser depends on the encoder only,
the decoder may be improved at any time without touching the denoiser. The result is a diffusers folder,
``<work>/autoencoder``.
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

LATENT_CHANNELS = 24
PATCH = 8
CROP = 64
LARGEST_DEVIATION = 1.0
"""Standard deviation of the first channel, which keeps all but rare latents below the decoder's clamp at 3."""
NOISE = 0.04
"""Most noise that the decoder is trained to tolerate, as latents that were sampled are never quite right."""


def build(latent_channels: int = LATENT_CHANNELS, width: int = 48) -> AutoencoderTiny:
    """An autoencoder without weights worth the name.

    The default initialisation stalls: ReLU convolutions get Kaiming's, the last convolution of each residual block
    starts small so that blocks begin near the identity, and the output begins at mid-gray.
    """
    model = AutoencoderTiny(
        encoder_block_out_channels=(2 * latent_channels,) * 4,
        decoder_block_out_channels=(width,) * 4,
        num_encoder_blocks=(0, 0, 0, 1),
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
        model.decoder.layers[-1].weight.mul_(0.1)
        model.decoder.layers[-1].bias.fill_(0.5)
    return model.to(memory_format=torch.channels_last)


# ---------------------------------------------------------------------------------------------------------------
# Encoder


def principal_components(pictures: np.ndarray, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Principal components of the 8x8 patches of uint8 pictures [N, H, W, 3], scaled to [0, 1].

    Returns the mean [3, 8, 8], the components [count, 3, 8, 8] (orthonormal) and their deviations [count].
    """
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    patches = F.unfold(x, PATCH, stride=PATCH).transpose(1, 2).reshape(-1, 3 * PATCH * PATCH).double()
    variances, vectors = torch.linalg.eigh(torch.cov(patches.T))
    components = vectors.T.flip(0)[:count].float()
    # The sign of a component is arbitrary: the larger half of its weights is positive, on every machine.
    components = components * torch.where(components.pow(3).sum(1) < 0, -1.0, 1.0)[:, None]
    shape = (-1, 3, PATCH, PATCH)
    mean = patches.mean(0).float().view(shape)[0]
    return mean, components.reshape(shape), variances.flip(0)[:count].clamp_min(0).sqrt().float()


@torch.no_grad()
def write_encoder(
    model: AutoencoderTiny, mean: torch.Tensor, components: torch.Tensor, deviations: torch.Tensor
) -> None:
    """Write principal components into the encoder's convolutions, exactly.

    Three convolutions of stride two only sort pixels into channels (2x2x3, then 4x4x3); the last of them also
    applies the components, each once with either sign. The block's ReLU keeps the positive parts and the final
    convolution puts them together again. Components are scaled half way to equal variance: a channel keeps the
    square root of its relative deviation, so that the diffusion resolves coarse channels first but the fine ones
    not too late.
    """
    count = len(components)
    if 2 * count < 48:
        raise ValueError(f"Carrying 4x4x3 pixels takes 48 channels, so at least 24 components, not {count}.")
    layers = model.encoder.layers
    stem, first, second, third, block, last = layers
    for layer in (stem, first, second, third, last, *(m for m in block.modules() if isinstance(m, nn.Conv2d))):
        layer.weight.zero_()
        if layer.bias is not None:
            layer.bias.zero_()
    # The block's inner layers do nothing as long as its last convolution is zero.
    for channel in range(3):
        stem.weight[channel, channel, 1, 1] = 1
    # A 3x3 kernel of stride two reaches rows 2i - 1 to 2i + 1: offsets 0 and 1 are its taps 1 and 2.
    for layer, channels in ((first, 3), (second, 12)):
        for dy in (0, 1):
            for dx in (0, 1):
                for channel in range(channels):
                    layer.weight[(2 * dy + dx) * channels + channel, channel, 1 + dy, 1 + dx] = 1
    for y in range(PATCH):
        for x in range(PATCH):
            # The bits of a pixel's place in the patch say through which taps it comes.
            fine, middle, coarse = ((y >> bit & 1, x >> bit & 1) for bit in (0, 1, 2))
            for channel in range(3):
                source = (2 * middle[0] + middle[1]) * 12 + (2 * fine[0] + fine[1]) * 3 + channel
                weights = components[:, channel, y, x]
                third.weight[:count, source, 1 + coarse[0], 1 + coarse[1]] = weights
                third.weight[count : 2 * count, source, 1 + coarse[0], 1 + coarse[1]] = -weights
    scale = LARGEST_DEVIATION * (deviations / deviations[0]).sqrt() / deviations
    index = torch.arange(count)
    last.weight[index, index, 1, 1] = scale
    last.weight[index, count + index, 1, 1] = -scale
    last.bias.copy_(-scale * (components * mean).sum((1, 2, 3)))


@torch.no_grad()
def encode(model: AutoencoderTiny, pictures: np.ndarray, batch: int = 64) -> torch.Tensor:
    """Latents of uint8 pictures [N, H, W, 3], float16 [N, C, H/8, W/8]."""
    device = next(model.parameters()).device
    out = []
    for start in range(0, len(pictures), batch):
        x = common.to_signed(torch.from_numpy(np.array(pictures[start : start + batch])).to(device))
        out.append(model.encoder(x.contiguous(memory_format=torch.channels_last)).half().cpu())
    return torch.cat(out)


# ---------------------------------------------------------------------------------------------------------------
# Decoder


def _differences(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x[:, :, 1:] - x[:, :, :-1], x[:, :, :, 1:] - x[:, :, :, :-1]


def reconstruction_loss(made: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """L1 on pixels and on neighbouring differences (crisp outlines), plus the squared error that PSNR measures."""
    edges = sum(F.l1_loss(a, b) for a, b in zip(_differences(made), _differences(true), strict=True))
    return F.l1_loss(made, true) + edges + 4 * F.mse_loss(made, true)


def _crops(pictures: np.ndarray, batch: int, rng: np.random.Generator) -> torch.Tensor:
    """Random 64x64 crops on the latent grid, each at its own place: [B, 3, 64, 64] in [-1, 1]."""
    steps = (world.SIZE - CROP) // PATCH + 1
    chosen = rng.integers(0, len(pictures), batch)
    corners = rng.integers(0, steps, (batch, 2)) * PATCH
    crops = [pictures[i, y : y + CROP, x : x + CROP] for i, (y, x) in zip(chosen, corners, strict=True)]
    return common.to_signed(torch.from_numpy(np.stack(crops))).contiguous(memory_format=torch.channels_last)


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


def _report(model: AutoencoderTiny, pictures: np.ndarray, path: Path) -> float:
    score, made = evaluate(model, pictures)
    rows = []
    for start in (0, 8, 16, 24):
        rows.append(np.concatenate(list(pictures[start : start + 8]), 1))
        rows.append(np.concatenate(list(common.to_pixels(made)[start : start + 8].numpy()), 1))
    Image.fromarray(np.concatenate(rows)).save(path)
    return score


def train_decoder(work: Path, steps: int, batch: int, minutes: float, device: torch.device) -> None:
    """Train the decoder, resuming from its checkpoint if there is one, else from the folder's weights."""
    folder, checkpoint = work / "autoencoder", work / "decoder.pt"
    pictures, _ = data.load(work, "scenes")
    held_out = held_out_pictures(128)
    model = AutoencoderTiny.from_pretrained(folder, torch_dtype=torch.float32)
    model = model.to(device, memory_format=torch.channels_last)
    decoder = model.decoder.train()
    parameters = list(decoder.parameters())
    ends = [decoder.layers[0].weight, decoder.layers[-1].weight]
    optimizer = MuonAndAdam(parameters, ends, muon_rate=0.01, adam_rate=2e-3, weight_decay=1e-3)
    average = common.Average(parameters)
    step = 0
    if checkpoint.exists():
        state = common.load_checkpoint(checkpoint, device)
        decoder.load_state_dict(state["decoder"])
        optimizer.load_state_dict(state["optimizer"])
        average.load(state["average"])
        step = state["step"]

    def save() -> None:
        state = {"decoder": decoder.state_dict(), "optimizer": optimizer.state_dict(), "average": average.values}
        common.save_checkpoint(checkpoint, state | {"step": step})
        with average.applied():
            score = _report(model, held_out, work / "autoencoder.png")
            model.save_pretrained(folder)
        progress.bar.write(f"step {step}: {score:.2f} dB on {len(held_out)} held-out scenes")

    progress, saved = common.Progress(steps, step, "decoder"), time.monotonic()
    while step < steps:
        # The step is the seed, so that a resumed run sees what an uninterrupted one would have seen.
        rng, generator = np.random.default_rng(step), torch.Generator(device).manual_seed(step)
        x = _crops(pictures, batch, rng).to(device)
        with torch.no_grad():
            z = model.encoder(x)
            level = NOISE * torch.rand(batch, 1, 1, 1, generator=generator, device=device)
            z = z + level * torch.randn(z.shape, generator=generator, device=device)
        with common.autocast(device):
            y = decoder(z).float()
        reconstruction_loss(y, x).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step(min(1.0, (step + 1) / 100) * common.cooldown(step, steps))
        average.update(step)
        step += 1
        with torch.no_grad():
            progress.update(batch, psnr=common.psnr(x, y.clamp(-1, 1)).mean().item())
        if time.monotonic() - saved > 60 * minutes:
            save()
            saved = time.monotonic()
    save()


def main() -> None:
    """Make the encoder, or train the decoder; an interrupted training resumes from its checkpoint."""
    parser = common.parser(main.__doc__)
    parser.add_argument("part", choices=("encoder", "decoder"))
    parser.add_argument("--steps", type=int, default=20_000, help="decoder: step to train up to")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--minutes", type=float, default=5, help="minutes between checkpoints")
    o = parser.parse_args()
    device = common.prepare(o.threads)
    if o.part == "encoder":
        pictures, _ = data.load(o.work, "scenes")
        model = build()
        chosen = np.ascontiguousarray(pictures[:: max(1, len(pictures) // 2000)])
        write_encoder(model, *principal_components(chosen, LATENT_CHANNELS))
        model.save_pretrained(o.work / "autoencoder")
    else:
        train_decoder(o.work, o.steps, o.batch, o.minutes, device)


if __name__ == "__main__":
    main()
