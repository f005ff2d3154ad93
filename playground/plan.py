"""A recipe worked out: rows, and per row everything its steps will read.

Runs, sweeps and the predicted cost all read the same Plan. A row is one picture (or one cloud of particles);
rows of a sweep differ in one parameter and share their noise.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import pairwise

from playground.errors import RecipeError
from playground.fields import Count
from playground.guidance import Branch, Guidance
from playground.schedules import Schedule, as_time
from playground.solvers import SOLVERS, Solver


@dataclass(frozen=True)
class Row:
    """One sample to draw.

    Attributes:
        seed: of its start noise and of the noise inside its steps.
        times: N + 1 falling times; sampling starts from sigma(times[0]) eps.
        solver, variable: keys of `SOLVERS` and `VARIABLES` (None: the solver's first).
        eta: how much noise a stochastic solver draws.
        guidance: the rule with its parameters.
        cond, uncond: what the field is told in the two branches, as `Field.encode` understands it.
    """

    seed: int
    times: tuple[float, ...]
    solver: str
    guidance: Guidance
    cond: Hashable = None
    uncond: Hashable = None
    variable: str | None = None
    eta: float = 1.0

    def make_solver(self, schedule: Schedule) -> Solver:
        """The row's solver.

        Raises:
            RecipeError: for a variable that is infinite where the row starts.
        """
        solver = SOLVERS[self.solver](schedule, self.variable, self.eta)
        if solver.variables and not bool(solver.variable.tau(as_time(self.times[0])).isfinite()):
            raise RecipeError(
                f"Sampling starts where {solver.variable.title} is infinite: take the Karras grid, which starts "
                "below, or a solver that can be written in t."
            )
        return solver

    def first_question(self, branch: Branch) -> Hashable:
        """What the field's answer in a branch depends on when the row is asked for the first time. Rows of equal
        ones stand at the same point and need only one answer."""
        return self.seed, self.times[0], branch, getattr(self, branch)

    def queries(self, schedule: Schedule) -> tuple[tuple[float, ...], ...]:
        """Per step, the times at which the field will be asked."""
        solver = self.make_solver(schedule)
        return tuple(solver.times(t, s) for t, s in pairwise(self.times))


@dataclass(frozen=True)
class Plan:
    """Rows to be sampled together."""

    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        if not self.rows:
            raise RecipeError("There is nothing to do: the plan has no rows.")
        for row in self.rows:
            if not row.times or not all(s < t for t, s in pairwise(row.times)) or not row.times[-1] >= 0:
                raise RecipeError("The times of a run must fall, to 0 at the lowest.")
            need = SOLVERS[row.solver].minimum_steps
            if len(row.times) - 1 < need:
                raise RecipeError(f"{SOLVERS[row.solver].title} needs at least {need} steps.")

    def lanes(self, schedule: Schedule) -> list[list[int]]:
        """Row indices grouped so that the rows of a lane ask in step and share one rule and solver."""
        lanes: dict[Hashable, list[int]] = {}
        for i, row in enumerate(self.rows):
            asks = tuple(len(q) for q in row.queries(schedule))
            lanes.setdefault((row.solver, row.variable, row.eta, asks, type(row.guidance)), []).append(i)
        return list(lanes.values())

    def cost(self, schedule: Schedule) -> Count:
        """What running it will take: batched evaluations, and sample-forwards over all rows and branches."""
        evaluations = forwards = 0
        first: set[Hashable] = set()
        for row in self.rows:
            asked = [(t, step) for step, times in enumerate(row.queries(schedule)) for t in times]
            evaluations = max(evaluations, len(asked))
            needed = [row.guidance.branches(t, step) for t, step in asked]
            first.update(row.first_question(branch) for branch in needed[0])
            forwards += sum(map(len, needed[1:]))
        return Count(evaluations, forwards + len(first))
