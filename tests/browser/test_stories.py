"""One story per tab: do it, see it, share it, reopen it, by the link and by the file, as somebody else."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from tour import NEEDS_A_CLICK, SMALL, finished, open_tab
from visiting import Tab, until

from playground.recipes import recipe_from_query
from playground.sharing.records import from_file

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SAVE = {
    "text-to-image": "#t2i-save",
    "sdedit": "#sdedit-save",
    "prompt-to-prompt": "#p2p-save",
    "samplers": "#samplers-save",
    "flow": "#flow-save",
}

DROP = """content => {
    const bytes = Uint8Array.from(atob(content), c => c.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], 'saved'));
    document.body.dispatchEvent(new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer: data }));
}"""


def saved(page: Page, name: str, kind: str) -> bytes:
    with page.expect_download() as download:
        page.locator(SAVE[name]).get_by_role("button", name=f"Save as {kind}").click()
    return Path(download.value.path()).read_bytes()


def saved_with(page: Page, name: str, **values: Any) -> bytes:
    """The PNG of the finished run on show, once it is one with these values."""
    content = b""

    def made() -> bool:
        nonlocal content
        content = saved(page, name, "PNG")
        recipe = from_file(content)[0]
        return all(getattr(recipe, k) == v for k, v in values.items())

    until(made, f"no run with {values} came")
    return content


def same_pictures(name: str, one: bytes, other: bytes) -> bool:
    if name == "samplers":  # its sheet says how many seconds each cell took
        return from_file(one)[0] == from_file(other)[0]
    return np.array_equal(*(np.array(Image.open(io.BytesIO(content))) for content in (one, other)))


@pytest.mark.parametrize("name", SMALL)
def test_done_seen_shared_and_reopened(visit, name):
    tab: Tab = open_tab(visit, name)
    page, seed = tab.page, 4711
    box = page.locator(f"#{name}-seed input[type=number]")
    box.fill(str(seed))
    box.press("Enter")
    until(lambda: tab.link().get("seed") == str(seed), "the address does not follow")
    if name in NEEDS_A_CLICK:
        page.locator(NEEDS_A_CLICK[name]).click()
    mine = saved_with(page, name, seed=seed)
    finished(page, name)
    recipe = from_file(mine)[0]
    assert recipe_from_query(tab.link()) == (recipe, [])

    by_link = visit(wait=False, **tab.link())
    finished(by_link.page, name)
    expect(by_link.page.locator(f"#{name}-seed input[type=number]")).to_have_value(str(seed))
    assert same_pictures(name, mine, saved_with(by_link.page, name, seed=seed))
    assert by_link.link() == tab.link()

    for kind in ("PNG", "HTML"):
        content = mine if kind == "PNG" else saved(page, name, kind)
        assert from_file(content)[0] == recipe
        by_file = visit(wait=False, tab="flow", particles=100)
        finished(by_file.page, "flow")
        by_file.page.evaluate(DROP, base64.b64encode(content).decode())
        by_file.page.wait_for_url(lambda url: f"seed={seed}" in url)
        finished(by_file.page, name)
        assert same_pictures(name, mine, saved_with(by_file.page, name, seed=seed)), kind
