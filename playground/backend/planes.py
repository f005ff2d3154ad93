"""The comparison of solvers on the image model, taken to the plane, where the solution is known."""

from __future__ import annotations

from collections.abc import Sequence

from playground.errors import RecipeError
from playground.grids import ALIGNED
from playground.images.comparison import Cell, Comparison, Measured
from playground.plane.comparison import PlaneComparison
from playground.plane.metrics import ErrorRow
from playground.solvers import SOLVERS

TABLED = {
    name: f"{solver.title} runs on a checkpoint's table of noise levels only."
    for name, solver in SOLVERS.items()
    if solver.needs_table
}
"""Solvers that cannot run in the plane, and why."""


def in_plane(recipe: Comparison) -> PlaneComparison:
    """The same comparison on a field in the plane: solvers, budgets, grid, noise and seed, without guidance.

    Raises:
        RecipeError: when no solver, or not the grid, is defined without a checkpoint's table of noise levels.
    """
    able = tuple(s for s in recipe.solvers if s not in TABLED)
    if not able:
        raise RecipeError("None of these solvers runs on a continuous path.")
    if recipe.grid in ALIGNED:
        raise RecipeError("This time grid belongs to a checkpoint's table of noise levels: take another one.")
    same = {name: getattr(recipe, name) for name in ("target", "eta", "grid", "seed", "budgets", "equal")}
    return PlaneComparison.make(**same, field="exact" if recipe.field == "image" else recipe.field, solvers=able)


def measured_in_plane(rows: Sequence[ErrorRow]) -> list[Measured]:
    """The rows of a comparison in the plane as those on images: an error is the median distance as a part of the
    radius of the exact solutions (root mean square), for solvers that draw no noise."""
    cells = [Cell(r.solver, r.budget, r.steps, r.evaluations) for r in rows]
    return [
        Measured(cell, 0.0, r.error / r.radius, "ode" if r.error == r.error else "")
        for cell, r in zip(cells, rows, strict=True)
    ]
