"""Gaussian mixtures: the targets whose field is known in closed form.

With x_t = a x_0 + s eps and x_0 from sum_k w_k N(mu_k, Sigma_k), every marginal p_t is again a mixture and
the posterior mean of x_0 (and of eps) is a weighted sum of linear functions of x.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import blake2b
from types import SimpleNamespace
from typing import Literal

import torch
from torch import Tensor

from playground.devices import threads_for
from playground.errors import RecipeError
from playground.fields import Condition, Field, Kind
from playground.schedules import Schedule, as_time

BLOCK = 2**19
"""Kernel values (points times components) computed at once."""

Source = Literal["gaussian", "uniform"]


class Mixture:
    """sum_k w_k N(mu_k, Sigma_k) in D dimensions, each component with a class label.

    Covariances may be singular (a point set has Sigma = 0): they enter by their eigenvectors, so that
    a^2 Sigma + s^2 I is inverted exactly for any s > 0.

    Args:
        means: [K, D].
        covariances: [K, D, D], symmetric positive semi-definite.
        weights: [K] positive; normalised here. Default: equal.
        labels: [K] class of each component, from 0. Default: all 0.
    """

    def __init__(
        self,
        means: Tensor,
        covariances: Tensor,
        weights: Tensor | None = None,
        labels: Sequence[int] | None = None,
    ):
        self.means = torch.as_tensor(means, dtype=torch.float64)
        size, self.dim = self.means.shape
        covariances = torch.as_tensor(covariances, dtype=torch.float64)
        self.variances, self.axes = torch.linalg.eigh(covariances)
        self.variances = self.variances.clamp(min=0)
        weights = torch.ones(size) if weights is None else torch.as_tensor(weights)
        self.weights = (weights / weights.sum()).double()
        self.labels = torch.zeros(size, dtype=torch.long) if labels is None else torch.as_tensor(labels)
        self._copies: dict[tuple[torch.dtype, torch.device], SimpleNamespace] = {}

    def restricted(self, label: int) -> Mixture:
        """The class-conditional distribution p(x | label)."""
        keep = self.labels == label
        return Mixture(self.means[keep], self.covariances[keep], self.weights[keep], self.labels[keep].tolist())

    @property
    def classes(self) -> list[int]:
        """The labels that occur, in order."""
        return sorted(set(self.labels.tolist()))

    @property
    def covariances(self) -> Tensor:
        """[K, D, D]."""
        return self.axes @ torch.diag_embed(self.variances) @ self.axes.mT

    @cached_property
    def is_isotropic(self) -> bool:
        """Whether every component is round: Sigma_k = v_k I."""
        return bool((self.variances.amax(-1) - self.variances.amin(-1) <= 1e-12).all())

    def classified(self, x: Tensor) -> Tensor:
        """[B] the class of the component that each x [B, D] most probably comes from."""
        return self.labels[self.responsibilities(x, 1.0, 0.01).argmax(-1)]

    def blurred(self, scale: float) -> Mixture:
        """The law of x_0 + scale eps, with the same classes."""
        wide = self.covariances + scale**2 * torch.eye(self.dim, dtype=torch.float64)
        return Mixture(self.means, wide, self.weights, self.labels.tolist())

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """[count, D] draws."""
        return self.drawn(torch.multinomial(self.weights, count, replacement=True, generator=generator), generator)

    def drawn(self, k: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw from each of the components k [B]: [B, D]."""
        noise = torch.randn(len(k), self.dim, dtype=torch.float64, generator=generator)
        return self.means[k] + torch.einsum("bij,bj->bi", self.axes[k], self.variances[k].sqrt() * noise)

    def _axes(self, x: Tensor, a: Tensor, s: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Per principal axis: the axes [K, D], coordinates of x - a mu [B, K] and their variances [B or 1, K].

        One axis at a time: contiguous [B, K] arrays are several times faster than reductions over [B, K, D].
        """
        own = self._like(x)
        a, s = a[:, None], s[:, None]
        for d in range(self.dim):
            axis = own.axes[..., d]
            yield axis, x @ axis.T - a * own.offsets[:, d], a**2 * own.variances[:, d] + s**2

    def _log_densities(self, x: Tensor, a: Tensor, s: Tensor) -> Tensor:
        """log w_k + log N(x; a mu_k, S_k) for x [B, D] and a, s [B] or [1]: [B, K]."""
        log_density = self._like(x).log_weights
        for _, u, variance in self._axes(x, a, s):
            floor = _positive(variance)  # a point seen without noise has no density
            log_density = log_density - 0.5 * (u.square() / floor + (2 * math.pi * floor).log())
        return log_density

    def log_density(self, x: Tensor, alpha: Tensor | float = 1.0, sigma: Tensor | float = 0.0) -> Tensor:
        """log p_t at x [B, D], for p_t the law of alpha x_0 + sigma eps: [B]."""
        a, s = (torch.as_tensor(v).to(x).reshape(-1) for v in (alpha, sigma))
        parts = (torch.logsumexp(self._log_densities(*part), -1) for part in self._blocks(x, a, s))
        return torch.cat(list(parts))

    def responsibilities(self, x: Tensor, alpha: Tensor | float = 1.0, sigma: Tensor | float = 0.0) -> Tensor:
        """The probability of each component given x_t = x: [B, K]."""
        a, s = (torch.as_tensor(v).to(x).reshape(-1) for v in (alpha, sigma))
        return torch.softmax(self._log_densities(x, a, s), -1)

    def _blocks(self, x: Tensor, a: Tensor, s: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Rows in blocks whose kernel values fit the processor's cache."""
        size = max(1, BLOCK // len(self.means))
        for i in range(0, max(len(x), 1), size):
            rows = slice(i, i + size)
            yield x[rows], a if len(a) == 1 else a[rows], s if len(s) == 1 else s[rows]

    def posterior(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(E[x_0 | x], E[eps | x]) at x [B, D]; neither divides by the other's scale.

        E[eps | x] = s sum_k g_k S_k^-1 (x - a mu_k) with S_k = a^2 Sigma_k + s^2 I, and
        E[x_0 | x] = sum_k g_k (mu_k + a Sigma_k S_k^-1 (x - a mu_k)); g_k by softmax of log-densities.

        Args:
            alpha, sigma: [B], or [1] for rows that share their time, which is faster.
        """
        a, s = alpha.to(x), sigma.to(x)
        answer = self._shared_posterior if len(a) == len(s) == 1 else self._posterior
        with threads_for(len(x) * len(self.means)):
            x0, eps = zip(*(answer(*part) for part in self._blocks(x, a, s)), strict=True)
        return torch.cat(x0), torch.cat(eps)

    def _posterior(self, x: Tensor, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        own = self._like(x)
        g = torch.softmax(self._log_densities(x, a, s), -1)
        shift, eps = torch.zeros_like(x), torch.zeros_like(x)
        for d, (axis, u, variance) in enumerate(self._axes(x, a, s)):
            # A point seen without noise (variance 0) is where the data is: nothing is left to correct.
            whitened = g * torch.where(variance > 0, u / _positive(variance), 0.0)
            eps = eps + whitened @ axis
            shift = shift + whitened @ (own.variances[:, d, None] * axis)
        return g @ own.means + a[:, None] * shift, s[:, None] * eps

    def _shared_posterior(self, x: Tensor, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """The same for one time: then S_k^-1 is a matrix per component, every sum over components is linear in x,
        and one product with a table [K, 2 D (D + 1) + D] gives them all."""
        own, dim = self._like(x), self.dim
        variance = a**2 * own.variances + s**2
        floor = _positive(variance)
        scale = floor.rsqrt()
        log_density = own.log_weights - 0.5 * floor.log().sum(-1)
        for d in range(dim):
            u = torch.addmm(-a * own.offsets[:, d] * scale[:, d], x, (own.axes[..., d] * scale[:, d, None]).T)
            log_density = torch.addcmul(log_density, u, u, value=-0.5)
        g = torch.softmax(log_density, -1)
        # A point seen without noise (variance 0) is where the data is: nothing is left to correct.
        weight = torch.where(variance > 0, 1 / floor, 0.0)
        inverse = own.axes @ torch.diag_embed(weight) @ own.axes.mT
        shift = own.axes @ torch.diag_embed(own.variances * weight) @ own.axes.mT
        table = [
            m for matrix in (inverse, shift) for m in (matrix.flatten(1), (matrix @ own.means[..., None])[..., 0])
        ]
        means, *sums = (g @ torch.cat([own.means, *table], 1)).split([dim, dim**2, dim, dim**2, dim], 1)
        (q, m) = (
            (matrix.unflatten(1, (dim, dim)) @ x[..., None])[..., 0] - a * moved
            for matrix, moved in zip(sums[::2], sums[1::2], strict=True)
        )
        return means + a * m, s * q

    def divergences(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The divergences of E[x_0 | x] and E[eps | x] at x [B, D] for alpha, sigma [B] or [1]: [B] each.

        With q_k = S_k^-1 (x - a mu_k) and m_k = mu_k + a Sigma_k q_k the responsibilities g_k have the gradient
        g_k (q - q_k), q = sum_k g_k q_k, and so

            div E[x_0 | x] = sum_k g_k (tr(a Sigma_k S_k^-1) + m_k . (q - q_k))
            div E[eps | x] = s sum_k g_k (tr S_k^-1 + q_k . (q - q_k))
        """
        own, a, s = self._like(x), alpha.to(x), sigma.to(x)
        g = torch.softmax(self._log_densities(x, a, s), -1)
        q = torch.zeros(len(x), len(self.means), self.dim).to(x)
        spread, trace, traces = torch.zeros_like(q), torch.zeros_like(g), torch.zeros_like(g)
        for d, (axis, u, variance) in enumerate(self._axes(x, a, s)):
            inverse = 1 / _positive(variance)
            whitened = (u * inverse)[..., None] * axis
            q, spread = q + whitened, spread + own.variances[:, d, None] * whitened
            trace, traces = trace + inverse, traces + own.variances[:, d] * inverse
        gap = torch.einsum("bk,bkd->bd", g, q)[:, None] - q
        m = own.means + a[:, None, None] * spread
        x0 = (g * (a[:, None] * traces + (m * gap).sum(-1))).sum(-1)
        return x0, s * (g * (trace + (q * gap).sum(-1))).sum(-1)

    def _like(self, x: Tensor) -> SimpleNamespace:
        """The parameters in the precision and on the device of x."""
        key = (x.dtype, x.device)
        if key not in self._copies:
            self._copies[key] = SimpleNamespace(
                means=self.means.to(x),
                variances=self.variances.to(x),
                axes=self.axes.to(x),
                offsets=torch.einsum("kji,kj->ki", self.axes, self.means).to(x),
                log_weights=self.weights.log().to(x),
            )
        return self._copies[key]


def _positive(variance: Tensor) -> Tensor:
    return variance.clamp(min=torch.finfo(variance.dtype).tiny)


HALF_WIDTH = math.sqrt(3.0)
"""A uniform source is U(-sqrt 3, sqrt 3) per axis: mean 0 and variance 1, as the Gaussian one."""


def uniform_from_normal(noise: Tensor) -> Tensor:
    """Standard normal noise as noise of the uniform source, quantile by quantile."""
    return HALF_WIDTH * (2 * torch.special.ndtr(noise) - 1)


def boxed(z: Tensor, s: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For z = b n + s u with n ~ N(0, 1), u ~ U(-c, c): (log p(z), E[u | z], E[n | z]), elementwise in float64.

    n is a normal variable cut to [lo, hi] = [(z - s c)/b, (z + s c)/b]. By symmetry z >= 0; then the interval is
    measured from its near end with the scaled complement of the error function, so that nothing underflows.
    """
    sign, z = torch.where(z < 0, -1.0, 1.0), z.abs()
    lo, hi = (z - s * HALF_WIDTH) / b, (z + s * HALF_WIDTH) / b
    root = math.sqrt(2)
    gap = torch.exp(((lo - hi) * (lo + hi) / 2).clamp(max=0.0))  # phi(hi)/phi(lo)
    far = lo > 0
    outside = (torch.special.erfcx(lo.clamp(min=0.0) / root) - gap * torch.special.erfcx(hi / root)) / 2
    inside = (torch.special.erf(hi / root) - torch.special.erf(lo / root)) / 2
    tiny = torch.finfo(z.dtype).tiny
    log_share = torch.where(far, outside.clamp(min=tiny).log() - lo**2 / 2, inside.clamp(min=tiny).log())
    density_lo = torch.where(far, 1 / outside.clamp(min=tiny), torch.exp(-(lo**2) / 2) / inside.clamp(min=tiny))
    density_hi = torch.where(far, gap, torch.exp((lo**2 - hi**2) / 2)) * density_lo
    n = (density_lo - density_hi) / math.sqrt(2 * math.pi)
    n = torch.minimum(torch.maximum(n, lo), hi)
    u = ((z - b * n) / s.clamp(min=tiny)).clamp(-HALF_WIDTH, HALF_WIDTH)
    # Where the interval is short the difference cancels; then u is s z / b^2 up to order (s/b)^3.
    short = s < 1e-4 * b
    u = torch.where(short, (s * z / b**2).clamp(max=HALF_WIDTH), u)
    n = torch.where(short, (z - s * u) / b, n)
    log_density = torch.where(
        short,
        -0.5 * (z / b) ** 2 - b.log() - 0.5 * math.log(2 * math.pi),
        log_share - (2 * HALF_WIDTH * s.clamp(min=tiny)).log(),
    )
    return log_density, sign * u, sign * n


def uniform_posterior(mixture: Mixture, x: Tensor, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For x = a x_0 + s u with u uniform and round components: (log p(x), E[x_0 | x], E[u | x]).

    Args:
        x: [B, D]; computed in float64.
        a, s: [B] or [1].
    """
    own = mixture._like(x.double())
    a, s = a.double()[:, None], s.double()[:, None]
    scale = own.variances[:, 0].sqrt()
    b = (a * scale).clamp(min=1e-9)
    parts = [boxed(x[:, d : d + 1] - a * own.means[:, d], s, b) for d in range(mixture.dim)]
    log_density = own.log_weights + sum(p[0] for p in parts)
    g = torch.softmax(log_density, -1)
    eps = torch.stack([(g * u).sum(-1) for _, u, _ in parts], -1)
    x0 = torch.stack([(g * (own.means[:, d] + scale * n)).sum(-1) for d, (_, _, n) in enumerate(parts)], -1)
    return torch.logsumexp(log_density, -1), x0.to(x), eps.to(x)


class ExactField(Field):
    """The marginal flow of a mixture on any Gaussian path, in closed form (independent coupling).

    The condition is a class label per row, None for the whole mixture.

    Args:
        kind: what it answers with. The velocity a' E[x_0 | x] + s' E[eps | x] is defined down to t = 0 on the
            linear, cosine and EDM paths; on VP it diverges there, and x0, eps or v do not.
        source: the law of the noise. With a uniform one (round components only) x0, eps and velocity are the
            conditional means that they always are, but -eps / sigma is not the score.

    Raises:
        RecipeError: for a uniform source and stretched components.
    """

    def __init__(self, mixture: Mixture, schedule: Schedule, kind: Kind = "velocity", source: Source = "gaussian"):
        super().__init__()
        if source == "uniform" and not mixture.is_isotropic:
            raise RecipeError(
                "A uniform source has a closed form for round components, and this target has stretched ones."
            )
        self.mixture, self.schedule, self.kind, self.source = mixture, schedule, kind, source
        self.shape = (mixture.dim,)
        self._classes = {int(c): mixture.restricted(int(c)) for c in mixture.labels.unique()}

    @property
    def identity(self) -> str:
        parts = (self.mixture.means, self.mixture.variances, self.mixture.axes, self.mixture.weights)
        digest = blake2b(b"".join(p.numpy().tobytes() for p in parts), digest_size=16).hexdigest()
        return f"exact/{digest}/{self.source}/{self.schedule.identity}/{self.kind}"

    def encode(self, conditions: Sequence[object]) -> Condition:
        return {"label": torch.tensor([-1 if c is None else int(c) for c in conditions])}  # type: ignore[call-overload]

    def of_class(self, label: int) -> Mixture:
        """The data of a class, of all of them for -1.

        Raises:
            RecipeError: for a class that is not there.
        """
        if label >= 0 and label not in self._classes:
            raise RecipeError(f"The distribution has no class {label}.")
        return self.mixture if label < 0 else self._classes[label]

    def evaluate(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        labels = condition.get("label", torch.full((1,), -1))
        if bool((labels == labels[0]).all()):  # the rule for a cloud
            return self._answer(self.of_class(int(labels[0])), x, t)
        value = torch.empty_like(x)
        for label in labels.unique().tolist():
            index = labels == label
            value[index] = self._answer(self.of_class(label), x[index], t[index])
        return value

    def _answer(self, mixture: Mixture, x: Tensor, t: Tensor) -> Tensor:
        path = self.schedule
        if bool((t == t[0]).all()):
            t = t[:1]
        a, s = path.alpha(t), path.sigma(t)
        if self.source == "uniform":
            _, x0, eps = uniform_posterior(mixture, x, a, s)
        else:
            x0, eps = mixture.posterior(x, a, s)

        def row(v: Tensor) -> Tensor:
            return v.to(x)[:, None]

        if self.kind == "velocity":
            return row(path.alpha_dot(t)) * x0 + row(path.sigma_dot(t)) * eps
        if self.kind == "v":
            return row(a) * eps - row(s) * x0
        return x0 if self.kind == "x0" else eps

    def log_density(self, x: Tensor, t: float, label: int = -1) -> Tensor:
        """log p_t at x [B, D]: [B]."""
        mixture, path = self.of_class(label), self.schedule
        if self.source == "uniform":
            at = as_time(t).reshape(1)
            return uniform_posterior(mixture, x, path.alpha(at), path.sigma(at))[0].to(x)
        return mixture.log_density(x, path.alpha(t), path.sigma(t))
