"""Pictures from a model folder, batched, with diffusers' own scheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DPMSolverMultistepScheduler, UNet2DConditionModel
from tqdm import tqdm
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from training import denoiser


def build_scheduler() -> DPMSolverMultistepScheduler:
    """DPM-Solver++(2M) (Lu et al. 2022) for the schedule the denoiser is trained on."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=denoiser.TRAIN_TIMESTEPS,
        beta_schedule="linear",
        beta_start=denoiser.BETA_START,
        beta_end=denoiser.BETA_END,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,  # of no effect on trailing steps, but pipelines insist on it
    )


@dataclasses.dataclass
class Model:
    """The parts of a text-to-image model folder."""

    tokenizer: PreTrainedTokenizerFast
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    autoencoder: AutoencoderTiny

    @classmethod
    def load(cls, folder: Path, device: torch.device, autoencoder: Path | None = None) -> Model:
        """Read a folder in diffusers' layout, float32; the autoencoder may lie elsewhere."""
        unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
        vae = AutoencoderTiny.from_pretrained(autoencoder or folder / "vae", torch_dtype=torch.float32)
        return cls(
            PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"),
            CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).to(device).eval(),
            unet.to(device, memory_format=torch.channels_last).eval(),
            vae.to(device, memory_format=torch.channels_last).eval(),
        )

    def states(self, captions: Sequence[str]) -> torch.Tensor:
        """Text encoder states of captions, [B, 32, width]."""
        tokens = self.tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt")
        return self.text_encoder(tokens.input_ids.to(self.unet.device))[0]


@torch.no_grad()
def generate(
    model: Model,
    captions: Sequence[str],
    seeds: Sequence[int],
    guidance: float = 4.0,
    steps: int = 20,
    batch: int = 16,
    label: str | None = None,
) -> torch.Tensor:
    """Pictures of captions, [B, 3, 128, 128] in [-1, 1].

    The noise of a picture depends on its seed only. Guidance is w in uncond + w (cond - uncond). With a label, a
    progress bar of that name is shown.
    """
    made = []
    for start in tqdm(range(0, len(captions), batch), label, unit="batch", disable=label is None):
        texts, numbers = captions[start : start + batch], seeds[start : start + batch]
        shape = (model.unet.config.in_channels, 16, 16)
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in numbers]
        x = torch.stack(noise).to(model.unet.device)
        branches = {0.0: [""] * len(texts), 1.0: list(texts)}.get(guidance, [*texts, *[""] * len(texts)])
        states = model.states(branches)
        scheduler = build_scheduler()
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps:
            doubled = x.repeat(len(branches) // len(texts), 1, 1, 1).contiguous(memory_format=torch.channels_last)
            v = model.unet(doubled, t, states).sample
            if len(branches) > len(texts):
                conditional, unconditional = v.chunk(2)
                v = unconditional + guidance * (conditional - unconditional)
            x = scheduler.step(v, t, x).prev_sample
        made.append(model.autoencoder.decode(x).sample.clamp(-1, 1))
    return torch.cat(made)
