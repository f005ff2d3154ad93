"""The default comparison of solvers, six at three budgets in one batch, over the same pictures by one call each.

    python -m benchmarks.samplers

Both sides make the same pictures, which is checked: the largest difference is 2/255 at most. For that diffusers'
single-step solver gets our middles of its steps, DDIM is its DPM-Solver of order 1, which keeps to a grid that 1000
is no multiple of, and, in the check alone, its DDPM gets our noise. The reference of the page is not counted: it is
kept from one comparison of a prompt to the next.
"""

from __future__ import annotations

from itertools import chain
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from benchmarks.common import Theirs, a_backend, alternate, report
from playground.backend import Backend, Result
from playground.images.comparison import Cell, Compared, Comparison
from playground.noise import brownian_noise, start_noise
from playground.schedules import Discrete

W = 4.0


class AtTimes(DPMSolverSinglestepScheduler):
    """The single-step solver on times that are given: its own grid would put a step's middle elsewhere."""

    path: Discrete
    times: tuple[float, ...] = ()

    def set_timesteps(self, num_inference_steps: int, device: Any = None, timesteps: Any = None) -> None:
        super().set_timesteps(num_inference_steps, device)
        t = torch.tensor(self.times, dtype=torch.float64)
        self.sigmas = torch.cat([self.path.noise_ratio(t), torch.zeros(1)]).float()
        self.timesteps = self.path.index(t).float()


class TheirSolvers(Theirs):
    """One warm pipeline whose scheduler is exchanged."""

    def __init__(self, path: Discrete) -> None:
        super().__init__()
        config = self.pipe.scheduler.config
        trailing = {"timestep_spacing": "trailing"}
        self.schedulers: dict[str, Any] = {
            "ddim": DPMSolverMultistepScheduler.from_config(config, solver_order=1, **trailing),
            "heun": HeunDiscreteScheduler.from_config(config, **trailing),
            "dpmpp_2s": AtTimes.from_config(config, final_sigmas_type="zero"),
            "dpmpp_2m": DPMSolverMultistepScheduler.from_config(config, **trailing),
            "unipc": UniPCMultistepScheduler.from_config(config, **trailing),
            "ancestral": DDPMScheduler.from_config(config, clip_sample=False, **trailing),
        }
        self.schedulers["dpmpp_2s"].path = path

    def cell(self, cell: Cell, recipe: Comparison) -> np.ndarray:
        """One picture [H, W, 3] in [0, 1] with as many calls of the denoiser as ours."""
        self.pipe.scheduler = scheduler = self.schedulers[cell.solver]
        config, steps = self.pipe.unet.config, cell.steps
        noise = start_noise(recipe.seed, (config.in_channels, config.sample_size, config.sample_size))[None]
        if isinstance(scheduler, AtTimes):
            (row,) = single_row(recipe, cell, scheduler.path)
            scheduler.times = tuple(chain.from_iterable(row.queries(scheduler.path)))
            steps = cell.evaluations  # which it calls steps
        return self.pipe(
            recipe.prompt,
            num_inference_steps=steps,
            guidance_scale=W,
            generator=torch.Generator().manual_seed(recipe.seed),
            # The pipeline multiplies them by the scheduler's own scale: Heun's is the noisiest level's.
            latents=noise if cell.solver == "heun" else noise * self._sigma,
            output_type="np",
        ).images[0]


def single_row(recipe: Comparison, cell: Cell, path: Discrete) -> tuple[Any, ...]:
    """The row of a cell."""
    return recipe.but(solvers=(cell.solver,), budgets=(cell.steps,), equal="steps").plan(path).rows


def check(theirs: TheirSolvers, result: Compared, path: Discrete) -> float:
    """The largest difference between both sides' pictures, in steps of 1/255; asserted to be 2 at most."""
    mine = (result.pictures / 2 + 0.5).permute(0, 2, 3, 1).numpy()
    worst = 0.0
    for picture, cell in zip(mine, result.run_cells, strict=True):
        (row,) = single_row(result.recipe, cell, path)
        steps = iter(zip(row.times, row.times[1:], strict=False))

        def draw(shape: tuple[int, ...], steps: Any = steps, seed: int = row.seed, **_: Any) -> Tensor:
            t, s = next(steps)
            return brownian_noise(seed, t, s, tuple(shape)[1:])[None]

        with patch("diffusers.schedulers.scheduling_ddpm.randn_tensor", draw):
            other = theirs.cell(cell, result.recipe)
        difference = float(np.abs(picture - other).max() * 255)
        assert difference <= 2, f"{cell.solver} of {cell.steps} steps differs by {difference:.2f}/255"
        worst = max(worst, difference)
    return worst


def ours(backend: Backend, recipe: Comparison) -> Compared:
    """A comparison through the backend."""
    for event in backend.run(recipe, visitor="benchmark"):
        if isinstance(event, Result):
            assert not event.reused, "a kept result was timed"
            return event.value
    raise RuntimeError(f"the comparison ended with {event}")


def main() -> None:
    with a_backend() as backend:
        recipe = Comparison(w=W)
        path = backend.model(recipe.model).denoiser.schedule
        assert isinstance(path, Discrete)
        theirs, cells = TheirSolvers(path), recipe.cells(path)
        worst = check(theirs, ours(backend, recipe.but(seed=20_000)), path)

        def pipeline(seed: int) -> None:
            for cell in cells:
                theirs.cell(cell, recipe.but(seed=seed))

        mine, pipelines = alternate(lambda i: ours(backend, recipe.but(seed=i)), pipeline, rounds=3)
    report(
        ratio=round(mine / pipelines, 3),
        seconds=round(mine, 3),
        pipeline_seconds=round(pipelines, 3),
        pictures=len(cells),
        evaluations=sum(c.evaluations for c in cells),
        difference=round(worst, 2),
    )


if __name__ == "__main__":
    main()
