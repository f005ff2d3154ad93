"""Both sides of a comparison: our backend, and diffusers' own pipeline on the same weights and latents."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Threads that wait sleep, on both sides: see app.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

from playground.backend import Backend, Result
from playground.images.models import ASSETS, BUNDLED, load_model
from playground.images.text_to_image import Generated
from playground.noise import start_noise
from playground.recipes import TextToImage

STEPS = 20


def ours(backend: Backend, recipe: TextToImage) -> Generated:
    """A run through the backend with its default records."""
    for event in backend.run(recipe, visitor="benchmark"):
        if isinstance(event, Result):
            assert not event.reused, "a kept result was timed"
            return event.value
    raise RuntimeError(f"the run ended with {event}")


class Theirs:
    """A warm StableDiffusionPipeline: DPM-Solver++(2M) on the trailing grid, as the recipes' default."""

    def __init__(self) -> None:
        load_model()  # silences the libraries
        from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

        self.pipe = StableDiffusionPipeline.from_pretrained(
            ASSETS / BUNDLED, dtype=torch.float32, safety_checker=None
        )
        self.pipe.set_progress_bar_config(disable=True)
        self.pipe.scheduler = DPMSolverMultistepScheduler.from_config(
            self.pipe.scheduler.config, timestep_spacing="trailing"
        )
        self._sigma = float(load_model().denoiser.schedule.sigma(1.0))

    def __call__(self, prompt: str, w: float, seed: int) -> np.ndarray:
        """One picture [H, W, 3] in [0, 1] from the noise that our seed means."""
        config = self.pipe.unet.config
        noise = start_noise(seed, (config.in_channels, config.sample_size, config.sample_size))
        return self.pipe(
            prompt,
            num_inference_steps=STEPS,
            guidance_scale=w,
            latents=noise[None] * self._sigma,
            output_type="np",
        ).images[0]


def agree(result: Generated, pictures: list[np.ndarray]) -> float:
    """The largest difference between both sides' pictures, in steps of 1/255; asserted to be 2 at most."""
    mine = (result.pictures / 2 + 0.5).permute(0, 2, 3, 1).numpy()
    worst = float(np.abs(mine - np.stack(pictures)).max() * 255)
    assert worst <= 2, f"the two sides differ by {worst:.2f}/255"
    return worst


def alternate(*sides: Callable[[int], Any], rounds: int = 5) -> list[float]:
    """Median seconds of each side, measured in turns so that a busy moment hits all of them.

    Args:
        sides: called with the round's number, which they use as seed so that nothing is kept between rounds.
    """
    for side in sides:
        side(10_000)
    seconds: list[list[float]] = [[] for _ in sides]
    for i in range(rounds):
        for taken, side in zip(seconds, sides, strict=True):
            began = time.perf_counter()
            side(i)
            taken.append(time.perf_counter() - began)
    return [statistics.median(s) for s in seconds]


@contextmanager
def a_backend(**options: Any) -> Iterator[Backend]:
    backend = Backend(**options)
    try:
        yield backend
    finally:
        backend.close()


def report(**figures: Any) -> None:
    """The last line: figures and the machine."""
    machine = f"{os.cpu_count()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(json.dumps({**figures, "machine": machine}))
