"""Every tab of the page, opened by a link whose run is a small one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect
from visiting import Tab, until

from components.page import TABS

SMALL: dict[str, dict[str, Any]] = {
    "text-to-image": {"steps": 2},
    "sdedit": {"steps": 3},
    "prompt-to-prompt": {"steps": 3, "solver": "euler"},
    "samplers": {"solvers": '["ddim"]', "budgets": "[2]", "w": 1.0},  # unguided, its reference is there soon
    "flow": {"particles": 200},
}
assert set(SMALL) == {recipe.tab for recipe, _ in TABS}, "a tab of the page is not on the tour"

STATUS = {
    "text-to-image": "#t2i-status",
    "sdedit": "#sdedit-status",
    "prompt-to-prompt": "#p2p-status",
    "samplers": "#samplers-status",
    "flow": "#flow-status",
}


NEEDS_A_CLICK = {"samplers": "#samplers-go"}
"""What takes long waits for a click, unless an equal run is kept."""


def finished(page: Page, name: str) -> None:
    """Until the run that the link names is on show, to the last of what belongs to it."""
    if name == "samplers":
        expect(page.locator("#samplers-summary")).to_contain_text("Reference of the ODE", timeout=240_000)
        expect(page.locator("#samplers-errors .plot-container")).to_be_visible()
    elif name == "flow":
        until(lambda: page.evaluate("window.__dp?.['flow-plane']?.flows ?? 0") > 0)
    expect(page.locator(STATUS[name])).to_contain_text("sample-forwards" if name == "samplers" else "NFE")


SETTLED = """() => new Promise(resolve => {
    const quiet = () => { watch.disconnect(); resolve(); };
    let timer = setTimeout(quiet, 1000);
    const watch = new MutationObserver(() => { clearTimeout(timer); timer = setTimeout(quiet, 1000); });
    watch.observe(document.body, { subtree: true, childList: true });
})"""
"""Until nothing has come to the page, or gone, for a second: a late view takes the focus with what it replaces."""


def open_tab(visit: Callable[..., Tab], name: str, **query: Any) -> Tab:
    """The tab with its small run finished, every fold of it open, and nothing more to come."""
    tab = visit(wait=False, tab=name, **SMALL[name], **query)
    if name in NEEDS_A_CLICK:
        expect(tab.page.locator(STATUS[name])).not_to_have_text("")
        tab.page.locator(NEEDS_A_CLICK[name]).click()
    finished(tab.page, name)
    tab.page.evaluate(
        """() => document.querySelectorAll("button.label-wrap:not(.open), details:not([open]) > summary")
            .forEach(fold => { if (fold.checkVisibility()) fold.click(); })"""
    )
    tab.page.evaluate(SETTLED)
    return tab
