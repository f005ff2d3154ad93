"""Solvers compared on one problem: from one noise, at equal cost, against the converged solution.

All cells (a solver at a budget) of a comparison run as rows of one plan, so they share batched calls of the
denoiser, and the first one altogether. What each evaluation believed is kept: that is the race. A comparison may
have several seeds; its pictures and its race are the first one's, its errors means over all.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from playground.errors import PlaygroundError, RecipeError
from playground.fields import Count, Prediction
from playground.guidance import RULES
from playground.images.models import TextToImageModel
from playground.images.text_to_image import Progress
from playground.images.tradeoff import perceptual
from playground.images.verifier import Verifier
from playground.orders import fitted_slope
from playground.plan import Plan, Row
from playground.recipes import RECIPES, SolverName, TextToImage
from playground.sampling import Answer, Evaluated, Finished, sample
from playground.schedules import Schedule
from playground.solvers import SOLVERS

MOST_CELLS, MOST_PICTURES = 48, 96
"""Of one comparison; every cell has a picture per seed."""

BROWNIAN = ("ancestral", "euler_maruyama")
"""Solvers that draw once per step and tend to the reverse SDE: on one Brownian path they have a common limit."""

Kind = Literal["ode", "sde"]

REFINEMENTS: dict[Kind, tuple[int, ...]] = {"ode": (60, 120, 240, 480), "sde": (100, 200, 400, 800)}
"""Steps of a reference: the first two always, and then on until two agree."""
AGREEMENT: dict[Kind, float] = {"ode": 0.005, "sde": 0.03}
"""Relative distance within which two refinements, one of twice the other's steps, count as agreeing."""


@dataclass(frozen=True)
class Cell:
    """A solver at a budget.

    Attributes:
        solver: its name.
        budget: evaluations, or steps, that it may take.
        steps: that it takes; 0 where the budget does not pay for one step.
        evaluations: of the field.
        reason: why the solver cannot take so many, "" where it can.
    """

    solver: str
    budget: int
    steps: int
    evaluations: int
    reason: str = ""


class Comparison(TextToImage):
    """One prompt and one noise, many solvers and budgets."""

    tab: ClassVar[str] = "samplers"

    solvers: tuple[SolverName, ...] = Field(
        ("ddim", "heun", "dpmpp_2s", "dpmpp_2m", "unipc", "ancestral"),
        title="solvers",
        min_length=1,
        max_length=32,
        description="each runs at each budget",
    )
    budgets: tuple[Annotated[int, Field(ge=1, le=100)], ...] = Field(
        (6, 12, 24), title="budgets", min_length=1, max_length=6, description="model calls, or steps, of a picture"
    )
    equal: Literal["nfe", "steps"] = Field(
        "nfe",
        title="a budget counts",
        description="model calls (NFE), which cost time; or steps, which hide that some solvers call twice",
    )

    field: Literal["image", "exact", "learned"] = Field(
        "image",
        title="compare on",
        description="the image model, or a field in the plane, where the solution is known",
    )
    target: Literal["moons", "eight", "checkerboard"] = Field(
        "moons", title="target", description="the distribution in the plane"
    )
    pictures: int = Field(
        1,
        title="seeds",
        ge=1,
        le=8,
        json_schema_extra={"step": 1},
        description="errors are means over this seed and the next ones; the pictures shown are the first one's",
    )

    def cells(self, schedule: Schedule) -> list[Cell]:
        """All cells, solver by solver."""
        return list(_cells(self, schedule))

    def _cell(self, solver: str, budget: int, schedule: Schedule) -> Cell:
        try:
            steps = budget if self.equal == "steps" else self._steps_within(solver, budget, schedule)
            cost = self._cost(solver, steps, schedule) if steps else 0
        except PlaygroundError as problem:
            return Cell(solver, budget, 0, 0, str(problem))
        if not cost and self.equal == "nfe":
            steps = 0  # all that it would pay for is held still
        return Cell(solver, budget, steps, cost)

    def _cell_row(self, solver: str, steps: int, schedule: Schedule, index: int = 0) -> Row:
        row = self.model_copy(update={"solver": solver, "steps": steps, "seed": self.seed + index})._row(schedule)
        return replace(row, brownian=solver in BROWNIAN)

    def _cost(self, solver: str, steps: int, schedule: Schedule) -> int:
        """Evaluations: what a rule holds still in its first steps asks nothing."""
        return sum(map(bool, self._cell_row(solver, steps, schedule).needs(schedule)))

    def seen_before(self, solver: str, step: int, steps: int, schedule: Schedule) -> int:
        """How many entries of `Seen` a run of so many steps has before it takes the one after `step` of them."""
        row = self._cell_row(solver, steps, schedule)
        return sum(bool(row.guidance.branches(t, i)) for i, q in enumerate(row.queries(schedule)[:step]) for t in q)

    def _steps_within(self, solver: str, budget: int, schedule: Schedule) -> int:
        """The most steps that a budget of evaluations pays for."""
        low = SOLVERS[solver].minimum_steps
        # From the number that its calls per step make likely: to ask what a plan costs may take a while.
        steps = max(low, budget // SOLVERS[solver].evaluations)
        while steps >= low and self._cost(solver, steps, schedule) > budget:
            steps -= 1
        if steps < low:
            return 0
        # A last step may be cheaper, and those that a rule holds still in cost nothing.
        while self._cost(solver, steps + 1, schedule) <= budget:
            steps += 1
        return steps

    def refused(self, schedule: Schedule) -> dict[str, str]:
        """Per solver that cannot run here (on this model, grid or rule), why."""
        default = type(self)()
        free = ("prompt", "negative", "seed", "pictures", "solvers", "budgets", "equal", "field", "target")
        same = {name: getattr(default, name) for name in free}
        # How strong guidance is does not matter, only whether there is any.
        return dict(_refused(self.but(**same, w=1.0 if self.w == 1 else default.w), schedule))

    def _refusals(self, schedule: Schedule) -> Iterator[tuple[str, str]]:
        for solver in SOLVERS:
            try:
                # So many that none fits onto a grid by chance.
                Plan((self._cell_row(solver, max(25, SOLVERS[solver].minimum_steps), schedule),)).lanes(schedule)
            except PlaygroundError as problem:
                yield solver, str(problem)

    def references(self) -> dict[Kind, Reference]:
        """The converged solutions that its solvers are compared with: of the ODE ("ode"), of the SDE ("sde")."""
        wanted = {compares(solver, self.eta) for solver in self.solvers}
        return {kind: Reference.of(self, kind == "sde") for kind in REFINEMENTS if kind in wanted}

    def possible(self, schedule: Schedule) -> Self:
        """This comparison of the solvers that can run here.

        Raises:
            RecipeError: when none of them can, with the first one's reason, or when there is nothing to compare
                them with.
        """
        self.check_rule()
        refused = self.refused(schedule)
        able = tuple(s for s in self.solvers if s not in refused)
        if not able:
            raise RecipeError(refused[self.solvers[0]])
        return self if able == self.solvers else self.but(solvers=able)

    def check_rule(self) -> None:
        """Raises RecipeError for a guidance rule under which solvers cannot be compared."""
        rule = RULES[self.rule]
        if rule.weak:
            raise RecipeError("Solvers are compared without autoguidance: take another rule.")
        if rule.renoises:
            raise RecipeError(
                f"{rule.title} guides the more the finer the steps are, so that its solvers have no common "
                "solution to come closer to: take another rule."
            )

    def plan(self, schedule: Schedule) -> Plan:
        if self.field != "image":
            raise RecipeError("This comparison is one in the plane, not on the image model.")
        self.check_rule()
        cells = [c for c in self.cells(schedule) if c.steps]
        if not cells:
            why = next((c.reason for c in self.cells(schedule) if c.reason), "")
            raise RecipeError(why or "No solver can take a single step within these budgets.")
        if idle := [c for c in cells if not c.evaluations]:
            raise RecipeError(
                f"{RULES[self.rule].title} holds all of {_number(idle[0].steps, 'step')} still and would show "
                "noise: take more steps."
            )
        count = len(cells) * self.pictures
        if count > MOST_PICTURES or len(cells) > MOST_CELLS:
            raise RecipeError(
                f"These are {count} pictures in {len(cells)} cells; at most {MOST_PICTURES} in {MOST_CELLS} run "
                "together."
            )
        seeds = range(self.pictures)
        return Plan(tuple(self._cell_row(c.solver, c.steps, schedule, i) for i in seeds for c in cells))


@lru_cache(64)  # it takes most of a second: diffusers' schedulers make their tables
def _refused(recipe: Comparison, schedule: Schedule) -> tuple[tuple[str, str], ...]:
    return tuple(recipe._refusals(schedule))


@lru_cache(64)
def _cells(recipe: Comparison, schedule: Schedule) -> tuple[Cell, ...]:
    pairs = itertools.product(dict.fromkeys(recipe.solvers), sorted(set(recipe.budgets)))
    return tuple(recipe._cell(solver, budget, schedule) for solver, budget in pairs)


class Reference(TextToImage):
    """The converged solution of a recipe's problem: refined until two refinements agree, or given up."""

    tab: ClassVar[str] = "samplers/reference"

    noisy: Literal["no", "yes"] = Field("no", title="of the SDE", description="on the seed's Brownian path")

    @classmethod
    def of(cls, recipe: TextToImage, noisy: bool) -> Reference:
        """That of a recipe's problem. What only says how to solve it is left at its default, so that all
        comparisons of one problem have one reference."""
        how = ("solver", "steps", "grid", "variable", "sweep", "across", "values")
        problem = {name: getattr(recipe, name) for name in TextToImage.model_fields if name not in how}
        if not noisy:
            problem["eta"] = cls.model_fields["eta"].default
        return cls(**problem, noisy="yes" if noisy else "no")

    @property
    def kind(self) -> Kind:
        """Which equation it solves."""
        return "sde" if self.noisy == "yes" else "ode"

    def plan(self, schedule: Schedule) -> Plan:
        """The first two refinements."""
        return self.refined(schedule, REFINEMENTS[self.kind][:2])

    def refined(self, schedule: Schedule, refinements: Sequence[int]) -> Plan:
        """All seeds with each of these numbers of steps, seeds of one number beside each other."""
        noisy, rows = self.kind == "sde", []
        for steps in refinements:
            for i in range(self.pictures):
                # Not through the recipe's own bounds: a reference may take more steps than a picture.
                how = {"solver": "ancestral" if noisy else "dpmpp_2m", "steps": steps, "grid": "log_snr"}
                row = self.model_copy(update={**how, "seed": self.seed + i})._row(schedule)
                rows.append(replace(row, brownian=noisy))
        return Plan(tuple(rows))


@dataclass
class Seen:
    """What one row saw at each of its E evaluations.

    Attributes:
        t: times; x: latents [C, H, W] where it stood; x0: what it believed the picture is; both in half precision
            on the CPU.
        turned: E - 1 angles in degrees (`turn`).
    """

    t: list[float] = field(default_factory=list)
    x: list[Tensor] = field(default_factory=list)
    x0: list[Tensor] = field(default_factory=list)
    turned: list[float] = field(default_factory=list)


@dataclass
class Compared:
    """What became of a comparison.

    Attributes:
        recipe: of the run.
        cells: all of them; those without steps have no row.
        latents: [S R, C, H, W] the ends: of the R cells that have steps, in their order, for one seed after the
            other.
        pictures: [S R, 3, H, W] in [-1, 1].
        seen: per cell that has steps, what every evaluation of the first seed saw.
        count, seconds: of all together.
    """

    recipe: Comparison
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
        """Seconds per picture of each cell: of a batch nobody can say whose a second was, so each has its share of
        evaluations."""
        total = len(self.latents) / len(self.run_cells) * sum(c.evaluations for c in self.run_cells)
        return [self.seconds * c.evaluations / total for c in self.run_cells]


@dataclass
class Converged:
    """A reference, and how far it can be trusted.

    Attributes:
        recipe: of the run.
        steps: of its refinements, from coarse to fine.
        gaps: relative L2 distances of each refinement from the one before, the largest over the seeds.
        latents: [S, C, H, W] of the finest, per seed; pictures: [S, 3, H, W] in [-1, 1].
        count, seconds: of all refinements.
    """

    recipe: Reference
    steps: list[int]
    gaps: list[float]
    latents: Tensor
    pictures: Tensor
    count: Count
    seconds: float

    @property
    def tolerance(self) -> float:
        """Errors below this mean nothing: how far the last two refinements are from each other, or a quarter of how
        far the two before were where that is more.

        A method of second order divides the gap by four when the steps are halved. Where it shrinks faster than
        that, two refinements met by chance: of its timestep a network is told a sine of period 2 pi, and how far it
        sways with it is missed alike by every solver on a grid with longer steps.
        """
        return max(self.gaps[-1], *(gap / 4 for gap in self.gaps[-2:]))

    @property
    def agrees(self) -> bool:
        """Whether the last two refinements agree to `AGREEMENT`."""
        return self.gaps[-1] <= AGREEMENT[self.recipe.kind]

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self.latents.nbytes + self.pictures.nbytes


@dataclass(frozen=True)
class Walked:
    """All rows of a plan have arrived: latents [R, C, H, W] and pictures [R, 3, H, W], on the CPU."""

    latents: Tensor
    pictures: Tensor
    count: Count
    seconds: float


def walk(
    plan: Plan, model: TextToImageModel, steps: int | None = None, seen: Sequence[Seen] = ()
) -> Iterator[Evaluated | Progress | Walked]:
    """Run a plan without a record of its steps; between any two denoiser calls something is yielded.

    Args:
        steps: evaluations to tell of in Progress; by default those of the longest row.
        seen: of the first rows; filled.
    """
    schedule = model.denoiser.schedule
    longest = steps or max(len(row.needs(schedule)) for row in plan.rows)
    x0 = torch.full((len(plan.rows), *model.denoiser.shape), torch.nan)
    last: dict[int, Prediction] = {}
    spent, since, calls = 0.0, time.perf_counter(), 0
    for event in sample(plan, model.denoiser, (), model.device.where):
        spent += time.perf_counter() - since
        if isinstance(event, Evaluated):
            calls += 1
            for answer in event.answers:
                x0[answer.rows] = answer.guided.x0.float().cpu()
                _note(answer, seen, last)
            yield event
            yield Progress(calls, longest, event.count, x0.clone())
        since = time.perf_counter()
    assert isinstance(event, Finished)
    pictures = model.autoencoder.decode(event.x).cpu()
    spent += time.perf_counter() - since
    yield Walked(event.x.float().cpu(), pictures, event.count, spent)


def _note(answer: Answer, seen: Sequence[Seen], last: dict[int, Prediction]) -> None:
    asked = {k for positions, _ in answer.branches.values() for k in positions}
    for k, row in enumerate(answer.rows):
        if row >= len(seen) or k not in asked:  # where a rule holds still, nothing is seen
            continue
        now, own = answer.guided.take(slice(k, k + 1)), seen[row]
        own.t.append(float(now.t))
        own.x.append(now.x[0].half().cpu())
        own.x0.append(now.x0[0].half().cpu())
        if row in last:
            own.turned.append(turn(last[row], now))
        last[row] = now


def turn(before: Prediction, now: Prediction) -> float:
    """Degrees between the noise that two predictions of one row see.

    In y = x/alpha over sigma/alpha the flow reads dy/d(sigma/alpha) = eps (Karras et al. 2022, eq. 4), so eps is
    the direction of the path there, and a prediction that stays the same gives a straight line on every path.
    """
    a, b = (p.eps.cpu().double().flatten() for p in (before, now))
    cosine = float(a @ b / (a.norm() * b.norm()).clamp(min=1e-12))
    return math.degrees(math.acos(max(-1.0, min(1.0, cosine))))


def run(recipe: Comparison, model: TextToImageModel) -> Iterator[Evaluated | Progress | Compared]:
    """Run a comparison.

    Yields:
        Evaluated after a denoiser call; Progress, whose steps are evaluations of the longest row; Compared at the
        end.
    """
    schedule = model.denoiser.schedule
    plan, cells = recipe.plan(schedule), recipe.cells(schedule)
    seen = [Seen() for c in cells if c.steps]
    for event in walk(plan, model, seen=seen):
        if isinstance(event, Walked):
            yield Compared(recipe, cells, event.latents, event.pictures, seen, event.count, event.seconds)
        else:
            yield event


def refine(recipe: Reference, model: TextToImageModel) -> Iterator[Evaluated | Progress | Converged]:
    """Run a reference: two refinements, and then finer ones until two agree or there are no finer ones.

    Yields:
        Evaluated after a denoiser call; Progress, whose steps are evaluations of this refinement; Converged at the
        end.
    """
    schedule, steps = model.denoiser.schedule, REFINEMENTS[recipe.kind]
    done: list[int] = []
    gaps: list[float] = []
    ends: Tensor | None = None
    count, seconds = Count(), 0.0
    for refinements in (steps[:2], *((n,) for n in steps[2:])):
        before = replace(count)
        for event in walk(recipe.refined(schedule, refinements), model):
            own = event.count
            count = Count(before.evaluations + own.evaluations, before.sample_forwards + own.sample_forwards)
            if isinstance(event, Walked):
                seconds += event.seconds
            else:
                yield replace(event, count=count)
        assert isinstance(event, Walked)
        pictures = event.pictures[-recipe.pictures :]
        done += refinements
        for latents in event.latents.split(recipe.pictures):
            if ends is not None:
                gaps.append(max(distance(a, b) for a, b in zip(ends, latents, strict=True)))
            ends = latents
        if gaps[-1] <= AGREEMENT[recipe.kind]:
            break
    assert ends is not None
    yield Converged(recipe, done, gaps, ends, pictures, count, seconds)


def compare(recipe: Comparison, model: TextToImageModel) -> Compared:
    """Run a comparison to its end."""
    *_, event = run(recipe, model)
    assert isinstance(event, Compared)
    return event


def converge(recipe: Reference, model: TextToImageModel) -> Converged:
    """Run a reference to its end."""
    *_, event = refine(recipe, model)
    assert isinstance(event, Converged)
    return event


@dataclass(frozen=True)
class Measured:
    """A cell with its distance from the reference.

    Attributes:
        cell: it.
        seconds: its share of the run, per picture.
        error: relative L2 distance of the latents from the reference's, mean over the seeds; NaN where there is
            none to compare with.
        compares: "ode", "sde" (on one Brownian path), or "" for a solver that draws noise of its own in each step.
        spread: standard deviation of the error over the seeds, 0 for one.
        floor: how far two refinements of the reference are from each other: an error below this means nothing.
        perceptual: mean distance of the pictures in the scene verifier's layers; NaN without one.
        alone: seconds of its picture when it runs by itself; NaN where nobody has measured it.
    """

    cell: Cell
    seconds: float
    error: float
    compares: Literal["ode", "sde", ""]
    spread: float = 0.0
    floor: float = 0.0
    perceptual: float = math.nan
    alone: float = math.nan

    @property
    def known(self) -> bool:
        """Whether there is an error at all."""
        return not math.isnan(self.error)

    @property
    def resolved(self) -> bool:
        """Whether the error is larger than what the reference can tell."""
        return self.error > self.floor

    @property
    def time(self) -> float:
        """Seconds: alone where that was measured, else the share of the run."""
        return self.seconds if math.isnan(self.alone) else self.alone


def compares(solver: str, eta: float) -> Literal["ode", "sde", ""]:
    """With which reference a solver is compared."""
    if not SOLVERS[solver].stochastic or eta == 0:
        return "ode"
    return "sde" if solver in BROWNIAN else ""


def distance(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b|."""
    return float((a - b).norm() / b.norm())


def measure(
    result: Compared,
    references: Mapping[Kind, Converged],
    verifier: Verifier | None = None,
) -> list[Measured]:
    """The table of a comparison.

    Args:
        result: the comparison.
        references: those that are there, of the same seeds.
        verifier: whose layers give the perceptual distance.
    """
    cells, table = result.run_cells, []
    for k, (cell, seconds) in enumerate(zip(cells, result.shares(), strict=True)):
        kind = compares(cell.solver, result.recipe.eta)
        reference = references.get(kind) if kind else None
        if reference is None:
            table.append(Measured(cell, seconds, math.nan, kind))
            continue
        ends = result.latents[k :: len(cells)]
        errors = torch.tensor([distance(a, b) for a, b in zip(ends, reference.latents, strict=True)])
        seems = math.nan
        if verifier is not None:
            pairs = zip(result.pictures[k :: len(cells)], reference.pictures, strict=True)
            seems = sum(float(perceptual(verifier, a[None], b)) for a, b in pairs) / len(ends)
        spread = float(errors.std()) if len(errors) > 1 else 0.0
        table.append(Measured(cell, seconds, float(errors.mean()), kind, spread, reference.tolerance, seems))
    return table


def slopes(table: Sequence[Measured]) -> dict[str, float]:
    """Per solver, the order that its errors show; those that the reference cannot tell are left out."""
    found = {}
    for solver in dict.fromkeys(m.cell.solver for m in table):
        points = [m for m in table if m.cell.solver == solver and m.resolved]
        found[solver] = fitted_slope([m.cell.evaluations for m in points], [m.error for m in points])
    return found


def needed(table: Sequence[Measured], solver: str, error: float) -> float:
    """Evaluations at which a solver has this error, between its measured points (log-log); NaN outside of them."""
    points = sorted((m.cell.evaluations, m.error) for m in table if m.cell.solver == solver and m.resolved)
    for (n, e), (m, f) in pairwise(points):
        if e >= error >= f and e > f:
            share = math.log(e / error) / math.log(e / f)
            return n * (m / n) ** share
    return math.nan


ALIKE = 1.05
"""Errors, or costs, within this factor are called equal."""


def summary(table: Sequence[Measured], equal: Literal["nfe", "steps"] = "nfe") -> list[str]:
    """What the table says, in sentences.

    Args:
        table: of `measure`.
        equal: what its budgets count.
    """
    told = []
    for kind in REFINEMENTS:
        own = [m for m in table if m.compares == kind and m.known]
        if len({m.cell.solver for m in own}) == 1:
            told += _alone(own, kind)
        elif own:
            told += _ranked(own, kind, equal)
    return told


GOALS: dict[Kind, str] = {"ode": "the solution", "sde": "the SDE's solution on its path"}


def _alone(own: list[Measured], kind: Kind) -> list[str]:
    first, last = own[0], own[-1]
    title = SOLVERS[first.cell.solver].title
    at = f"{percent(first)} off {GOALS[kind]} at {_number(first.cell.evaluations, 'evaluation')}"
    if first.cell.evaluations == last.cell.evaluations:
        return [f"{title} is {at}."]
    return [f"{title} is {at}, and {percent(last)} at {last.cell.evaluations}."]


def _ranked(own: list[Measured], kind: Kind, equal: str) -> list[str]:
    told, winners = [], []
    goal = GOALS[kind]
    for budget in sorted({m.cell.budget for m in own}):
        row = sorted((m for m in own if m.cell.budget == budget), key=lambda m: m.error)
        if len(row) < 2:
            continue
        at = "At " + _number(budget, "step" if equal == "steps" else "evaluation")
        if not row[0].resolved:
            within = _joined([SOLVERS[m.cell.solver].title for m in row if not m.resolved])
            are = "is" if row[1].resolved else "are"
            told.append(f"{at}, {within} {are} closer to {goal} than the reference can tell.")
            continue
        best = [m for m in row if m.error <= ALIKE * row[0].error]
        names = [SOLVERS[m.cell.solver].title for m in best]
        winners.append({m.cell.solver for m in best})
        cost = row[0].cell.evaluations
        paid = f" with {_number(cost, 'evaluation')}" if equal == "steps" else ""
        verb = "are equally close to" if len(best) > 1 else "is closest to"
        sentence = f"{at}, {_joined(names)} {verb} {goal}{paid} ({percent(row[0])} off)"
        others = []
        for other in row[len(best) :]:
            ratio = needed(own, other.cell.solver, row[0].error) / cost
            if ratio > ALIKE:
                others.append(f"{SOLVERS[other.cell.solver].title} needs {ratio:.1f}× as many for the same error")
            elif ratio == ratio:
                others.append(f"{SOLVERS[other.cell.solver].title} needs no more evaluations for the same error")
        rest = {m.cell.solver for m in row[len(best) :]}
        if rest and all(m.error > row[0].error for m in own if m.cell.solver in rest):
            others = ["no other comes as close within these budgets"]
        told.append("; ".join([sentence, *others[:3]]) + ".")
    if len(winners) > 1 and not set.intersection(*winners):
        told.append("Which one is best depends on the budget.")
    return told


def percent(measured: Measured, spread: bool = True) -> str:
    """An error in words: its mean and spread, or that it is below what the reference can tell."""
    if not measured.resolved:
        return f"below {_digits(measured.floor)}%"
    if measured.spread and spread:
        return f"{_digits(measured.error)} ± {_digits(measured.spread)}%"
    return f"{_digits(measured.error)}%"


def _digits(share: float) -> str:
    return f"{100 * share:.2g}" if share < 0.1 else f"{100 * share:.0f}"


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def principal_paths(result: Compared) -> tuple[list[Tensor], float]:
    """The rows' paths on the plane that shows most of them: per row [E + 1, 2], and the share of variance it shows.

    The latents are taken as x_t / sqrt(alpha^2 + sigma^2) would be on a variance-preserving path: as they are.
    """
    both = zip(result.seen, result.latents, strict=False)  # the first seed's
    ends = [torch.stack([*seen.x, end.half()]).float().flatten(1) for seen, end in both]
    stacked = torch.cat(ends)
    stacked = stacked - stacked.mean(0)
    # The plane from the Gram matrix: there are fewer points than numbers in a point.
    values, vectors = torch.linalg.eigh((stacked @ stacked.T).double())
    top = vectors[:, -2:].flip(1) * values[-2:].flip(0).clamp(min=0).sqrt()
    share = float(values[-2:].sum() / values.clamp(min=0).sum())
    return list(top.float().split([len(e) for e in ends])), share


def curvature(result: Compared, row: int, schedule: Schedule) -> list[tuple[float, float]]:
    """How a row's path bends: (sigma/alpha, degrees of `turn` per e-fold of sigma/alpha) from each evaluation to
    the next. Two at one noise level, or from an infinite one, have none.

    Per e-fold, so that runs of different steps are comparable; 0 wherever the prediction stays the same.
    """
    seen, found = result.seen[row], []
    levels = [float(schedule.half_log_snr(t)) for t in seen.t]
    for (a, b), angle in zip(pairwise(levels), seen.turned, strict=True):
        if math.isfinite(a) and math.isfinite(b) and abs(a - b) > 1e-6:
            found.append((math.exp(-(a + b) / 2), angle / abs(a - b)))
    return found


RECIPES[Comparison.tab] = Comparison
