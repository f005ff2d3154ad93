"""Time grids: where along the path the steps are placed.

A grid is a float64 tensor of N + 1 falling times from (at most) t_max to 0. The field is asked at the first
N of them; the last step lands on clean data without asking there (unless the solver can and wants to).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from playground.errors import RecipeError
from playground.schedules import Discrete, Schedule

Grid = Callable[[Schedule, int], Tensor]


def _with_zero(times: Tensor) -> Tensor:
    return torch.cat([times, torch.zeros(1, dtype=torch.float64)])


def uniform(schedule: Schedule, steps: int) -> Tensor:
    """Equal steps in t, from t_max to 0."""
    return torch.linspace(schedule.t_max, 0, steps + 1, dtype=torch.float64)


def karras(schedule: Schedule, steps: int, rho: float = 7.0) -> Tensor:
    """Equal steps in (sigma/alpha)^(1/7) (Karras et al. 2022, eq. 5), then one to 0.

    Long steps where there is much noise, short ones where there is little. Where sigma/alpha is infinite at
    t_max the grid starts at 80, and where t_min is 0 its last level is 0.002 (the ends that EDM uses).
    """
    high = 80.0 if schedule.ends_in_pure_noise else float(schedule.noise_ratio(schedule.t_max))
    low = max(float(schedule.noise_ratio(schedule.t_min)), 0.002)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    ratio = (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return _with_zero(schedule.clamp(schedule.t_at_ratio(ratio)))


def trailing(schedule: Schedule, steps: int) -> Tensor:
    """Every (T/N)-th table entry counted from the end, so that the first is T - 1 (Lin et al. 2024).

    On a path without a table this is the uniform grid.
    """
    if not isinstance(schedule, Discrete):
        return uniform(schedule, steps)
    index = torch.arange(schedule.size, 0, -schedule.size / steps, dtype=torch.float64)[:steps].round() - 1
    return _with_zero((index.clamp(min=0) + 1) / schedule.size)


def leading(schedule: Schedule, steps: int) -> Tensor:
    """Every floor(T/N)-th table entry counted from the start: index 1, 1 + T//N, ... (Stable Diffusion's own).

    Never visits the noisiest entries, so sampling starts from noise that training never paired with that
    level. Here x starts at the first grid time's own sigma. A path without a table is cut as if it had 1000
    equal levels in [0, t_max].
    """
    size = schedule.size if isinstance(schedule, Discrete) else 1000
    index = torch.arange(steps - 1, -1, -1, dtype=torch.float64) * (size // steps) + 1
    times = (index.clamp(max=size - 1) + 1) / size
    return _with_zero(schedule.clamp(times) if isinstance(schedule, Discrete) else times * schedule.t_max)


GRIDS: dict[str, Grid] = {"trailing": trailing, "uniform": uniform, "karras": karras, "leading": leading}
"""The grids a recipe can name."""

TITLES = {
    "trailing": "trailing (every T/N-th, from the noisiest)",
    "uniform": "uniform in t",
    "karras": "Karras (ρ = 7)",
    "leading": "leading (every T/N-th, from the cleanest)",
}


def make_grid(name: str, schedule: Schedule, steps: int) -> Tensor:
    """N + 1 strictly falling times.

    Raises:
        RecipeError: when the table has fewer entries than steps were asked for.
    """
    times = GRIDS[name](schedule, steps)
    if not bool((times.diff() < 0).all()):
        levels = schedule.size if isinstance(schedule, Discrete) else 1000
        levels -= name == "leading"  # which leaves out the first
        raise RecipeError(f"{steps} steps do not fit on this time grid, which has {levels} levels.")
    return times
