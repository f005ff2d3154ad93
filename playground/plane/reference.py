"""The exact solution of the flow ODE, to a tolerance: what every solver is measured against.

Dormand & Prince's pair of order 5(4) with step size control (Hairer, Nørsett & Wanner, "Solving ordinary
differential equations I", II.4), in float64, forwards or backwards in time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import torch
from torch import Tensor

from playground.errors import NonFiniteError
from playground.fields import Field, Prediction
from playground.schedules import as_time

Slope = Callable[[float, Tensor], Tensor]

_C = (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1)
_A = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
MAX_STEPS = 20_000


def integrate(slope: Slope, y: Tensor, t: float, s: float, tolerance: float = 1e-8) -> tuple[Tensor, int]:
    """y(s) from y(t) = y, for dy/dt = slope(t, y): `integrating`, to its end."""
    work = integrating(slope, y, t, s, tolerance)
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def integrating(
    slope: Slope, y: Tensor, t: float, s: float, tolerance: float = 1e-8
) -> Generator[None, None, tuple[Tensor, int]]:
    """y(s) from y(t) = y, for dy/dt = slope(t, y); after each step one may stop it or do something else.

    Args:
        y: [B, ...] float64; rows share their steps, and the worst row decides about them.
        tolerance: of the estimated error of a step, absolute and relative.

    Returns:
        y at s, and how often the slope was asked.

    Raises:
        NonFiniteError: when the tolerance cannot be held.
    """
    if t == s:
        return y, 0
    h = (s - t) / 50
    first, asked = slope(t, y), 1
    for _ in range(MAX_STEPS):
        yield
        h = max(h, s - t) if s < t else min(h, s - t)
        k = [first]
        for c, row in zip(_C[1:], _A[1:], strict=True):
            at = y + h * _sum(row, k)
            k.append(slope(t + c * h, at))
        asked += 6
        error = h * _sum(_ERROR, k)
        size = float((error.abs() / (tolerance * (1 + torch.maximum(y.abs(), at.abs())))).max())
        if size <= 1:
            t, y, first = t + h, at, k[-1]
            if abs(s - t) <= 1e-14 * max(1.0, abs(s)):
                return y, asked
        # A step that overflowed is tried again, far shorter.
        h *= min(5.0, max(0.2, 0.9 * max(size, 1e-10) ** -0.2)) if size == size else 0.1
        if abs(h) < 1e-13:
            break
    raise NonFiniteError("The reference solution could not be found to this tolerance.")


def _sum(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    total = torch.zeros_like(slopes[0])
    for w, k in zip(weights, slopes, strict=True):
        total = total + w * k
    return total


def velocity(field: Field, x: Tensor, t: float, label: int = -1) -> Tensor:
    """dx/dt at x [B, D] and one time."""
    times = as_time(t).expand(len(x))
    p: Prediction = field.predict(x, times, field.encode([None if label < 0 else label] * len(x)))
    return p.velocity


@torch.no_grad()
def transporting(
    field: Field, x: Tensor, t: float, s: float, tolerance: float = 1e-8, label: int = -1
) -> Generator[None, None, tuple[Tensor, int]]:
    """`transported`, step by step."""
    return (yield from integrating(lambda at, y: velocity(field, y, at, label), x.double(), t, s, tolerance))


@torch.no_grad()
def transported(
    field: Field, x: Tensor, t: float, s: float, tolerance: float = 1e-8, label: int = -1
) -> tuple[Tensor, int]:
    """Where the flow takes x [B, D] from t to s, later or earlier; and the evaluations that took."""
    return integrate(lambda at, y: velocity(field, y, at, label), x.double(), t, s, tolerance)


def round_trip_error(
    field: Field, x: Tensor, t: float, s: float, tolerance: float = 1e-10, label: int = -1
) -> Tensor:
    """How far from x [B, D] at t the flow to s and back ends: [B]."""
    there, _ = transported(field, x, t, s, tolerance, label)
    back, _ = transported(field, there, s, t, tolerance, label)
    return (back - x).norm(dim=-1)
