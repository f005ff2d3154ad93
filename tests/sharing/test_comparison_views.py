"""The files of a comparison of solvers."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from playground.images.comparison import Comparison, compare, measure
from playground.images.models import load_model, to_images, to_uint8
from playground.images.text_to_image import generate
from playground.recipes import TextToImage
from playground.sharing.comparisons import TILE, ComparisonViews

RECIPE = Comparison(solvers=("ddim", "heun", "rk4"), budgets=(2, 5), seed=3)


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.fixture(scope="module")
def views(model):
    result = compare(RECIPE, model)
    return ComparisonViews(result, measure(result, {}), lambda make: make(model))


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_a_picture_carries_the_recipe_that_makes_it_alone(views, model):
    for row, cell in enumerate(views.result.run_cells):
        image = Image.open(io.BytesIO(views.png(f"picture-{row}.png")))
        told = json.loads(image.text["diffusion-playground"])
        assert (told.pop("tab"), told["solver"], told["steps"]) == ("text-to-image", cell.solver, cell.steps)
        told.pop("v")
        again = generate(TextToImage.make(**told), model)
        assert np.abs(pixels(views.png(f"picture-{row}.png")) - np.asarray(again.images[0]).astype(int)).max() <= 2


def test_the_race_shows_what_was_believed_and_who_has_arrived(views, model):
    result = views.result
    ends = to_uint8(result.pictures)
    longest = max(len(s.t) for s in result.seen)
    for k in (1, 2, longest):
        sheet = pixels(views.png(f"race-{k}.png"))
        assert sheet.shape == (TILE, TILE * len(result.seen), 3)
        for row, seen in enumerate(result.seen):
            tile = sheet[:, row * TILE : (row + 1) * TILE]
            if k >= len(seen.t):
                assert np.array_equal(tile, ends[row])
            else:
                believed = to_images(model.autoencoder.decode(seen.x0[k - 1][None].float()))[0]
                assert np.abs(tile - np.asarray(believed).astype(int)).max() <= 1
    assert np.array_equal(
        pixels(views.png("race-1.png"))[:, :TILE], pixels(views.png("race-1.png"))[:, TILE : 2 * TILE]
    )


def test_the_labelled_table_is_large_enough_and_carries_the_comparison(views):
    image = Image.open(io.BytesIO(views.png("table.png")))
    told = json.loads(image.text["diffusion-playground"])
    assert told["tab"] == "samplers" and told["solvers"] == list(RECIPE.solvers) and told["budgets"] == [2, 5]
    assert image.width > 190 + 2 * TILE and image.height > 3 * TILE


def test_a_film_has_a_column_per_evaluation(views):
    row = next(k for k, c in enumerate(views.result.run_cells) if c.solver == "heun")
    assert len(views.result.seen[row].t) == views.result.run_cells[row].evaluations
    assert pixels(views.png(f"film-{row}-0.png")).shape == (256, 128, 3)


@pytest.mark.parametrize("name", ["race-0.png", "race-99.png", "film-0-99.png", "picture-9.png", "table.gif", "x"])
def test_other_names_are_refused(views, name):
    with pytest.raises(KeyError):
        views.png(name)
