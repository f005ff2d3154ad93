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

    The middle of the interval of strengths that do, so that rounding plays no part.
    """
    if name == "ComfyUI":
        # runs steps of a grid of N: denoise = runs / N up to rounding down.
        return runs / steps if runs and int(runs / (runs / steps)) == steps else None
    low, high = (runs, runs + 1) if name == "diffusers" else (runs - 1, runs)
    if low < 0:
        return None
    strength = min(1.0, (low + min(high, steps)) / 2 / steps)
    return strength if CONVENTIONS[name](strength, steps).runs == runs else None


@dataclass(frozen=True)
class Setting:
    """What to set in a program so that it starts at a point of the grid.

    Attributes:
        program: its name.
        strength: what it calls the strength, or denoise; None where it cannot start there.
        steps: its number of steps.
        t0: where it starts then: the grid's point nearest to the level asked for.
    """

    program: str
    strength: float | None
    steps: int
    t0: float


def settings(t0: float, steps: int, grid: str, schedule: Schedule) -> list[Setting]:
    """The settings of each program for the level t0, as near as a grid of `steps` steps has it.

    ComfyUI keeps its number of steps whatever the strength, so there it is the steps that are run.
    """
    times = make_grid(grid, schedule, steps)
    at = min(range(steps + 1), key=lambda i: abs(float(times[i]) - t0))
    runs = steps - at
    point = Start(steps, runs).t0(grid, schedule) if runs else 0.0
    return [
        Setting(name, same_point(name, runs, steps), runs if name == "ComfyUI" else steps, point)
        for name in CONVENTIONS
    ]


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
