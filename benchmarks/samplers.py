"""The default comparison of solvers, six at three budgets in one batch, over the same pictures by one call each.

    python -m benchmarks.samplers

Both sides make the same pictures: what diffusers has no scheduler for (none of the six) would be left out. The
reference of the page is not counted: it is kept from one comparison of a prompt to the next.
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.common import Theirs, a_backend, alternate, report
from playground.backend import Backend, Result
from playground.images.comparison import Cell, Compared, Comparison
from playground.noise import start_noise

W = 4.0


class TheirSolvers(Theirs):
    """One warm pipeline whose scheduler is exchanged."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers import (
            DDIMScheduler,
            DPMSolverMultistepScheduler,
            DPMSolverSinglestepScheduler,
            HeunDiscreteScheduler,
            UniPCMultistepScheduler,
        )

        config = self.pipe.scheduler.config
        trailing = {"timestep_spacing": "trailing"}
        self.schedulers: dict[str, Any] = {
            "ddim": DDIMScheduler.from_config(config, **trailing),
            "heun": HeunDiscreteScheduler.from_config(config, **trailing),
            "dpmpp_2s": DPMSolverSinglestepScheduler.from_config(config, **trailing),
            "dpmpp_2m": DPMSolverMultistepScheduler.from_config(config, **trailing),
            "unipc": UniPCMultistepScheduler.from_config(config, **trailing),
            "ancestral": DDIMScheduler.from_config(config, **trailing),
        }

    def cell(self, cell: Cell, prompt: str, seed: int) -> None:
        """One picture with as many calls of the denoiser as ours."""
        self.pipe.scheduler = scheduler = self.schedulers[cell.solver]
        config = self.pipe.unet.config
        noise = start_noise(seed, (config.in_channels, config.sample_size, config.sample_size))[None]
        # diffusers' single-step solver counts evaluations as steps.
        steps = cell.evaluations if cell.solver == "dpmpp_2s" else cell.steps
        scheduler.set_timesteps(steps)
        self.pipe(
            prompt,
            num_inference_steps=steps,
            guidance_scale=W,
            eta=1.0 if cell.solver == "ancestral" else 0.0,
            generator=torch.Generator().manual_seed(seed),
            latents=noise * (scheduler.init_noise_sigma if cell.solver == "heun" else self._sigma),
            output_type="np",
        )


def ours(backend: Backend, recipe: Comparison) -> Compared:
    """A comparison through the backend."""
    for event in backend.run(recipe, visitor="benchmark"):
        if isinstance(event, Result):
            assert not event.reused, "a kept result was timed"
            return event.value
    raise RuntimeError(f"the comparison ended with {event}")


def main() -> None:
    theirs = TheirSolvers()
    with a_backend() as backend:
        recipe = Comparison(w=W)
        schedule = backend.model(recipe.model).denoiser.schedule
        cells = recipe.cells(schedule)

        def pipeline(seed: int) -> None:
            for cell in cells:
                theirs.cell(cell, recipe.prompt, seed)

        mine, pipelines = alternate(lambda i: ours(backend, recipe.but(seed=i)), pipeline, rounds=3)
    report(
        ratio=round(mine / pipelines, 3),
        seconds=round(mine, 3),
        pipeline_seconds=round(pipelines, 3),
        pictures=len(cells),
        evaluations=sum(c.evaluations for c in cells),
    )


if __name__ == "__main__":
    main()
