"""What the tab Samplers says of solvers and cells."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest

from components.charts import comparison_curvature, comparison_errors, comparison_steps, solver_styles
from components.tabs.samplers import (
    NAMES,
    PRESETS,
    about,
    halfway_value,
    race_value,
    recipe_of,
    refused_lines,
    solver_choices,
    trust,
)
from playground.backend.planes import in_plane
from playground.errors import RecipeError
from playground.images.comparison import (
    AGREEMENT,
    REFINEMENTS,
    Cell,
    Comparison,
    Measured,
    compare,
    converge,
    measure,
)
from playground.images.models import load_model
from playground.solvers import SOLVERS


@pytest.fixture(scope="module")
def model():
    return load_model()


def values(**changes):
    recipe = Comparison(**changes)
    return tuple(list(v) if isinstance(v := getattr(recipe, n), tuple) else v for n in NAMES)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_comparison_that_this_model_can_take(name, model):
    recipe = Comparison(**PRESETS[name])
    assert recipe_of(values(**PRESETS[name])) == recipe
    schedule = model.denoiser.schedule
    assert not set(recipe.solvers) & set(recipe.refused(schedule))
    if recipe.field == "image":
        assert recipe.plan(schedule).rows
    else:
        assert in_plane(recipe).size == len(recipe.solvers) * len(recipe.budgets)


@pytest.mark.parametrize("field", ["solvers", "budgets"])
def test_an_empty_choice_is_named(field):
    told = list(values())
    told[NAMES.index(field)] = []
    with pytest.raises(RecipeError, match=f"^Choose at least one {field[:-1]}"):
        recipe_of(tuple(told))


def test_every_solver_is_offered_or_refused_with_its_reason():
    refused = {"rk4": "Runge-Kutta 4 cannot <do> this.", "heun": "Heun cannot <do> this."}
    offered = [name for _, name in solver_choices(refused)]
    assert set(offered) | set(refused) == set(SOLVERS) and not set(offered) & set(refused)
    said = refused_lines(refused)
    assert re.findall("<input type='checkbox' disabled> (.*?)</label>", said) == ["Runge-Kutta 4", "Heun"]
    assert said.count("It cannot &lt;do&gt; this.") == 1
    assert all(SOLVERS[n].told_order() in about(n) for n in SOLVERS)


def test_the_race_names_rows_as_the_run_does(model):
    recipe = Comparison(solvers=("rk4", "heun", "ddim"), budgets=(2, 4))
    schedule = model.denoiser.schedule
    before = race_value(recipe, None, [], "", schedule)
    assert before["url"] is None and [c["row"] for c in before["cells"]] == [None, 0, 1, 2, 3, 4]
    result = compare(recipe, model)
    table = measure(result, {})
    after = race_value(recipe, result, table, "token", schedule)
    assert after["frames"] == 4 and after["cells"][0]["text"] == "not one step"
    for cell in after["cells"][1:]:
        ran = result.run_cells[cell["row"]]
        assert after["solvers"][cell["solver"]]["name"] == ran.solver and cell["evaluations"] == ran.evaluations
    # Without a reference nothing is said of errors.
    assert all("off" not in c["text"] for c in after["cells"])


def test_half_of_a_long_run_is_shown_beside_a_short_one(model):
    recipe = Comparison(solvers=("ddim",), budgets=(2, 4, 5))
    result = compare(recipe, model)
    schedule = model.denoiser.schedule
    said = halfway_value(result, "token", schedule)
    assert "film-1-2.png" in said and "after 2 of 4 steps" in said and said.count("<figure") == 3
    alone = compare(recipe.but(budgets=(3,)), model)
    assert "twice the other" in halfway_value(alone, "token", schedule)


def test_half_way_of_a_solver_that_asks_twice_is_after_its_steps(model):
    # Heun of 2 and of 4 steps: 3 and 7 evaluations, and the first two steps of the longer run take 4.
    recipe = Comparison(solvers=("heun",), budgets=(2, 4), equal="steps")
    result = compare(recipe, model)
    assert [c.evaluations for c in result.run_cells] == [3, 7]
    said = halfway_value(result, "token", model.denoiser.schedule)
    assert "film-1-4.png" in said
    row = recipe._cell_row("heun", 4, model.denoiser.schedule)
    assert result.seen[1].t[4] == pytest.approx(float(row.times[2]), abs=1e-6)


def test_no_two_solvers_look_alike():
    styles = solver_styles(list(SOLVERS))
    looks = [(s["line"]["color"], s["line"]["dash"], s["marker"]["symbol"]) for s in styles.values()]
    assert all(a != b for a, b in itertools.combinations(looks, 2))


def test_the_chart_leaves_out_who_has_no_solution():
    table = [
        Measured(Cell("ddim", 8, 8, 8), 1.0, 0.2, "ode", floor=0.01),
        Measured(Cell("churn", 8, 4, 8), 1.0, float("nan"), ""),
    ]
    figure = comparison_errors(table, "seconds")
    assert [trace.name for trace in figure.data] == ["DDIM (order 1)", "reference of the ODE, known to 1%"]
    assert list(figure.data[0].x) == [1.0] and "share" in figure.layout.xaxis.title.text
    timed = comparison_errors([replace(m, alone=0.3) for m in table], "seconds")
    assert list(timed.data[0].x) == [0.3] and "by itself" in timed.layout.xaxis.title.text


def test_each_kind_of_reference_has_its_line_and_what_is_below_is_hollow():
    table = [
        Measured(Cell("ddim", 8, 8, 8), 1.0, 0.2, "ode", 0.05, floor=0.01),
        Measured(Cell("ddim", 16, 16, 16), 1.0, 0.005, "ode", 0.001, floor=0.01),
        Measured(Cell("ancestral", 8, 8, 8), 1.0, 0.3, "sde", floor=0.04),
    ]
    figure = comparison_errors(table, "evaluations")
    lines = {trace.name: list(trace.y) for trace in figure.data if trace.mode == "lines"}
    assert lines == {
        "reference of the ODE, known to 1%": [0.01] * 2,
        "reference of the SDE, known to 4%": [0.04] * 2,
    }
    ddim = figure.data[0]
    assert [symbol.endswith("-open") for symbol in ddim.marker.symbol] == [False, True]
    assert list(ddim.error_y.array) == [0.05, 0.001]


def test_a_reference_that_has_not_converged_says_so(model, monkeypatch):
    recipe = Comparison(solvers=("ddim", "churn"), budgets=(3,))
    monkeypatch.setitem(REFINEMENTS, "ode", (2, 4))
    found = {"ode": converge(recipe.references()["ode"], model)}
    table = measure(compare(recipe, model), found)
    told = trust(table, found)
    assert "has not converged: after 2 + 4 steps" in told[0] and f"{found['ode'].tolerance:.2%}" in told[0]
    assert "Heun with churn" in told[1] and "Their distributions" in told[1]
    monkeypatch.setitem(AGREEMENT, "ode", 10.0)
    assert "within the tolerance of 1000.0%" in trust(table, found)[0]


def test_noise_levels_stand_over_the_steps_that_were_taken(model):
    """DDIM asks once a step, Heun again at its end, DPM-Solver++ 2S again inside it, churn above its start."""
    recipe = Comparison(solvers=("ddim", "heun", "dpmpp_2s", "churn"), budgets=(5,), equal="steps")
    result, schedule = compare(recipe, model), model.denoiser.schedule
    figure = comparison_steps(result, [0, 1, 2, 3], schedule)
    for trace, seen in zip(figure.data, result.seen, strict=True):
        assert list(trace.y) == [float(schedule.noise_ratio(t)) for t in seen.t]
    places = {trace.name.split(" (")[0]: list(trace.x) for trace in figure.data}
    assert places[SOLVERS["ddim"].title] == [0, 1, 2, 3, 4]
    assert set(places[SOLVERS["heun"].title]) == {0, 1, 2, 3, 4}
    inside = [x for x in places[SOLVERS["dpmpp_2s"].title] if x != int(x)]
    assert len(inside) >= 4 and len({int(x) for x in inside}) == len(inside)
    churned = dict(zip(figure.data[3].x, figure.data[3].y, strict=True))
    assert set(churned) == {0, 1, 2, 3, 4}  # though each step but the first asks at a noisier time than it starts
    assert all(churned[i] > float(schedule.noise_ratio(recipe.plan(schedule).rows[3].times[i])) for i in (2, 3))
    for trace, row in zip(figure.data[:3], recipe.plan(schedule).rows, strict=False):
        levels = {x: y for x, y in zip(trace.x, trace.y, strict=True) if x == int(x)}
        for step, level in levels.items():
            assert level == pytest.approx(float(schedule.noise_ratio(row.times[int(step)])))


def test_the_bends_of_a_path_stand_over_t(model):
    result, schedule = compare(Comparison(solvers=("ddim",), budgets=(6,)), model), model.denoiser.schedule
    (trace,) = comparison_curvature(result, [0], schedule).data
    times = result.seen[0].t
    assert len(trace.x) == 5 and all(a > x > b for x, a, b in zip(trace.x, times, times[1:], strict=False))
