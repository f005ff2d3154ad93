"""The files of a prompt-to-prompt run."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from playground.images.models import load_model, to_uint8
from playground.images.prompt_to_prompt import PromptToPrompt, edit_prompt
from playground.plane.packing import unpack
from playground.sharing.prompts import PromptViews


@pytest.fixture(scope="module")
def run():
    model = load_model()
    result = edit_prompt(PromptToPrompt(steps=3, solver="euler"), model)
    return result, PromptViews(result, lambda make: make(model), shown=7)


def test_the_maps_are_those_of_every_step(run):
    result, views = run
    _, arrays = unpack(views.binary("attention.bin"))
    grids = result.maps(0).before
    assert set(arrays) == {f"{kind} {h}x{w}" for kind in ("before", "after") for h, w in grids}
    for (h, w), expected in result.maps(2).after.items():
        packed = arrays[f"after {h}x{w}"]
        assert packed.shape == (3, 2, h * w, 7)
        np.testing.assert_allclose(packed[2], expected[..., :7].float().numpy(), atol=2e-4)


def test_where_not_even_one_map_fits_the_finest_grid_is_left_out(run):
    result, views = run
    finest = sum(2 * views.tokens * 2 * h * w for h, w in result.grids[:1])  # bytes of one kind, two rows
    content, maps, grids = views.packed(finest)
    assert maps == 1 and grids == result.grids[1:] and len(content) < finest + 2000
    assert set(unpack(content)[1]) == {f"{kind} {h}x{w}" for kind in ("before", "after") for h, w in grids}


def test_a_local_blend_shows_where_it_acts():
    model = load_model()
    result = edit_prompt(PromptToPrompt(steps=3, solver="euler", blend=((0, 1), (1, 1)), threshold=0.9), model)
    views = PromptViews(result, lambda make: make(model), shown=7)
    (name,) = set(unpack(views.binary("attention.bin"))[1]) - {
        f"{k} {h}x{w}" for k in ("before", "after") for h, w in result.grids
    }
    mask = unpack(views.binary("attention.bin"))[1][name]
    assert name == "mask 16x16" and mask.shape == (3, 2, 256, 1)
    assert (mask[:, 0] == 1).all()  # the source is itself
    apart = (result.latents[1] != result.latents[0]).any(0).flatten().numpy()
    assert not apart[mask[-1, 1, :, 0] == 0].any() and apart[mask[-1, 1, :, 0] == 1].all()
    assert 0 < mask[-1, 1].mean() < 1


def test_the_difference_is_white_where_it_is_largest(run):
    result, views = run
    picture = np.asarray(Image.open(io.BytesIO(views.png("difference-1.png"))).convert("L")).astype(float)
    pictures = to_uint8(result.pictures).astype(float)
    apart = np.abs(pictures[1] - pictures[0]).mean(-1)
    assert picture.max() == 255 and np.abs(picture / 255 - apart / apart.max()).max() < 0.01
    own = np.asarray(Image.open(io.BytesIO(views.png("difference-0.png"))).convert("L"))
    assert own.max() == 0


@pytest.mark.parametrize("name", ["difference-2.png", "difference-x.png", "other.bin", "picture-9.png"])
def test_other_names_are_refused(run, name):
    _, views = run
    with pytest.raises(KeyError):
        views.binary(name) if name.endswith(".bin") else views.png(name)
