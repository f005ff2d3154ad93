"""Solvers compared on one problem: from one noise, at equal cost, against the converged solution.

All cells (a solver at a budget) of a comparison run as rows of one plan, so they share batched calls of the
denoiser, and the first one altogether. What each evaluation believed is kept: that is the race.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from playground.errors import PlaygroundError, RecipeError
from playground.fields import Count
from playground.guidance import RULES
from playground.images.models import TextToImageModel
from playground.images.text_to_image import Progress
from playground.orders import fitted_slope
from playground.plan import Plan, Row
from playground.recipes import RECIPES, SolverName, TextToImage
from playground.sampling import Evaluated, Finished, sample
from playground.schedules import Schedule
from playground.solvers import SOLVERS

MOST_CELLS = 48
"""Rows of one comparison."""

BROWNIAN = ("ancestral", "euler_maruyama")
"""Solvers that draw once per step and tend to the reverse SDE: on one Brownian path they have a common limit."""

REFERENCE_STEPS = (60, 120)
"""Steps of the reference for solvers of the ODE, and of its refinement, which is what is compared with."""
NOISY_REFERENCE_STEPS = (100, 200)
"""The same for solvers of the SDE."""


@dataclass(frozen=True)
class Cell:
    """A solver at a budget.

    Attributes:
        solver: its name.
        budget: evaluations, or steps, that it may take.
        steps: that it takes; 0 where the budget does not pay for one step.
        evaluations: of the field.
    """

    solver: str
    budget: int
    steps: int
    evaluations: int


class Comparison(TextToImage):
    """One prompt and one noise, many solvers and budgets."""

    tab: ClassVar[str] = "samplers"

    solvers: tuple[SolverName, ...] = Field(
        ("ddim", "heun", "dpmpp_2s", "dpmpp_2m", "unipc", "ancestral"),
        title="solvers",
        min_length=1,
        max_length=16,
        description="each runs at each budget",
    )
    budgets: tuple[Annotated[int, Field(ge=1, le=100)], ...] = Field(
        (6, 12, 24), title="budgets", min_length=1, max_length=6, description="from few to many"
    )
    equal: Literal["nfe", "steps"] = Field(
        "nfe",
        title="a budget counts",
        description="model calls (NFE), which cost time; or steps, which hide that some solvers call twice",
    )

    def cells(self, schedule: Schedule) -> list[Cell]:
        """All cells, solver by solver."""
        found = []
        for solver in dict.fromkeys(self.solvers):
            for budget in sorted(set(self.budgets)):
                steps = budget if self.equal == "steps" else self._steps_within(solver, budget, schedule)
                cost = self._cost(solver, steps, schedule) if steps else 0
                found.append(Cell(solver, budget, steps, cost))
        return found

    def _cell_row(self, solver: str, steps: int, schedule: Schedule) -> Row:
        row = self.model_copy(update={"solver": solver, "steps": steps})._row(schedule)
        return replace(row, brownian=solver in BROWNIAN)

    def _cost(self, solver: str, steps: int, schedule: Schedule) -> int:
        """Evaluations: what a rule holds still in its first steps asks nothing."""
        return sum(map(bool, self._cell_row(solver, steps, schedule).needs(schedule)))

    def seen_before(self, solver: str, step: int, steps: int, schedule: Schedule) -> int:
        """How many entries of `Seen` a run of so many steps has before it takes the one after `step` of them."""
        return sum(map(len, self._cell_row(solver, steps, schedule).queries(schedule)[:step]))

    def _steps_within(self, solver: str, budget: int, schedule: Schedule) -> int:
        """The most steps that a budget of evaluations pays for."""
        low = SOLVERS[solver].minimum_steps
        for steps in range(budget, low - 1, -1):
            if self._cost(solver, steps, schedule) <= budget:
                return steps
        return 0

    def refused(self, schedule: Schedule) -> dict[str, str]:
        """Per solver that cannot run here (on this model, grid or rule), why."""
        default = type(self)()
        same = {
            name: getattr(default, name) for name in ("prompt", "negative", "seed", "solvers", "budgets", "equal")
        }
        # How strong guidance is does not matter, only whether there is any.
        return dict(_refused(self.but(**same, w=1.0 if self.w == 1 else default.w), schedule))

    def _refusals(self, schedule: Schedule) -> Iterator[tuple[str, str]]:
        for solver in SOLVERS:
            try:
                Plan((self._cell_row(solver, max(4, SOLVERS[solver].minimum_steps), schedule),)).lanes(schedule)
            except PlaygroundError as problem:
                yield solver, str(problem)

    def references(self) -> dict[str, Reference]:
        """The converged solutions that its solvers are compared with: of the ODE ("ode"), of the SDE ("sde")."""
        wanted = {compares(solver, self.eta) for solver in self.solvers}
        return {kind: Reference.of(self, kind == "sde") for kind in ("ode", "sde") if kind in wanted}

    def possible(self, schedule: Schedule) -> Self:
        """This comparison of the solvers that can run here.

        Raises:
            RecipeError: when none of them can, with the first one's reason.
        """
        refused = self.refused(schedule)
        able = tuple(s for s in self.solvers if s not in refused)
        if not able:
            raise RecipeError(refused[self.solvers[0]])
        return self if able == self.solvers else self.but(solvers=able)

    def plan(self, schedule: Schedule) -> Plan:
        if RULES[self.rule].weak:
            raise RecipeError("Solvers are compared without autoguidance: take another rule.")
        rows = [self._cell_row(c.solver, c.steps, schedule) for c in self.cells(schedule) if c.steps]
        if not rows:
            raise RecipeError("No solver can take a single step within these budgets.")
        if len(rows) > MOST_CELLS:
            raise RecipeError(f"That are {len(rows)} pictures, and at most {MOST_CELLS} run together.")
        return Plan(tuple(rows))


@lru_cache(64)  # it takes most of a second: diffusers' schedulers make their tables
def _refused(recipe: Comparison, schedule: Schedule) -> tuple[tuple[str, str], ...]:
    return tuple(recipe._refusals(schedule))


class Reference(TextToImage):
    """The converged solution of a recipe's problem, and a coarser one that says how far it has converged."""

    tab: ClassVar[str] = "samplers/reference"

    noisy: Literal["no", "yes"] = Field("no", title="of the SDE", description="on the seed's Brownian path")

    @classmethod
    def of(cls, recipe: TextToImage, noisy: bool) -> Reference:
        """That of a recipe's problem. What only says how to solve it is left at its default, so that all
        comparisons of one problem have one reference."""
        how = ("solver", "steps", "grid", "variable", "sweep", "across", "values", "pictures")
        problem = {name: getattr(recipe, name) for name in TextToImage.model_fields if name not in how}
        if not noisy:
            problem["eta"] = cls.model_fields["eta"].default
        return cls(**problem, noisy="yes" if noisy else "no")

    def plan(self, schedule: Schedule) -> Plan:
        noisy = self.noisy == "yes"
        solver, steps = ("ancestral", NOISY_REFERENCE_STEPS) if noisy else ("dpmpp_2m", REFERENCE_STEPS)
        rows = []
        for n in steps:
            # Not through the recipe's own bounds: a reference may take more steps than a picture.
            fine = self.model_copy(update={"solver": solver, "steps": n, "grid": "log_snr"})
            rows.append(replace(fine._row(schedule), brownian=noisy))
        return Plan(tuple(rows))


@dataclass
class Seen:
    """What one row saw at each of its evaluations, in half precision on the CPU.

    Attributes:
        t: times; x: latents [E, C, H, W] where it stood; x0: what it believed the picture is.
    """

    t: list[float] = field(default_factory=list)
    x: list[Tensor] = field(default_factory=list)
    x0: list[Tensor] = field(default_factory=list)


@dataclass
class Compared:
    """What became of a comparison.

    Attributes:
        recipe: of the run.
        cells: all of them; those without steps have no row.
        latents: [R, C, H, W] the ends, in the order of the cells that have steps.
        pictures: [R, 3, H, W] in [-1, 1].
        seen: per row, what every evaluation saw.
        count, seconds: of all together.
    """

    recipe: TextToImage
    cells: list[Cell]
    latents: Tensor
    pictures: Tensor
    seen: list[Seen]
    count: Count
    seconds: float

    @property
    def run_cells(self) -> list[Cell]:
        """The cells of the rows."""
        return [c for c in self.cells if c.steps]

    @property
    def nbytes(self) -> int:
        """Memory held."""
        kept = sum(v.nbytes for s in self.seen for v in (*s.x, *s.x0))
        return kept + self.latents.nbytes + self.pictures.nbytes

    def shares(self) -> list[float]:
        """Seconds per row: of a batch nobody can say whose a second was, so each has its share of evaluations."""
        total = sum(c.evaluations for c in self.run_cells)
        return [self.seconds * c.evaluations / total for c in self.run_cells]


def run(recipe: Comparison | Reference, model: TextToImageModel) -> Iterator[Evaluated | Progress | Compared]:
    """Run a comparison, or a reference; between any two denoiser calls something is yielded.

    Yields:
        Evaluated after a denoiser call; Progress, whose steps are evaluations of the longest row; Compared at the
        end.
    """
    schedule = model.denoiser.schedule
    plan = recipe.plan(schedule)
    longest = max(len(row.needs(schedule)) for row in plan.rows)
    keeps = isinstance(recipe, Comparison)
    seen = [Seen() for _ in plan.rows]
    x0 = torch.full((len(plan.rows), *model.denoiser.shape), torch.nan)
    spent, since, calls = 0.0, time.perf_counter(), 0
    for event in sample(plan, model.denoiser, (), model.device.where):
        spent += time.perf_counter() - since
        if isinstance(event, Evaluated):
            calls += 1
            for answer in event.answers:
                x0[answer.rows] = answer.guided.x0.float().cpu()
                for k, row in enumerate(answer.rows if keeps else ()):
                    seen[row].t.append(float(answer.guided.t[k]))
                    seen[row].x.append(answer.guided.x[k].half().cpu())
                    seen[row].x0.append(x0[row].half())
            yield event
            yield Progress(calls, longest, event.count, x0.clone())
        since = time.perf_counter()
    assert isinstance(event, Finished)
    pictures = model.autoencoder.decode(event.x).cpu()
    spent += time.perf_counter() - since
    cells = recipe.cells(schedule) if isinstance(recipe, Comparison) else []
    yield Compared(recipe, cells, event.x.float().cpu(), pictures, seen, event.count, spent)


def compare(recipe: Comparison | Reference, model: TextToImageModel) -> Compared:
    """Run to the end."""
    for event in run(recipe, model):  # noqa: B007
        pass
    assert isinstance(event, Compared)
    return event


@dataclass(frozen=True)
class Measured:
    """A cell with its distance from the reference.

    Attributes:
        cell: it.
        seconds: its share of the run.
        error: relative L2 distance of the latents from the reference's; NaN where there is none to compare with.
        compares: "ode", "sde" (on one Brownian path), or "" for a solver that draws noise of its own in each step.
    """

    cell: Cell
    seconds: float
    error: float
    compares: Literal["ode", "sde", ""]


def compares(solver: str, eta: float) -> Literal["ode", "sde", ""]:
    """With which reference a solver is compared."""
    if not SOLVERS[solver].stochastic or (eta == 0 and SOLVERS[solver].resumable):
        return "ode"
    return "sde" if solver in BROWNIAN else ""


def distance(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b|."""
    return float((a - b).norm() / b.norm())


def tolerance(reference: Compared) -> float:
    """How far the reference's two refinements are from each other: errors near this mean nothing."""
    return distance(reference.latents[0], reference.latents[1])


def measure(result: Compared, references: dict[str, Compared]) -> list[Measured]:
    """The table of a comparison.

    Args:
        result: the comparison.
        references: by "ode" and "sde", those that are there.
    """
    table = []
    for k, (cell, seconds) in enumerate(zip(result.run_cells, result.shares(), strict=True)):
        kind = compares(cell.solver, result.recipe.eta)
        reference = references.get(kind)
        error = math.nan if reference is None else distance(result.latents[k], reference.latents[-1])
        table.append(Measured(cell, seconds, error, kind))
    return table


def slopes(table: list[Measured]) -> dict[str, float]:
    """Per solver, the order that its errors show."""
    found = {}
    for solver in dict.fromkeys(m.cell.solver for m in table):
        points = [m for m in table if m.cell.solver == solver and not math.isnan(m.error)]
        found[solver] = fitted_slope([m.cell.evaluations for m in points], [m.error for m in points])
    return found


def needed(table: list[Measured], solver: str, error: float) -> float:
    """Evaluations at which a solver has this error, between its measured points (log-log); NaN outside of them."""
    points = sorted(
        (m.cell.evaluations, m.error) for m in table if m.cell.solver == solver and not math.isnan(m.error)
    )
    for (n, e), (m, f) in pairwise(points):
        if e >= error >= f and e > f:
            share = math.log(e / error) / math.log(e / f)
            return n * (m / n) ** share
    return math.nan


def summary(table: list[Measured], floor: float) -> list[str]:
    """What the table says, in sentences.

    Args:
        table: of `measure`.
        floor: the reference's tolerance; errors below twice this are not ranked.
    """
    told = []
    ode = [m for m in table if m.compares == "ode"]
    for budget in dict.fromkeys(m.cell.budget for m in ode):
        row = sorted((m for m in ode if m.cell.budget == budget), key=lambda m: m.error)
        if len(row) < 2:
            continue
        best = row[0]
        name, cost = SOLVERS[best.cell.solver].title, best.cell.evaluations
        sentence = f"At {cost} evaluations {name} is closest to the solution: {best.error:.2%} off."
        if best.error < 2 * floor:
            sentence = f"At {cost} evaluations {name} is as close as the reference can tell ({best.error:.2%} off)."
        others = []
        for other in row[1:]:
            n = needed(table, other.cell.solver, best.error)
            title = SOLVERS[other.cell.solver].title
            if not math.isnan(n) and n > cost:
                others.append(f"{title} needs {n / cost:.1f}× as many for the same")
        told.append(sentence + (f" {'; '.join(others)}." if others else ""))
    if len(told) > 1 and ode:
        first = {m.cell.budget: m for m in sorted(ode, key=lambda m: -m.error)}
        if len({m.cell.solver for m in first.values()}) > 1:
            told.append("Which one is best depends on the budget.")
    return told


def principal_paths(result: Compared) -> tuple[list[Tensor], float]:
    """The rows' paths on the plane that shows most of them: per row [E + 1, 2], and the share of variance it shows.

    The latents are taken as x_t / sqrt(alpha^2 + sigma^2) would be on a variance-preserving path: as they are.
    """
    both = zip(result.seen, result.latents, strict=True)
    ends = [torch.stack([*seen.x, end.half()]).float().flatten(1) for seen, end in both]
    stacked = torch.cat(ends)
    stacked = stacked - stacked.mean(0)
    # The plane from the Gram matrix: there are fewer points than numbers in a point.
    values, vectors = torch.linalg.eigh((stacked @ stacked.T).double())
    top = vectors[:, -2:].flip(1) * values[-2:].flip(0).clamp(min=0).sqrt()
    share = float(values[-2:].sum() / values.clamp(min=0).sum())
    return list(top.float().split([len(e) for e in ends])), share


def turning(result: Compared, row: int) -> list[float]:
    """Degrees by which the predicted picture's direction x - x0 turns from each evaluation of a row to the next:
    the curvature that a solver has to follow. Straight paths have zeros."""
    seen = result.seen[row]
    ways = [(x.double() - x0.double()).flatten() for x, x0 in zip(seen.x, seen.x0, strict=True)]
    angles = []
    for a, b in pairwise(ways):
        cosine = float(a @ b / (a.norm() * b.norm()).clamp(min=1e-12))
        angles.append(math.degrees(math.acos(max(-1.0, min(1.0, cosine)))))
    return angles


RECIPES[Comparison.tab] = Comparison
