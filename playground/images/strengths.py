"""What "strength" means elsewhere, as a noise level.

Three programs call three things the strength (or denoise) of image-to-image. Each of them picks a point of a time
grid; that point's noise level is what matters, and it is what the slider here shows.

    diffusers        runs the last int(N strength) steps of an N-step grid
    AUTOMATIC1111    runs the last int(min(strength, 0.999) N) + 1 steps of an N-step grid
    ComfyUI          makes a grid of int(N / denoise) steps and runs the last N of it
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from playground.errors import RecipeError
from playground.grids import make_grid
from playground.schedules import Schedule


@dataclass(frozen=True)
class Start:
    """A point on a grid where sampling starts.

    Attributes:
        steps: of the whole grid.
        runs: of these, the last ones, which are run.
    """

    steps: int
    runs: int

    def t0(self, grid: str, schedule: Schedule) -> float:
        """Its time; 0 where nothing is run."""
        return float(make_grid(grid, schedule, self.steps)[self.steps - self.runs])


def _checked(strength: float, steps: int) -> None:
    if not 0 <= strength <= 1:
        raise RecipeError("A strength lies between 0 and 1.")
    if steps < 1:
        raise RecipeError("At least one step is needed.")


def of_diffusers(strength: float, steps: int) -> Start:
    """StableDiffusionImg2ImgPipeline.get_timesteps: int(N strength) steps; below 1 of N it runs none at all."""
    _checked(strength, steps)
    return Start(steps, min(int(steps * strength), steps))


def of_automatic1111(strength: float, steps: int) -> Start:
    """sd_samplers_common.setup_img2img_steps: t_enc = int(min(strength, 0.999) N), and one step more."""
    _checked(strength, steps)
    return Start(steps, min(int(min(strength, 0.999) * steps) + 1, steps))


def of_comfyui(strength: float, steps: int) -> Start:
    """KSampler.set_steps: the last N steps of a grid of int(N / denoise), so that the cost stays the same."""
    _checked(strength, steps)
    if strength == 0:
        return Start(steps, 0)
    return Start(steps if strength > 0.9999 else int(steps / strength), steps)


CONVENTIONS: dict[str, Callable[[float, int], Start]] = {
    "diffusers": of_diffusers,
    "AUTOMATIC1111": of_automatic1111,
    "ComfyUI": of_comfyui,
}


def same_point(name: str, runs: int, steps: int) -> float | None:
    """The strength that makes a program run `runs` steps of an N-step grid; None where it cannot.

    Near the middle of the interval of strengths that do, so that rounding plays no part, and as short as it can be.
    """
    if name == "ComfyUI":
        # `runs` steps of a grid of N: denoise = runs / N up to rounding down.
        return _short(name, runs / (steps + (runs < steps) / 2), runs, steps) if runs else None
    low, high = (runs, runs + 1) if name == "diffusers" else (runs - 1, runs)
    if low < 0:
        return None
    return _short(name, min(1.0, (low + min(high, steps)) / 2 / steps), steps, steps, runs)


def _short(name: str, strength: float, asked: int, steps: int, runs: int | None = None) -> float | None:
    """A strength with as few decimals, two at least, as lead to the same point; None where not even all do.

    Args:
        asked: the number of steps that the program is set to.
        steps, runs: of the point: its grid's length, and how many of them are run (by default those asked for).
    """
    wanted = Start(steps, asked if runs is None else runs)
    for digits in (2, 3, 4, 5, 6, 17):
        short = round(strength, digits)
        if CONVENTIONS[name](short, asked) == wanted:
            return short
    return None


@dataclass(frozen=True)
class Setting:
    """What to set in a program so that it starts near a noise level.

    Attributes:
        program: its name.
        strength: what it calls the strength, or denoise; None where it cannot start there.
        steps: its number of steps.
        runs: of these, those that it runs: all of them in ComfyUI.
        t0: where it starts then: a point of its grid, the nearest to the level asked for.
    """

    program: str
    strength: float | None
    steps: int
    runs: int
    t0: float


def settings(t0: float, steps: int, grid: str, schedule: Schedule) -> list[Setting]:
    """The settings of each program, set to `steps` steps, that start nearest to the level t0.

    diffusers and AUTOMATIC1111 start at points of the grid of `steps` steps. ComfyUI starts at points of longer
    grids, of which it runs the last `steps`.
    """
    at = nearest(t0, steps, grid, schedule)
    found = [
        Setting(name, same_point(name, at.runs, steps), steps, at.runs, at.t0(grid, schedule) if at.runs else 0.0)
        for name in CONVENTIONS
        if name != "ComfyUI"
    ]
    return [*found, _in_comfyui(t0, steps, grid, schedule)]


def nearest(t0: float, steps: int, grid: str, schedule: Schedule) -> Start:
    """The point of the grid of `steps` steps that is nearest to the level t0."""
    times = make_grid(grid, schedule, steps)
    at = min(range(steps + 1), key=lambda i: abs(float(times[i]) - t0))
    return Start(steps, steps - at)


def _in_comfyui(t0: float, steps: int, grid: str, schedule: Schedule) -> Setting:
    """ComfyUI's denoise for a level: of the grids that have room for `steps` steps below it, the one whose point is
    nearest. The point falls as the grid grows, so a bisection finds it."""
    if t0 <= 0:
        return Setting("ComfyUI", 0.0, steps, 0, 0.0)

    def point(length: int) -> float | None:
        try:
            return Start(length, steps).t0(grid, schedule)
        except RecipeError:
            return None  # more steps than the path has levels

    low, high = steps, LONGEST
    while low < high:
        middle = (low + high) // 2
        there = point(middle)
        if there is None or there <= t0:
            high = middle
        else:
            low = middle + 1
    points = {n: p for n in (low - 1, low) if n >= steps and (p := point(n)) is not None}
    if not points:
        return Setting("ComfyUI", None, steps, 0, 0.0)
    length = min(points, key=lambda n: abs(points[n] - t0))
    return Setting("ComfyUI", same_point("ComfyUI", steps, length), steps, steps, points[length])


def level_of(program: str, strength: float, steps: int, grid: str, schedule: Schedule) -> float:
    """The noise level where a program starts at a strength, with its steps set to `steps`.

    Raises:
        RecipeError: for a strength outside 0 to 1, or one that makes no grid.
    """
    start = CONVENTIONS[program](strength, steps)
    if start.runs == 0:
        return 0.0
    if start.steps > LONGEST:
        raise RecipeError(
            f"{program} would need a grid of {start.steps} steps for this: a larger strength, please."
        )
    return start.t0(grid, schedule)


LONGEST = 1000
"""Steps of a grid: the tables of checkpoints have as many."""
