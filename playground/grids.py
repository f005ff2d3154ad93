"""Time grids: where along the path the steps are placed.

A grid is a float64 tensor of N + 1 falling times from (at most) t_max to 0. The field is asked at the first
N of them; the last step lands on clean data without asking there (unless the solver can and wants to).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from playground.errors import RecipeError
from playground.schedules import Discrete, Schedule

Grid = Callable[[Schedule, int], Tensor]


def _with_zero(times: Tensor) -> Tensor:
    return torch.cat([times, torch.zeros(1, dtype=torch.float64)])


def _ends(schedule: Schedule) -> tuple[float, float]:
    """The largest and the smallest sigma/alpha of a grid that is even in a function of it.

    Where sigma/alpha is infinite at t_max such a grid starts at 80, and where t_min is 0 its last level is
    0.002 (the ends that EDM uses).
    """
    high = 80.0 if schedule.ends_in_pure_noise else float(schedule.noise_ratio(schedule.t_max))
    return high, max(float(schedule.noise_ratio(schedule.t_min)), 0.002)


def uniform(schedule: Schedule, steps: int) -> Tensor:
    """Equal steps in t, from t_max to 0."""
    return torch.linspace(schedule.t_max, 0, steps + 1, dtype=torch.float64)


def karras(schedule: Schedule, steps: int, rho: float = 7.0) -> Tensor:
    """Equal steps in (sigma/alpha)^(1/7) (Karras et al. 2022, eq. 5), then one to 0.

    Long steps where there is much noise, short ones where there is little.
    """
    high, low = _ends(schedule)
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


def log_snr(schedule: Schedule, steps: int) -> Tensor:
    """Equal steps in the log-SNR, then one to 0 (Lu et al. 2022, DPM-Solver, section 4.1: "uniform logSNR").

    The steps of exponential integrators are equally long on it. diffusers calls its noise levels exponential.
    """
    high, low = _ends(schedule)
    ratio = torch.linspace(math.log(high), math.log(low), steps, dtype=torch.float64).exp()
    return _with_zero(schedule.clamp(schedule.t_at_ratio(ratio)))


def cosine(schedule: Schedule, steps: int) -> Tensor:
    """Equal steps in the angle phi = arctan(sigma/alpha), then one to 0 (Salimans & Ho 2022, appendix D).

    x_t turns from noise to data by equal angles, as on the uniform grid of the cosine path, whatever the path.
    """
    high = math.pi / 2 if schedule.ends_in_pure_noise else math.atan(float(schedule.noise_ratio(schedule.t_max)))
    angle = torch.linspace(high, math.atan(_ends(schedule)[1]), steps, dtype=torch.float64)
    times = schedule.clamp(schedule.t_at_ratio(torch.tan(angle)))
    times[0] = schedule.t_max
    return _with_zero(times)


SHIFT = 3.0


def shifted(schedule: Schedule, steps: int) -> Tensor:
    """The uniform grid u moved towards noise: t = 3 u / (1 + 2 u) (Esser et al. 2024, eq. 23, with shift 3).

    What Stable Diffusion 3 was made for. On the straight path it multiplies sigma/alpha by 3.
    """
    u = uniform(schedule, steps) / schedule.t_max
    return schedule.t_max * SHIFT * u / (1 + (SHIFT - 1) * u)


ALIGNED = {
    "ays_sd15": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "ays_sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
}
"""sigma/alpha of ten steps, optimised for one model each (Sabour et al. 2024, "Align Your Steps", the tables of
their quick start). Both models have Stable Diffusion's table of 1000 levels, from 14.61 to 0.0292."""


def _aligned(name: str) -> Grid:
    def grid(schedule: Schedule, steps: int) -> Tensor:
        """Published noise levels, log-linear between them for other numbers of steps (as the authors do)."""
        table = torch.tensor(ALIGNED[name], dtype=torch.float64)
        ends = (schedule.noise_ratio(schedule.t_max), schedule.noise_ratio(schedule.t_min))
        fits = all(abs(float(e / v) - 1) < 0.01 for e, v in zip(ends, (14.615, 0.02917), strict=True))
        if not (isinstance(schedule, Discrete) and schedule.size == 1000 and fits):
            raise RecipeError(
                "Align Your Steps was made for Stable Diffusion's noise levels; this path has others."
            )
        at = torch.linspace(0, len(table) - 1, steps + 1, dtype=torch.float64)[:-1]
        low = at.floor().long()
        level = torch.lerp(table.log()[low], table.log()[low + 1], at - low).exp()
        return _with_zero(schedule.clamp(schedule.t_at_ratio(level)))

    return grid


GRIDS: dict[str, Grid] = {
    "trailing": trailing,
    "uniform": uniform,
    "karras": karras,
    "leading": leading,
    "log_snr": log_snr,
    "cosine": cosine,
    "shifted": shifted,
    **{name: _aligned(name) for name in ALIGNED},
}
"""The grids a recipe can name."""

TITLES = {
    "trailing": "trailing (every T/N-th, from the noisiest)",
    "uniform": "uniform in t",
    "karras": "Karras (ρ = 7)",
    "leading": "leading (every T/N-th, from the cleanest)",
    "log_snr": "uniform in log-SNR",
    "cosine": "cosine (equal angles arctan σ/α)",
    "shifted": "shifted towards noise (SD 3, shift 3)",
    "ays_sd15": "Align Your Steps (for SD 1.5)",
    "ays_sdxl": "Align Your Steps (for SDXL)",
}


def make_grid(name: str, schedule: Schedule, steps: int) -> Tensor:
    """N + 1 strictly falling times.

    Raises:
        RecipeError: when the table has fewer entries than steps were asked for, or the grid was made for another.
    """
    times = GRIDS[name](schedule, steps)
    if not bool((times.diff() < 0).all()):
        levels = schedule.size if isinstance(schedule, Discrete) else 1000
        levels -= name == "leading"  # which leaves out the first
        raise RecipeError(f"{steps} steps do not fit on this time grid, which has {levels} levels.")
    return times
