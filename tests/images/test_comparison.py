"""Solvers compared: what cells cost, what is measured of them, and what is said about it."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from playground.errors import RecipeError
from playground.fields import Count, Prediction
from playground.images.comparison import (
    AGREEMENT,
    BROWNIAN,
    REFINEMENTS,
    Cell,
    Compared,
    Comparison,
    Measured,
    Reference,
    Seen,
    compare,
    compares,
    converge,
    curvature,
    distance,
    measure,
    needed,
    percent,
    principal_paths,
    slopes,
    summary,
    turn,
)
from playground.images.models import load_model
from playground.images.text_to_image import generate
from playground.recipes import TextToImage
from playground.schedules import CONTINUOUS
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
    # Those that draw noise, too: churn does so before it asks, but not at the noisiest level, where it cannot.
    noisy = recipe.but(solvers=("ddim", "ancestral", "euler_maruyama", "churn"), budgets=(5, 7))
    drawn = compare(noisy, tiny)
    assert drawn.count.sample_forwards == 2 + 2 * sum(c.evaluations - 1 for c in drawn.run_cells)
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
    with pytest.raises(RecipeError, match="60 pictures in 60 cells; at most 96 in 48"):
        recipe.plan(models["sd1"].denoiser.schedule)
    many = recipe.but(solvers=tuple(list(SOLVERS)[:7]), budgets=(8, 9), pictures=7)
    with pytest.raises(RecipeError, match="98 pictures in 14 cells"):
        many.plan(models["sd1"].denoiser.schedule)


def test_every_seed_is_the_run_of_its_own(models):
    tiny = models["sd1"]
    recipe = Comparison(solvers=("ddim", "heun"), budgets=(4,), pictures=3, seed=5)
    result = compare(recipe, tiny)
    assert len(result.latents) == 6 and len(result.seen) == 2
    for i in range(3):
        single = compare(recipe.but(pictures=1, seed=5 + i), tiny)
        torch.testing.assert_close(result.latents[2 * i : 2 * i + 2], single.latents, rtol=1e-4, atol=1e-4)
    assert 3 * sum(result.shares()) == pytest.approx(result.seconds)


def test_errors_are_means_over_the_seeds_with_their_standard_deviation(models):
    tiny = models["sd1"]
    recipe = Comparison(solvers=("ddim",), budgets=(4,), pictures=3, w=2)
    reference = converge(recipe.references()["ode"], tiny)
    result = compare(recipe, tiny)
    (cell,) = measure(result, {"ode": reference})
    own = torch.tensor([distance(a, b) for a, b in zip(result.latents, reference.latents, strict=True)])
    assert cell.error == pytest.approx(float(own.mean())) and cell.spread == pytest.approx(float(own.std()))
    assert cell.floor == reference.tolerance and cell.resolved == (cell.error > reference.tolerance)
    for i in range(3):
        alone = converge(recipe.but(pictures=1, seed=recipe.seed + i).references()["ode"], tiny)
        if alone.steps == reference.steps:
            torch.testing.assert_close(alone.latents[0], reference.latents[i], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("agrees", [0.5, 1e-9])
def test_a_reference_is_refined_until_it_agrees_or_says_that_it_does_not(models, monkeypatch, agrees):
    monkeypatch.setitem(REFINEMENTS, "ode", (4, 8, 16, 32))
    monkeypatch.setitem(AGREEMENT, "ode", agrees)
    recipe = Comparison(w=3).references()["ode"]
    found = converge(recipe, models["sd1"])
    ends = {}
    for n in found.steps:
        made = TextToImage(solver="dpmpp_2m", steps=n, grid="log_snr", w=3)
        ends[n] = generate(made, models["sd1"]).latents[0]
    gaps = [distance(ends[a], ends[b]) for a, b in pairwise(found.steps)]
    assert found.gaps == pytest.approx(gaps, rel=1e-3)
    # Second order divides a gap by four: one that falls faster has fallen by chance.
    assert found.tolerance == max(found.gaps[-1], *(gap / 4 for gap in found.gaps[-2:]))
    torch.testing.assert_close(found.latents[0], ends[found.steps[-1]], rtol=1e-4, atol=1e-4)
    assert all(gap > agrees for gap in found.gaps[:-1])
    assert found.agrees == (found.gaps[-1] <= agrees)
    # Two rows in step cost the longer one's evaluations; each further refinement its own.
    assert found.count.evaluations == sum(found.steps[1:])
    if agrees == 1e-9:
        assert found.steps == [4, 8, 16, 32] and not found.agrees


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
    fine = converge(Reference.of(TextToImage(w=1), noisy=True), tiny)
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
    reference = converge(Reference.of(recipe, noisy=False), model)
    assert reference.agrees and reference.tolerance < 0.01
    table = measure(compare(recipe, model), {"ode": reference})
    for solver in recipe.solvers:
        few, many = (m.error for m in table if m.cell.solver == solver)
        assert many < 0.5 * few
    # Another method, refined, ends at the same place.
    other = generate(TextToImage(solver="heun", steps=100, w=2, grid="log_snr"), model)
    assert distance(other.latents[0], reference.latents[-1]) < 3 * reference.tolerance


def test_all_comparisons_of_a_problem_have_one_reference():
    recipe = Comparison(w=3, seed=9, solver="heun", steps=7, grid="karras", solvers=("ddim",), eta=0.5)
    assert Reference.of(recipe, False) == Reference.of(recipe.but(grid="uniform", steps=9, eta=0.1), False)
    assert Reference.of(recipe, True) != Reference.of(recipe.but(eta=0.1), True)
    assert Reference.of(recipe, False) != Reference.of(recipe.but(w=4), False)
    assert Reference.of(recipe, False) != Reference.of(recipe.but(pictures=2), False)


@pytest.mark.parametrize(
    ("solver", "eta", "kind"),
    [
        ("heun", 1.0, "ode"),
        ("ancestral", 1.0, "sde"),
        ("ancestral", 0.0, "ode"),
        ("churn", 1.0, ""),
        ("churn", 0.0, "ode"),
        ("diffusers:lcm", 1.0, ""),
        ("diffusers:tcd", 1.0, ""),
        ("diffusers:tcd", 0.0, "ode"),
        ("diffusers:deis", 1.0, "ode"),
    ],
)
def test_who_has_a_solution_to_be_compared_with(solver, eta, kind):
    assert compares(solver, eta) == kind


def table_of(floor=0.0, kind="ode", **errors):
    """A table with these errors at 8, 16 and 32 evaluations."""
    return [
        Measured(Cell(name, n, n, n), 0.1 * n, e, kind, floor=floor)
        for name, own in errors.items()
        for n, e in zip((8, 16, 32), own, strict=False)
    ]


def test_slopes_and_needed_evaluations_of_power_laws():
    table = table_of(ddim=(0.8, 0.4, 0.2), heun=(0.64, 0.16, 0.04))
    assert slopes(table) == {"ddim": pytest.approx(1), "heun": pytest.approx(2)}
    assert needed(table, "ddim", 0.3) == pytest.approx(8 * 0.8 / 0.3)
    assert needed(table, "heun", 0.3) == pytest.approx(8 * math.sqrt(0.64 / 0.3))
    assert math.isnan(needed(table, "ddim", 0.1)) and math.isnan(needed(table, "ddim", 0.9))


def test_what_the_reference_cannot_tell_is_not_fitted_and_not_ranked():
    table = table_of(floor=0.05, ddim=(0.8, 0.4, 0.2), heun=(0.64, 0.16, 0.01))
    assert slopes(table)["heun"] == pytest.approx(2)  # through two points: the third is noise
    assert math.isnan(needed(table, "heun", 0.04))
    assert percent(table[-1]) == "below 5%" and percent(table[0]) == "80%"
    said = summary(table)
    assert said[2] == "At 32 evaluations, Heun is closer to the solution than the reference can tell."
    both = summary(table_of(floor=0.3, ddim=(0.8, 0.4, 0.2), heun=(0.64, 0.16, 0.01)))
    assert both[2] == "At 32 evaluations, Heun and DDIM are closer to the solution than the reference can tell."


def test_the_summary_ranks_by_error_and_says_what_others_need():
    said = summary(table_of(ddim=(0.8, 0.4, 0.2), heun=(0.9, 0.16, 0.04)))
    needs = (0.9 / 0.8) ** (math.log(2) / math.log(0.9 / 0.16))  # between its points, log-log
    no_other = "no other comes as close within these budgets."
    assert said == [
        "At 8 evaluations, DDIM is closest to the solution (80% off); Heun "
        + (f"needs {needs:.1f}× as many" if needs > 1.05 else "needs no more evaluations")
        + " for the same error.",
        f"At 16 evaluations, Heun is closest to the solution (16% off); {no_other}",
        f"At 32 evaluations, Heun is closest to the solution (4% off); {no_other}",
        "Which one is best depends on the budget.",
    ]


def test_the_summary_says_what_few_cells_allow():
    # One evaluation is singular; one solver is compared with nobody; equal ones are called equal.
    one = [Measured(Cell("ddim", 1, 1, 1), 1.0, 0.9, "ode"), Measured(Cell("euler", 1, 1, 1), 1.0, 0.9, "ode")]
    assert summary(one) == ["At 1 evaluation, DDIM and Euler are equally close to the solution (90% off)."]
    assert summary(table_of(ddim=(0.8, 0.4, 0.2))) == [
        "DDIM is 80% off the solution at 8 evaluations, and 20% at 32."
    ]
    assert summary(one[:1]) == ["DDIM is 90% off the solution at 1 evaluation."]
    # At equal steps the cost is said, because it differs.
    steps = [Measured(Cell("ddim", 6, 6, 6), 1.0, 0.9, "ode"), Measured(Cell("heun", 6, 6, 11), 1.0, 0.5, "ode")]
    assert summary(steps, "steps") == [
        "At 6 steps, Heun is closest to the solution with 11 evaluations (50% off); no other comes as close within "
        "these budgets."
    ]
    sde = summary(table_of(kind="sde", ancestral=(0.8,), euler_maruyama=(0.4,)))
    assert sde == [
        "At 8 evaluations, Euler-Maruyama is closest to the SDE's solution on its path (40% off); no other comes "
        "as close within these budgets."
    ]
    # Nobody is ranked without an error.
    assert summary([Measured(Cell("churn", 8, 4, 8), 1.0, math.nan, "")]) == []


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
    return Compared(Comparison(), cells, torch.stack(ends), pictures, seen, Count(2, 4), 1.0)


def test_the_principal_plane_keeps_distances_of_flat_paths():
    result = path_result([(0, 0, 0), (3, 0, 0), (3, 4, 0)], [(0, 0, 0), (0, 4, 0), (3, 4, 0)])
    paths, share = principal_paths(result)
    assert share == pytest.approx(1)
    for path, points in zip(paths, ([(0, 0), (3, 0), (3, 4)], [(0, 0), (0, 4), (3, 4)]), strict=True):
        flat = torch.tensor(points, dtype=torch.float64)
        torch.testing.assert_close(
            torch.cdist(path.double(), path.double()), torch.cdist(flat, flat), atol=1e-3, rtol=0
        )


@pytest.mark.parametrize("path", CONTINUOUS)
@pytest.mark.parametrize("kind", ["x0", "eps", "velocity"])
def test_a_constant_prediction_is_a_straight_path_on_every_schedule(path, kind):
    """x_t of one pair (x0, eps) at several times, told in any kind: the direction stays; x - x0 would turn."""
    schedule = CONTINUOUS[path]()
    x0, eps = torch.randn(2, 1, 50, generator=torch.Generator().manual_seed(0)).double()
    seen = []
    for ratio in (5.0, 1.0, 0.2):
        t = schedule.t_at_ratio(torch.tensor([ratio]))
        x = schedule.alpha(t) * x0 + schedule.sigma(t) * eps
        seen.append(Prediction(kind, getattr(Prediction("x0", x0, x, t, schedule), kind), x, t, schedule))
    for a, b in pairwise(seen):
        assert turn(a, b) == pytest.approx(0, abs=1e-4)
    # And a prediction whose noise is another one turns by the angle between the two.
    t, other = seen[0].t, torch.randn(1, 50, generator=torch.Generator().manual_seed(1)).double()
    x = schedule.alpha(t) * x0 + schedule.sigma(t) * other
    angle = math.degrees(math.acos(float((eps * other).sum() / eps.norm() / other.norm())))
    assert turn(seen[0], Prediction("x0", x0, x, t, schedule)) == pytest.approx(angle)


def test_curvature_is_per_e_fold_and_leaves_out_what_stands_still():
    schedule = CONTINUOUS["vp"]()
    times = schedule.t_at_ratio(torch.tensor([math.e**2, 1.0, 1.0, 1 / math.e])).tolist()
    result = path_result([(0, 0, 0), (1, 0, 0)])
    result.seen[0].t, result.seen[0].turned = times, [10.0, 3.0, 4.0]
    bends = curvature(result, 0, schedule)
    assert [angle for _, angle in bends] == pytest.approx([5, 4])
    assert [ratio for ratio, _ in bends] == pytest.approx([math.e, math.exp(-0.5)])


def test_a_run_notes_how_its_path_turns(models):
    result = compare(Comparison(solvers=("ddim", "heun"), budgets=(6,)), models["sd1"])
    schedule = models["sd1"].denoiser.schedule
    for k, (cell, seen) in enumerate(zip(result.run_cells, result.seen, strict=True)):
        assert len(seen.turned) == cell.evaluations - 1
        t = torch.tensor(seen.t, dtype=torch.float64)
        eps = [
            ((x.double() - a * x0.double()) / s).flatten()
            for x, x0, a, s in zip(seen.x, seen.x0, schedule.alpha(t), schedule.sigma(t), strict=True)
        ]
        angles = [math.degrees(math.acos(float(a @ b / a.norm() / b.norm()))) for a, b in pairwise(eps)]
        assert seen.turned[:3] == pytest.approx(angles[:3], rel=0.05, abs=0.3), k  # theirs are in half precision
        assert curvature(result, k, schedule)


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
        # What is seen are the evaluations that are made: a step that is held still shows nothing.
        assert len(result.seen[0].t) == cell.evaluations == len(result.seen[0].turned) + 1


@pytest.mark.parametrize("solver", ["ddim", "heun", "dpmpp_2m"])
@pytest.mark.parametrize("still", [0, 1, 3])
def test_a_budget_pays_for_the_most_steps_of_which_some_are_free(solver, still, model):
    schedule, budget = model.denoiser.schedule, 6
    recipe = Comparison(solvers=(solver,), budgets=(budget,), rule="zero_star", w=3, zero_star_still=still)

    def cost(steps: int) -> int:
        (cell,) = recipe.but(equal="steps", budgets=(steps,)).cells(schedule)
        return cell.evaluations

    (cell,) = recipe.cells(schedule)
    assert cost(cell.steps) == cell.evaluations <= budget < cost(cell.steps + 1)


def test_a_run_that_would_ask_nothing_is_refused(model):
    schedule = model.denoiser.schedule
    still = {"rule": "zero_star", "w": 3.0, "zero_star_still": 6}
    with pytest.raises(RecipeError, match="take more steps"):
        Comparison(solvers=("ddim",), budgets=(4, 8), equal="steps", **still).plan(schedule)


def test_who_cannot_take_part_is_left_out(model, models):
    schedule = model.denoiser.schedule
    recipe = Comparison(solvers=("ddim", "diffusers:pndm"))
    flow = models["flow"].denoiser.schedule
    assert recipe.possible(schedule) == recipe
    assert recipe.possible(flow).solvers == ("ddim",)
    with pytest.raises(RecipeError):
        recipe.but(solvers=("diffusers:pndm",)).possible(flow)
    with pytest.raises(RecipeError, match="without autoguidance"):
        Comparison(rule="auto").plan(schedule)


def test_a_rule_without_a_solution_to_come_closer_to_is_refused(model):
    """CFG++ is CFG with w = lambda/(1 - exp(-h)), so it changes with the length h of the steps."""
    schedule = model.denoiser.schedule
    for ask in (Comparison.plan, Comparison.possible):
        with pytest.raises(RecipeError, match="no common solution"):
            ask(Comparison(rule="cfgpp", solvers=("ddim",)), schedule)


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


@pytest.mark.parametrize("equal", ["nfe", "steps"])
def test_every_solver_has_a_cell_or_a_reason_at_every_budget(models, equal):
    """A solver that cannot take some number of steps leaves the others alone."""
    schedule = models["sd2"].denoiser.schedule
    recipe = Comparison(solvers=tuple(SOLVERS)[:16], budgets=(3, 4, 7, 8, 20, 48), equal=equal)
    other = recipe.but(solvers=tuple(SOLVERS)[16:])
    for some in (recipe, other):
        cells = some.cells(schedule)
        assert len(cells) == 6 * len(some.solvers)
        for cell in cells:
            assert not (cell.steps and cell.reason)
            if equal == "nfe":
                assert cell.evaluations <= cell.budget
                if cell.steps:  # one more step would cost too much, or cannot be taken
                    more = some.but(equal="steps", budgets=(cell.steps + 1,), solvers=(cell.solver,)).cells(
                        schedule
                    )[0]
                    assert more.reason or more.evaluations > cell.budget
    able = Comparison(solvers=("ddim", "diffusers:pndm"), budgets=(7, 8))
    assert [c.budget for c in able.cells(schedule) if c.solver == "ddim" and c.steps] == [7, 8]
    able.possible(schedule).plan(schedule)
