"""Likelihoods by the probability-flow ODE (Song et al. 2021, section 4.3; the instantaneous change of variables).

Along the flow, d log p_t(x_t)/dt = -div u(x_t, t). So log p at t_min is the closed-form log p at the noisy end,
where the flow takes the point, plus the integral of the divergence on the way there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from playground.errors import RecipeError
from playground.fields import Field, rows
from playground.plane.mixtures import ExactField
from playground.plane.reference import integrate, velocity
from playground.schedules import as_time

SOLVER = "Dormand-Prince 5(4)"


@dataclass(frozen=True)
class LogLikelihood:
    """log p at points, and how it was found.

    Attributes:
        ode: [B] by the ODE; closed: [B] in closed form, at the same t.
        t, end: the times between which was integrated; the base density is the closed-form p at `end`, not N(0, I).
        noise: [B, D] where the points end there.
        evaluations: of the field, each with its divergence.
        solver, tolerance: of the integration.
    """

    ode: Tensor
    closed: Tensor
    t: float
    end: float
    noise: Tensor
    evaluations: int
    tolerance: float
    solver: str = SOLVER


def divergence_by_autograd(field: Field, x: Tensor, t: float, label: int = -1) -> Tensor:
    """The divergence of a field's velocity at x [B, D], by one backward pass per dimension: [B]."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        u = velocity(field, x, t, label)
        parts = [torch.autograd.grad(u[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(x.shape[1])]
    return torch.stack(parts).sum(0)


def divergence(field: ExactField, x: Tensor, t: float, label: int = -1) -> Tensor:
    """The same in closed form, for an exact field: a' div E[x_0 | x] + s' div E[eps | x]: [B]."""
    path, at = field.schedule, as_time(t).reshape(1)
    x0, eps = field.of_class(label).divergences(x, path.alpha(at), path.sigma(at))
    return rows(path.alpha_dot(t), x0) * x0 + rows(path.sigma_dot(t), eps) * eps


@torch.no_grad()
def log_likelihood(
    field: Field,
    exact: ExactField,
    x: Tensor,
    t: float | None = None,
    end: float | None = None,
    tolerance: float = 1e-7,
    label: int = -1,
) -> LogLikelihood:
    """log p_t at points by the ODE of `field`, beside the closed form.

    Args:
        field: whose flow is followed: the exact one, or a learned one.
        exact: the target's exact field on the same path, for the base density and the closed form.
        x: [B, D] points.
        t, end: by default the path's t_min (1e-4 at least, so that every path has a velocity there) and t_max.

    Raises:
        RecipeError: for a uniform source, whose field's divergence is not offered.
    """
    if exact.source != "gaussian":
        raise RecipeError("Likelihoods by the ODE are offered for a Gaussian source.")
    path = exact.schedule
    t = max(path.t_min, 1e-4 if path.t_min == 0 else 0.0) if t is None else t
    end = path.t_max if end is None else end
    x = x.double()

    def slope(at: float, y: Tensor) -> Tensor:
        points = y[:, :-1]
        if field is exact:
            div = divergence(exact, points, at, label)
        else:
            div = divergence_by_autograd(field, points, at, label)
        return torch.cat([velocity(field, points, at, label), div[:, None]], 1)

    start = torch.cat([x, torch.zeros(len(x), 1, dtype=torch.float64)], 1)
    y, asked = integrate(slope, start, t, end, tolerance)
    noise, gained = y[:, :-1], y[:, -1]
    return LogLikelihood(
        ode=exact.log_density(noise, end, label) + gained,
        closed=exact.log_density(x, t, label),
        t=t,
        end=end,
        noise=noise,
        evaluations=asked,
        tolerance=tolerance,
    )
