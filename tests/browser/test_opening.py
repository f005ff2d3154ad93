"""A saved picture opens its experiment again."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import expect

from playground.images.guides import content_name
from playground.images.sdedit import SDEdit
from playground.recipes import TextToImage
from playground.sharing.png import CHUNK, to_png
from playground.sharing.records import from_file

pytestmark = pytest.mark.browser

DROP = """content => {
    const bytes = Uint8Array.from(atob(content), c => c.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], 'saved'));
    const options = { bubbles: true, cancelable: true, dataTransfer: data };
    document.body.dispatchEvent(new DragEvent('dragover', options));
    document.body.dispatchEvent(new DragEvent('drop', options));
}"""


def test_a_saved_picture_dropped_on_the_page_opens_its_experiment(visit):
    tab = visit(steps=3, seed=9)
    saved = tab.png()
    other = visit(steps=4, seed=2)
    other.page.evaluate(DROP, base64.b64encode(saved).decode())
    other.page.wait_for_url(lambda url: "seed=9" in url)
    again = other.wait_for_recipe(seed=9, steps=3)
    assert again == tab.recipe()
    pixels = [np.array(Image.open(io.BytesIO(content))) for content in (saved, other.png())]
    assert np.array_equal(*pixels)


@pytest.mark.slow
def test_a_chosen_file_opens_its_tab_and_brings_its_guide(visit, tmp_path):
    guide = Image.fromarray(np.random.default_rng(5).integers(0, 255, (128, 128, 3), np.uint8))
    recipe = SDEdit(prompt="a cat", guide=content_name(guide), t0=0.4, steps=4)
    (tmp_path / "saved.png").write_bytes(to_png(guide, recipe, attached={recipe.guide: guide}))
    tab = visit(steps=3)
    tab.page.locator("#dp-opener input").set_input_files(tmp_path / "saved.png")
    tab.page.wait_for_url(lambda url: "tab=sdedit" in url and recipe.guide in url)
    expect(tab.page.locator("#sdedit-stage .picture img").first).to_have_attribute("src", re.compile("^media/"))


@pytest.mark.slow
def test_a_file_saved_as_html_opens_its_experiment_when_it_is_dropped(visit):
    page = visit(wait=False, tab="flow", target="three", steps=5, particles=300).page
    with page.expect_download() as saved:
        page.locator("#flow-save").get_by_role("button", name="Save as HTML").click()
    assert saved.value.suggested_filename == "flow.html"
    content = saved.value.path().read_bytes()
    other = visit(steps=3)
    other.page.evaluate(DROP, base64.b64encode(content).decode())
    other.page.wait_for_url(lambda url: "tab=flow" in url and "target=three" in url)
    expect(other.page.locator("#flow-status")).to_contain_text("300 particles")
    assert from_file(content)[0].to_query() == other.link()


@pytest.mark.slow
def test_what_was_changed_in_an_opened_file_is_told(visit):
    recipe = TextToImage(steps=3, seed=11)
    record = {"tab": recipe.tab, "v": 1, **recipe.model_dump(mode="json"), "w": 99}
    info, buffer = PngInfo(), io.BytesIO()
    info.add_itxt(CHUNK, json.dumps(record))
    Image.new("RGB", (4, 4)).save(buffer, "PNG", pnginfo=info)
    tab = visit(steps=4)
    tab.page.evaluate(DROP, base64.b64encode(buffer.getvalue()).decode())
    tab.page.wait_for_url(lambda url: "seed=11" in url)
    tab.wait_for_recipe(seed=11, w=15)
    said = tab.page.locator("#dp-opener .said")
    expect(said).to_contain_text("guidance w was out of range and is now 15")
    tab.page.reload()
    tab.wait_for_recipe(seed=11)
    expect(said).to_have_text("")  # it is told once


def test_a_file_without_an_experiment_is_one_sentence_and_the_page_stays(visit):
    tab = visit(steps=3)
    shown = tab.wait_for_result()
    tab.page.evaluate(DROP, base64.b64encode(to_png(Image.new("RGB", (4, 4)))).decode())
    expect(tab.page.locator("#dp-opener .said")).to_contain_text("carries no experiment")
    assert tab.source() == shown and TextToImage().tab == tab.link().get("tab", TextToImage.tab)
