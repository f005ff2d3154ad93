"""Our solvers step for step against diffusers' schedulers, on a field that is known in closed form."""

from __future__ import annotations

import diffusers
import pytest
import torch
from diffusers.schedulers import scheduling_ddpm, scheduling_euler_ancestral_discrete
from truth import draws, integrate, lopsided

from playground.grids import trailing
from playground.plane.mixtures import ExactField
from playground.schedules import Discrete
from playground.solvers import SOLVERS

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
START = torch.linspace(-2, 2, 21, dtype=torch.float64)[:, None]
NOISE = draws(START.shape, seed=3)
CLOSE = {"rtol": 0, "atol": 1e-5}  # their tables are in float32


class Line:
    """The lopsided mixture on the line under a scheduler's own table."""

    def __init__(self, scheduler):
        self.path = Discrete(scheduler.alphas_cumprod)
        self.field = ExactField(lopsided(), self.path, "eps")

    def ask(self, x, t):
        return self.field.predict(x, t, {})

    def eps(self, x, t):
        return self.ask(x, torch.full((len(x),), float(t), dtype=torch.float64)).eps

    def ours(self, name, times):
        x = START * self.path.sigma(times[0])
        return integrate(SOLVERS[name](self.path), self.ask, x, times, NOISE)


def theirs(scheduler, line, times, scaled=False, **more):
    """diffusers' loop from our start; `scaled`: its x is ours divided by alpha."""
    x = START * line.path.sigma(times[0]) / (line.path.alpha(times[0]) if scaled else 1)
    for step, (index, t) in enumerate(zip(scheduler.timesteps, times, strict=False)):
        given = {name: value(step) for name, value in more.items()}
        x = scheduler.step(line.eps(scheduler.scale_model_input(x, index), t), index, x, **given).prev_sample
    return x


@pytest.mark.parametrize("steps", [2, 3, 5, 10, 15, 25, 50])
def test_3m_is_that_of_diffusers(steps):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **SD,
        solver_order=3,
        timestep_spacing="trailing",
        final_sigmas_type="zero",
        # Below 15 steps it would take the last but one in a lower order, which ours does at no number of steps.
        lower_order_final=False,
    )
    scheduler.set_timesteps(steps)
    line = Line(scheduler)
    times = trailing(line.path, steps)
    torch.testing.assert_close(line.ours("dpmpp_3m", times), theirs(scheduler, line, times), **CLOSE)


@pytest.mark.parametrize("steps", [2, 3, 5, 10, 25])
def test_unipc_is_that_of_diffusers(steps):
    scheduler = diffusers.UniPCMultistepScheduler(
        **SD,
        solver_order=2,
        solver_type="bh2",
        predict_x0=True,
        lower_order_final=True,
        timestep_spacing="trailing",
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(steps)
    line = Line(scheduler)
    times = trailing(line.path, steps)
    torch.testing.assert_close(line.ours("unipc", times), theirs(scheduler, line, times), **CLOSE)


@pytest.mark.parametrize("steps", [2, 5, 12])
def test_2s_is_that_of_diffusers_where_its_middle_is_ours(steps):
    # Every second of its noise levels stands half of the way in log(sigma/alpha) between its neighbours.
    scheduler = diffusers.DPMSolverSinglestepScheduler(
        **SD, solver_order=2, use_exponential_sigmas=True, final_sigmas_type="zero"
    )
    scheduler.set_timesteps(2 * steps - 1)
    line = Line(scheduler)
    every = [*line.path.t_at_ratio(scheduler.sigmas[:-1].double()).tolist(), 0.0]
    ours, expected = line.ours("dpmpp_2s", [*every[:-1:2], 0.0]), theirs(scheduler, line, every)
    torch.testing.assert_close(ours, expected, **CLOSE)


@pytest.mark.parametrize("steps", [4, 10, 50])
def test_ancestral_is_ddim_of_diffusers_with_eta_one(steps):
    scheduler = diffusers.DDIMScheduler(**SD, timestep_spacing="trailing", clip_sample=False)
    scheduler.set_timesteps(steps)
    line = Line(scheduler)
    times = trailing(line.path, steps)
    expected = theirs(scheduler, line, times, eta=lambda step: 1.0, variance_noise=lambda step: NOISE(step, 0))
    torch.testing.assert_close(line.ours("ancestral", times), expected, **CLOSE)


def drawing(monkeypatch, module):
    """Let a scheduler draw our noise, step by step."""
    drawn = []

    def draw(shape, **_):
        drawn.append(NOISE(len(drawn), 0))
        assert drawn[-1].shape == tuple(shape)
        return drawn[-1]

    monkeypatch.setattr(module, "randn_tensor", draw)


@pytest.mark.parametrize("steps", [4, 10, 50])
def test_ancestral_is_ddpm_of_diffusers(monkeypatch, steps):
    drawing(monkeypatch, scheduling_ddpm)
    scheduler = diffusers.DDPMScheduler(
        **SD, timestep_spacing="trailing", variance_type="fixed_small", clip_sample=False
    )
    scheduler.set_timesteps(steps)
    line = Line(scheduler)
    times = trailing(line.path, steps)
    torch.testing.assert_close(line.ours("ancestral", times), theirs(scheduler, line, times), **CLOSE)


@pytest.mark.parametrize("steps", [4, 10, 50])
def test_ancestral_and_euler_ancestral_of_diffusers_are_one(monkeypatch, steps):
    # k-diffusion's sampler walks in x/alpha, where the formula of DDPM is its own.
    drawing(monkeypatch, scheduling_euler_ancestral_discrete)
    scheduler = diffusers.EulerAncestralDiscreteScheduler(**SD, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    line = Line(scheduler)
    times = trailing(line.path, steps)
    expected = theirs(scheduler, line, times, scaled=True)
    torch.testing.assert_close(line.ours("ancestral", times), expected, rtol=0, atol=1e-4)  # x in float32
