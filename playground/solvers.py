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

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from playground.errors import RecipeError
from playground.fields import Prediction, rows
from playground.schedules import Schedule, as_time


@dataclass(frozen=True)
class Query:
    """A question to the field: x [B, ...] at times t [B]."""

    x: Tensor
    t: Tensor


Step = Generator[Query, Prediction, tuple[Tensor, Any]]
Noise = Callable[[int], Tensor]
"""noise(k) is the k-th standard normal draw of this step, shaped like x."""


def exponential(schedule: Schedule, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
    """x at s if x0 were constant from t to s: sigma_s/sigma_t x - alpha_s (exp(-h) - 1) x0.

    h = lambda_s - lambda_t with lambda = log(alpha/sigma); the solution that all DPM-Solver++ methods
    correct (Lu et al. 2022, DPM-Solver++, eq. 9). At sigma_s = 0 this is x0, at h infinite as well.
    """
    ratio = schedule.sigma(s) / schedule.sigma(t)
    # alpha_s exp(-h) = alpha_t sigma_s / sigma_t, which stays finite at both ends of the path.
    return rows(ratio, x) * x + rows(schedule.alpha(s) - ratio * schedule.alpha(t), x) * x0


class Variable:
    """Coordinates (y, tau) in which the flow ODE reads dy/dtau = slope, with x = scale(t) y."""

    name: str
    title: str
    formula: str
    """The flow ODE in this variable, in LaTeX."""

    def __init__(self, schedule: Schedule):
        self.schedule = schedule

    def tau(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def scale(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def slope(self, prediction: Prediction) -> Tensor:
        raise NotImplementedError

    def t_at(self, tau: Tensor) -> Tensor:
        """The time at which the variable has the value tau."""
        raise NotImplementedError

    def between(self, t: Tensor, s: Tensor, fraction: float) -> Tensor:
        """The time that lies this fraction of the way from t to s, as measured in tau."""
        tau = self.tau(t)
        return self.t_at(tau + fraction * (self.tau(s) - tau))

    def evaluable(self, t: float) -> bool:
        """Whether the slope is defined at t and a field may be asked there."""
        return t >= self.schedule.t_min * (1 - 1e-9)

    def advance(self, x: Tensor, t: Tensor, s: Tensor, slope: Tensor) -> Tensor:
        """x at s after a straight line from (x, t): y_s = y_t + (tau_s - tau_t) slope."""
        scale_s = self.scale(s)
        return rows(scale_s / self.scale(t), x) * x + rows(scale_s * (self.tau(s) - self.tau(t)), x) * slope


FLOW_ODE = r"\frac{\mathrm d (x/\alpha)}{\mathrm d (\sigma/\alpha)} = \hat\epsilon(x, t)"
REVERSE_SDE = (
    r"\mathrm d y = (1 + \eta^2)\,\hat\epsilon\,\mathrm d \rho + \eta\sqrt{2 \rho}\;\mathrm d \bar w_\rho \\ "
    r"y = x/\alpha, \quad \rho = \sigma/\alpha"
)
"""The reverse SDE with the path's own marginals, in LaTeX (Song et al. 2021, eq. 6; eta = 0 is the flow ODE)."""
STEP_IN_LAMBDA = r"h = \lambda_s - \lambda_t, \quad \lambda = \log(\alpha/\sigma)"


class InTime(Variable):
    name, title = "t", "t"
    formula = (
        r"\frac{\mathrm d x}{\mathrm d t} = \dot\alpha_t\,\hat x_0(x, t) + \dot\sigma_t\,\hat\epsilon(x, t)"
        r" \\ y = x, \quad \rho = t, \quad k = \mathrm d x/\mathrm d t"
    )

    def tau(self, t):
        return t

    def t_at(self, tau):
        return tau

    def scale(self, t):
        return torch.ones_like(t)

    def slope(self, prediction):
        return prediction.velocity


class InSigma(Variable):
    name, title = "sigma", "σ/α"
    formula = FLOW_ODE + r" \\ y = x/\alpha, \quad \rho = \sigma/\alpha, \quad k = \hat\epsilon"

    def tau(self, t):
        return self.schedule.noise_ratio(t)

    def t_at(self, tau):
        return self.schedule.t_at_ratio(tau)

    def scale(self, t):
        return self.schedule.alpha(t)

    def slope(self, prediction):
        return prediction.eps

    def evaluable(self, t):  # at sigma = 0 the noise is not defined
        return super().evaluable(t) and float(self.schedule.sigma(t)) > 0


class InSNR(Variable):
    name, title = "snr", "α/σ"
    formula = (
        r"\frac{\mathrm d (x/\sigma)}{\mathrm d (\alpha/\sigma)} = \hat x_0(x, t)"
        r" \\ y = x/\sigma, \quad \rho = \alpha/\sigma, \quad k = \hat x_0"
    )

    def tau(self, t):
        return 1 / self.schedule.noise_ratio(t)

    def t_at(self, tau):
        return self.schedule.t_at_ratio(1 / tau)

    def between(self, t, s, fraction):
        # Near clean data tau is infinite; half of the way there is anywhere. Steps that need a point in
        # between take it at the same fraction of sigma/alpha instead.
        if bool(torch.isfinite(self.tau(s)).all()):
            return super().between(t, s, fraction)
        return self.schedule.t_at_ratio(self.schedule.noise_ratio(t) * (1 - fraction))

    def scale(self, t):
        return self.schedule.sigma(t)

    def slope(self, prediction):
        return prediction.x0

    def advance(self, x, t, s, slope):
        # The same line, written so that it also reaches sigma = 0, where tau is infinite and the scale 0.
        return exponential(self.schedule, x, t, s, slope)

    def evaluable(self, t):  # tau is infinite at sigma = 0
        return super().evaluable(t) and float(self.schedule.sigma(t)) > 0


VARIABLES: dict[str, type[Variable]] = {v.name: v for v in (InTime, InSigma, InSNR)}


class Solver:
    """One step from time t to an earlier time s.

    Class attributes:
        name: key in links; title: on the page; source: the paper.
        formula: a step from t to s in LaTeX, in lines (\\\\), for the page: hats are guided predictions at x_t; y,
            rho (tau in the code; on the page tau is 1 - t) and the slope k are those of the variable.
        where: what else stands in the formula, in words, with LaTeX between $.
        order: global order of convergence as implemented, start-up and last step included; of a stochastic solver
            that of the distribution where it draws noise, and 0 where that does not come closer with more steps.
        order_with_noise: the order at eta = 1, where it is not that of eta = 0.
        evaluations: field evaluations of a full step.
        stochastic: whether it draws noise; then `eta` says how much, from 0 (none: an ODE solver) to 1.
        variables: the variables it can be written in, the default first; empty where the formula fixes it.
        reverse_sde: whether its noise is that of the reverse SDE, in the limit of fine steps.
        noise_told: of noise that is another, what it is, in a sentence for the page.
        jumps: whether it follows neither the ODE nor the SDE, and `noise_told` says what it does instead.
        minimum_steps: fewer steps than this raise an error when the plan is made.
        resumable: whether a state, once returned, is never changed, so that a run can go on from it twice.
        renoises: whether a step removes the noise and puts noise back, which then may be another (CFG++).
        needs_table: whether it runs only on a checkpoint's table of noise levels.
        whole_grid: whether it must know its whole grid beforehand, so that rows on others get their own lane.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    formula: ClassVar[str] = ""
    where: ClassVar[str] = ""
    order: ClassVar[int]
    order_with_noise: ClassVar[int | None] = None
    evaluations: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False
    variables: ClassVar[tuple[str, ...]] = ()
    reverse_sde: ClassVar[bool] = False
    noise_told: ClassVar[str] = ""
    jumps: ClassVar[bool] = False
    minimum_steps: ClassVar[int] = 1
    resumable: ClassVar[bool] = True
    renoises: ClassVar[bool] = False
    needs_table: ClassVar[bool] = False
    whole_grid: ClassVar[bool] = False

    def __init__(self, schedule: Schedule, variable: str | None = None, eta: float = 1.0):
        self.schedule = schedule
        self.eta = eta if self.stochastic else 0.0
        if variable is not None and variable not in self.variables:
            raise RecipeError(f"{self.title} cannot be written in {variable[:20]!r}.")
        if self.variables:
            self.variable = VARIABLES[variable or self.variables[0]](schedule)

    @classmethod
    def told_order(cls) -> str:
        """Its order, in words."""
        told = f"order {cls.order}" if cls.order else "no order"
        if cls.order_with_noise is None:
            return told
        return f"{told}, {cls.order_with_noise or 'none'} with noise"

    @classmethod
    def limits(cls) -> list[str]:
        """What it cannot do that most solvers can, in one sentence each."""
        told = {
            "It runs only on a checkpoint's table of noise levels.": cls.needs_table,
            "Runs on different grids take their steps one by one; only their calls of the model are joined.": (
                cls.whole_grid
            ),
            "After any change all steps are run again: none can be taken over from an earlier run.": (
                not cls.resumable
            ),
            f"It takes at least {cls.minimum_steps} steps.": cls.minimum_steps > 1,
        }
        return [sentence for sentence, holds in told.items() if holds]

    @property
    def equation(self) -> str:
        """What the solver approximates, in LaTeX: an SDE, or the flow ODE in its variable.

        Two tend to something else as steps become finer: churn with eta > 0, which adds noise in every step however
        short it is, and solvers under CFG++.
        """
        if self.reverse_sde and self.eta > 0:
            return REVERSE_SDE
        return self.variable.formula if self.variables else FLOW_ODE

    def prepare(self, times: Sequence[float]) -> None:
        """Hear the whole grid, before anything else is asked.

        Raises:
            RecipeError: when this grid cannot be walked.
        """

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
    formula = r"x_s = \alpha_s\,\hat x_0 + \sigma_s\,\hat\epsilon"
    renoises = True

    def step(self, x, t, s, state, noise):
        p = yield Query(x, t)
        return rows(self.schedule.alpha(s), x) * p.x0 + rows(self.schedule.sigma(s), x) * p.renoise, None


class Euler(Solver):
    """Follow the slope at the start of the step."""

    name, title, source, order = "euler", "Euler", "Euler 1768", 1
    formula = r"y_s = y_t + (\rho_s - \rho_t)\,k(x_t, t)"
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
    formula: ClassVar[str] = (
        r"y' = y_t + (\rho_s - \rho_t)\,k(x_t, t) \\ "
        r"y_s = y_t + (\rho_s - \rho_t)\,\tfrac12\left(k(x_t, t) + k(x', s)\right)"
    )
    where: ClassVar[str] = "$y'$, $x'$: the end of an Euler step"
    variables: ClassVar[tuple[str, ...]] = ("sigma", "t", "snr")

    def times(self, t, s):
        return (t, s) if self.variable.evaluable(s) else (t,)

    def step(self, x, t, s, state, noise):
        d = self.variable.slope((yield Query(x, t)))
        x_s = self.variable.advance(x, t, s, d)
        if not self.variable.evaluable(float(s[0])):
            return x_s, None
        d_s = self.variable.slope((yield Query(x_s, s)))
        return self.variable.advance(x, t, s, (d + d_s) / 2), None


class Midpoint(Solver):
    """Take the slope half of the way along an Euler step (the explicit midpoint rule; Runge 1895)."""

    name, title, source, order, evaluations = "midpoint", "Midpoint", "Runge 1895", 2, 2
    formula = (
        r"y' = y_t + \tfrac12(\rho_s - \rho_t)\,k(x_t, t) \\ "
        r"y_s = y_t + (\rho_s - \rho_t)\,k(x', m)"
    )
    where = r"$m$: the time half of the way in $\rho$; $y'$, $x'$: where an Euler step is then"
    variables = ("sigma", "t", "snr")

    def times(self, t, s):
        return (t, float(self.variable.between(as_time(t), as_time(s), 0.5)))

    def step(self, x, t, s, state, noise):
        m = self.variable.between(t, s, 0.5)
        x_m = self.variable.advance(x, t, m, self.variable.slope((yield Query(x, t))))
        return self.variable.advance(x, t, s, self.variable.slope((yield Query(x_m, m)))), None


class RK4(Solver):
    """The classical Runge-Kutta method (Kutta 1901).

    Where the slope at the end of the step is not defined (a step to clean data), Ralston's third-order
    method (1962) takes its place, which asks at 0, 1/2 and 3/4 of the step: one such step keeps order 4.
    """

    name, title, source, order, evaluations = "rk4", "Runge-Kutta 4", "Kutta 1901", 4, 4
    formula = r"y_s = y_t + (\rho_s - \rho_t)\,\tfrac16\left(k_1 + 2 k_2 + 2 k_3 + k_4\right)"
    where = (
        r"$k_1$: the slope at $t$; $k_2$, $k_3$: half of the way in $\rho$; $k_4$: at $s$; each after a step along "
        "the slope before it"
    )
    variables = ("sigma", "t", "snr")

    def _at(self, t: Tensor, s: Tensor) -> tuple[Tensor, ...]:
        v = self.variable
        if v.evaluable(float(s.reshape(-1)[0])):
            m = v.between(t, s, 0.5)
            return t, m, m, s
        return t, v.between(t, s, 0.5), v.between(t, s, 0.75)

    def times(self, t, s):
        return tuple(float(q) for q in self._at(as_time(t), as_time(s)))

    def step(self, x, t, s, state, noise):
        v, at = self.variable, self._at(t, s)
        slopes = [v.slope((yield Query(x, t)))]
        for q in at[1:]:
            # Every stage of both methods leans on the slope before it alone.
            slopes.append(v.slope((yield Query(v.advance(x, t, q, slopes[-1]), q))))
        if len(at) == 4:
            k1, k2, k3, k4 = slopes
            return v.advance(x, t, s, (k1 + 2 * k2 + 2 * k3 + k4) / 6), None
        k1, k2, k3 = slopes
        return v.advance(x, t, s, (2 * k1 + 3 * k2 + 4 * k3) / 9), None


class DPMSolverPP2M(Solver):
    """DPM-Solver++(2M): exponential integrator in x0 with one remembered evaluation (Lu et al. 2022, Alg. 2).

    With lambda = log(alpha/sigma), h = lambda_s - lambda_t and r = h_previous / h:

        D   = x0 + (x0 - x0_previous) / (2 r)
        x_s = sigma_s / sigma_t x - alpha_s (exp(-h) - 1) D

    The first step has no history, and a step to sigma = 0 (h infinite) lands on x0: both are DDIM steps.
    """

    name, title = "dpmpp_2m", "DPM-Solver++(2M)"
    source, order = "Lu et al. 2022 (DPM-Solver++), Alg. 2", 2
    formula = (
        r"x_s = \frac{\sigma_s}{\sigma_t}\,x_t + \alpha_s\left(1 - e^{-h}\right) D \\ "
        r"D = \hat x_0 + \frac{h}{2 h'}\left(\hat x_0 - \hat x_0'\right) \\ " + STEP_IN_LAMBDA
    )
    where = r"$h'$, $\hat x_0'$: length and prediction of the step before"

    def step(self, x, t, s, state, noise):
        x0 = (yield Query(x, t)).x0
        h = self.schedule.half_log_snr(s) - self.schedule.half_log_snr(t)
        d = x0
        if state is not None:
            x0_previous, h_previous = state
            # 1/(2r) = h / (2 h_previous): 0 after an infinitely long first step (zero SNR), and not used
            # on the step to sigma = 0, where h is infinite.
            weight = torch.where(torch.isfinite(h), h / (2 * h_previous), 0.0)
            d = x0 + rows(weight, x) * (x0 - x0_previous)
        return exponential(self.schedule, x, t, s, d), (x0, h)


class DPMSolverPP2S(Solver):
    """DPM-Solver++(2S): the same integrator with an evaluation half of the way in lambda (Alg. 1, r = 1/2).

        u   = x at lambda_m = (lambda_t + lambda_s)/2 with x0 held constant
        x_s = sigma_s / sigma_t x - alpha_s (exp(-h) - 1) x0(u, m)

    A step from zero SNR or to sigma = 0 has no middle in lambda: it is a DDIM step, and one evaluation.
    """

    name, title = "dpmpp_2s", "DPM-Solver++(2S)"
    source, order, evaluations = "Lu et al. 2022 (DPM-Solver++), Alg. 1", 2, 2
    formula = (
        r"x_s = \frac{\sigma_s}{\sigma_t}\,x_t + \alpha_s\left(1 - e^{-h}\right) \hat x_0(x_m, m) \\ "
        r"\lambda_m = \tfrac12(\lambda_t + \lambda_s) \\ " + STEP_IN_LAMBDA
    )
    where = r"$x_m$: the end of a DDIM step to $m$, half of the way in $\lambda$"

    def _middle(self, t: Tensor, s: Tensor) -> Tensor | None:
        path = self.schedule
        middle = (path.half_log_snr(t) + path.half_log_snr(s)) / 2
        return path.t_at(middle) if bool(torch.isfinite(middle).all()) else None

    def times(self, t, s):
        m = self._middle(as_time(t), as_time(s))
        return (t,) if m is None else (t, float(m))

    def step(self, x, t, s, state, noise):
        x0 = (yield Query(x, t)).x0
        m = self._middle(t, s)
        if m is not None:
            x0 = (yield Query(exponential(self.schedule, x, t, m, x0), m)).x0
        return exponential(self.schedule, x, t, s, x0), None


class DPMSolverPP3M(Solver):
    """DPM-Solver++(3M): two remembered evaluations (Lu et al. 2022; the multistep form of diffusers).

    With h0, h1 the last two steps in lambda before h, r0 = h0/h, r1 = h1/h and phi(h) = exp(-h) - 1:

        D1_0 = (x0 - x0') / r0,   D1_1 = (x0' - x0'') / r1
        D1   = D1_0 + r0/(r0 + r1) (D1_0 - D1_1),   D2 = (D1_0 - D1_1)/(r0 + r1)
        x_s  = sigma_s/sigma_t x - alpha_s phi x0 + alpha_s (phi/h + 1) D1 - alpha_s ((phi + h)/h^2 - 1/2) D2

    It starts with a DDIM and a 2M step; the DDIM step's error of order 2 stays, so that the global order is
    2 and not 3. A step to sigma = 0 lands on x0.
    """

    name, title = "dpmpp_3m", "DPM-Solver++(3M)"
    source, order = "Lu et al. 2022 (DPM-Solver++), eq. 5.4", 2
    formula = (
        r"x_s = \frac{\sigma_s}{\sigma_t}\,x_t + \alpha_s\left(1 - e^{-h}\right) \hat x_0"
        r" \\ {} + \alpha_s\left(\tfrac{e^{-h} - 1}{h} + 1\right) D_1"
        r" \\ {} - \alpha_s\left(\tfrac{e^{-h} - 1 + h}{h^2} - \tfrac12\right) D_2 \\ " + STEP_IN_LAMBDA
    )
    where = (
        r"$D_1 \approx h\,\mathrm d \hat x_0/\mathrm d\lambda$, "
        r"$D_2 \approx \tfrac12 h^2\,\mathrm d^2 \hat x_0/\mathrm d\lambda^2$: differences of the last three "
        "predictions"
    )

    def step(self, x, t, s, state, noise):
        path = self.schedule
        x0 = (yield Query(x, t)).x0
        h = path.half_log_snr(s) - path.half_log_snr(t)
        history = [] if state is None else state
        remember = [(x0, h), *history][:2]
        known = [(m, past) for m, past in history if bool(torch.isfinite(past).all())]
        if not known or not bool(torch.isfinite(h).all()):
            return exponential(path, x, t, s, x0), remember
        x0_1, h0 = known[0]
        d1_0 = (x0 - x0_1) / rows(h0 / h, x)
        if len(known) == 1:
            return exponential(path, x, t, s, x0 + d1_0 / 2), remember
        x0_2, h1 = known[1]
        r0, r1 = rows(h0 / h, x), rows(h1 / h, x)
        d1_1 = (x0_1 - x0_2) / r1
        d1 = d1_0 + r0 / (r0 + r1) * (d1_0 - d1_1)
        d2 = (d1_0 - d1_1) / (r0 + r1)
        phi, alpha = torch.expm1(-h), path.alpha(s)
        return (
            exponential(path, x, t, s, x0)
            + rows(alpha * (phi / h + 1), x) * d1
            - rows(alpha * ((phi + h) / h**2 - 0.5), x) * d2,
            remember,
        )


class UniPC(Solver):
    """UniPC-2: a multistep predictor, and a corrector that uses the next step's evaluation (Zhao et al. 2023).

    B(h) = exp(-h) - 1 ("bh2"). Each step first asks at the predicted x, corrects x with the answer at no
    further cost, and predicts again from there; the last x is not corrected. A step to sigma = 0 lands on x0.
    """

    # The corrector raises the predictor's order by one (their Theorem 3.1).
    name, title, source, order = "unipc", "UniPC", "Zhao et al. 2023, Alg. 5-6", 3
    formula = (
        r"x_s = \frac{\sigma_s}{\sigma_t}\,x_t + \alpha_s\left(1 - e^{-h}\right)"
        r"\left(\hat x_0 + \sum_i a_i\,\tfrac{\hat x_0^{(i)} - \hat x_0}{r_i}\right) \\ " + STEP_IN_LAMBDA
    )
    where = (
        r"$\hat x_0^{(i)}$: the prediction of the step before and, to correct the step once it is known, that at "
        r"$s$; $r_i h$: how far they are in $\lambda$; $a_i$: the weights of the next order"
    )

    def step(self, x, t, s, state, noise):
        path = self.schedule
        x0 = (yield Query(x, t)).x0
        if state is not None:
            corrected = self._corrected(x0, t, state)
            # What a control has changed since stays changed.
            x = torch.where(x == state["next"], corrected, x + (corrected - state["next"]))
        h = path.half_log_snr(s) - path.half_log_snr(t)
        before = None if state is None else (state["x0"], state["h"])
        d = x0
        if before is not None and bool(torch.isfinite(h).all() and torch.isfinite(before[1]).all()):
            # -alpha B (1/2) (x0' - x0)/r with r = -h'/h: the same extrapolation as 2M.
            d = x0 + rows(h / (2 * before[1]), x) * (x0 - before[0])
        predicted = exponential(path, x, t, s, d)
        return predicted, {"x": x, "t": t, "x0": x0, "h": h, "before": before, "next": predicted}

    def _corrected(self, x0_s: Tensor, s: Tensor, last: dict[str, Any]) -> Tensor:
        """UniC: the last step once more, from last["x"] at last["t"] to s, with the answer at its end."""
        path, x, x0, h = self.schedule, last["x"], last["x0"], last["h"]
        plain = exponential(path, x, last["t"], s, x0)
        if not bool(torch.isfinite(h).all()):
            return plain
        b = rows(path.alpha(s) * torch.expm1(-h), x)
        before = last["before"]
        if before is None or not bool(torch.isfinite(before[1]).all()):
            return plain - b * 0.5 * (x0_s - x0)
        # Two conditions on the weights of D1 = (x0' - x0)/r, r = -h'/h, and of D = x0_s - x0: with
        # z = -h and psi_1 = (exp(z) - 1)/z - 1, psi_2 = psi_1/z - 1/2 they are
        # rho_1 + rho_2 = psi_1/B and r rho_1 + rho_2 = 2 psi_2/B.
        r, z = -before[1] / h, -h
        psi1 = torch.expm1(z) / z - 1
        psi2 = psi1 / z - 0.5
        big_b = torch.expm1(z)
        first, second = psi1 / big_b, 2 * psi2 / big_b
        rho1 = (second - first) / (r - 1)
        rho2 = first - rho1
        return plain - b * (rows(rho1 / r, x) * (before[0] - x0) + rows(rho2, x) * (x0_s - x0))


class Ancestral(Solver):
    """Remove noise down to s and put fresh noise on top (DDPM, Ho et al. 2020; DDIM, Song et al. 2021, eq. 12, 16).

        x_s = alpha_s x0 + sqrt(sigma_s^2 - n^2) eps + n z,
        n   = eta sigma_s/sigma_t sqrt(sigma_t^2 - (alpha_t/alpha_s)^2 sigma_s^2)

    eta = 0 is DDIM and eta = 1 DDPM with the posterior's variance; on a path with alpha = 1 this is the
    ancestral Euler sampler of k-diffusion.
    """

    name, title, source, order = "ancestral", "DDPM (ancestral)", "Ho et al. 2020; Song et al. 2021, eq. 16", 1
    formula = (
        r"x_s = \alpha_s\,\hat x_0 + \sqrt{\sigma_s^2 - n^2}\,\hat\epsilon + n z \\ "
        r"n = \eta\,\frac{\sigma_s}{\sigma_t}\sqrt{\sigma_t^2 - \tfrac{\alpha_t^2}{\alpha_s^2}\sigma_s^2}"
    )
    where = r"$z \sim \mathcal N(0, I)$: fresh noise; $n$: how much of it"
    stochastic = renoises = reverse_sde = True

    def step(self, x, t, s, state, noise):
        p = yield Query(x, t)
        path = self.schedule
        sigma_t, sigma_s = path.sigma(t), path.sigma(s)
        added = sigma_t**2 - (path.alpha(t) / path.alpha(s) * sigma_s) ** 2
        n = self.eta * sigma_s / sigma_t * added.clamp(min=0).sqrt()
        x_s = rows(path.alpha(s), x) * p.x0 + rows((sigma_s**2 - n**2).clamp(min=0).sqrt(), x) * p.renoise
        return (x_s + rows(n, x) * noise(0) if bool((n > 0).any()) else x_s), None


class EulerMaruyama(Solver):
    """The reverse SDE with the path's own marginals, by the Euler-Maruyama rule (Song et al. 2021, eq. 6).

    In y = x/alpha and r = sigma/alpha, where the forward SDE is dy = sqrt(2 r dr) z:

        y_s = y_t + (1 + eta^2) (r_s - r_t) eps + eta sqrt(2 r_t (r_t - r_s)) z

    The score's share is what the fresh noise has to be taken away again. A step to clean data adds none and
    is an Euler step of the ODE. Of weak order 1.
    """

    name, title, source, order = "euler_maruyama", "Euler-Maruyama", "Song et al. 2021 (SDE), eq. 6", 1
    formula = (
        r"y_s = y_t + (1 + \eta^2)(\rho_s - \rho_t)\,\hat\epsilon \\ "
        r"{} + \eta\sqrt{2\,\rho_t\,(\rho_t - \rho_s)}\,z"
    )
    where = r"$z \sim \mathcal N(0, I)$: fresh noise"
    stochastic, reverse_sde, variables = True, True, ("sigma",)

    def step(self, x, t, s, state, noise):
        eps = (yield Query(x, t)).eps
        path = self.schedule
        r_t, r_s = path.noise_ratio(t), path.noise_ratio(s)
        if self.eta == 0 or bool((r_s == 0).all()):
            return self.variable.advance(x, t, s, eps), None
        x_s = self.variable.advance(x, t, s, (1 + self.eta**2) * eps)
        return x_s + rows(path.alpha(s) * self.eta * (2 * r_t * (r_t - r_s)).sqrt(), x) * noise(0), None


class ChurnedHeun(Heun):
    """Heun with churn: each step first adds noise, up to sigma (1 + gamma), then removes more (EDM, Alg. 2).

    gamma = eta (sqrt(2) - 1), at most what the paper allows, and never above the noisiest level of the path;
    S_noise is 1 and the range of churn is the whole path. eta = 0 is Heun, and draws nothing.
    """

    name, title, source = "churn", "Heun with churn (EDM)", "Karras et al. 2022, Alg. 2"
    formula: ClassVar[str] = (
        r"x_{t'} = \tfrac{\alpha_{t'}}{\alpha_t}\,x_t + \alpha_{t'}\sqrt{\rho_{t'}^2 - \rho_t^2}\,z \\ "
        r"\rho_{t'} = (1 + \eta(\sqrt2 - 1))\,\rho_t, \quad \text{then Heun from } t'"
    )
    where: ClassVar[str] = r"$z \sim \mathcal N(0, I)$: fresh noise; $t'$: the noisier time that it leads back to"
    stochastic = True
    noise_told = "Each step first adds fresh noise, and then takes away more than that."
    order_with_noise = 0  # gamma does not shrink with the steps: finer ones only add noise more often
    variables: ClassVar[tuple[str, ...]] = ("sigma",)

    def _raised(self, t: Tensor) -> Tensor:
        if self.eta == 0:
            return t
        path = self.schedule
        ratio = path.noise_ratio(t) * (1 + self.eta * (2**0.5 - 1))
        return torch.minimum(path.t_at_ratio(ratio), torch.full_like(t, path.t_max)).maximum(t)

    def times(self, t, s):
        return super().times(float(self._raised(as_time(t))), s)

    def step(self, x, t, s, state, noise):
        path, higher = self.schedule, self._raised(t)
        if bool((higher > t).any()):
            added = (path.noise_ratio(higher) ** 2 - path.noise_ratio(t) ** 2).clamp(min=0).sqrt()
            scale = path.alpha(higher)
            x = rows(scale / path.alpha(t), x) * x + rows(scale * added, x) * noise(0)
        return (yield from super().step(x, higher, s, state, noise))


SOLVERS: dict[str, type[Solver]] = {
    s.name: s
    for s in (
        DDIM,
        Euler,
        Heun,
        Midpoint,
        RK4,
        DPMSolverPP2M,
        DPMSolverPP2S,
        DPMSolverPP3M,
        UniPC,
        Ancestral,
        EulerMaruyama,
        ChurnedHeun,
    )
}
"""The solvers a recipe can name: these, and diffusers' schedulers, which enter here."""

import playground.schedulers  # noqa: E402, F401
