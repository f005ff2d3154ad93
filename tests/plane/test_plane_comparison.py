"""Solvers compared in the plane: budgets, grids and amounts of noise."""

from __future__ import annotations

import pytest
import torch

from playground.errors import RecipeError
from playground.grids import ALIGNED, GRIDS
from playground.plane.comparison import ETAS, PlaneCompared, PlaneComparison, of_noise, run
from playground.plane.metrics import CHART_RATIOS, chart_times, errors_against_nfe
from playground.schedules import CONTINUOUS


@pytest.mark.parametrize("path", CONTINUOUS)
@pytest.mark.parametrize("grid", [g for g in GRIDS if g not in ALIGNED])
def test_every_grid_goes_from_one_level_to_the_other(path, grid):
    schedule = CONTINUOUS[path]()
    for steps in (1, 7):
        times = torch.tensor(chart_times(schedule, steps, grid), dtype=torch.float64)
        assert len(times) == steps + 1 and bool((times.diff() < 0).all())
        assert schedule.noise_ratio(times)[[0, -1]].tolist() == pytest.approx(CHART_RATIOS)


def test_grids_keep_their_spacing():
    schedule = CONTINUOUS["linear"]()
    uniform = torch.tensor(chart_times(schedule, 8, "uniform"), dtype=torch.float64)
    assert torch.allclose(uniform.diff(), uniform.diff()[0].expand(8))
    karras = schedule.noise_ratio(torch.tensor(chart_times(schedule, 8, "karras"), dtype=torch.float64))
    roots = (karras ** (1 / 7)).diff()
    assert torch.allclose(roots, roots[0].expand(8))
    with pytest.raises(RecipeError, match="Align Your Steps"):
        chart_times(schedule, 8, "ays_sd15")


def test_budgets_count_evaluations_or_steps():
    recipe = PlaneComparison(solvers=("heun", "ddim"), budgets=(4, 6), particles=20)
    *on_the_way, last = run(recipe)
    assert isinstance(last, PlaneCompared) and [len(rows) for rows in on_the_way if rows is not None] == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert [(r.solver, r.budget, r.steps, r.evaluations) for r in last.rows] == [
        *[("heun", 4, 2, 4), ("ddim", 4, 4, 4)],
        *[("heun", 6, 3, 6), ("ddim", 6, 6, 6)],
    ]
    *_, last = run(recipe.but(equal="steps"))
    assert [(r.solver, r.steps, r.evaluations) for r in last.rows][:2] == [("heun", 4, 8), ("ddim", 4, 4)]
    assert recipe.size == 4 and last.count.evaluations == sum(r.evaluations for r in last.rows)


def test_the_seed_and_the_grid_matter():
    recipe = PlaneComparison(solvers=("ddim",), budgets=(6,), particles=50)

    def error(changed):
        *_, last = run(changed)
        return last.rows[0].error

    assert error(recipe) == error(recipe)
    assert error(recipe.but(seed=9)) != error(recipe)
    assert error(recipe.but(grid="karras")) != error(recipe)


def test_noise_costs_steps_on_an_exact_field():
    """What the tab shows first: with few steps of an exact field, noise leaves the particles further from the data;
    with many it makes no difference."""
    recipe = PlaneComparison(solvers=("ancestral",), budgets=(6, 96), etas=ETAS, grid="log_snr", particles=1000)
    *_, last = run(recipe)
    few, many = of_noise(last.rows, 6), of_noise(last.rows, 96)
    assert [r.eta for r in few] == list(ETAS)
    assert few[-1].marginal > few[0].marginal + few[0].floor
    assert abs(many[-1].marginal - many[0].marginal) < many[0].floor


def test_no_noise_is_the_same_as_the_ode():
    rows = list(errors_against_nfe(PlaneComparison(particles=50), ("ancestral", "ddim"), (8,), 50, etas=(0.0, 1.0)))
    quiet, _, ddim, _ = rows
    assert quiet.error == pytest.approx(ddim.error) and quiet.marginal == pytest.approx(ddim.marginal)


def test_solvers_in_sigma_run_on_paths_that_end_in_pure_noise():
    *_, last = run(PlaneComparison(solvers=("churn", "euler_maruyama"), budgets=(8,), particles=20, path="linear"))
    assert [r.solver for r in last.rows] == ["churn", "euler_maruyama"]


def test_a_budget_that_does_not_pay_for_what_a_solver_needs_has_no_row():
    recipe = PlaneComparison(solvers=("rk4", "ddim"), budgets=(3, 8), particles=20)
    *_, last = run(recipe)
    assert [(r.solver, r.budget, r.evaluations) for r in last.rows] == [
        *[("ddim", 3, 3)],
        *[("rk4", 8, 8), ("ddim", 8, 8)],
    ]
    assert recipe.size == len(last.rows)
    with pytest.raises(RecipeError, match="within these budgets"):
        list(run(PlaneComparison(solvers=("rk4",), budgets=(3,), particles=20)))
