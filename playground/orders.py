"""The order of convergence that errors show."""

from __future__ import annotations

import math
from collections.abc import Sequence


def fitted_slope(evaluations: Sequence[float], errors: Sequence[float], last: int = 3) -> float:
    """The order that errors at growing cost show: minus the slope of log error over log NFE, least squares through
    the `last` points above rounding (1e-11). NaN where fewer than two are left."""
    kept = [(math.log(n), math.log(e)) for n, e in zip(evaluations, errors, strict=True) if e > 1e-11][-last:]
    if len(kept) < 2:
        return math.nan
    mean_n, mean_e = (sum(v) / len(kept) for v in zip(*kept, strict=True))
    spread = sum((n - mean_n) ** 2 for n, _ in kept)
    return -sum((n - mean_n) * (e - mean_e) for n, e in kept) / spread if spread else math.nan
