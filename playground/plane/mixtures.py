"""Gaussian mixtures: the targets whose field is known in closed form.

With x_t = a x_0 + s eps and x_0 from sum_k w_k N(mu_k, Sigma_k), every marginal p_t is again a mixture and
the posterior mean of x_0 (and of eps) is a weighted sum of linear functions of x.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from playground.errors import RecipeError
from playground.fields import Condition, Field, Kind
from playground.schedules import Schedule


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

    def restricted(self, label: int) -> Mixture:
        """The class-conditional distribution p(x | label)."""
        keep = self.labels == label
        covariances = self.axes[keep] @ torch.diag_embed(self.variances[keep]) @ self.axes[keep].mT
        return Mixture(self.means[keep], covariances, self.weights[keep], self.labels[keep].tolist())

    @property
    def is_isotropic(self) -> bool:
        """Whether every component is round: Sigma_k = v_k I."""
        return bool((self.variances.amax(-1) - self.variances.amin(-1) <= 1e-12).all())

    def classified(self, x: Tensor) -> Tensor:
        """[B] the class of the component that each x [B, D] most probably comes from."""
        one = torch.ones(1).to(x)
        return self.labels[self._components(x, one, 0.01 * one)[2].argmax(-1)]

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """[count, D] draws."""
        k = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, self.dim, dtype=torch.float64, generator=generator)
        return self.means[k] + torch.einsum("bij,bj->bi", self.axes[k], self.variances[k].sqrt() * noise)

    def _components(self, x: Tensor, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Per point and component: coordinates in the component's axes [B, K, D], their variances, log-density."""
        offset = x[:, None] - a[:, None, None] * self.means.to(x)
        u = torch.einsum("kji,bkj->bki", self.axes.to(x), offset)
        variance = a[:, None, None] ** 2 * self.variances.to(x) + s[:, None, None] ** 2
        floor = variance.clamp(min=torch.finfo(u.dtype).tiny)  # a point seen without noise has no density
        log_density = -0.5 * (u**2 / floor + floor.log() + math.log(2 * math.pi)).sum(-1)
        return u, variance, self.weights.log().to(x) + log_density

    def log_density(self, x: Tensor, alpha: Tensor | float = 1.0, sigma: Tensor | float = 0.0) -> Tensor:
        """log p_t at x [B, D], for p_t the law of alpha x_0 + sigma eps: [B]."""
        a, s = (torch.as_tensor(v).to(x).expand(len(x)) for v in (alpha, sigma))
        return torch.logsumexp(self._components(x, a, s)[2], -1)

    def posterior(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(E[x_0 | x], E[eps | x]) at x [B, D] for alpha, sigma [B]; neither divides by the other's scale.

        E[eps | x] = s sum_k g_k S_k^-1 (x - a mu_k) with S_k = a^2 Sigma_k + s^2 I, and
        E[x_0 | x] = sum_k g_k (mu_k + a Sigma_k S_k^-1 (x - a mu_k)); g_k by softmax of log-densities.
        """
        a, s = alpha.to(x), sigma.to(x)
        u, variance, log_density = self._components(x, a, s)
        g = torch.softmax(log_density, -1)
        # A point seen without noise (variance 0) is where the data is: nothing is left to correct.
        whitened = torch.where(variance > 0, u / variance.clamp(min=torch.finfo(u.dtype).tiny), 0.0)
        axes, means = self.axes.to(x), self.means.to(x)
        shift = torch.einsum("bk,kij,bkj->bi", g, axes, self.variances.to(x) * whitened)
        eps = torch.einsum("bk,kij,bkj->bi", g, axes, whitened)
        return g @ means + a[:, None] * shift, s[:, None] * eps


class ExactField(Field):
    """The marginal flow of a mixture on any Gaussian path, in closed form (independent coupling).

    The condition is a class label per row, None for the whole mixture.

    Args:
        kind: what it answers with. The velocity a' E[x_0 | x] + s' E[eps | x] is defined down to t = 0 on the
            linear, cosine and EDM paths; on VP it diverges there, and x0, eps or v do not.
    """

    def __init__(self, mixture: Mixture, schedule: Schedule, kind: Kind = "velocity"):
        super().__init__()
        self.mixture, self.schedule, self.kind = mixture, schedule, kind
        self.shape = (mixture.dim,)
        self._classes = {int(c): mixture.restricted(int(c)) for c in mixture.labels.unique()}

    @property
    def identity(self) -> str:
        parts = (self.mixture.means, self.mixture.variances, self.mixture.axes, self.mixture.weights)
        digest = blake2b(b"".join(p.numpy().tobytes() for p in parts), digest_size=16).hexdigest()
        return f"exact/{digest}/{self.schedule.identity}/{self.kind}"

    def encode(self, conditions: Sequence[object]) -> Condition:
        return {"label": torch.tensor([-1 if c is None else int(c) for c in conditions])}  # type: ignore[call-overload]

    def evaluate(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        labels = condition.get("label", torch.full((len(x),), -1))
        value = torch.empty_like(x)
        for label in labels.unique().tolist():
            index = labels == label
            if label >= 0 and label not in self._classes:
                raise RecipeError(f"The distribution has no class {label}.")
            mixture = self.mixture if label < 0 else self._classes[label]
            value[index] = self._answer(mixture, x[index], t[index])
        return value

    def _answer(self, mixture: Mixture, x: Tensor, t: Tensor) -> Tensor:
        path = self.schedule
        a, s = path.alpha(t), path.sigma(t)
        x0, eps = mixture.posterior(x, a, s)

        def row(v: Tensor) -> Tensor:
            return v.to(x)[:, None]

        if self.kind == "velocity":
            return row(path.alpha_dot(t)) * x0 + row(path.sigma_dot(t)) * eps
        if self.kind == "v":
            return row(a) * eps - row(s) * x0
        return x0 if self.kind == "x0" else eps
