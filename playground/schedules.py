"""Probability paths: how much data and how much noise there is at time t.

Every path here is Gaussian and written as

    x_t = alpha(t) x_0 + sigma(t) eps,        eps ~ N(0, I),

with t = 0 data and t = 1 noise (flow matching papers often run the other way: their time is 1 - t).
Times and coefficients are float64 tensors of any shape; callers cast to the precision of x.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def as_time(t: Tensor | float) -> Tensor:
    """A float64 tensor, wherever t came from."""
    return torch.as_tensor(t, dtype=torch.float64)


class Schedule(ABC):
    """alpha(t), sigma(t), their derivatives, the log-SNR and its inverse.

    `t_min` and `t_max` bound where a field may be asked. The path itself goes on to t = 0, which is
    clean data (alpha 1, sigma 0): the last step of a sampler may jump there without an evaluation.
    """

    name: str
    formula: str
    """alpha and sigma in LaTeX, for the page."""
    t_min: float = 0.0
    t_max: float = 1.0

    @abstractmethod
    def alpha(self, t: Tensor | float) -> Tensor:
        """Scale of the data at t."""

    @abstractmethod
    def sigma(self, t: Tensor | float) -> Tensor:
        """Standard deviation of the noise at t."""

    @abstractmethod
    def alpha_dot(self, t: Tensor | float) -> Tensor:
        """d alpha / d t."""

    @abstractmethod
    def sigma_dot(self, t: Tensor | float) -> Tensor:
        """d sigma / d t."""

    @abstractmethod
    def t_at(self, half_log_snr: Tensor | float) -> Tensor:
        """The time at which log(alpha/sigma) has the given value (inverse of `half_log_snr`)."""

    def half_log_snr(self, t: Tensor | float) -> Tensor:
        """lambda(t) = log(alpha/sigma), the variable of DPM-Solver (Lu et al. 2022); +inf at sigma = 0."""
        return torch.log(self.alpha(t)) - torch.log(self.sigma(t))

    def log_snr(self, t: Tensor | float) -> Tensor:
        """log(alpha^2/sigma^2) (Kingma et al. 2021, Variational Diffusion Models, eq. 2)."""
        return 2 * self.half_log_snr(t)

    def noise_ratio(self, t: Tensor | float) -> Tensor:
        """sigma(t)/alpha(t): the "sigma" of EDM (Karras et al. 2022) and of k-diffusion; inf at alpha = 0."""
        return self.sigma(t) / self.alpha(t)

    def t_at_ratio(self, ratio: Tensor | float) -> Tensor:
        """The time at which sigma/alpha has the given value."""
        return self.t_at(-torch.log(as_time(ratio)))

    @property
    def ends_in_pure_noise(self) -> bool:
        """Whether alpha(t_max) = 0, so that sigma/alpha is infinite at the start of sampling."""
        return bool(self.alpha(self.t_max) <= 0)

    def clamp(self, t: Tensor | float) -> Tensor:
        """t moved into [t_min, t_max], where a field may be asked."""
        return as_time(t).clamp(self.t_min, self.t_max)

    @property
    def identity(self) -> str:
        """A string that differs whenever the path differs (part of cache keys)."""
        return f"{self.name}[{self.t_min!r},{self.t_max!r}]"


class Linear(Schedule):
    """alpha = 1 - t, sigma = t: rectified flow and OT conditional paths (Liu et al. 2022, Lipman et al. 2022)."""

    name = "linear"
    formula = r"\alpha_t = 1 - t, \quad \sigma_t = t"

    def __init__(self, t_min: float = 0.0, t_max: float = 1.0):
        self.t_min, self.t_max = t_min, t_max

    def alpha(self, t):
        return 1 - as_time(t)

    def sigma(self, t):
        return as_time(t)

    def alpha_dot(self, t):
        return -torch.ones_like(as_time(t))

    def sigma_dot(self, t):
        return torch.ones_like(as_time(t))

    def t_at(self, half_log_snr):
        return torch.sigmoid(-as_time(half_log_snr))


class Cosine(Schedule):
    """alpha = cos(pi t/2), sigma = sin(pi t/2) (Nichol & Dhariwal 2021 with s = 0; Salimans & Ho 2022).

    Ends at t = 1 with sigma = 1 and alpha = 0 up to rounding, so `t_max` stops just before by default.
    """

    name = "cosine"
    formula = r"\alpha_t = \cos\tfrac{\pi t}{2}, \quad \sigma_t = \sin\tfrac{\pi t}{2}"

    def __init__(self, t_min: float = 0.0, t_max: float = 0.9999):
        self.t_min, self.t_max = t_min, t_max

    def alpha(self, t):
        return torch.cos(math.pi / 2 * as_time(t))

    def sigma(self, t):
        return torch.sin(math.pi / 2 * as_time(t))

    def alpha_dot(self, t):
        return -math.pi / 2 * torch.sin(math.pi / 2 * as_time(t))

    def sigma_dot(self, t):
        return math.pi / 2 * torch.cos(math.pi / 2 * as_time(t))

    def t_at(self, half_log_snr):
        return 2 / math.pi * torch.atan(torch.exp(-as_time(half_log_snr)))


class VP(Schedule):
    """The variance-preserving SDE with beta(t) linear in t (Song et al. 2021, eq. 33): alpha^2 + sigma^2 = 1.

    log alpha(t) = -t^2 (beta_max - beta_min)/4 - t beta_min/2. The velocity diverges at t = 0 like
    t^(-1/2), hence `t_min` > 0.
    """

    name = "vp"
    formula = r"\alpha_t = e^{-\frac12\int_0^t\beta(u)\,\mathrm d u} \\ \sigma_t = \sqrt{1 - \alpha_t^2}"

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3, t_max: float = 1.0):
        self.beta_min, self.beta_max, self.t_min, self.t_max = beta_min, beta_max, t_min, t_max

    def _log_alpha(self, t: Tensor | float) -> Tensor:
        t = as_time(t)
        return -(t**2) * (self.beta_max - self.beta_min) / 4 - t * self.beta_min / 2

    def beta(self, t: Tensor | float) -> Tensor:
        """The diffusion rate g(t)^2 of the forward SDE."""
        return self.beta_min + as_time(t) * (self.beta_max - self.beta_min)

    def alpha(self, t):
        return torch.exp(self._log_alpha(t))

    def sigma(self, t):
        return torch.sqrt(-torch.expm1(2 * self._log_alpha(t)))

    def alpha_dot(self, t):
        return -self.beta(t) / 2 * self.alpha(t)

    def sigma_dot(self, t):
        # d sigma^2 / dt = beta alpha^2, since sigma^2 = 1 - alpha^2.
        return self.beta(t) * self.alpha(t) ** 2 / (2 * self.sigma(t))

    def t_at(self, half_log_snr):
        # alpha^2 = sigmoid(2 lambda); then the positive root of the quadratic in t, in the form that
        # does not cancel for small t (DPM-Solver, appendix D.4).
        log_alpha = torch.nn.functional.logsigmoid(2 * as_time(half_log_snr)) / 2
        d = self.beta_max - self.beta_min
        return -4 * log_alpha / (self.beta_min + torch.sqrt(self.beta_min**2 - 4 * d * log_alpha))

    @property
    def identity(self):
        return f"{super().identity}({self.beta_min!r},{self.beta_max!r})"


class EDM(Schedule):
    """Variance exploding: alpha = 1, sigma = sigma_max t (Karras et al. 2022, Table 1, with time scaled to [0, 1]).

    The noise is never the whole of x_t; at t_max the data is a ripple of size 1/sigma_max on it.
    """

    name = "edm"
    formula = r"\alpha_t = 1, \quad \sigma_t = \sigma_\text{max}\,t"

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0):
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.t_min, self.t_max = sigma_min / sigma_max, 1.0

    def alpha(self, t):
        return torch.ones_like(as_time(t))

    def sigma(self, t):
        return self.sigma_max * as_time(t)

    def alpha_dot(self, t):
        return torch.zeros_like(as_time(t))

    def sigma_dot(self, t):
        return torch.full_like(as_time(t), self.sigma_max)

    def t_at(self, half_log_snr):
        return torch.exp(-as_time(half_log_snr)) / self.sigma_max

    @property
    def identity(self):
        return f"{super().identity}({self.sigma_max!r})"


class Discrete(Schedule):
    """The table of a checkpoint trained on T noise levels: alpha^2 at index i is `alphas_cumprod[i]`.

    Index i stands at t = (i + 1)/T, so t_min = 1/T and t_max = 1. Between entries the log-SNR is linear
    in t, as k-diffusion does; alpha^2 + sigma^2 = 1 everywhere. Below t_min, where no model is ever
    asked, sigma falls linearly to 0.

    Args:
        alphas_cumprod: (T,) values in (0, 1), strictly decreasing; the last may be 0.
    """

    name = "discrete"
    formula = (
        r"\alpha_t = \sqrt{\bar\alpha_k}, \quad \sigma_t = \sqrt{1 - \bar\alpha_k} \\ "
        r"\bar\alpha_k = \textstyle\prod_{i \le k} (1 - \beta_i), \quad t = \tfrac{k + 1}{K}"
    )

    def __init__(self, alphas_cumprod: Tensor):
        table = torch.as_tensor(alphas_cumprod).detach().double().cpu().clone()
        falls = table.ndim == 1 and len(table) > 1 and bool((table.diff() < 0).all())
        if not falls or not 0 <= float(table[-1]) < float(table[0]) < 1:
            raise ValueError("alphas_cumprod must be a table that falls strictly, between 1 and 0.")
        # A terminal SNR of exactly zero has no log: keep it finite, at 2^-24 (the value that diffusers'
        # Euler scheduler uses as well) or below the entry before it.
        table[-1] = table[-1] or min(2.0**-24, float(table[-2]) / 2)
        self.size = len(table)
        self.t_min, self.t_max = 1 / self.size, 1.0
        self._lambda = (torch.log(table) - torch.log1p(-table)) / 2
        self._sigma_at_t_min = float((1 - table[0]).sqrt())

    def index(self, t: Tensor | float) -> Tensor:
        """The (fractional) table index at t, which is what the network is given as its timestep."""
        return self.clamp(t) * self.size - 1

    def _segment(self, t: Tensor) -> tuple[Tensor, Tensor]:
        index = self.index(t)
        low = index.floor().clamp(0, self.size - 2).long()
        return low, index - low

    def _inner_lambda(self, t: Tensor) -> Tensor:
        low, fraction = self._segment(t)
        return torch.lerp(self._lambda[low], self._lambda[low + 1], fraction)

    def _inner_slope(self, t: Tensor) -> Tensor:
        low, _ = self._segment(t)
        return (self._lambda[low + 1] - self._lambda[low]) * self.size

    def half_log_snr(self, t):
        t = as_time(t)
        return torch.where(t >= self.t_min, self._inner_lambda(t), super().half_log_snr(t))

    def sigma(self, t):
        t = as_time(t)
        inner = torch.sigmoid(-2 * self._inner_lambda(t)).sqrt()
        return torch.where(t >= self.t_min, inner, self._sigma_at_t_min * t / self.t_min)

    def alpha(self, t):
        t = as_time(t)
        inner = torch.sigmoid(2 * self._inner_lambda(t)).sqrt()
        # Clamped, because a gradient goes through the branch that is not taken as well.
        outer = (1 - (self._sigma_at_t_min * t.clamp(max=self.t_min) / self.t_min) ** 2).sqrt()
        return torch.where(t >= self.t_min, inner, outer)

    # With alpha^2 = sigmoid(2 lambda): d alpha = alpha sigma^2 d lambda and d sigma = -sigma alpha^2 d lambda.
    def alpha_dot(self, t):
        t = as_time(t)
        inner = self.alpha(t) * self.sigma(t) ** 2 * self._inner_slope(t)
        outer = -self.sigma(t) / self.alpha(t) * self._sigma_at_t_min / self.t_min
        return torch.where(t >= self.t_min, inner, outer)

    def sigma_dot(self, t):
        t = as_time(t)
        inner = -self.sigma(t) * self.alpha(t) ** 2 * self._inner_slope(t)
        return torch.where(t >= self.t_min, inner, self._sigma_at_t_min / self.t_min)

    def t_at(self, half_log_snr):
        target = as_time(half_log_snr)
        rising = -self._lambda  # searchsorted needs an increasing table
        high = torch.searchsorted(rising, -target.contiguous()).clamp(1, self.size - 1)
        low = high - 1
        fraction = (target - self._lambda[low]) / (self._lambda[high] - self._lambda[low])
        inner = (low + fraction.clamp(0, 1) + 1) / self.size
        sigma = torch.sigmoid(-2 * target).sqrt()
        return torch.where(target > self._lambda[0], self.t_min * sigma / self._sigma_at_t_min, inner)

    @property
    def identity(self):
        return f"{super().identity}({self.size},{float(self._lambda[0])!r},{float(self._lambda.sum())!r})"

    @classmethod
    def from_betas(cls, betas: Tensor) -> Discrete:
        """From the variances of the T forward steps: alphas_cumprod = prod(1 - beta) (Ho et al. 2020, eq. 4)."""
        return cls(torch.cumprod(1 - torch.as_tensor(betas, dtype=torch.float64), 0))


def _rescaled_to_zero_terminal_snr(betas: Tensor) -> Tensor:
    """alphas_cumprod with sqrt shifted and scaled so that the last is 0 (Lin et al. 2024, Alg. 1)."""
    root = torch.cumprod(1 - betas, 0).sqrt()
    first, last = root[0], root[-1]
    return ((root - last) * first / (first - last)) ** 2


def schedule_of_checkpoint(config: Mapping[str, Any]) -> Schedule:
    """The path a checkpoint was trained on, from its `scheduler_config.json` (diffusers' format).

    Raises:
        ValueError: for a beta schedule that is not known.
    """
    if "FlowMatch" in str(config.get("_class_name", "")) or config.get("prediction_type") == "flow_prediction":
        return Linear(t_min=1 / config.get("num_train_timesteps", 1000))
    steps = int(config.get("num_train_timesteps", 1000))
    start, end = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    kind = config.get("beta_schedule", "linear")
    if config.get("trained_betas") is not None:
        betas = torch.tensor(config["trained_betas"], dtype=torch.float64)
    elif kind == "linear":
        betas = torch.linspace(start, end, steps, dtype=torch.float64)
    elif kind == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    elif kind == "squaredcos_cap_v2":  # Nichol & Dhariwal 2021, eq. 17
        grid = torch.arange(steps + 1, dtype=torch.float64) / steps
        bar = torch.cos((grid + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = (1 - bar[1:] / bar[:-1]).clamp(max=0.999)
    else:
        raise ValueError(f"the beta schedule {kind!r} is not known here.")
    if config.get("rescale_betas_zero_snr"):
        return Discrete(_rescaled_to_zero_terminal_snr(betas))
    return Discrete.from_betas(betas)


CONTINUOUS: dict[str, type[Schedule]] = {s.name: s for s in (Linear, Cosine, VP, EDM)}
"""The paths that need no checkpoint, by name."""
