"""Guidance rules, composed prompts and tables, as visitors of the tab Text to image use them."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect
from visiting import until

from playground.guidance import RULES
from playground.recipes import rule_fields

pytestmark = pytest.mark.browser


def choose(tab, name: str, title: str) -> None:
    """An entry of a list, found by its title."""
    tab.control(name).locator("input").first.click()
    tab.page.get_by_role("option", name=title, exact=True).click()


@pytest.mark.slow
def test_a_rule_shows_its_own_parameters_and_no_others(visit):
    tab = visit(steps=2, solver="ddim")
    tab.more()
    every = {rule: list(rule_fields(rule).values()) for rule in RULES}
    for rule in ("apg", "rescale", "cfg"):
        choose(tab, "rule", RULES[rule].title)
        tab.wait_for_recipe(rule=rule)
        for owner, fields in every.items():
            for field in fields:
                expect(tab.control(field)).to_be_visible(visible=owner == rule)
        expect(tab.page.locator("#t2i-formula")).to_contain_text(RULES[rule].about[:24])
    assert "rule" not in tab.link()


def test_moving_a_parameter_redraws_and_the_link_restores_it(visit):
    tab = visit(steps=3, w=9, rule="rescale")
    tab.more()
    plain = tab.png()
    tab.set("rescale_phi", 0.2)
    tab.wait_for_recipe(rule="rescale", rescale_phi=0.2)
    assert tab.png() != plain
    again = visit(**tab.link())
    again.more()
    expect(again.number("rescale_phi").first).to_have_value("0.2")
    assert again.png() == tab.png()
    assert again.link() == tab.link()


@pytest.mark.slow
def test_a_rule_that_the_solver_cannot_follow_is_refused_with_the_reason(visit):
    tab = visit(steps=2)
    tab.more()
    choose(tab, "rule", RULES["cfgpp"].title)
    expect(tab.error).to_contain_text("CFG++ needs a solver that puts noise back")
    choose(tab, "solver", "DDIM (order 1)")
    tab.wait_for_recipe(rule="cfgpp", solver="ddim")
    expect(tab.error).to_be_hidden()
    expect(tab.page.get_by_text("λ = 0.6 takes the place of w")).to_be_visible()


@pytest.mark.slow
def test_autoguidance_says_that_there_is_no_second_model(visit):
    tab = visit(steps=2)
    tab.more()
    choose(tab, "rule", RULES["auto"].title)
    expect(tab.page.locator("#text-to-image-hindrance")).to_contain_text("This page has one model only")
    expect(tab.error).to_contain_text("Autoguidance needs a weak model")


@pytest.mark.slow
def test_still_steps_cost_nothing(visit):
    tab = visit(steps=5, rule="zero_star", zero_star_still=2)
    assert tab.cost() == (3, 6)


@pytest.mark.slow
def test_a_composed_prompt_says_how_it_was_read(visit):
    tab = visit(steps=2)
    read = tab.page.locator("#t2i-composed")
    expect(read).to_be_hidden()
    tab.write("a cat AND NOT snow :0.5")
    tab.wait_for_recipe(prompt="a cat AND NOT snow :0.5")
    expect(read).to_contain_text("Read as c = u + 1 (c₁ − u) − 0.5 (c₂ − u)")
    expect(read).to_contain_text("c₁: “a cat” · c₂: not “snow”")
    assert tab.cost() == (2, 6)
    tab.write("a cat")
    tab.wait_for_recipe(prompt="a cat")
    expect(read).to_be_hidden()


@pytest.mark.slow
def test_what_is_typed_in_parts_stays_text(visit):
    nasty = "<img src=x onerror=window.hacked=1> AND a cat"
    tab = visit(steps=1, prompt=nasty)
    expect(tab.page.locator("#t2i-composed")).to_contain_text("<img src=x")
    assert tab.page.evaluate("window.hacked") is None


@pytest.mark.slow
def test_a_table_of_two_axes_and_a_click_takes_both_values(visit):
    tab = visit(steps=2, seed=3)
    tab.page.locator("#t2i-axis input").click()
    tab.page.get_by_role("option", name="window end", exact=True).click()
    expect(tab.sweep).to_have_count(20)
    expect(tab.sweep.locator("img")).to_have_count(20)
    expect(tab.page.locator("#t2i-sweep .caption")).to_contain_text("for all 20")
    lefts = {round(tab.sweep.nth(i).bounding_box()["x"]) for i in range(20)}
    assert len(lefts) == 5
    tab.sweep.nth(13).click()  # the third row of the table, its fourth scale
    tab.wait_for_recipe(w=8.0, low=0.5, seed=3)
    expect(tab.sweep.nth(13)).to_have_attribute("aria-pressed", "true")
    expect(tab.sweep.locator("[aria-pressed=true]")).to_have_count(0)  # none inside another
    until(lambda: tab.link().get("low") == "0.5" and tab.link().get("w") == "8")


@pytest.mark.slow
def test_a_table_over_steps_is_made_of_pictures_with_these_steps(visit):
    tab = visit(steps=2, seed=3)
    tab.page.locator("#t2i-axis input").click()
    tab.page.get_by_role("option", name="steps", exact=True).click()
    expect(tab.sweep.locator("img")).to_have_count(20)
    in_the_table = tab.sweep.nth(12).locator("img").get_attribute("src")
    tab.sweep.nth(12).click()
    recipe = tab.wait_for_recipe(w=4.0, steps=12, seed=3)
    assert recipe["sweep"] == [] and recipe["across"] == "none"
    import io

    import numpy as np
    from PIL import Image

    alone, among = (np.asarray(Image.open(io.BytesIO(tab.png(s))), dtype=int) for s in ("", in_the_table))
    assert abs(alone - among).max() <= 2


@pytest.mark.slow
def test_the_parts_of_the_guidance_vector_are_drawn(visit):
    tab = visit(steps=3)
    expect(tab.page.locator("#t2i-parts .js-plotly-plot")).to_be_visible()
    expect(tab.page.locator("#t2i-parts .legendtext")).to_have_count(2)


@pytest.mark.slow
def test_a_link_brings_its_own_sweep(visit):
    tab = visit(steps=2, sweep="[0,2,5]", across="low", values="[0,0.5]")
    expect(tab.sweep.locator("img")).to_have_count(6)
    expect(tab.page.locator("#t2i-sweep .caption")).to_contain_text("for all 6")
    assert tab.sweep.nth(5).inner_text() == "w = 5 · end = 0.5"


@pytest.mark.slow
def test_a_link_names_the_second_axis(visit):
    tab = visit(steps=2, rule="rescale", across="rescale_phi")
    expect(tab.sweep).to_have_count(20)
    expect(tab.page.locator("#t2i-axis input")).to_have_value("rescale φ")
    wrong = visit(steps=2, across="rescale_phi")
    expect(wrong.told).to_contain_text("second axis, rescale φ, is not one of its guidance rule")
    expect(wrong.sweep).to_have_count(8)
    # Chosen by hand, a parameter of another rule brings its rule along, for the picture as well.
    wrong.page.locator("#t2i-axis input").first.click()
    wrong.page.get_by_role("option", name="rescale φ · changes the rule to CFG, rescaled", exact=True).click()
    expect(wrong.sweep).to_have_count(20)
    until(lambda: wrong.sweep.locator("img").count() == 20)
    until(lambda: wrong.link().get("rule") == "rescale")
    expect(wrong.page.locator("#t2i-axis input")).to_have_value("rescale φ")
    wrong.wait_for_recipe(rule="rescale")


@pytest.mark.slow
def test_a_sweep_of_other_settings_is_not_marked(visit):
    tab = visit(steps=2, seed=3)
    tab.page.locator("#t2i-sweep-run").click()
    caption, marked = tab.page.locator("#t2i-sweep .caption"), tab.page.locator("#t2i-sweep [aria-pressed=true]")
    expect(caption).to_contain_text("seed 3, DPM-Solver++(2M), 2 steps")
    expect(marked).to_have_count(1)
    tab.write("a dog")
    expect(caption).to_contain_text("Other settings than those now")
    expect(marked).to_have_count(0)
    tab.write("a cat on the grass")
    expect(caption).not_to_contain_text("Other settings")
    expect(marked).to_have_count(1)


@pytest.mark.slow
def test_the_equations_are_those_of_the_solver_that_is_chosen(visit):
    tab = visit(steps=2)
    step = tab.page.locator("#t2i-step")
    expect(step).to_contain_text("DPM-Solver++(2M)")
    expect(step).to_contain_text("flow ODE")
    tab.more()
    choose(tab, "solver", "Euler-Maruyama (order 1)")
    expect(step).to_contain_text("reverse SDE")
    tab.set("eta", 0)
    expect(step).to_contain_text("flow ODE")
    restored = visit(steps=2, solver="heun", variable="t")
    expect(restored.page.locator("#t2i-step")).to_contain_text("Heun")


@pytest.mark.slow
def test_the_denoising_is_seen_on_the_way(visit):
    tab = visit(wait=False, steps=100, seed=4)
    live = tab.page.locator("#t2i-stage .live")
    expect(live).to_be_visible()
    expect(tab.page.locator("#t2i-stage .picture img")).to_have_attribute("src", re.compile("^data:image/png"))
    expect(tab.page.locator("#t2i-stage figcaption")).to_contain_text("x₀ as predicted at step")
    expect(tab.page.locator("#t2i-stage .line a")).to_be_hidden()
    expect(tab.status).to_contain_text("of 100")
    tab.wait_for_result()
    expect(live).to_be_hidden()
    expect(tab.page.locator("#t2i-stage .line a")).to_be_visible()


@pytest.mark.slow
def test_a_moved_end_of_the_window_runs_only_the_steps_behind_it(visit):
    # The twenty steps of the trailing grid begin at t = 1, 0.95, ..., so these ends lie behind steps 15 and 12.
    tab = visit(steps=20, seed=515, low=0.275)
    expect(tab.status).to_contain_text("20 model calls (NFE) · 35 sample-forwards")
    tab.more()
    tab.set("low", 0.425)
    expect(tab.status).to_contain_text("reused 12 steps · 8 model calls (NFE) · 8 sample-forwards", timeout=60_000)
    tab.set("steps", 19)
    expect(tab.status).to_contain_text("19 model calls (NFE)", timeout=60_000)
    expect(tab.status).not_to_contain_text("reused")
