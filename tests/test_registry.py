"""Whatever the registries name goes together, or says in a sentence why it does not."""

from __future__ import annotations

import pytest
import torch
from truth import OURS, every_schedule, lopsided

from playground.errors import RecipeError
from playground.grids import ALIGNED, GRIDS
from playground.plan import Plan, Row
from playground.plane.mixtures import ExactField
from playground.recipes import TextToImage
from playground.sampling import run
from playground.schedulers import ADAPTED
from playground.schedules import CONTINUOUS, Discrete
from playground.solvers import SOLVERS

COUNTS = (1, 2, 3, 5, 50)
WRITTEN = [(name, v) for name, kind in OURS.items() for v in kind.variables or ("auto",)]


def grids_of(path):
    """Without a table, trailing is the uniform grid; aligned steps are for one table alone."""
    return GRIDS if isinstance(path, Discrete) else GRIDS.keys() - {"trailing", *ALIGNED}


def one_row(path, name, grid, steps, variable="auto"):
    (row,) = TextToImage(solver=name, variable=variable, grid=grid, steps=steps, w=1.0).plan(path).rows
    row.make_solver(path)
    # The prompt is no class of the mixture.
    return Row(row.seed, row.times, name, row.guidance, variable=row.variable, eta=row.eta)


@pytest.mark.parametrize("name", SOLVERS)
def test_what_a_solver_cannot_do_is_told_and_happens(name):
    """The limits that the page states, against how runs on two grids are laid out, and which path is taken."""
    told = " ".join(SOLVERS[name].limits())
    table = next(path for path in every_schedule() if isinstance(path, Discrete))
    rows = tuple(one_row(table, name, grid, 8) for grid in ("trailing", "leading"))
    assert ("one by one" in told) == (len(Plan(rows).lanes(table)) == 2)
    try:
        SOLVERS[name](CONTINUOUS["cosine"](), None, 1.0)
        refused = False
    except RecipeError:
        refused = True
    assert ("only on a checkpoint's table" in told) == refused


def end_at_numbers(rows, path):
    # Where Heun and Runge-Kutta ask at clean data itself, it is the velocity that has a value there.
    kind = "velocity" if path.t_min == 0 else "x0"
    x = run(Plan(tuple(rows)), ExactField(lopsided(), path, kind)).x
    assert bool(torch.isfinite(x).all())
    # The data lie between -3 and 3; a single step lands on their mean.
    fine = [i for i, row in enumerate(rows) if len(row.times) == 51]
    assert float(x[fine].abs().max()) < 6


@pytest.mark.parametrize("path", every_schedule(), ids=lambda path: path.name)
@pytest.mark.parametrize(("name", "variable"), WRITTEN)
def test_every_solver_ends_at_numbers_on_every_grid(name, variable, path):
    rows: list[Row] = []
    for grid in grids_of(path):
        for steps in COUNTS:
            try:
                rows.append(one_row(path, name, grid, steps, variable))
            except RecipeError as error:
                assert str(error) == (
                    "Sampling starts where σ/α is infinite: take the Karras grid, which starts below, or a "
                    "solver that can be written in t."
                )
                assert variable == "sigma"
                assert path.ends_in_pure_noise
    assert len(rows) >= 2 * len(COUNTS)  # on Karras' grid and the leading one at the least
    end_at_numbers(rows, path)


@pytest.mark.parametrize(
    # diffusers interpolates KDPM2's table anew for every grid.
    "name",
    [pytest.param(name, marks=pytest.mark.slow if "kdpm2" in name else ()) for name in ADAPTED],
)
def test_every_scheduler_ends_at_numbers_or_refuses_the_grid(name):
    path = every_schedule()[-1]
    rows: list[Row] = []
    for grid in GRIDS:
        for steps in COUNTS:
            try:
                rows.append(one_row(path, name, grid, steps))
            except RecipeError as error:
                assert str(error).endswith(
                    (
                        "asks only at whole entries of the table: take the trailing or the leading grid.",
                        "walks evenly through the table: take the leading grid.",
                    )
                )
                assert grid != "leading"  # which all of them can walk
    assert len(rows) >= len(COUNTS)
    end_at_numbers(rows, path)
