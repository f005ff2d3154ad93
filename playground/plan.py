"""A recipe worked out: rows, and per row everything its steps will read.

Runs, sweeps and the predicted cost all read the same Plan. A row is one picture (or one cloud of particles);
rows of a sweep differ in one parameter and share their noise.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from playground.errors import RecipeError
from playground.fields import Count
from playground.guidance import Branch, Guidance, parts_of, rest_of
from playground.schedules import Schedule, as_time
from playground.solvers import SOLVERS, Solver

Role = Literal["cond", "uncond", "weak"]
Told = tuple[Role, Hashable]
"""A condition, and what it is told for: c, u, or the weak field."""


@dataclass(frozen=True)
class Row:
    """One sample to draw.

    Attributes:
        seed: of its start noise and of the noise inside its steps.
        times: N + 1 falling times; sampling starts from sigma(times[0]) eps. N may be 0 where there is a guide.
        solver, variable: keys of `SOLVERS` and `VARIABLES` (None: the solver's first).
        eta: how much noise a stochastic solver draws.
        guidance: the rule with its parameters.
        cond, uncond: what the field is told in the two branches, as `Field.encode` understands it.
        guide: the name of a sample to start from: sampling starts from alpha(times[0]) guide + sigma(times[0])
            eps (SDEdit, Meng et al. 2022, eq. 5). None: from noise alone.
        brownian: whether the noise inside steps is the increment of one path, the same for runs of any steps; then
            a step may draw once only.
        edit: the name of what a control does to the row inside the field, where it is asked as c; rows with
            different edits never share an answer.
    """

    seed: int
    times: tuple[float, ...]
    solver: str
    guidance: Guidance
    cond: Hashable = None
    uncond: Hashable = None
    variable: str | None = None
    eta: float = 1.0
    guide: str | None = None
    edit: str | None = None
    brownian: bool = False

    def make_solver(self, schedule: Schedule) -> Solver:
        """The row's solver.

        Raises:
            RecipeError: for a variable that is infinite where the row starts, and for a path or a grid that
                the solver cannot take.
        """
        solver = SOLVERS[self.solver](schedule, self.variable, self.eta)
        if len(self.times) == 1:
            return solver
        solver.prepare(self.times)
        if solver.variables and not bool(solver.variable.tau(as_time(self.times[0])).isfinite()):
            raise RecipeError(
                f"Sampling starts where {solver.variable.title} is infinite: take the Karras grid, which starts "
                "below, or a solver that can be written in t."
            )
        return solver

    def told(self, branch: Branch) -> list[tuple[Told, float]]:
        """What has to be asked for a branch: one thing, or the parts of a composed condition and u for the rest.
        The branch is the sum of the answers with these weights, which add up to 1."""
        if branch == "uncond" and not self.guidance.weak:
            return [(("uncond", self.uncond), 1.0)]
        role: Role = "cond" if branch == "cond" else "weak"
        rest = rest_of(self.cond)
        asked: list[tuple[Told, float]] = [((role, part), weight) for part, weight in parts_of(self.cond)]
        return [*asked, (("uncond" if role == "cond" else role, self.uncond), rest)] if rest else asked

    def first_question(self, told: Told, t: float) -> Hashable:
        """What the answer depends on when the row is asked for the first time, at time t. Rows of equal ones stand
        at the same point and need only one answer."""
        # A solver that draws noise before it asks (churn) asks at a noisier time than it starts from.
        moved = SOLVERS[self.solver].stochastic and t != self.times[0]
        noise = (self.solver, self.variable, self.eta) if moved else None
        return self.seed, self.times[0], noise, self.guide, self.edit if told[0] == "cond" else None, told

    def queries(self, schedule: Schedule) -> tuple[tuple[float, ...], ...]:
        """Per step, the times at which the field will be asked."""
        solver = self.make_solver(schedule)
        return tuple(solver.times(t, s) for t, s in pairwise(self.times))

    def needs(self, schedule: Schedule) -> list[tuple[Branch, ...]]:
        """Per evaluation of the whole run, the branches that guidance needs."""
        return [self.guidance.branches(t, step) for step, times in enumerate(self.queries(schedule)) for t in times]


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
            if len(row.times) - 1 < need and not (row.guide and len(row.times) == 1):
                raise RecipeError(f"{SOLVERS[row.solver].title} needs at least {need} steps.")
            if refusal := refused(type(row.guidance), row.solver):
                raise RecipeError(refusal)

    def lanes(self, schedule: Schedule) -> list[list[int]]:
        """Row indices grouped so that the rows of a lane ask in step and share one rule and solver."""
        lanes: dict[Hashable, list[int]] = {}
        for i, row in enumerate(self.rows):
            asks = tuple(len(q) for q in row.queries(schedule))
            grid = row.times if SOLVERS[row.solver].whole_grid else None
            # Where a step in log-SNR is infinite, multistep formulas take a lower order: in all rows of a lane.
            ends = (bool(schedule.alpha(row.times[0]) <= 0), bool(schedule.sigma(row.times[-1]) <= 0))
            lane = (row.solver, row.variable, row.eta, asks, type(row.guidance), grid, ends)
            lanes.setdefault(lane, []).append(i)
        return list(lanes.values())

    def cost(self, schedule: Schedule) -> Count:
        """What running it will take: batched evaluations, and sample-forwards over all rows and branches."""
        forwards = 0
        first: set[Hashable] = set()
        calls: set[tuple[int, bool]] = set()  # which field is asked at which evaluation of the run
        for row in self.rows:
            begins = next((t for times in row.queries(schedule) for t in times), row.times[0])
            for i, needed in enumerate(row.needs(schedule)):
                told = {told for branch in needed for told, _ in row.told(branch)}
                calls.update((i, role == "weak") for role, _ in told)
                if i == 0:
                    first.update(row.first_question(one, begins) for one in told)
                else:
                    forwards += len(told)
        return Count(len(calls), forwards + len(first))

    def asks_weak(self, schedule: Schedule) -> bool:
        """Whether a weak field is needed."""
        weak = (row for row in self.rows if row.guidance.weak)
        return any("uncond" in needed for row in weak for needed in row.needs(schedule))


def refused(rule: type[Guidance], solver: str) -> str:
    """Why a rule and a solver do not go together, in a sentence; empty if they do."""
    if not rule.renoises or SOLVERS[solver].renoises:
        return ""
    able = " or ".join(s.title for s in SOLVERS.values() if s.renoises)
    return (
        f"{rule.title} needs a solver that puts noise back, and {SOLVERS[solver].title} does not: take {able}, "
        "or another rule."
    )
