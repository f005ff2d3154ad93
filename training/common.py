"""What every training script shares: where things are kept, runtime settings, averaging, checkpoints, progress."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from playground.devices import calculates_in_bfloat16

DEFAULT_WORK = Path.home() / ".cache" / "diffusion-playground" / "training"
"""Scenes, latents and checkpoints: several gigabytes that do not belong into the repository."""

# Every consumer of scenes draws from its own range of seeds.
TRAINING_SEEDS = 10_000_000
VERIFIER_SEEDS = 50_000_000
HELD_OUT_SEEDS = 0


def parser(description: str | None) -> argparse.ArgumentParser:
    """An argument parser with the options that all scripts have."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("--work", type=Path, default=DEFAULT_WORK, help="folder for scenes, latents and checkpoints")
    made.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads")
    return made


def prepare(threads: int, seed: int = 0) -> torch.device:
    """Set the runtime up and return the device to train on."""
    torch.set_num_threads(threads)
    # Without this a CPU run can slow down a hundredfold once activations become subnormal.
    torch.set_flush_denormal(True)
    torch.manual_seed(seed)
    # Matrix products stay in float32: autocast makes those of the networks fast, and Muon needs the digits.
    torch.backends.cudnn.allow_tf32 = True
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """Mixed precision in bfloat16 where the device has it: on such a CPU 2.5 times faster than float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=calculates_in_bfloat16(device))


def to_signed(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 pictures [B, H, W, 3] as float pictures [B, 3, H, W] in [-1, 1], channels last in memory."""
    return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def to_pixels(pictures: torch.Tensor) -> torch.Tensor:
    """Inverse of :func:`to_signed`, rounded."""
    return pictures.float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()


def psnr(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio of each of a batch of pictures in [-1, 1], in dB; shape [B]."""
    return 10 * torch.log10(4 / (a.float() - b.float()).square().mean((1, 2, 3)).clamp_min(1e-12))


def cooldown(step: int, total: int, share: float = 0.25) -> float:
    """Factor of the learning rate: one, then linearly down to almost nothing over the last ``share`` of steps."""
    return min(1.0, max(0.02, (total - step) / (share * total)))


class Average:
    """Average of parameters over about the last tenth of the training, whatever its length.

    Power-function averaging (Karras et al. 2024, EDM2, eq. 127): weights proportional to step^gamma.
    """

    GAMMA = 6.94  # relative width 0.10 (eq. 123)

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Fold in the parameters after update number ``step``, counted from zero."""
        decay = (1 - 1 / (step + 1)) ** (self.GAMMA + 1)
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The averaged values in place of the parameters, for the duration of a block."""
        current = [p.detach().clone() for p in self.parameters]
        self._copy(self.values)
        try:
            yield
        finally:
            self._copy(current)

    @torch.no_grad()
    def _copy(self, values: list[torch.Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)

    def load(self, values: list[torch.Tensor]) -> None:
        """Restore saved values."""
        for mine, theirs in zip(self.values, values, strict=True):
            mine.copy_(theirs)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that a crash while writing leaves the previous one intact."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Read one of our own checkpoints (tensors and plain values only)."""
    return torch.load(path, map_location=device, weights_only=True)


class Progress:
    """A progress bar that knows running means, for terminals and logs alike."""

    def __init__(self, total: int, done: int, what: str) -> None:
        self.bar = tqdm(total=total, initial=done, desc=what, unit="step", mininterval=30, maxinterval=120)
        self.means: dict[str, float] = {}
        self.started, self.first = time.monotonic(), done

    def update(self, batch: int, **values: float) -> None:
        """Count one step of ``batch`` samples and fold its values into the running means."""
        for name, value in values.items():
            self.means[name] = value + 0.98 * (self.means.get(name, value) - value)
        self.bar.update(1)
        rate = batch * (self.bar.n - self.first) / (time.monotonic() - self.started)
        self.bar.set_postfix(
            {n: f"{v:.4f}" for n, v in self.means.items()} | {"samples/s": f"{rate:.0f}"}, refresh=False
        )
