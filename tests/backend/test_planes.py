"""The comparison of solvers, taken from the image model to the plane."""

from __future__ import annotations

import pytest

from playground.backend.planes import in_plane, measured_in_plane
from playground.errors import RecipeError
from playground.images.comparison import Comparison, summary
from playground.images.models import load_model
from playground.plane.comparison import run
from playground.solvers import SOLVERS


def test_the_same_comparison_in_the_plane():
    plane = in_plane(
        Comparison(
            field="learned", target="eight", solvers=("heun", "ancestral"), budgets=(6, 9), seed=5, eta=0.5, w=7.0
        )
    )
    assert (plane.field, plane.target, plane.seed, plane.eta) == ("learned", "eight", 5, 0.5)
    assert (plane.solvers, plane.budgets, plane.grid) == (("heun", "ancestral"), (6, 9), Comparison().grid)
    needing = [name for name, s in SOLVERS.items() if s.needs_table]
    mixed = Comparison(field="exact", solvers=(needing[0], "ddim"))
    assert in_plane(mixed).solvers == ("ddim",)
    with pytest.raises(RecipeError, match="continuous path"):
        in_plane(mixed.but(solvers=tuple(needing[:2])))
    with pytest.raises(RecipeError, match="table of noise levels"):
        in_plane(mixed.but(grid="ays_sd15"))


def test_it_does_not_run_on_images():
    with pytest.raises(RecipeError, match="in the plane"):
        Comparison(field="exact").plan(load_model().denoiser.schedule)


def test_its_table_is_summed_up_as_that_of_images_is():
    recipe = in_plane(Comparison(field="exact", solvers=("ddim", "heun", "ancestral"), budgets=(12, 24)))
    *_, last = run(recipe.but(particles=100))
    table = measured_in_plane(last.rows)
    assert table[0].error == pytest.approx(last.rows[0].error / last.rows[0].radius)
    assert 0.5 < last.rows[0].radius < 2.5  # of two moons
    assert [m.cell.evaluations for m in table] == [r.evaluations for r in last.rows]
    assert {m.cell.solver for m in table if not m.known} == {"ancestral"}
    told = " ".join(summary(table))
    best = min((m for m in table if m.known and m.cell.budget == 24), key=lambda m: m.error)
    assert SOLVERS[best.cell.solver].title in told
