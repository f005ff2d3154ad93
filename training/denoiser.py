"""Trains the denoiser and its text encoder together on precomputed latents.

    python -m training.denoiser --steps 20000                  # resumes from its checkpoint, if there is one
    python -m training.denoiser --steps 40000 --from FOLDER    # starts from the averaged weights of a model folder
    python -m training.denoiser --align 1 --verifier FOLDER    # with representation alignment, see repa.py
    python -m training.denoiser --cool 200                     # ends what was trained; it can still be gone on with

v-prediction (Salimans & Ho 2022) under the DDPM linear schedule (Ho et al. 2020; betas 1e-4 to 0.02, 1000 steps).
The learning rate is constant, so a run can always be continued; what is kept is an average of the weights over
about the last tenth of the training (Karras et al. 2024, EDM2), or, with ``--cool``, what some more updates at a
falling rate make of the last ones (Hu et al. 2024, "MiniCPM", section 4).
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from playground.images.verifier import Verifier
from training import common, data, latents, text
from training.muon import MuonAndAdam
from training.repa import Alignment, LinearDecoder
from training.scenes import Scene

TRAIN_TIMESTEPS = 1000
BETA_START, BETA_END = 1e-4, 0.02
CENTRE, SPREAD = 1.0, 2.0
"""Mean and deviation of the log-SNR at which most of the training takes place."""
FITTED = 300
"""Scenes to which the alignment's linear decoder is fitted."""
COUNTERS = "training.json"
"""The file of a model folder that says how long it was trained."""


def alphas_and_sigmas() -> tuple[torch.Tensor, torch.Tensor]:
    """alpha_t and sigma_t of the DDPM linear schedule, each [1000]: x_t = alpha_t x_0 + sigma_t eps."""
    betas = torch.linspace(BETA_START, BETA_END, TRAIN_TIMESTEPS, dtype=torch.float64)
    kept = torch.cumprod(1 - betas, 0)
    return kept.sqrt().float(), (1 - kept).sqrt().float()


def timestep_weights() -> torch.Tensor:
    """Probability of each timestep in training, [1000].

    Most of the linear schedule's steps are nearly pure noise, where there is little to learn: four fifths of the
    draws are normal in log-SNR, much like the logit-normal times that Esser et al. 2024 found best for flows; the
    rest are uniform. The mean is above zero as a thing's shape is lost last: "Measured" in the README.
    """
    alpha, sigma = (x.double() for x in alphas_and_sigmas())
    log_snr = 2 * (alpha.log() - sigma.log())
    spacing = -torch.gradient(log_snr)[0]
    density = torch.exp(-0.5 * ((log_snr - CENTRE) / SPREAD).square()) * spacing
    return (0.8 * density / density.sum() + 0.2 / TRAIN_TIMESTEPS).float()


def loss_weights(variance: float) -> torch.Tensor:
    """Weight of the squared error of v at each timestep, [1000]: one over the variance of v itself.

    With data of variance below one, v is smaller in noise than near the data; this makes every noise level count
    the same before anything is learnt (Karras et al. 2022, EDM, section 5).
    """
    alpha, sigma = alphas_and_sigmas()
    return 1 / (alpha.square() + variance * sigma.square())


def build_unet(
    latent_channels: int, text_width: int, channels: tuple[int, ...] = (96, 192)
) -> UNet2DConditionModel:
    """An untrained denoiser with cross-attention on both resolutions, 16x16 and 8x8.

    ``attention_head_dim`` is, by a historical misnomer, the number of heads. Every residual branch starts at zero.
    """
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=("CrossAttnDownBlock2D",) * len(channels),
        up_block_types=("CrossAttnUpBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        cross_attention_dim=text_width,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    lasts: list[nn.Module] = [unet.conv_out]
    for module in unet.modules():
        if isinstance(module, ResnetBlock2D):
            lasts.append(module.conv2)
        elif isinstance(module, Attention):
            lasts.append(module.to_out[0])
        elif isinstance(module, FeedForward):
            lasts.append(module.net[-1])
    for last in lasts:
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
    return unet.to(memory_format=torch.channels_last)


class PlainAttention:
    """Attention written as two products and a softmax, in the precision that autocast chose.

    PyTorch's fused attention is made for long sequences; on a CPU it takes a fifth of an update here, these 256
    tokens of 4 heads half of that.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **_: object,
    ) -> torch.Tensor:
        """Tokens [B, N, C] that look at `encoder_hidden_states` [B, M, D], or at themselves."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for projected in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        scores = (q * attn.scale) @ k.transpose(2, 3)
        with torch.autocast(q.device.type, enabled=False):
            # Autocast would compute the softmax, the largest tensor of all, in float32.
            shares = scores.softmax(-1)
        return attn.to_out[0]((shares @ v).transpose(1, 2).flatten(2))


class Batches:
    """Training batches as a pure function of the step, so that a resumed run repeats an uninterrupted one."""

    def __init__(
        self, images: torch.Tensor, truths: list[Scene], captioner: text.Captioner, batch: int, dropout: float
    ) -> None:
        self.images, self.truths, self.captioner = images, truths, captioner
        self.batch, self.dropout = batch, dropout
        self.alpha, self.sigma = alphas_and_sigmas()
        self.timesteps = timestep_weights()
        self.weights = loss_weights(images[:4096].float().var().item())

    def __call__(self, step: int) -> tuple[torch.Tensor, ...]:
        """Noisy latents [B, C, 16, 16], timesteps [B], ids [B, 32], v [B, C, 16, 16] and loss weights [B]."""
        generator, rng = torch.Generator().manual_seed(step), random.Random(step)
        # Each pass goes through all scenes once, in an order of its own.
        count = len(self.truths)
        chosen = [self._order(i // count)[i % count] for i in range(step * self.batch, (step + 1) * self.batch)]
        ids = [
            self.captioner.empty if rng.random() < self.dropout else self.captioner(self.truths[i], rng)
            for i in chosen
        ]
        x = self.images[chosen].float()
        noise = torch.randn(x.shape, generator=generator)
        t = torch.multinomial(self.timesteps, self.batch, replacement=True, generator=generator)
        alpha, sigma = self.alpha[t].view(-1, 1, 1, 1), self.sigma[t].view(-1, 1, 1, 1)
        return alpha * x + sigma * noise, t, torch.tensor(ids), alpha * noise - sigma * x, self.weights[t]

    def _order(self, epoch: int) -> list[int]:
        if getattr(self, "_epoch", None) != epoch:
            self._epoch = epoch
            self._shuffled = torch.randperm(
                len(self.truths), generator=torch.Generator().manual_seed(epoch)
            ).tolist()
        return self._shuffled


@dataclasses.dataclass
class Trainer:
    """The networks being trained with their optimiser, average and step count."""

    tokenizer: PreTrainedTokenizerFast
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    device: torch.device
    muon_rate: float = 0.01
    adam_rate: float = 1e-3
    warmup: int = 200
    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    first: int = 0
    """The step at which the optimiser started, from which its warm-up counts."""
    alignment: Alignment | None = None
    align: float = 1.0
    """Weight of the alignment in the loss."""
    aligned: int = 0
    """Samples that were seen with it."""

    def __post_init__(self) -> None:
        self.text_encoder.to(self.device).train()
        self.unet.to(self.device, memory_format=torch.channels_last).train()
        if self.device.type == "cpu":
            self.unet.set_attn_processor(PlainAttention())
        self.parameters = [*self.unet.parameters(), *self.text_encoder.parameters()]
        embeddings = [m.weight for m in self.text_encoder.modules() if isinstance(m, nn.Embedding)]
        outer = [self.unet.conv_in.weight, self.unet.conv_out.weight, *embeddings]
        self.optimizer = MuonAndAdam(self.parameters, outer, self.muon_rate, self.adam_rate)
        self.average = common.Average(self.parameters)
        self.levels = alphas_and_sigmas()

    def update(self, *batch: torch.Tensor, rate: float = 1.0) -> float:
        """One optimiser step on a batch of :class:`Batches`; returns the weighted squared error of v.

        Args:
            batch: what :class:`Batches` gives.
            rate: factor of the learning rates.
        """
        noisy, t, ids, velocity, weights = (x.to(self.device) for x in batch)
        with common.autocast(self.device):
            states = self.text_encoder(ids)[0]
            predicted = self.unet(noisy.contiguous(memory_format=torch.channels_last), t, states).sample
        loss = whole = ((predicted.float() - velocity).square().mean((1, 2, 3)) * weights).mean()
        if self.alignment:
            alpha, sigma = (x.to(self.device)[t].view(-1, 1, 1, 1) for x in self.levels)
            with common.autocast(self.device):
                whole = loss + self.align * self.alignment.loss(alpha * noisy - sigma * velocity)
        whole.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if self.alignment:
            self.alignment.step()
        self.optimizer.step(rate * min(1.0, (self.step - self.first + 1) / self.warmup))
        self.average.update(self.step)
        self.step += 1
        self.samples += len(ids)
        self.aligned += len(ids) if self.alignment else 0
        return loss.item()

    def cool(self, batches: Batches, updates: int) -> Iterator[float]:
        """So many updates at a rate that falls to nothing, after which the weights are their own average.

        Yields the losses.
        """
        for i in range(updates):
            yield self.update(*batches(self.step), rate=common.cooldown(i, updates, share=1.0))
        self.average.load([p.detach() for p in self.parameters])

    def state(self) -> dict:
        """Everything that resuming needs."""
        return {
            "text_encoder": self.text_encoder.state_dict(),
            "unet": self.unet.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.values,
            "counters": self.counters() | {"first": self.first},
            "alignment": self.alignment.state_dict() if self.alignment else None,
        }

    def counters(self) -> dict[str, float]:
        """How long the networks were trained: updates, samples (and those with alignment) and seconds."""
        return {"step": self.step, "samples": self.samples, "aligned": self.aligned, "seconds": self.seconds}

    def restore(self, state: dict) -> None:
        """Inverse of :meth:`state`."""
        self.text_encoder.load_state_dict(state["text_encoder"])
        self.unet.load_state_dict(state["unet"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load(state["average"])
        if self.alignment and state.get("alignment"):
            self.alignment.load_state_dict(state["alignment"])
        for name, value in state["counters"].items():
            setattr(self, name, value)

    def save_averaged(self, folder: Path) -> None:
        """Write the averaged networks, half precision, as a diffusers folder's ``unet`` and ``text_encoder``."""
        with self.average.applied():
            for name, network in (("unet", self.unet), ("text_encoder", self.text_encoder)):
                half = (
                    type(network).from_config(network.config) if name == "unet" else CLIPTextModel(network.config)
                )
                half.load_state_dict(network.state_dict())
                half.half().save_pretrained(folder / name)
        self.tokenizer.save_pretrained(folder / "tokenizer")
        (folder / COUNTERS).write_text(json.dumps(self.counters()) + "\n")


def fresh(device: torch.device, latent_channels: int) -> Trainer:
    """A trainer with untrained networks."""
    tokenizer = text.build_tokenizer()
    encoder = text.build_text_encoder(tokenizer)
    unet = build_unet(latent_channels, encoder.config.hidden_size)
    return Trainer(tokenizer, encoder, unet, device)


def from_folder(folder: Path, device: torch.device) -> Trainer:
    """A trainer that starts from the weights of a model folder, with a fresh optimiser."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
    if tokenizer.get_vocab() != text.build_tokenizer().get_vocab():
        raise ValueError(f"The vocabulary of {folder} is not this world's.")
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    trainer = Trainer(tokenizer, encoder, unet, device)
    for name, value in json.loads((folder / COUNTERS).read_text()).items():
        setattr(trainer, name, value)
    trainer.first = trainer.step
    return trainer


def main() -> None:
    """Train the denoiser and the text encoder; an interrupted run resumes from its checkpoint."""
    parser = common.parser(main.__doc__)
    parser.add_argument("--steps", type=int, default=20_000, help="step to train up to, earlier runs included")
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--dropout", type=float, default=0.1, help="share of captions left out, for guidance")
    parser.add_argument("--minutes", type=float, default=5, help="minutes between checkpoints")
    parser.add_argument("--compile", action="store_true", help="a minute or more at first, then faster")
    parser.add_argument(
        "--from", dest="start", type=Path, help="model folder to start from when there is no checkpoint"
    )
    parser.add_argument("--align", type=float, default=0.0, help="weight of the representation alignment")
    parser.add_argument("--verifier", type=Path, help="the verifier's folder; WORK/verifier if not given")
    parser.add_argument(
        "--cool",
        type=int,
        default=0,
        help="so many updates at a falling rate, for a model to keep; the checkpoint stays as it is",
    )
    o = parser.parse_args()

    device = common.prepare(o.threads)
    checkpoint = o.work / "denoiser.pt"
    autoencoder = AutoencoderTiny.from_pretrained(o.work / "autoencoder")
    images, truths = latents.load(latents.folder_for(o.work, autoencoder))
    channels = images.shape[1]
    trainer = from_folder(o.start, device) if o.start else fresh(device, channels)
    if o.align:
        pictures = torch.from_numpy(data.load(o.work, "scenes")[0][:FITTED].copy())
        verifier = Verifier.load(o.verifier or o.work / "verifier")
        decode = LinearDecoder(autoencoder, pictures)
        trainer.alignment, trainer.align = Alignment(trainer.unet, verifier, decode, pictures), o.align
    if checkpoint.exists():
        trainer.restore(common.load_checkpoint(checkpoint, device))
    if o.compile:
        trainer.unet.compile()
    batches = Batches(images, truths, text.Captioner(trainer.tokenizer), o.batch, o.dropout)
    size = sum(p.numel() for p in trainer.parameters) / 1e6
    print(f"{len(truths)} scenes, {size:.1f} M parameters, from step {trainer.step}", flush=True)

    def save() -> None:
        common.save_checkpoint(checkpoint, trainer.state())
        trainer.save_averaged(o.work / "denoiser")

    last = trainer.step + o.cool if o.cool else o.steps
    losses = (
        trainer.cool(batches, o.cool)
        if o.cool
        else (trainer.update(*batches(trainer.step)) for _ in range(trainer.step, last))
    )
    progress, saved = common.Progress(last, trainer.step, "denoiser"), time.monotonic()
    started = saved - trainer.seconds
    for loss in losses:
        trainer.seconds = time.monotonic() - started
        if not math.isfinite(loss):
            raise FloatingPointError(f"The loss is {loss} at step {trainer.step}; the last checkpoint is intact.")
        progress.update(o.batch, loss=loss)
        if not o.cool and time.monotonic() - saved > 60 * o.minutes:
            save()
            saved = time.monotonic()
    if o.cool:  # only the model: going on from rates near zero would take a warm-up
        trainer.save_averaged(o.work / "denoiser")
    else:
        save()


if __name__ == "__main__":
    main()
