"""What is said of a recipe before it has run."""

from __future__ import annotations

import pytest

from components.readouts import display, rule_panel, said, solver_step, step_panel, window_lines
from playground.errors import RecipeError
from playground.guidance import RULES
from playground.images.models import load_model
from playground.recipes import TextToImage
from playground.schedules import CONTINUOUS, Discrete, Linear
from playground.solvers import FLOW_ODE, REVERSE_SDE, SOLVERS, VARIABLES

PATH = Linear()


def told(**values) -> list[str]:
    recipe = TextToImage.make(steps=10, grid="uniform", **values)
    return window_lines(recipe, recipe.plan(PATH), PATH)


def test_the_steps_in_which_guidance_acts_are_those_that_ask_for_both():
    assert told(w=4) == ["Guidance acts in steps 1 to 10 of 10."]
    assert told(w=4, low=0.25, high=0.75) == ["Guidance acts in steps 4 to 8 of 10."]
    assert told(w=4, low=0.62, high=0.68) == ["The window holds no step: c alone, no guidance anywhere."]
    assert told(w=4, low=0.68, high=0.72) == ["Guidance acts in step 4 of 10."]


def test_a_step_that_asks_twice_may_be_in_the_window_with_one_of_them():
    # Times 1, 0.9, ... 0: Heun's step 3 asks at 0.8 and 0.7, step 7 at 0.4 and 0.3.
    assert told(w=4, solver="heun", low=0.35, high=0.75) == [
        "Guidance acts in steps 3 to 7 of 10.",
        "In step 3 it acts in 1 of 2 evaluations.",
        "In step 7 it acts in 1 of 2 evaluations.",
    ]


def test_where_one_branch_is_enough_it_is_named():
    assert told(w=1) == ["Every step follows c alone: u is not computed."]
    assert told(w=1, prompt="a cat AND a dog") == [
        "Every step follows c alone, which is composed of its parts and u."
    ]
    assert told(w=4, rule="none") == ["Every step follows c alone: u is not computed."]
    assert told(w=0) == ["Every step follows u alone: c is not computed."]
    assert told(w=0, low=0.25, high=0.75) == ["Steps 4 to 8 of 10 follow u alone, the others c alone."]


def test_still_steps_are_told():
    lines = told(w=4, rule="zero_star", zero_star_still=2)
    assert lines == [
        "The velocity is 0 in the first 2 of 10 steps; they cost nothing.",
        "Guidance acts in steps 3 to 10 of 10.",
    ]


def test_what_a_solver_follows_depends_on_its_variable_and_its_noise():
    assert SOLVERS["ddim"](PATH).equation == FLOW_ODE
    assert SOLVERS["euler"](PATH, "t").equation == VARIABLES["t"].formula
    assert SOLVERS["euler_maruyama"](PATH, eta=0.5).equation == REVERSE_SDE
    assert SOLVERS["ancestral"](PATH, eta=0.0).equation == FLOW_ODE


@pytest.mark.parametrize("name", SOLVERS)
def test_what_is_no_prediction_of_the_moment_is_explained_beside_a_formula(name):
    solver = SOLVERS[name]
    left = solver.formula.split("quad")[0]  # what follows is itself an explanation
    for symbol in ("'", " z", " m", "D_1", "k_4", "a_i"):
        assert (symbol not in left) or symbol.strip() in solver.where, symbol


def test_every_solver_says_what_it_follows():
    model = load_model()
    for name, kind in SOLVERS.items():
        try:
            recipe = TextToImage(solver=name, steps=10, grid="leading")
            panel = step_panel(recipe.plan(model.denoiser.schedule).rows[0], model)
        except RecipeError:
            assert name == "diffusers:dpmpp_3s", name
            continue
        assert ("reverse SDE ($" in panel) == kind.reverse_sde
        assert ("flow ODE along" in panel) == (not kind.reverse_sde and not kind.jumps)
        assert kind.stochastic == (kind.reverse_sde or bool(kind.noise_told)) and kind.noise_told in panel


@pytest.mark.parametrize(
    ("w", "sums"),
    [
        (4.0, ["u + 4 (c − u)", "4 c − 3 u"]),
        (0.0, ["u + 0 (c − u)", "0 c + 1 u"]),
        (-1.0, ["u − 1 (c − u)", "−1 c + 2 u"]),
    ],
)
def test_the_numbers_of_guidance_stand_in_a_readable_sum(w, sums):
    assert all(text in said(TextToImage(w=w)) for text in sums)


@pytest.mark.browser
def test_every_formula_of_the_page_is_drawn(browser, serve):
    import gradio as gr
    from fastapi import FastAPI

    from components.readouts import LATEX

    formulas = [*(v.formula for v in VARIABLES.values()), REVERSE_SDE, FLOW_ODE]
    formulas += [path.formula for path in (*CONTINUOUS.values(), Discrete)]
    panels = [*map(display, formulas), *map(rule_panel, RULES), *map(solver_step, SOLVERS.values())]
    with gr.Blocks() as page:
        for panel in panels:
            gr.Markdown(panel, latex_delimiters=LATEX)
    with serve(gr.mount_gradio_app(FastAPI(), page, "/")) as url:
        shown = browser.new_page()
        shown.goto(url)
        shown.locator(".katex-display").nth(len(panels) - 1).wait_for(timeout=60_000)
        assert shown.locator(".katex-display").count() == len(panels)
        assert shown.locator(".katex-error").count() == 0
        shown.close()


def test_a_rule_that_holds_every_step_still_says_that_the_picture_is_noise():
    recipe = TextToImage.make(steps=1, grid="uniform", rule="zero_star", zero_star_still=1, w=4)
    (said,) = window_lines(recipe, recipe.plan(PATH), PATH)
    assert "the picture is the noise" in said
    held, rest = told(rule="zero_star", zero_star_still=1, w=4, low=0.95, high=1.0)
    assert held.startswith("The velocity is 0") and rest.startswith("The window holds no other step")
