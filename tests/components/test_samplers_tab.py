"""What the tab Samplers says of solvers and cells."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from functools import partial

import gradio as gr
import pytest
import torch

from components.charts import comparison_curvature, comparison_errors, comparison_steps, solver_styles
from components.media import Media
from components.readouts import LATE
from components.tabs import samplers
from components.tabs.samplers import (
    NAMES,
    PRESETS,
    about,
    halfway_value,
    race_value,
    recipe_of,
    refused_lines,
    settings_of,
    solver_choices,
    trust,
)
from playground.backend import Result
from playground.backend.planes import TABLED, in_plane
from playground.errors import RecipeError
from playground.fields import Count
from playground.guidance import RULES
from playground.images.cohorts import Cohort, Drawn, Quality
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
from playground.images.reading import Ask
from playground.plane.comparison import PlaneCompared
from playground.plane.metrics import ErrorRow
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
    assert "has not converged: after 2 + 4 steps" in told[0] and f"differ by {found['ode'].gaps[-1]:.2%}" in told[0]
    assert f"Errors below {found['ode'].tolerance:.2%} mean nothing." in told[0]
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


# --- the events of the tab, without a page around them --------------------------------------------------------


class Tab:
    """The tab's events by the name of their function; what they show by its place on the page."""

    def __init__(self, backend):
        with gr.Blocks() as self.page:
            self.backend = backend
            samplers.build(self.page, gr.Button().click, backend, Media())
        self.events = [f.fn for f in self.page.fns.values()]

    def named(self, name):
        return next(f for f in self.events if getattr(f, "__name__", "") == name)

    def start(self, name, *given, visitor="ann"):
        """The updates of an event that runs something, one after the other."""
        for update in self.named(name)(gr.Request(session_hash=visitor), *given):
            yield {where.elem_id or type(where).__name__: what for where, what in update.items()}

    def compare(self, **changes):
        return self.start("run_chosen", "evaluations", "error", *values(**FEW | changes))


FEW = {"solvers": ("ddim", "heun"), "budgets": (2, 4)}
RESULTS = {
    "samplers-race",
    "samplers-summary",
    "samplers-save",
    "samplers-charts",
    "samplers-errors",
    "samplers-film",
}


@pytest.fixture
def tab(backend, monkeypatch):
    monkeypatch.setitem(REFINEMENTS, "ode", (3, 6))
    monkeypatch.setitem(AGREEMENT, "ode", 10.0)
    return Tab(backend)


def shown_at_last(updates):
    """What is on the page after some updates."""
    return {where: what for update in updates for where, what in update.items()}


def test_a_preset_offers_only_what_can_run_beside_the_settings_that_it_leaves(tab):
    name = "In the plane, where the solution is known"
    wanted = next(f for f in tab.events if isinstance(f, partial) and f.args[0].get("field") == "exact")
    keys = list(wanted.args[0])
    assert {k: wanted.args[0][k] for k in PRESETS[name]} == PRESETS[name]
    *told, left_out = wanted(*values(rule="cfgpp", solvers=("diffusers:lcm",)))
    offered = told[keys.index("solvers")]
    assert offered["value"] == list(Comparison().solvers) and left_out == sorted(TABLED)
    assert {solver for _, solver in offered["choices"]} == set(SOLVERS) - set(TABLED)
    # Where other settings are impossible the run says so, and all is offered.
    *told, left_out = wanted(*values()[:-1], "no such model")
    assert left_out == [] and len(told[keys.index("solvers")]["choices"]) == len(SOLVERS)


def test_boxes_that_are_ticked_and_not_offered_any_more_are_for_the_recipe_to_judge(tab):
    boxes = next(b for b in tab.page.blocks.values() if b.elem_id == "samplers-solvers")
    assert boxes.get_block_name() == "checkboxgroup"
    assert type(boxes)([("DDIM", "ddim")]).preprocess(["heun"]) == ["heun"]


@pytest.mark.parametrize("wrong", [5, {"a": 1}, True], ids=repr)
@pytest.mark.parametrize("field", ["solvers", "budgets"])
def test_what_is_no_list_is_refused_in_a_sentence(field, wrong):
    told = list(values())
    told[NAMES.index(field)] = wrong
    with pytest.raises(RecipeError, match=f"^{field.capitalize()} must (be a list|not be true or false)[.]"):
        recipe_of(tuple(told))


def test_a_rule_under_which_nothing_is_compared_takes_no_tick_away(tab):
    foretold = tab.named("foretold")
    before = foretold([], *values(rule="cfgpp"))
    told = {where.elem_id: what for where, what in before.items()}
    assert "take another rule" in told["samplers-error"] and "samplers-solvers" not in told
    told = {where.elem_id: what for where, what in foretold([], *values()).items()}
    assert "samplers-solvers" not in told
    assert "once for these settings: solvers, budgets and grid do not matter" in told["samplers-expected"]


def test_nothing_of_an_earlier_comparison_stays_beside_a_new_one(tab):
    whole = shown_at_last(tab.compare())
    assert whole["samplers-race"]["url"] and whole["samplers-charts"]["visible"]
    assert set(whole) >= RESULTS
    assert "Of “a cat on the grass”, w = 4, seed 7, grid trailing" in whole["samplers-summary"]
    first = next(tab.compare(prompt="a red dog"))
    assert first["samplers-race"]["url"] is None and not first["samplers-charts"]["visible"]
    for empty in ("samplers-save", "samplers-film", "samplers-halfway", "samplers-status", "State"):
        assert not first[empty], empty
    assert "shares of the batched run" in first["samplers-clocked"]
    assert "“a red dog”" in first["samplers-summary"] and "Reference" not in first["samplers-summary"]


@pytest.mark.parametrize("later", [{"seed": 8}, {"budgets": (3,)}], ids=["another reference", "the same reference"])
def test_an_overtaken_comparison_shows_nothing_more(tab, later):
    """The reference of the first runs in a slot that the second does not take before it has its own pictures."""
    one = tab.compare()
    assert any("State" in update and update["State"] for update in one)  # its pictures are there
    other = tab.compare(**later)
    next(other)
    assert list(one) == []
    at_last = shown_at_last(other)
    assert at_last["samplers-race"]["url"] and at_last["samplers-charts"]["visible"]
    # Somebody else's comparison overtakes nothing.
    third = tab.compare(w=2.0)
    next(third)
    list(tab.start("run_chosen", "evaluations", "error", *values(**FEW), visitor="bob"))
    assert shown_at_last(third)["samplers-charts"]["visible"]


def test_what_times_an_earlier_comparison_shows_nothing_beside_a_new_one(tab):
    token = shown_at_last(tab.compare(w=3.0))["State"]
    timing = tab.start("time_alone", token, "evaluations", "error")
    next(timing)
    next(tab.compare(w=5.0))
    assert not any(set(update) & RESULTS for update in timing)
    assert [set(update) for update in tab.start("time_alone", token, "evaluations", "error")][-1] & RESULTS == set()


def test_visitors_who_have_left_are_forgotten(tab):
    one = tab.compare(w=6.0)
    next(one)
    tab.named("left")(gr.Request(session_hash="ann"))
    assert list(one) == []


def test_charts_of_a_comparison_that_ends_later_do_not_come_into_the_plane(tab):
    charts = next(b for b in tab.page.blocks.values() if b.elem_id == "samplers-charts")
    placed = tab.named("place")("exact")
    assert placed[charts.parent] == gr.update(visible=False) and charts not in placed


class Made:
    """Results of every kind at once, for what is said of them."""

    def __init__(self, monkeypatch, backend):
        monkeypatch.setattr(backend, "run", self.run)
        self.asked = []

    def run(self, recipe, visitor, slot):
        self.asked.append(recipe)
        torch.manual_seed(len(self.asked))
        if isinstance(recipe, Cohort):
            pictures = torch.zeros(len(recipe.singles()), 3, 8, 8)
            yield Result(Drawn(recipe, torch.randn(len(pictures), 4, 8, 8), pictures, Count(6, 6), 1.0))
        else:
            rows = [
                ErrorRow("churn", 3, b, 0.1, 0.2, 0.1, eta, b)
                for b in recipe.budgets
                for eta in recipe.etas or (1.0,)
            ]
            yield Result(PlaneCompared(recipe, rows))


SETTINGS = {"prompt": "a <b>", "w": 2.5, "seed": 30, "grid": "karras", "rule": "apg", "negative": "a dog"}


def test_distributions_say_of_which_settings_they_are(tab, monkeypatch):
    Made(monkeypatch, tab.backend)
    first, *_, last = tab.start("compare_distributions", *values(**FEW | SETTINGS))
    assert not first["samplers-spread"]["visible"]  # of other settings
    said = last["samplers-spread-said"]
    assert "Of “a &lt;b&gt;”, w = 2.5, seeds 30 to 45, grid Karras (ρ = 7), 2, 4 evaluations, " in said
    assert "negative prompt = “a dog”" in said and RULES["apg"].title in said


def test_quality_says_of_which_settings_it_is(tab, monkeypatch):
    class Judge:
        def told(self):
            return "It errs."

    monkeypatch.setattr(samplers, "verifier_of", lambda folder: Judge())
    monkeypatch.setattr(samplers, "asked_of", lambda model, verifier: [Ask("a cat", {}), Ask("a dog", {})])
    monkeypatch.setattr(samplers, "quality", lambda *_: Quality("ddim", 1.0, 2, 2, 0.5, 0.4, 0.6, 0.5, 2))
    Made(monkeypatch, tab.backend)
    first, *_, last = tab.start("measure_quality", *values(**FEW | SETTINGS))
    assert not first["samplers-quality"]["visible"]
    assert "Of 2 prompts, w = 2.5, seeds 30 to 31, grid Karras" in last["samplers-quality-said"]


def test_noise_says_of_which_settings_it_is(tab, monkeypatch):
    Made(monkeypatch, tab.backend)
    first, *_, last = tab.start("measure_noise", "churn", "eight", 0.4, *values(**FEW | SETTINGS, eta=0.5))
    assert first["State"] == "" and first["samplers-noise-pictures"] == ""
    of = "Heun with churn (EDM). Exact and learned field: eight Gaussians, seed 30. Image model: “a &lt;b&gt;”, "
    assert of in last["samplers-noise-said"] and "seeds 30 to 45, grid Karras" in last["samplers-noise-said"]
    assert "stochasticity" not in last["samplers-noise-said"]  # all amounts are on show
    # The slider asks for nothing anew, and what the settings are by then does not matter.
    moved = tab.named("other_noise")(last["State"], 0.8)
    assert any(of in str(what) for what in moved.values())
    assert tab.named("other_noise")("", 0.8) == gr.skip()


def test_the_plane_says_of_which_settings_it_is(tab, monkeypatch):
    Made(monkeypatch, tab.backend)
    *_, last = tab.compare(field="exact", target="eight", seed=30, grid="karras", eta=0.5)
    assert "Of eight Gaussians, seed 30, grid Karras (ρ = 7), η = 0.5." in last["samplers-plane-said"]


def test_settings_are_told_where_they_are_not_the_usual_ones():
    said = settings_of(Comparison(pictures=3, equal="steps", budgets=(4, 2), prompt="", low=0.25, model="other"))
    assert said == (
        "no prompt, w = 4, seeds 7 to 9, grid trailing (every T/N-th, from the noisiest), 2, 4 steps, "
        "window end = 0.25, model = “other”"
    )


@pytest.mark.parametrize(
    ("name", "given", "where"),
    [
        ("run_chosen", ("evaluations", "error"), "samplers-error"),
        ("compare_distributions", (), "samplers-spread-said"),
        ("measure_quality", (), "samplers-quality-said"),
        ("measure_noise", ("churn", "moons", 0.0), "samplers-noise-said"),
    ],
)
def test_a_device_that_takes_too_long_is_told(tab, monkeypatch, name, given, where):
    if name == "run_chosen":
        list(tab.compare(seed=99))  # the rest of it is kept
    else:
        Made(monkeypatch, tab.backend)

    def late(function, timeout=60):
        raise TimeoutError

    monkeypatch.setattr(tab.backend, "compute", late)
    *_, last = tab.start(name, *given, *values(**FEW, seed=99))
    assert LATE in last[where]
    if name == "run_chosen":
        assert "4 pictures" in last["samplers-status"]  # and not a call of the reference


def test_a_model_that_takes_too_long_is_told(tab, monkeypatch):
    def late(name):
        raise TimeoutError

    monkeypatch.setattr(tab.backend, "model", late)
    told = {where.elem_id: what for where, what in tab.named("foretold")([], *values()).items()}
    assert LATE in told["samplers-error"]
    assert LATE in shown_at_last(tab.compare())["samplers-error"]
    assert (
        LATE in shown_at_last(tab.start("run_what_is_there", "evaluations", "error", *values()))["samplers-error"]
    )


def test_calls_of_one_program_do_not_stop_each_other(tab, monkeypatch):
    slots = []
    result = tab.backend.result

    def recorded(recipe, visitor, slot):
        slots.append(slot)
        return result(recipe, visitor, slot)

    monkeypatch.setattr(tab.backend, "result", recorded)
    for _ in range(2):
        tab.named("compare_samplers")({"solvers": ["ddim"], "budgets": [2]}, gr.Request(session_hash="ann"))
    assert len(slots) == 4 and len(set(slots)) == 2  # a comparison and its reference each
    assert all(slot.startswith("samplers/api/") for slot in slots)
