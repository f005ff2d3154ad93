"""In the browser: script in everything that a visitor can write, tabs that are closed, lines that are slow."""

from __future__ import annotations

import base64
import io
import json
import time

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import expect
from serving import is_a_sentence
from visiting import until

from playground.sharing.png import CHUNK

pytestmark = pytest.mark.browser

NASTY = '"><img src=x onerror="window.hacked=1;alert(1)"><script>window.hacked=1</script><svg onload=alert(1)>'
LINKS = {
    "text-to-image": {"prompt": NASTY, "negative": NASTY, "steps": 1},
    "sdedit": {"prompt": NASTY, "guide": NASTY[:12], "steps": 2},
    "prompt-to-prompt": {"prompt": NASTY, "edits": json.dumps([f"a dog {NASTY}"]), "steps": 2},
    "samplers": {"prompt": NASTY, "solvers": json.dumps([NASTY]), "budgets": "[1]"},
    "flow": {"target": "word", "word": "<b>", "points": NASTY, "mixture": NASTY},
}
ERRORS = {
    "text-to-image": "#t2i-link-notes",
    "sdedit": "#sdedit-link-notes",
    "prompt-to-prompt": "#p2p-link-notes",
    "samplers": "#samplers-link-notes",
    "flow": "#flow-link-notes",
}


def nothing_ran(page, dialogs) -> None:
    assert dialogs == [] and page.evaluate("window.hacked") is None
    assert page.locator("img[src=x], svg[onload], [onerror]").count() == 0


@pytest.mark.parametrize(
    "name", [name if name == "flow" else pytest.param(name, marks=pytest.mark.slow) for name in LINKS]
)
def test_script_in_a_link_is_text(visit, name):
    tab = visit(wait=False, tab=name, colour=NASTY, model=NASTY, v=NASTY, **{NASTY: NASTY}, **LINKS[name])
    dialogs: list[str] = []
    tab.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    notes = tab.page.locator(ERRORS[name])
    expect(notes).to_contain_text("is not a setting of this tab")
    expect(notes).to_contain_text("version")
    if name != "flow":
        expect(tab.page.locator(f"#{name}-prompt textarea")).to_have_value(NASTY)
    tab.page.wait_for_timeout(1500)  # what would run, runs late: when a picture could not be loaded
    nothing_ran(tab.page, dialogs)


@pytest.mark.slow
def test_script_in_a_tabs_name_is_text(visit):
    tab = visit(tab=NASTY, steps=1)
    nothing_ran(tab.page, [])


@pytest.mark.slow
def test_script_in_a_file_is_text(visit):
    """A picture whose record was written by somebody else."""
    record = {"tab": "text-to-image", "v": NASTY, "prompt": NASTY, "steps": 1, "model": NASTY, NASTY: NASTY}
    info = PngInfo()
    info.add_itxt(CHUNK, json.dumps(record))
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, "PNG", pnginfo=info)
    tab = visit(steps=2)
    dialogs: list[str] = []
    tab.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    file = {"name": f"{NASTY[:30]}.png", "mimeType": "image/png", "buffer": content.getvalue()}
    tab.page.locator("#dp-opener input").set_input_files(file)
    expect(tab.prompt).to_have_value(NASTY)
    tab.page.wait_for_timeout(1500)
    nothing_ran(tab.page, dialogs)


def test_a_file_that_is_none_is_one_sentence(visit):
    tab = visit(steps=2)
    shown, said = tab.source(), tab.page.locator("#dp-opener .said")
    for content in (b"", b"\x89PNG\r\n\x1a\n", base64.b64encode(b"x" * 1000)):
        said.evaluate("node => { node.textContent = ''; }")
        file = {"name": "saved.png", "mimeType": "image/png", "buffer": content}
        tab.page.locator("#dp-opener input").set_input_files(file)
        expect(said).to_contain_text(".")
        assert is_a_sentence(said.inner_text()) and tab.source() == shown


def test_a_fault_is_one_sentence_on_the_page_and_the_next_move_is_answered(visit, faults):
    tab = visit(steps=2)
    for fault, said in (("nan", "overflowed"), ("oom", "memory"), ("error", "Something inside went wrong")):
        faults(fault)
        tab.page.locator("#text-to-image-dice").click()
        expect(tab.error).to_contain_text(said)
        faults.end()
        tab.page.locator("#text-to-image-dice").click()
        seed = int(tab.number("seed").input_value())
        until(lambda seed=seed: int(tab.number("seed").input_value()) != seed or tab.recipe()["seed"] == seed)
        expect(tab.error).to_be_hidden()


def test_a_closed_tab_frees_the_device_within_a_step(visit, faults):
    tab = visit(steps=2)
    faults("slow")
    tab.set("steps", 100)
    expect(tab.status).to_contain_text("of 100")
    tab.page.context.close()
    after = stands_still(faults)
    assert after < 60, "the run of nobody went on"


def stands_still(faults, seconds: float = 2.0) -> int:
    """Wait until the denoiser is not called any more; how many calls were made meanwhile."""
    first = last = faults.calls
    since, began = time.monotonic(), time.monotonic()
    while time.monotonic() - since < seconds and time.monotonic() - began < 60:
        if faults.calls != last:
            last, since = faults.calls, time.monotonic()
        time.sleep(0.05)
    return last - first


@pytest.mark.slow
def test_a_visitor_on_a_slow_line_holds_up_nobody(visit, faults):
    slow, quick = visit(steps=2), visit(steps=2, prompt="a castle at sunset")
    line = slow.page.context.new_cdp_session(slow.page)
    line.send("Network.enable")
    speed = {"downloadThroughput": 2000, "uploadThroughput": 2000, "latency": 400, "offline": False}
    line.send("Network.emulateNetworkConditions", speed)
    slow.set("steps", 40)
    quick.set("w", 6)
    quick.wait_for_recipe(w=6.0, prompt="a castle at sunset")
    line.send(
        "Network.emulateNetworkConditions", speed | {"downloadThroughput": -1, "uploadThroughput": -1, "latency": 0}
    )
    assert slow.wait_for_recipe(steps=40)["prompt"] == "a cat on the grass"
