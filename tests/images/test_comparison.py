"""Solvers compared: what cells cost, what is measured of them, and what is said about it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from playground.errors import RecipeError
from playground.fields import Count
from playground.images.comparison import (
    BROWNIAN,
    Cell,
    Compared,
    Comparison,
    Measured,
    Reference,
    Seen,
    compare,
    compares,
    distance,
    measure,
    needed,
    principal_paths,
    slopes,
    summary,
    tolerance,
    turning,
)
from playground.images.models import load_model
from playground.images.text_to_image import generate
from playground.recipes import TextToImage
from playground.solvers import SOLVERS


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.mark.parametrize("equal", ["nfe", "steps"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_what_a_cell_says_is_what_its_run_counts(models, solver, equal):
    tiny = models["sd1"]
    grid = "leading" if solver == "diffusers:pndm" else "trailing"  # it takes no other
    recipe = Comparison(solvers=(solver,), budgets=(5, 8), equal=equal, grid=grid)
    cells = recipe.cells(tiny.denoiser.schedule)
    for cell in cells:
        assert cell.evaluations <= cell.budget or equal == "steps"
        single = generate(TextToImage(solver=solver, steps=cell.steps, grid=grid), tiny)
        assert single.count.evaluations == cell.evaluations
        if equal == "nfe":
            # One step more would not be paid for.
            more = generate(TextToImage(solver=solver, steps=cell.steps + 1, grid=grid), tiny)
            assert more.count.evaluations > cell.budget


def test_cells_are_the_runs_they_stand_for(models):
    tiny = models["sd1"]
    recipe = Comparison(solvers=("ddim", "heun", "dpmpp_2m"), budgets=(4, 7), w=3, seed=5)
    result = compare(recipe, tiny)
    assert [(c.solver, c.steps) for c in result.run_cells] == [
        ("ddim", 4), ("ddim", 7), ("heun", 2), ("heun", 4), ("dpmpp_2m", 4), ("dpmpp_2m", 7)
    ]  # fmt: skip
    for k, cell in enumerate(result.run_cells):
        single = generate(TextToImage(solver=cell.solver, steps=cell.steps, w=3, seed=5), tiny)
        torch.testing.assert_close(result.latents[k], single.latents[0], rtol=1e-4, atol=1e-4)
        assert len(result.seen[k].t) == cell.evaluations
        # What the last evaluation of a first-order step believed is where it ends.
        if cell.solver == "ddim":
            torch.testing.assert_close(result.seen[k].x0[-1].float(), single.latents[0], rtol=2e-3, atol=2e-3)
    # All cells are at one point at first: c and u are asked once.
    assert result.count.evaluations == 7
    assert result.count.sample_forwards == 2 + 2 * sum(c.evaluations - 1 for c in result.run_cells)
    assert sum(result.shares()) == pytest.approx(result.seconds)


def test_a_budget_that_pays_for_no_step_has_an_empty_cell(models):
    recipe = Comparison(solvers=("rk4", "ddim"), budgets=(2,))
    cells = recipe.cells(models["sd1"].denoiser.schedule)
    assert [(c.solver, c.steps) for c in cells] == [("rk4", 0), ("ddim", 2)]
    assert len(compare(recipe, models["sd1"]).pictures) == 1
    with pytest.raises(RecipeError, match=r"^No solver can take"):
        recipe.but(solvers=("rk4",)).plan(models["sd1"].denoiser.schedule)


def test_too_many_cells_are_refused(models):
    recipe = Comparison(solvers=tuple(list(SOLVERS)[:12]), budgets=(4, 5, 6, 8, 9))
    with pytest.raises(RecipeError, match="at most 48"):
        recipe.plan(models["sd1"].denoiser.schedule)


def test_solvers_that_a_model_cannot_take_are_named_with_the_reason(models, large_models):
    assert Comparison().refused(models["sd1"].denoiser.schedule) == {}
    refused = Comparison().refused(large_models["sd3"].denoiser.schedule)
    needs = {name for name, s in SOLVERS.items() if s.needs_table}
    assert needs <= set(refused) and all(why.endswith(".") for why in refused.values())
    plus = Comparison(rule="cfgpp").refused(models["sd1"].denoiser.schedule)
    assert "heun" in plus and "ddim" not in plus


def test_one_brownian_path_is_refined_by_more_steps(models):
    """On one path the SDE's solvers converge to one picture; with fresh noise in each step they do not."""
    tiny = models["sd1"]
    fine = compare(Reference.of(TextToImage(w=1), noisy=True), tiny)
    errors = {
        solver: [
            m.error
            for m in measure(
                compare(Comparison(solvers=(solver,), budgets=(12, 48), w=1, grid="log_snr"), tiny), {"sde": fine}
            )
        ]
        for solver in BROWNIAN
    }
    for few, many in errors.values():
        assert many < 0.5 * few
    own = generate(TextToImage(solver="ancestral", steps=48, w=1, grid="log_snr"), tiny)
    assert distance(own.latents[0], fine.latents[-1]) > 3 * errors["ancestral"][1]


@pytest.mark.slow
def test_the_reference_has_converged_and_solvers_approach_it(model):
    recipe = Comparison(solvers=("ddim", "heun", "dpmpp_2m"), budgets=(12, 48), w=2, grid="log_snr")
    reference = compare(Reference.of(recipe, noisy=False), model)
    assert tolerance(reference) < 0.01
    table = measure(compare(recipe, model), {"ode": reference})
    for solver in recipe.solvers:
        few, many = (m.error for m in table if m.cell.solver == solver)
        assert many < 0.5 * few
    # Another method, refined, ends at the same place.
    other = generate(TextToImage(solver="heun", steps=60, w=2, grid="log_snr"), model)
    assert distance(other.latents[0], reference.latents[-1]) < 3 * tolerance(reference)


def test_all_comparisons_of_a_problem_have_one_reference():
    recipe = Comparison(w=3, seed=9, solver="heun", steps=7, grid="karras", solvers=("ddim",), eta=0.5)
    assert Reference.of(recipe, False) == Reference.of(recipe.but(grid="uniform", steps=9, eta=0.1), False)
    assert Reference.of(recipe, True) != Reference.of(recipe.but(eta=0.1), True)
    assert Reference.of(recipe, False) != Reference.of(recipe.but(w=4), False)


@pytest.mark.parametrize(
    ("solver", "eta", "kind"),
    [
        ("heun", 1.0, "ode"),
        ("ancestral", 1.0, "sde"),
        ("ancestral", 0.0, "ode"),
        ("churn", 1.0, ""),
        ("churn", 0.0, "ode"),
        ("diffusers:lcm", 1.0, ""),
        ("diffusers:deis", 1.0, "ode"),
    ],
)
def test_who_has_a_solution_to_be_compared_with(solver, eta, kind):
    assert compares(solver, eta) == kind


def table_of(**errors):
    """A table with these errors at 8, 16 and 32 evaluations."""
    return [
        Measured(Cell(name, n, n, n), 0.1 * n, e, "ode")
        for name, own in errors.items()
        for n, e in zip((8, 16, 32), own, strict=True)
    ]


def test_slopes_and_needed_evaluations_of_power_laws():
    table = table_of(ddim=(0.8, 0.4, 0.2), heun=(0.64, 0.16, 0.04))
    assert slopes(table) == {"ddim": pytest.approx(1), "heun": pytest.approx(2)}
    assert needed(table, "ddim", 0.3) == pytest.approx(8 * 0.8 / 0.3)
    assert needed(table, "heun", 0.3) == pytest.approx(8 * math.sqrt(0.64 / 0.3))
    assert math.isnan(needed(table, "ddim", 0.1)) and math.isnan(needed(table, "ddim", 0.9))


def test_the_summary_ranks_by_error_and_says_what_others_need():
    said = summary(table_of(ddim=(0.8, 0.4, 0.2), heun=(0.9, 0.16, 0.04)), floor=0.001)
    assert said[0].startswith("At 8 evaluations DDIM is closest") and "Heun needs 1.0× as many" in said[0]
    assert said[1].startswith("At 16 evaluations Heun is closest")
    assert said[-1] == "Which one is best depends on the budget."
    told = summary(table_of(ddim=(0.8, 0.4, 0.2), heun=(0.9, 0.16, 0.04)), floor=0.05)
    assert "as close as the reference can tell" in told[2]
    # Nobody is ranked without an error.
    assert summary([Measured(Cell("churn", 8, 4, 8), 1.0, math.nan, "")], 0.0) == []


def path_result(*paths):
    """A comparison whose latents walk through these points."""
    seen, ends = [], []
    for points in paths:
        tensors = [torch.tensor(p, dtype=torch.float32).view(-1, 1, 1) for p in points]
        seen.append(
            Seen([0.5] * (len(points) - 1), [x.half() for x in tensors[:-1]], [0 * x.half() for x in tensors[:-1]])
        )
        ends.append(tensors[-1])
    cells = [Cell("ddim", 3, 2, 2) for _ in paths]
    pictures = torch.zeros(len(paths), 3, 8, 8)
    return Compared(TextToImage(), cells, torch.stack(ends), pictures, seen, Count(2, 4), 1.0)


def test_the_principal_plane_keeps_distances_of_flat_paths():
    result = path_result([(0, 0, 0), (3, 0, 0), (3, 4, 0)], [(0, 0, 0), (0, 4, 0), (3, 4, 0)])
    paths, share = principal_paths(result)
    assert share == pytest.approx(1)
    for path, points in zip(paths, ([(0, 0), (3, 0), (3, 4)], [(0, 0), (0, 4), (3, 4)]), strict=True):
        flat = torch.tensor(points, dtype=torch.float64)
        torch.testing.assert_close(
            torch.cdist(path.double(), path.double()), torch.cdist(flat, flat), atol=1e-3, rtol=0
        )


def test_a_straight_path_does_not_turn_and_a_corner_does():
    straight = path_result([(1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 0, 0)])
    assert turning(straight, 0) == pytest.approx([0, 0], abs=1e-3)
    corner = path_result([(1, 0, 0), (0, 2, 0), (0, 0, 0)])
    assert turning(corner, 0) == pytest.approx([90])


def test_a_row_may_draw_once_only_on_a_brownian_path(models):
    recipe = Comparison(solvers=("churn",), budgets=(6,))
    plan = recipe.plan(models["sd1"].denoiser.schedule)
    assert not plan.rows[0].brownian
    assert replace(plan.rows[0], brownian=True) != plan.rows[0]


@pytest.mark.parametrize("rule", ["cfg", "zero_star", "apg", "rescale"])
def test_a_cell_counts_the_evaluations_that_are_made(rule, model):
    for solver in ("ddim", "heun"):
        result = compare(Comparison(solvers=(solver,), budgets=(6,), rule=rule, w=3), model)
        (cell,) = result.run_cells
        assert cell.evaluations == result.count.evaluations <= 6


def test_who_cannot_take_part_is_left_out(model):
    schedule = model.denoiser.schedule
    recipe = Comparison(solvers=("ddim", "heun"), rule="cfgpp")
    refused = recipe.refused(schedule)
    assert "heun" in refused and "ddim" not in refused
    assert recipe.possible(schedule).solvers == ("ddim",)
    with pytest.raises(RecipeError):
        recipe.but(solvers=("heun",)).possible(schedule)
    with pytest.raises(RecipeError, match="without autoguidance"):
        Comparison(rule="auto").plan(schedule)


@pytest.mark.parametrize(
    ("solvers", "eta", "kinds"),
    [
        (("ddim", "heun"), 1.0, ["ode"]),
        (("ancestral",), 1.0, ["sde"]),
        (("ancestral",), 0.0, ["ode"]),
        (("ancestral", "ddim", "churn"), 1.0, ["ode", "sde"]),
        (("churn",), 1.0, []),
    ],
)
def test_a_comparison_names_the_references_it_needs(solvers, eta, kinds):
    found = Comparison(solvers=solvers, eta=eta).references()
    assert list(found) == kinds
    assert all((one.noisy == "yes") == (kind == "sde") for kind, one in found.items())
