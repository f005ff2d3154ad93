"""The page for those who do not use a mouse, or do not see it: the keyboard alone, and axe-core on every tab."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page
from tour import SMALL, open_tab
from visiting import until

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def axe() -> str:
    """axe-core's script."""
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text("utf-8")


# The drawn half of a formula is thousands of nodes, hidden from readers, who get its MathML.
LOOK = "axe.run({ exclude: ['.katex-html'] }, { resultTypes: ['violations', 'passes'] })"


@pytest.mark.parametrize("name", SMALL)
def test_axe_finds_nothing_that_matters(visit, axe, name):
    page = open_tab(visit, name).page
    page.evaluate(axe)
    for dark, wide in ((False, True), (True, True), (True, False)):
        page.set_viewport_size({"width": 1280, "height": 900} if wide else {"width": 390, "height": 844})
        page.evaluate("dark => document.body.classList.toggle('dark', dark)", dark)  # as ?__theme=dark does
        page.wait_for_timeout(500)  # until folds have opened and colours have changed: axe sees what is there
        rules = page.evaluate(LOOK)
        assert len(rules["passes"]) > 20, "axe has looked at nothing"
        found = [
            f"{rule['impact']} {rule['id']} {node['target'][0]}: {node['failureSummary']}"
            for rule in rules["violations"]
            if rule["impact"] in ("moderate", "serious", "critical")
            for node in rule["nodes"]
        ]
        assert found == [], ("dark" if dark else "light", "desk" if wide else "phone")


def test_axe_would_find_it(visit, axe):
    """The test above can fail: a picture without words and a grey on grey are found."""
    page = open_tab(visit, "text-to-image").page
    page.evaluate(
        """() => {
            const bad = document.createElement("div");
            bad.innerHTML = '<img src="data:,"><p style="color:#888;background:#999">grey</p>';
            document.querySelector(".dp-card").append(bad);
        }"""
    )
    page.evaluate(axe)
    found = {rule["id"] for rule in page.evaluate(LOOK)["violations"]}
    assert {"image-alt", "color-contrast"} <= found


# What Tab should stop at: everything on show that can be used. A group of radio buttons is one stop.
STOPS = """() => {
    const all = [...document.querySelectorAll(
        "a[href], button, input, select, textarea, summary, [tabindex]:not([tabindex='-1'])")];
    const groups = new Set();
    const stops = all.filter(node => {
        if (node.disabled || node.tabIndex < 0 || node.closest("[inert], footer")) return false;
        if (!node.checkVisibility({ visibilityProperty: true })) return false;
        const box = node.getBoundingClientRect();
        if (box.width === 0 || box.height === 0) return false;
        if (node.type === "radio") {
            if (groups.has(node.name)) return false;
            groups.add(node.name);
        }
        return true;
    });
    const names = stops.map(node => node.outerHTML.slice(0, 160));
    stops.forEach((node, i) => { node.dataset.stop = i; });
    return names;
}"""

HERE = """() => {
    const node = document.activeElement;
    const group = node.type === "radio"
        ? document.querySelector(`input[name="${node.name}"][data-stop]`) ?? node : node;
    // What shows the focus may be drawn around the control, as for a file's label or a before-and-after slider.
    let shown = false;
    for (let at = node, up = 0; at && up < 4; at = at.parentElement, up += 1) {
        const style = getComputedStyle(at);
        const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
        shown ||= ring && (at === node || at.matches(":focus-within"));
    }
    return { stop: group.dataset.stop ?? null, shown, what: node.outerHTML.slice(0, 160) };
}"""


NAMED = """() => [...document.querySelectorAll("input[type=range]")].filter(s => s.checkVisibility() && !s.disabled)
    .map((slider, i) => {
        slider.dataset.slider = i;
        const label = slider.getAttribute("aria-label") || slider.labels?.[0]?.textContent || slider.title;
        const runs = slider.closest(".dp-controls") !== null;
        return [label?.trim() ?? "", +slider.min, +slider.max, +slider.value, runs, i];
    })"""


@pytest.mark.parametrize("name", SMALL)
def test_the_keyboard_is_enough(visit, name):
    page = open_tab(visit, name).page
    reaches_everything_in_order_and_shows_where_it_is(page)
    every_slider_has_a_name_and_follows_the_arrows(page)


def reaches_everything_in_order_and_shows_where_it_is(page: Page) -> None:
    stops = page.evaluate(STOPS)
    assert len(stops) > 30
    # From the top, wherever something was clicked before: Tab goes on from the place that had the focus last.
    page.evaluate(
        "() => { document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex'); "
        "scrollTo(0, 0); }"
    )
    visited: list[int] = []
    unseen = []
    for _ in range(len(stops) + 40):
        page.keyboard.press("Tab")
        here = page.evaluate(HERE)
        if here["stop"] is None:
            if here["what"].startswith("<body"):
                break
            # What has come in the place of another meanwhile, a new run's file for one, counts as that.
            same = [k for k, what in enumerate(stops) if what == here["what"] and k not in visited]
            visited += same[:1]
            continue
        if int(here["stop"]) in visited:
            if int(here["stop"]) == visited[0]:
                break
            continue
        visited.append(int(here["stop"]))
        if not here["shown"]:
            unseen.append(here["what"])
    assert unseen == [], "the focus does not show"
    assert [stops[k] for k in range(len(stops)) if k not in visited] == [], "Tab does not reach them"
    # The order is that of the page.
    assert visited == sorted(visited)


def every_slider_has_a_name_and_follows_the_arrows(page: Page) -> None:
    sliders = page.evaluate(NAMED)
    assert sliders and all(label for label, *_ in sliders), sliders
    # Those that start a run come last: its end renews the others.
    for label, low, high, _, _, i in sorted(sliders, key=lambda slider: slider[-2]):
        if low == high:
            continue  # a filmstrip of one column
        slider = page.locator(f"[data-slider='{i}']")
        if not slider.count():
            continue  # a run that has ended meanwhile has replaced it
        slider.focus()
        value = float(slider.input_value())
        page.keyboard.press("ArrowLeft" if value >= high else "ArrowRight")
        until(lambda slider=slider, value=value: float(slider.input_value()) != value, f"{label} stays at {value}")
        now = float(slider.input_value())
        assert (now < value) if value >= high else (now > value), f"{label} goes the other way"


def test_the_tabs_are_changed_with_the_arrows(visit):
    page = open_tab(visit, "text-to-image").page
    page.get_by_role("tab", name="Text to image").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "tab=sdedit" in url)
