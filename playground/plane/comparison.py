"""The comparison of solvers in the plane, where the solution and the distribution are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from playground.errors import RecipeError
from playground.fields import Count
from playground.fields import Field as VectorField
from playground.plane.metrics import ErrorRow, affordable, measured_errors
from playground.plane.recipe import PlaneFlow, SamplerName

ETAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Amounts of noise that are compared."""


class PlaneComparison(PlaneFlow):
    """Solvers, budgets and amounts of noise on one target (`measured_errors`)."""

    tab: ClassVar[str] = "samplers/plane"

    solvers: tuple[SamplerName, ...] = Field(("ddim", "heun"), title="solvers", min_length=1, max_length=32)
    budgets: tuple[Annotated[int, Field(ge=1, le=200)], ...] = Field(
        (8, 16, 32), title="budgets", min_length=1, max_length=12
    )
    equal: Literal["nfe", "steps"] = Field("nfe", title="a budget counts")
    etas: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field((), title="amounts of noise", max_length=12)
    particles: int = Field(1000, title="particles", ge=10, le=10_000)

    @property
    def size(self) -> int:
        """How many rows its table has."""
        paid = sum(bool(affordable(s, b, self.equal)) for s in self.solvers for b in self.budgets)
        return paid * max(1, len(self.etas))


@dataclass
class PlaneCompared:
    """A finished comparison: its rows, in the order in which they were computed."""

    recipe: PlaneComparison
    rows: list[ErrorRow]
    count: Count = field(default_factory=Count)

    @property
    def nbytes(self) -> int:
        """Memory held, about."""
        return 200 * len(self.rows)


def run(
    recipe: PlaneComparison, field: VectorField | None = None
) -> Iterator[list[ErrorRow] | PlaneCompared | None]:
    """Run a comparison.

    Args:
        field: the trained one, where the recipe asks for a learned field.

    Yields:
        The rows so far, after each, and none at first, while the exact solution is found; None in between, where it
        can be stopped; PlaneCompared at the end.

    Raises:
        RecipeError: for a recipe that is impossible, in one sentence.
    """
    rows: list[ErrorRow] = []
    count = Count()
    if not recipe.size:
        raise RecipeError("No solver can take a single step within these budgets.")
    yield []
    errors = measured_errors(
        recipe,
        recipe.solvers,
        recipe.budgets,
        recipe.particles,
        field,
        recipe.grid,
        recipe.equal,
        recipe.etas,
    )
    for row in errors:
        if row is None:
            yield None
            continue
        rows.append(row)
        count = Count(count.evaluations + row.evaluations, count.sample_forwards + row.evaluations)
        yield list(rows)
    yield PlaneCompared(recipe, rows, count)


def of_noise(rows: Sequence[ErrorRow], budget: int) -> list[ErrorRow]:
    """The rows of a budget, by growing amount of noise."""
    return sorted((r for r in rows if r.budget == budget), key=lambda r: r.eta)
