"""Shipped guides, and guides that are put together."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from playground.errors import RecipeError
from playground.images.examples import EXAMPLES, example, pasted, stroked
from playground.images.guides import content_name


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_the_same_rough_picture_each_time(name):
    made = example(name).picture((128, 128))
    assert made.size == (128, 128) and made.mode == "RGB"
    assert content_name(made) == content_name(example(name).picture((128, 128)))
    # Strokes: half of the picture has a handful of colours.
    counts = sorted((n for n, _ in made.getcolors(128 * 128)), reverse=True)
    assert sum(counts[:8]) > 0.8 * 128 * 128 and len(counts) > 4
    assert example(name).prompt


def test_an_example_has_the_same_layout_at_any_size():
    small = EXAMPLES["beach"].picture((64, 64))
    large = EXAMPLES["beach"].picture((256, 256)).resize((64, 64), Image.Resampling.BOX)
    assert np.abs(np.asarray(small, float) - np.asarray(large, float)).mean() < 2


def test_a_name_that_there_is_not():
    with pytest.raises(RecipeError, match="no example"):
        example("../secret")


def test_a_composite_changes_nothing_outside_its_mask():
    base, patch = Image.new("RGB", (60, 40), "blue"), Image.new("RGB", (10, 10), "red")
    made, mask = pasted(base, patch, (0.5, 0.5), 0.4)
    changed = np.asarray(made) != np.asarray(base)
    marked = np.asarray(mask) > 127
    assert changed.any() and not changed.any(-1)[~marked].any()
    assert made.getpixel((30, 20)) == (255, 0, 0) and marked.sum() > changed.any(-1).sum()


def test_a_stroke_edit_changes_nothing_outside_its_mask():
    base = Image.new("RGB", (60, 60), "blue")
    made, mask = stroked(base, (250, 220, 80), (0.8, 0.2), 0.1)
    changed = (np.asarray(made) != np.asarray(base)).any(-1)
    assert changed.any() and not changed[~(np.asarray(mask) > 127)].any()
    assert base.getpixel((48, 12)) == (0, 0, 255)
