"""The tab Samplers, as its visitors use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect
from visiting import until

from components.tabs.samplers import PRESETS
from playground.guidance import RULES
from playground.sharing.records import from_file

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SMALL = {"tab": "samplers", "solvers": json.dumps(["ddim", "heun"]), "budgets": json.dumps([3, 6])}


def compared(visit, **query):
    """The tab with a small comparison run to its end."""
    page = visit(wait=False, **(SMALL | query)).page
    expect(page.locator("#samplers-race .cell")).to_have_count(4)
    page.locator("#samplers-go").click()
    expect(page.locator("#samplers-summary")).to_contain_text("Reference of the ODE", timeout=240_000)
    return page


def test_a_comparison_says_who_is_closest_and_is_played_without_the_server(visit):
    page = compared(visit)
    cells = page.locator("#samplers-race .cell")
    expect(cells.first).to_contain_text("3 NFE")
    expect(cells.first).to_contain_text("off")
    expect(page.locator("#samplers-summary")).to_contain_text("is closest to the solution")
    # All frames are fetched by themselves, once, although the numbers came later than the pictures.
    until(lambda: page.evaluate("window.__dp['samplers-race'].loads") == 6)
    page.wait_for_timeout(1000)
    slider = page.locator("#samplers-race .at")
    slider.fill("1")
    expect(cells.nth(1)).to_contain_text("1 of 6")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    for k in (5, 2, 3, 4, 6):
        slider.fill(str(k))
    expect(cells.nth(1)).to_contain_text("6 NFE")
    assert asked == [] and page.evaluate("window.__dp['samplers-race'].loads") == 6
    page.locator("#samplers-race .sort").select_option("1")
    cells.nth(1).click()
    expect(page.locator("#samplers-film .column")).not_to_have_count(0)
    expect(page.locator("#samplers-film .note")).to_contain_text("columns are evaluations")
    expect(page.locator("#samplers-halfway figure").first).to_be_visible()
    expect(page.locator("#samplers-errors .plot-container")).to_be_visible()
    with page.expect_download() as saved:
        page.locator("#samplers-save").get_by_role("button", name="Save as PNG").click()
    assert saved.value.suggested_filename == "samplers.png"
    expect(page.locator("#samplers-clocked")).to_contain_text("shares of the batched run")
    page.locator("#samplers-clock").click()
    expect(page.locator("#samplers-clocked")).to_contain_text("timed in a run by itself")
    expect(cells.first).to_contain_text("s alone")
    # The bundled model has a verifier, or the page says why there is no quality to measure.
    button, why = page.locator("#samplers-quality-go"), page.locator("#samplers-quality-said")
    expect(why).to_contain_text("95% intervals" if button.is_visible() else "needs the scene verifier")


def test_the_cells_are_seen_on_their_way(visit):
    page = visit(wait=False, **(SMALL | {"budgets": json.dumps([2, 48]), "seed": 4711})).page
    cells = page.locator("#samplers-race .cell")
    expect(cells).to_have_count(4)
    page.evaluate(
        """() => {
            window.seen = [];
            setInterval(() => window.seen.push([...document.querySelectorAll('#samplers-race .cell')].map(cell => {
                const canvas = cell.querySelector('canvas'), context = canvas.getContext('2d');
                const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
                return [cell.innerText, canvas.width, new Set(data).size];
            })), 100);
        }"""
    )
    page.locator("#samplers-go").click()
    expect(page.locator("#samplers-status")).to_contain_text("for all 4 pictures", timeout=240_000)
    # The short rows have arrived while the long ones run, and both are pictures, not areas of one colour.
    moments = [m for m in page.evaluate("window.seen") if "2 NFE" in m[0][0] and "of 48" in m[1][0]]
    for row in (0, 1):
        assert any(width == 64 and colours > 20 for _, width, colours in (moment[row] for moment in moments))


def test_a_link_opens_the_same_comparison_for_somebody_else(visit):
    """The story of the tab: choose, compare, send the address, and another browser shows the same numbers."""
    visited = visit(wait=False, **(SMALL | {"seed": 30}))
    page = visited.page
    # Nobody's device is set to work by a link alone: what it would take is said.
    expect(page.locator("#samplers-status")).to_contain_text("Press Compare")
    expect(page.locator("#samplers-expected")).to_contain_text("sample-forwards, about")
    page.locator("#samplers-solvers label", has_text="UniPC").locator("input").check()
    page.locator("#samplers-solvers label", has_text="Heun (order").locator("input").uncheck()
    page.locator("#samplers-seed").locator("input").fill("31")
    page.locator("#samplers-seed").locator("input").press("Enter")
    until(lambda: visited.link().get("seed") == "31" and visited.link().get("solvers") == '["ddim","unipc"]')
    page.locator("#samplers-go").click()
    cells = page.locator("#samplers-race .cell")
    until(lambda: "UniPC" in page.locator("#samplers-race").inner_text() and "off" in cells.last.inner_text())
    again = visit(wait=False, **visited.link())
    theirs = again.page.locator("#samplers-race .cell")
    until(lambda: theirs.count() == 4 and "off" in theirs.last.inner_text())
    until(lambda: theirs.all_inner_texts() == cells.all_inner_texts())
    assert again.link() == visited.link()


def test_choices_are_in_the_link_and_empty_ones_are_named(visit):
    visited = visit(wait=False, **SMALL)
    page = visited.page
    expect(page.locator("#samplers-race .cell")).to_have_count(4)
    box = page.locator("#samplers-solvers label", has_text="UniPC").locator("input")
    box.check()
    until(lambda: visited.link().get("solvers") == '["ddim","heun","unipc"]')
    expect(page.locator("#samplers-expected")).to_contain_text("sample-forwards, about")
    for name in ("DDIM", "Heun (order", "UniPC"):
        page.locator("#samplers-solvers label", has_text=name).first.locator("input").uncheck()
    expect(page.locator("#samplers-error .prose")).to_contain_text("Choose at least one solver.")


def ticked(page) -> list[str]:
    boxes = page.locator("#samplers-solvers label", has=page.locator("input:checked"))
    return [text.split(" (")[0].strip() for text in boxes.all_inner_texts()]


def choose_rule(page, rule: str) -> None:
    page.locator("#samplers-rule input").click()
    page.get_by_role("option", name=RULES[rule].title, exact=True).click()


def test_a_rule_under_which_nothing_is_compared_costs_no_choice(visit):
    visited = visit(wait=False, **(SMALL | {"w": 1}))
    page, error = visited.page, visited.page.locator("#samplers-error .prose")
    expect(page.locator("#samplers-race .cell")).to_have_count(4)
    page.get_by_role("button", name="More:").click()
    choose_rule(page, "cfgpp")
    expect(error).to_contain_text("take another rule")
    assert ticked(page) == ["DDIM", "Heun"]
    choose_rule(page, "cfg")
    expect(error).to_be_empty()
    expect(page.locator("#samplers-expected")).to_contain_text("once for these settings")
    assert ticked(page) == ["DDIM", "Heun"]
    # A preset comes whole, too, and nothing is refused once the rule is another one.
    choose_rule(page, "cfgpp")
    expect(error).to_contain_text("take another rule")
    name = "Equal steps hide the cost"
    page.get_by_role("button", name=name).click()
    until(lambda: visited.link().get("solvers") == json.dumps(PRESETS[name]["solvers"], separators=(",", ":")))
    expect(error).to_contain_text("take another rule")
    assert len(ticked(page)) == 4
    choose_rule(page, "cfg")
    expect(error).to_be_empty()
    page.locator("#samplers-go").click()
    expect(page.locator("#samplers-summary")).to_contain_text("Reference of the ODE", timeout=240_000)
    expect(page.locator("#samplers-race .cell")).to_have_count(8)
    assert page.locator(".toast-body").count() == 0


def test_nothing_of_an_earlier_comparison_stays_beside_one_that_is_stopped(visit):
    page = compared(visit, w=1, seed=32)
    page.locator("#samplers-race .cell").first.click()
    expect(page.locator("#samplers-film .column")).not_to_have_count(0)
    charts, summary = page.locator("#samplers-charts"), page.locator("#samplers-summary")
    expect(charts).to_be_visible()
    expect(summary).to_contain_text("Of “a cat on the grass”, w = 1, seed 32")
    status = page.locator("#samplers-status")

    def stopped(animal: str) -> bool:
        """Whether its reference could be stopped, or was there too soon."""
        page.locator("#samplers-prompt textarea").fill(f"a {animal} on the grass")
        page.locator("#samplers-go").click()
        expect(status).to_contain_text("reference of the ODE", timeout=240_000)
        page.locator("#samplers-stop").click()
        until(lambda: "stopped" in status.inner_text() or charts.is_visible())
        return "stopped" in status.inner_text()

    animal = next((a for a in ("dog", "horse", "bird", "fish", "pig", "cow") if stopped(a)), None)
    assert animal, "each reference was finished before it could be stopped"
    expect(charts).to_be_hidden()
    expect(page.locator("#samplers-film .column")).to_have_count(0)
    expect(summary).to_contain_text(f"Of “a {animal} on the grass”")
    expect(summary).not_to_contain_text("Reference")
    # Its own pictures have arrived, and can be saved.
    with page.expect_download() as saved:
        page.locator("#samplers-save").get_by_role("button", name="Save as PNG").click()
    assert from_file(Path(saved.value.path()).read_bytes())[0].prompt == f"a {animal} on the grass"


def test_one_switch_takes_the_comparison_to_the_plane(visit):
    visited = visit(wait=False, **SMALL)
    page, said = visited.page, visited.page.locator("#samplers-plane-said")
    expect(page.locator("#samplers-race .cell")).to_have_count(4)
    expect(page.locator("#samplers-target")).to_be_hidden()
    page.get_by_label("exact field in the plane").check()
    expect(page.locator("#samplers-target")).to_be_visible()
    for of_images in ("#samplers-race", "#samplers-spread-go", "#samplers-quality-go"):
        expect(page.locator(of_images)).to_be_hidden()
    until(lambda: visited.link().get("field") == "exact")
    expect(page.locator("#samplers-expected")).to_contain_text("runs of 1,000 particles")
    page.locator("#samplers-go").click()
    expect(said).to_contain_text("runs of 1,000 particles on the exact field", timeout=240_000)
    expect(page.locator("#samplers-plane-errors .plot-container")).to_be_visible()
    again = visit(wait=False, **visited.link()).page  # its link opens it elsewhere, finished
    expect(again.locator("#samplers-plane-marginals .plot-container")).to_be_visible(timeout=60_000)
    again.get_by_label("image model").check()
    expect(again.locator("#samplers-race .cell")).to_have_count(4)
    expect(again.locator("#samplers-plane-said")).to_be_hidden()


def test_distributions_are_compared_and_can_be_stopped(visit):
    page = visit(wait=False, **(SMALL | {"solvers": '["churn"]', "budgets": "[3]"})).page
    expect(page.locator("#samplers-race .cell")).to_have_count(1)
    said = page.locator("#samplers-spread-said")
    page.locator("#samplers-spread-go").click()
    expect(said).to_contain_text("converged solutions: call")
    page.locator("#samplers-spread-stop").click()
    expect(said).to_contain_text("Stopped.")
    page.locator("#samplers-spread-go").click()
    expect(said).to_contain_text("16 pictures", timeout=240_000)
    expect(page.locator("#samplers-spread .plot-container")).to_be_visible()


def test_the_tab_fits_a_phone(visit):
    page = visit(wait=False, screen=(390, 844), **SMALL).page
    expect(page.locator("#samplers-race .cell")).to_have_count(4)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
