"""The measurement of fidelity over w, as the panel runs it."""

from __future__ import annotations

import gradio as gr
import pytest
import torch

from components.fidelity import FidelityPanel
from playground.backend import Backend, choose_device
from playground.images.fidelity import SEEDS
from playground.images.verifier import Labels, Verifier
from playground.recipes import TextToImage

RECIPE = TextToImage(model="tiny", steps=1)


@pytest.fixture
def panel(folders, tmp_path):
    for part in folders["sd2"].iterdir():
        (tmp_path / part.name).symlink_to(part)
    names = dict.fromkeys(("colours", "relations", "styles"), ("red", "b"))
    torch.manual_seed(0)
    labels = Labels(nouns=("cat", "dog"), backgrounds=("grass", "beach"), counts=(1, 2), **names)
    Verifier(labels, (8, 8, 16, 16), 12).save(tmp_path / "verifier")
    backend = Backend({"tiny": str(tmp_path)}, choose_device("cpu"))
    with gr.Blocks():
        made = FidelityPanel(backend, "test")
    yield made
    backend.close()


def test_it_grows_is_stopped_between_two_runs_and_is_kept_when_whole(panel):
    said = []
    for update in panel._measured(RECIPE, "ann"):
        if panel.said in update:
            said.append(update[panel.said])
            if "2 seeds so far" in said[-1]:
                panel.end("ann")  # no run is going on just now
    assert "2 seeds so far. Looked for: cat, grass." in said[-2]
    assert "3 seeds, and stopped there" in said[-1]
    *_, last = panel._measured(RECIPE, "ann")
    assert f"{SEEDS} seeds. Looked for" in last[panel.said] and last[panel.over].visible
    (again,) = panel._measured(RECIPE.but(w=9.0), "bob")  # whatever w the slider shows
    assert "kept from an equal measurement" in again[panel.said]
