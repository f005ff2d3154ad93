"""Whatever the registries name goes together, or says in a sentence why it does not."""

from __future__ import annotations

import pytest
import torch
from truth import every_schedule, lopsided

from playground.errors import RecipeError
from playground.grids import GRIDS
from playground.plan import Plan, Row
from playground.plane.mixtures import ExactField
from playground.recipes import TextToImage
from playground.sampling import run
from playground.schedules import Discrete
from playground.solvers import SOLVERS

COUNTS = (1, 2, 3, 5, 50)
WRITTEN = [(name, v) for name, kind in SOLVERS.items() for v in kind.variables or ("auto",)]


@pytest.mark.parametrize("path", every_schedule(), ids=lambda path: path.name)
@pytest.mark.parametrize(("name", "variable"), WRITTEN)
def test_every_solver_ends_at_numbers_on_every_grid(name, variable, path):
    rows: list[Row] = []
    # Without a table, trailing is the uniform grid.
    for grid in GRIDS if isinstance(path, Discrete) else GRIDS.keys() - {"trailing"}:
        for steps in COUNTS:
            recipe = TextToImage(solver=name, variable=variable, grid=grid, steps=steps, w=1.0)
            (row,) = recipe.plan(path).rows
            try:
                row.make_solver(path)
            except RecipeError as error:
                assert str(error) == (
                    "Sampling starts where σ/α is infinite: take the Karras grid, which starts below, or a "
                    "solver that can be written in t."
                )
                assert variable == "sigma"
                assert path.alpha(row.times[0]) == 0
                continue
            # The prompt is no class of the mixture.
            rows.append(Row(row.seed, row.times, name, row.guidance, variable=row.variable, eta=row.eta))
    assert len(rows) >= 2 * len(COUNTS)  # on Karras' grid and the leading one at the least
    # Where Heun and Runge-Kutta ask at clean data itself, it is the velocity that has a value there.
    kind = "velocity" if path.t_min == 0 else "x0"
    x = run(Plan(tuple(rows)), ExactField(lopsided(), path, kind)).x
    assert bool(torch.isfinite(x).all())
    # The data lie between -3 and 3; a single step lands on their mean.
    fine = [i for i, row in enumerate(rows) if len(row.times) == 51]
    assert float(x[fine].abs().max()) < 6
