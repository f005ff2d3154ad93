"""diffusers' schedulers as solvers: the ones we do not write ourselves, unchanged, behind one adapter.

A scheduler object is the solver's state: one per run, copied before it takes a step, so that a state that was
kept can be gone on from. It gets the run's own grid, and its noise from the driver. What it cannot do is
refused in one sentence when the run is planned:

    * a path without a checkpoint's table of noise levels (straight, cosine, VP, EDM);
    * rows on different grids in one lane: they get lanes of their own (`whole_grid`);
    * a first step that is not the first of its grid, or a grid that stops before clean data;
    * for some, times between the entries of the table, or uneven ones;
    * for most of those that draw noise, another amount of it than theirs.

To add a scheduler, write one class here and put it into `ADAPTED`. LMS asks scipy for its coefficients
and DPMSolverSDE wants torchsde, which are not among this project's packages: the first gets the coefficients
from us, the second is left out.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from playground.errors import RecipeError
from playground.fields import Kind, rows
from playground.schedules import Discrete, Schedule
from playground.solvers import SOLVERS, Noise, Query, Solver

_PREDICTION_TYPES: dict[Kind, str] = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}


class _Drawn(TorchFunctionMode):
    """While active, `torch.randn` in this thread returns the draws of the run's own noise, one after the other."""

    def __init__(self, noise: Noise):
        super().__init__()
        self.noise, self.count = noise, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.randn:
            self.count += 1
            return self.noise(self.count - 1)
        return func(*args, **(kwargs or {}))


class Adapted(Solver):
    """A scheduler of diffusers, asked once per step on a grid of noise levels.

    Class attributes:
        scheduler: its module and name in diffusers; options: what it is made with.
        kinds: the predictions it takes as they are; others are converted to v, which every path with
            alpha^2 + sigma^2 = 1 can be read in without division.
        over_alpha: whether its x is ours divided by alpha, as in k-diffusion.
        has_eta: whether the amount of noise can be chosen.
    """

    needs_table = True
    whole_grid = True
    resumable = False  # a step may depend on the whole grid, of which the keys of runs know only what is past
    formula = r"\text{as diffusers computes it}"
    scheduler: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}
    kinds: ClassVar[tuple[Kind, ...]] = ("eps", "v", "x0")
    over_alpha: ClassVar[bool] = False
    has_eta: ClassVar[bool] = False

    def __init__(self, schedule: Schedule, variable: str | None = None, eta: float = 1.0):
        super().__init__(schedule, variable, eta)
        if not isinstance(schedule, Discrete):
            raise RecipeError(
                f"{self.title} needs a checkpoint's table of noise levels: the {schedule.name} path has none."
            )
        if self.stochastic and not self.has_eta and eta != 1:
            raise RecipeError(f"{self.title} draws its own amount of noise: only η = 1 is possible.")
        self.table = schedule
        self.grid: tuple[float, ...] = ()
        self._asks: list[tuple[float, ...]] = []

    def prepare(self, times: Sequence[float]) -> None:
        self.grid = tuple(times)
        if self.grid[-1] != 0:
            raise RecipeError(f"{self.title} runs down to clean data only, and this run stops before.")
        self._check_grid()
        self._asks = self._asked(self._made())

    # --- what differs between schedulers ------------------------------------------------------------

    def _check_grid(self) -> None:
        """Refuse a grid that the scheduler cannot walk.

        Raises:
            RecipeError: in one sentence.
        """

    def _set_grid(self, scheduler: Any) -> None:
        """Give the scheduler this run's noise levels sigma/alpha, in place of those it would choose."""
        levels = self.schedule.noise_ratio(torch.tensor(self.grid[:-1], dtype=torch.float64)).numpy()
        scheduler.register_to_config(use_exponential_sigmas=True)
        scheduler._convert_to_exponential = lambda in_sigmas, num_inference_steps: levels
        scheduler.set_timesteps(len(levels))
        scheduler.set_begin_index(0)

    def _asked(self, scheduler: Any) -> list[tuple[float, ...]]:
        """Per step, the times at which it asks."""
        return [(t,) for t in self.grid[:-1]]

    # --- the same for all ------------------------------------------------------------------------------

    def _made(self) -> Any:
        return _made(type(self), self.table, self.grid)  # type: ignore[arg-type]

    def _place(self, t: float) -> int:
        if t not in self.grid[:-1]:
            raise RecipeError(f"{self.title} steps along the grid it was given, and not from other times.")
        return self.grid.index(t)

    def times(self, t, s):
        return self._asks[self._place(t)]

    def step(self, x, t, s, state, noise):
        if not (bool((t == t[0]).all()) and bool((s == s[0]).all())):
            raise RecipeError(f"{self.title} takes all rows of a run along one grid.")
        place = self._place(float(t[0]))
        if float(s[0]) != self.grid[place + 1]:
            raise RecipeError(f"{self.title} steps along the grid it was given, and not to other times.")
        if (state is None) != (place == 0):
            raise RecipeError(f"{self.title} cannot start in the middle of its grid.")
        # A copy: whoever kept the state of this step can come back to it.
        scheduler = copy.deepcopy(self._made() if state is None else state)
        done = sum(len(asks) for asks in self._asks[:place])
        drawn = _Drawn(noise)
        if self.over_alpha:
            x = x / rows(self.schedule.alpha(t), x)
        more = {"eta": self.eta} if self.has_eta else {}
        for i, ask in enumerate(self._asks[place]):
            index = scheduler.timesteps[done + i]
            prediction = yield Query(scheduler.scale_model_input(x, index), torch.full_like(t, ask))
            kind: Kind = prediction.kind if prediction.kind in self.kinds else "v"
            scheduler.register_to_config(prediction_type=_PREDICTION_TYPES[kind])
            with drawn:
                x = scheduler.step(prediction.read(kind), index, x, **more).prev_sample
        return (x * rows(self.schedule.alpha(s), x) if self.over_alpha else x), scheduler


@lru_cache(maxsize=64)
def _made(kind: type[Adapted], table: Discrete, grid: tuple[float, ...]) -> Any:
    """A scheduler at the start of its grid; never stepped itself."""
    module, name = kind.scheduler.split(".")
    made = getattr(import_module(f"diffusers.schedulers.{module}"), name)
    t = torch.arange(1, table.size + 1, dtype=torch.float64) / table.size
    kept = table.alpha(t) ** 2
    betas = 1 - kept / torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
    scheduler = made(num_train_timesteps=table.size, trained_betas=betas.tolist(), **kind.options)
    # The products of float32 betas have rounded on their way.
    scheduler.alphas_cumprod = kept.float()
    solver = kind(table)
    solver.grid = grid
    solver._set_grid(scheduler)
    return scheduler


class OnTheTable(Adapted):
    """A scheduler that knows noise levels only as whole entries of the table."""

    def _entries(self) -> Tensor:
        return self.table.index(torch.tensor(self.grid[:-1], dtype=torch.float64))

    def _check_grid(self) -> None:
        index = self._entries()
        if bool(((index - index.round()).abs() > 1e-6).any()):
            raise RecipeError(
                f"{self.title} asks only at whole entries of the table: take the trailing or the leading grid."
            )

    def _set_grid(self, scheduler: Any) -> None:
        scheduler.timesteps = self._entries().round().long()
        scheduler.num_inference_steps = len(scheduler.timesteps)
        scheduler.set_begin_index(0)


class PNDM(OnTheTable):
    """Pseudo linear multistep of order 4 (PLMS; Liu et al. 2022, Alg. 2 without its Runge-Kutta start).

    What Stable Diffusion 1.x came with. The first step asks twice, so N steps cost N + 1 evaluations. The
    averages of Adams-Bashforth 4 are taken over t and the step along sigma: globally order 2, as they prove.
    """

    name, title, source, order = "diffusers:pndm", "PNDM (PLMS)", "Liu et al. 2022, Alg. 2", 2
    scheduler, options = "scheduling_pndm.PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": True}
    kinds = ("eps", "v")

    def _check_grid(self) -> None:
        super()._check_grid()
        entries, stride = self._entries(), self.table.size // (len(self.grid) - 1)
        even = bool(((entries.diff() + stride).abs() < 1e-6).all())
        if not even or float(entries[-1]) >= stride:
            raise RecipeError(f"{self.title} walks evenly through the table: take the leading grid.")

    def _set_grid(self, scheduler: Any) -> None:
        scheduler.register_to_config(timestep_spacing="leading", steps_offset=int(self._entries()[-1].round()))
        scheduler.set_timesteps(len(self.grid) - 1)

    def _asked(self, scheduler: Any) -> list[tuple[float, ...]]:
        asked = super()._asked(scheduler)
        if len(asked) > 1:
            asked[0] = (self.grid[0], self.grid[1])
        return asked


class DEIS(Adapted):
    """Exponential integrator with polynomial extrapolation in log(sigma/alpha) (Zhang & Chen 2023, tAB2).

    It ends at the table's cleanest level and not at clean data: a trace of noise is left.
    """

    name, title, source, order = "diffusers:deis", "DEIS", "Zhang & Chen 2023, eq. 14-15", 2
    scheduler = "scheduling_deis_multistep.DEISMultistepScheduler"

    def _set_grid(self, scheduler: Any) -> None:
        super()._set_grid(scheduler)
        _end_at_the_cleanest_level(scheduler)


class LMS(Adapted):
    """Linear multistep of order 4 in sigma (k-diffusion; Adams-Bashforth with uneven steps).

    Started at order 1, it is globally of order 2.
    """

    name, title, source, order = "diffusers:lms", "LMS", "Katherine Crowson, k-diffusion (2022)", 2
    scheduler, over_alpha = "scheduling_lms_discrete.LMSDiscreteScheduler", True

    def _set_grid(self, scheduler: Any) -> None:
        super()._set_grid(scheduler)
        sigmas = scheduler.sigmas.double()

        def coefficient(order: int, t: int, current_order: int) -> float:
            """The integral over the step of the Lagrange polynomial that is 1 at one remembered level.

            It is a cubic at most, which two nodes of Gauss integrate exactly; diffusers asks scipy.
            """
            middle, half = (sigmas[t] + sigmas[t + 1]) / 2, (sigmas[t + 1] - sigmas[t]) / 2
            nodes = middle + half * torch.tensor([-1.0, 1.0], dtype=torch.float64) / 3**0.5
            value = torch.ones_like(nodes)
            for k in range(order):
                if k != current_order:
                    value = value * (nodes - sigmas[t - k]) / (sigmas[t - current_order] - sigmas[t - k])
            return float(half * value.sum())

        scheduler.get_lms_coefficient = coefficient


class KDPM2(Adapted):
    """DPM-Solver-2 as k-diffusion writes it: the midpoint rule in log sigma (Karras et al. 2022, Alg. 2)."""

    name, title, source = "diffusers:kdpm2", "DPM2 (k-diffusion)", "Lu et al. 2022 (DPM-Solver); Karras et al. 2022"
    order, evaluations = 2, 2
    scheduler, over_alpha = "scheduling_k_dpm_2_discrete.KDPM2DiscreteScheduler", True
    kinds: ClassVar[tuple[Kind, ...]] = ("eps", "v")

    def _asked(self, scheduler: Any) -> list[tuple[float, ...]]:
        # The step to clean data has no middle in log sigma, and one evaluation.
        ratio = self._middles(scheduler)
        middles = self.schedule.t_at_ratio(ratio.double()).tolist()
        return [(t, m) for t, m in zip(self.grid, middles, strict=False)] + [(self.grid[-2],)]

    def _middles(self, scheduler: Any) -> Tensor:
        return scheduler.sigmas_interpol[1 : 2 * len(self.grid) - 4 : 2]


class KDPM2Ancestral(KDPM2):
    """DPM2 down to a lower level, and fresh noise up again, as in ancestral sampling."""

    name, title = "diffusers:kdpm2_ancestral", "DPM2 ancestral (k-diffusion)"
    stochastic = reverse_sde = True
    scheduler = "scheduling_k_dpm_2_ancestral_discrete.KDPM2AncestralDiscreteScheduler"

    def _middles(self, scheduler: Any) -> Tensor:
        return scheduler.sigmas_interpol[0 : 2 * len(self.grid) - 4 : 2]


class DPMSolverPP2MSDE(Adapted):
    """DPM-Solver++(2M) for the reverse SDE (Lu et al. 2022, DPM-Solver++, appendix A)."""

    name, title = "diffusers:dpmpp_2m_sde", "DPM-Solver++(2M) SDE"
    stochastic = reverse_sde = True
    source, order = "Lu et al. 2022 (DPM-Solver++), app. A", 2
    scheduler = "scheduling_dpmsolver_multistep.DPMSolverMultistepScheduler"
    options: ClassVar[dict[str, Any]] = {"algorithm_type": "sde-dpmsolver++", "final_sigmas_type": "zero"}


class DPMSolverPP3S(Adapted):
    """DPM-Solver++(3S), one evaluation per time of the grid: three of them make a step of order 3.

    The times between are those of the grid. The step to clean data is a DDIM step.
    """

    name, title, source = "diffusers:dpmpp_3s", "DPM-Solver++(3S)", "Lu et al. 2022 (DPM-Solver++), app. B"
    order = 3
    scheduler = "scheduling_dpmsolver_singlestep.DPMSolverSinglestepScheduler"
    options: ClassVar[dict[str, Any]] = {
        "solver_order": 3,
        "lower_order_final": True,
        "final_sigmas_type": "zero",
    }


class SASolver(Adapted):
    """A stochastic Adams method with predictor and corrector (Xue et al. 2023, Alg. 1), tau = 1 at 200 < t < 800.

    It ends at the table's cleanest level and not at clean data: a trace of noise is left.
    """

    name, title, stochastic = "diffusers:sa", "SA-Solver", True
    source, order = "Xue et al. 2023, Alg. 1", 2
    noise_told = "Between entries 200 and 800 of the table it follows the reverse SDE instead, with fresh noise."
    scheduler = "scheduling_sasolver.SASolverScheduler"

    def _set_grid(self, scheduler: Any) -> None:
        super()._set_grid(scheduler)
        _end_at_the_cleanest_level(scheduler)


class LCM(OnTheTable):
    """Multistep consistency sampling: x0, and fresh noise on it (Luo et al. 2023; Song et al. 2023, Alg. 1).

    Made for distilled models, of which each x0 is a finished picture; others give blurred pictures.
    """

    name, title, stochastic = "diffusers:lcm", "LCM (for distilled models)", True
    source, order = "Luo et al. 2023, Alg. 3", 0
    jumps = True
    noise_told = (
        r"The solver follows no differential equation: each step takes $\hat x_0$ for the picture and puts fresh "
        "noise on it, up to the next level."
    )
    scheduler = "scheduling_lcm.LCMScheduler"


class TCD(OnTheTable):
    """Strategic stochastic sampling of trajectory consistency models (Zheng et al. 2024, Alg. 4), eta = gamma.

    eta = 0 draws nothing. Made for distilled models; it ends at the table's cleanest level.
    """

    name, title, stochastic, has_eta = "diffusers:tcd", "TCD (for distilled models)", True, True
    source, order = "Zheng et al. 2024, Alg. 4", 1
    order_with_noise = 0
    noise_told = (
        r"Each step goes below the next level, the further the larger $\eta$, and adds fresh noise up to it."
    )
    scheduler = "scheduling_tcd.TCDScheduler"


def _end_at_the_cleanest_level(scheduler: Any) -> None:
    """What these do on a grid of table entries; at sigma = 0 their formulas have no value."""
    kept = scheduler.alphas_cumprod[0]
    scheduler.sigmas[-1] = ((1 - kept) / kept) ** 0.5


ADAPTED: dict[str, type[Adapted]] = {
    s.name: s
    for s in (
        PNDM,
        DEIS,
        LMS,
        KDPM2,
        KDPM2Ancestral,
        DPMSolverPP2MSDE,
        DPMSolverPP3S,
        SASolver,
        LCM,
        TCD,
    )
}
"""The schedulers that a recipe can name, beside our own solvers."""

SOLVERS.update(ADAPTED)
