"""Fidelity and diversity over w, on the tab Text to image."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from playwright.sync_api import expect
from serving import Server
from visiting import until, wait_up_to

from playground.images.fidelity import SCALES
from playground.images.models import ASSETS, BUNDLED
from playground.images.verifier import Labels, Verifier

pytestmark = pytest.mark.browser


def beside(folder: Path) -> Path:
    """A model folder of that name with all parts of the bundled model but its verifier."""
    folder.mkdir()
    for part in (ASSETS / BUNDLED).iterdir():
        if part.name != "verifier":
            (folder / part.name).symlink_to(part)
    return folder


@pytest.mark.slow
def test_without_a_verifier_the_pages_say_why_not(visit, tmp_path):
    other = Server(tmp_path / "log.txt", "--model", str(beside(tmp_path / "blind")))
    try:
        page = visit(at=other.url, steps=2, model="blind").page
        expect(page.locator("#text-to-image-unmeasured")).to_contain_text("need a scene verifier beside the model")
        expect(page.locator("#text-to-image-fidelity")).to_be_hidden()
        page.close()
        page = visit(at=other.url, wait=False, tab="samplers", model="blind").page
        expect(page.locator("#samplers-quality-said")).to_contain_text("needs the scene verifier")
        expect(page.locator("#samplers-quality-go")).to_be_hidden()
        page.close()
        page = visit(at=other.url, wait=False, tab="sdedit", model="blind").page
        expect(page.locator("#sdedit-measured")).to_contain_text("realism are not measured")
        page.close()
    finally:
        other.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_curve_grows_seed_by_seed_can_be_stopped_and_is_kept(visit, tmp_path):
    folder = beside(tmp_path / "seeing")
    torch.manual_seed(0)
    names = dict.fromkeys(("colours", "relations", "styles"), ("red", "b"))
    labels = Labels(nouns=("cat", "dog"), backgrounds=("grass", "beach"), counts=(1, 2), **names)
    Verifier(labels, (8, 8, 16, 16), 12).save(folder / "verifier")
    other = Server(tmp_path / "log.txt", "--model", str(folder))
    try:
        # Twenty steps for each picture, so that the measurement cannot be over before "Stop" is pressed.
        page = visit(at=other.url, steps=20, model="seeing").page
        measured = page.locator("#text-to-image-measured .prose")
        button = page.locator("#text-to-image-measure")
        wait_up_to(300)
        button.click()
        expect(measured).to_contain_text("2 seeds so far. Looked for: cat, grass.")
        page.locator("#text-to-image-measure-stop").click()
        expect(button).to_be_enabled()
        expect(measured).to_contain_text("stopped there")
        page.close()
        page = visit(at=other.url, steps=1, model="seeing").page
        measured = page.locator("#text-to-image-measured .prose")
        button = page.locator("#text-to-image-measure")
        button.click()
        until(lambda: page.wait_for_timeout(200) or "16 seeds. Looked" in measured.inner_text(), "no curve came")
        chart = page.locator("#text-to-image-fidelity-over-w .js-plotly-plot")
        drawn = "e => e.data.map(d => [d.x, d.y].map(v => Array.from(v._inputArray ?? v)))"
        (scales, fidelity), (_, diversity) = chart.evaluate(drawn)
        assert scales == list(SCALES) and all(0 <= f <= 1 for f in fidelity)
        assert diversity[SCALES.index(1.0)] == pytest.approx(1) and diversity[0] > 0
        expect(page.locator("#text-to-image-fidelity-against .js-plotly-plot")).to_be_visible()
        expect(button).to_be_enabled()
        button.click()
        expect(measured).to_contain_text("kept from an equal measurement")
        page.close()
    finally:
        other.close()
