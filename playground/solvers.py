"""Solvers: one step of sampling, written as in the paper that introduced it.

A step is a generator. It yields `Query(x, t)` whenever it wants to ask the field, receives a Prediction,
and returns the next x with whatever it wants to remember. The driver decides who answers: guidance, batching
with other rows, counting and cancelling are not the solver's business.

The flow ODE dx/dt = velocity can be written in several variables. They share their exact solution but not
their polygons, so a method like "Euler" only has a meaning together with its variable:

    t       y = x,         tau = t             dy/dtau = velocity
    sigma   y = x/alpha,   tau = sigma/alpha   dy/dtau = eps     (Karras et al. 2022; diffusers, k-diffusion)
    snr     y = x/sigma,   tau = alpha/sigma   dy/dtau = x0

To add a solver, write one class here and put it into `SOLVERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from playground.errors import RecipeError
from playground.fields import Prediction, rows
from playground.schedules import Schedule


@dataclass(frozen=True)
class Query:
    """A question to the field: x [B, ...] at times t [B]."""

    x: Tensor
    t: Tensor


Step = Generator[Query, Prediction, tuple[Tensor, Any]]
Noise = Callable[[int], Tensor]
"""noise(k) is the k-th standard normal draw of this step, shaped like x."""


class Variable:
    """Coordinates (y, tau) in which the flow ODE reads dy/dtau = slope, with x = scale(t) y."""

    name: str
    title: str

    def __init__(self, schedule: Schedule):
        self.schedule = schedule

    def tau(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def scale(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def slope(self, prediction: Prediction) -> Tensor:
        raise NotImplementedError

    def evaluable(self, t: float) -> bool:
        """Whether the slope is defined at t and a field may be asked there."""
        return t >= self.schedule.t_min * (1 - 1e-9)

    def advance(self, x: Tensor, t: Tensor, s: Tensor, slope: Tensor) -> Tensor:
        """x at s after a straight line from (x, t): y_s = y_t + (tau_s - tau_t) slope."""
        scale_s = self.scale(s)
        return rows(scale_s / self.scale(t), x) * x + rows(scale_s * (self.tau(s) - self.tau(t)), x) * slope


class InTime(Variable):
    name, title = "t", "t"

    def tau(self, t):
        return t

    def scale(self, t):
        return torch.ones_like(t)

    def slope(self, prediction):
        return prediction.velocity


class InSigma(Variable):
    name, title = "sigma", "σ/α"

    def tau(self, t):
        return self.schedule.noise_ratio(t)

    def scale(self, t):
        return self.schedule.alpha(t)

    def slope(self, prediction):
        return prediction.eps

    def evaluable(self, t):  # at sigma = 0 the noise is not defined
        return super().evaluable(t) and float(self.schedule.sigma(t)) > 0


class InSNR(Variable):
    name, title = "snr", "α/σ"

    def tau(self, t):
        return 1 / self.schedule.noise_ratio(t)

    def scale(self, t):
        return self.schedule.sigma(t)

    def slope(self, prediction):
        return prediction.x0

    def advance(self, x, t, s, slope):
        # The same line, written so that it also reaches sigma = 0, where tau is infinite and the scale 0.
        ratio = self.schedule.sigma(s) / self.schedule.sigma(t)
        return rows(ratio, x) * x + rows(self.schedule.alpha(s) - ratio * self.schedule.alpha(t), x) * slope

    def evaluable(self, t):  # tau is infinite at sigma = 0
        return super().evaluable(t) and float(self.schedule.sigma(t)) > 0


VARIABLES: dict[str, type[Variable]] = {v.name: v for v in (InTime, InSigma, InSNR)}


class Solver:
    """One step from time t to an earlier time s.

    Class attributes:
        name: key in links; title: on the page; source: the paper.
        order: global order of convergence as implemented, start-up and last step included.
        evaluations: field evaluations of a full step.
        stochastic: whether it draws noise.
        variables: the variables it can be written in, the default first; empty where the formula fixes it.
        minimum_steps: fewer steps than this raise an error when the plan is made.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    order: ClassVar[int]
    evaluations: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False
    variables: ClassVar[tuple[str, ...]] = ()
    minimum_steps: ClassVar[int] = 1

    def __init__(self, schedule: Schedule, variable: str | None = None):
        self.schedule = schedule
        if variable is not None and variable not in self.variables:
            raise RecipeError(f"{self.title} cannot be written in {variable[:20]!r}.")
        if self.variables:
            self.variable = VARIABLES[variable or self.variables[0]](schedule)

    def times(self, t: float, s: float) -> tuple[float, ...]:
        """The times at which a step from t to s asks the field, in order."""
        return (t,)

    def step(self, x: Tensor, t: Tensor, s: Tensor, state: Any, noise: Noise) -> Step:
        """From x [B, ...] at t [B] to s [B].

        All rows of a call ask at the same number of times. `state` is what the previous step returned,
        None at first.
        """
        raise NotImplementedError


class DDIM(Solver):
    """Song et al. 2021 (Denoising Diffusion Implicit Models), eq. 12 with eta = 0.

    Equals Euler in sigma/alpha and DPM-Solver-1.
    """

    name, title, source, order = "ddim", "DDIM", "Song et al. 2021, eq. 12", 1

    def step(self, x, t, s, state, noise):
        p = yield Query(x, t)
        return rows(self.schedule.alpha(s), x) * p.x0 + rows(self.schedule.sigma(s), x) * p.eps, None


class Euler(Solver):
    """Follow the slope at the start of the step."""

    name, title, source, order = "euler", "Euler", "Euler 1768", 1
    variables = ("sigma", "t", "snr")

    def step(self, x, t, s, state, noise):
        slope = self.variable.slope((yield Query(x, t)))
        return self.variable.advance(x, t, s, slope), None


class Heun(Solver):
    """Average the slopes at both ends of an Euler step (Karras et al. 2022, Alg. 1 and 2 without churn).

    The last step is Euler's where the slope at its end is not defined, so N steps cost 2N - 1 evaluations
    then and 2N otherwise.
    """

    name, title, source, order, evaluations = "heun", "Heun", "Karras et al. 2022, Alg. 1", 2, 2
    variables = ("sigma", "t", "snr")

    def times(self, t, s):
        return (t, s) if self.variable.evaluable(s) else (t,)

    def step(self, x, t, s, state, noise):
        d = self.variable.slope((yield Query(x, t)))
        x_s = self.variable.advance(x, t, s, d)
        if not self.variable.evaluable(float(s[0])):
            return x_s, None
        d_s = self.variable.slope((yield Query(x_s, s)))
        return self.variable.advance(x, t, s, (d + d_s) / 2), None


class DPMSolverPP2M(Solver):
    """DPM-Solver++(2M): exponential integrator in x0 with one remembered evaluation (Lu et al. 2022b, Alg. 2).

    With lambda = log(alpha/sigma), h = lambda_s - lambda_t and r = h_previous / h:

        D   = x0 + (x0 - x0_previous) / (2 r)
        x_s = sigma_s / sigma_t x - alpha_s (exp(-h) - 1) D

    The first step has no history, and a step to sigma = 0 (h infinite) lands on x0: both are DDIM steps.
    """

    name, title = "dpmpp_2m", "DPM-Solver++(2M)"
    source, order = "Lu et al. 2022 (DPM-Solver++), Alg. 2", 2

    def step(self, x, t, s, state, noise):
        sch = self.schedule
        x0 = (yield Query(x, t)).x0
        lam_t, lam_s = sch.half_log_snr(t), sch.half_log_snr(s)
        h = lam_s - lam_t
        d = x0
        if state is not None:
            x0_previous, h_previous = state
            # 1/(2r) = h / (2 h_previous): 0 after an infinitely long first step (zero SNR), and not used
            # on the step to sigma = 0, where h is infinite.
            weight = torch.where(torch.isfinite(h), h / (2 * h_previous), 0.0)
            d = x0 + rows(weight, x) * (x0 - x0_previous)
        x_s = rows(sch.sigma(s) / sch.sigma(t), x) * x - rows(sch.alpha(s) * torch.expm1(-h), x) * d
        return x_s, (x0, h)


SOLVERS: dict[str, type[Solver]] = {s.name: s for s in (DDIM, Euler, Heun, DPMSolverPP2M)}
"""The solvers a recipe can name."""
