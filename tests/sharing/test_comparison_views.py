"""The files of a comparison of solvers."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFont

from playground.images.comparison import Comparison, compare, measure
from playground.images.models import load_model, to_images, to_uint8
from playground.images.text_to_image import generate
from playground.recipes import TextToImage
from playground.sharing.comparisons import TILE, ComparisonViews, single, wrapped
from playground.sharing.records import from_png

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
    image = Image.open(io.BytesIO(views.png("table-0.png")))
    told = json.loads(image.text["diffusion-playground"])
    assert told["tab"] == "samplers" and told["solvers"] == list(RECIPE.solvers) and told["budgets"] == [2, 5]
    assert image.width > 190 + 2 * TILE and image.height > 3 * TILE


def test_the_picture_of_an_sde_carries_what_makes_it_again(model):
    """Its noise comes from the Brownian path, which text to image does not know: a comparison of the cell does."""
    recipe = Comparison(solvers=("ddim", "ancestral"), budgets=(3, 5), seed=4, pictures=2)
    result = compare(recipe, model)
    made = ComparisonViews(result, measure(result, {}), lambda make: make(model))
    row = next(k for k, c in enumerate(result.run_cells) if (c.solver, c.steps) == ("ancestral", 5))
    data = made.png(f"picture-{row}.png")
    told, _, _ = from_png(data)
    assert isinstance(told, Comparison) and told == single(result, row)
    again = compare(told, model)
    assert np.abs(pixels(data) - to_uint8(again.pictures)[0].astype(int)).max() <= 2
    assert json.loads(Image.open(io.BytesIO(made.png("picture-0.png"))).text["diffusion-playground"])["tab"] == (
        "text-to-image"
    )


def test_new_measurements_have_a_new_name(model):
    result = compare(RECIPE, model)
    made = ComparisonViews(result, measure(result, {}), lambda make: make(model))
    before = made.png("table-0.png")
    made.remeasured(made.table)
    assert made.version == 0
    made.remeasured([replace(m, alone=1.5) for m in made.table])
    assert made.version == 1 and made.png("table-1.png") != before


def test_a_long_text_is_wrapped_and_nothing_of_it_is_lost():
    font = ImageFont.load_default(12)
    text = "a cat on the grass; " * 9 + "x" * 300
    lines = wrapped(text, font, 200)
    assert all(font.getlength(line) <= 200 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert wrapped("short", font, 200) == ["short"] and wrapped("", font, 200) == [""]


def test_all_settings_are_on_the_labelled_table(model):
    few = Comparison(solvers=("ddim",), budgets=(2,), prompt="a cat on the grass")
    many = few.but(prompt="a cat on the grass " * 12, negative="a dog", grid="karras", high=0.9, low=0.1)
    sizes = []
    for recipe in (few, many):
        result = compare(recipe, model)
        made = ComparisonViews(result, measure(result, {}), lambda make: make(model))
        sizes.append(Image.open(io.BytesIO(made.png("table-0.png"))).size)
    # As wide, and higher by the lines that the prompt and the settings need.
    width = sizes[0][0] - 24
    prompt = len(wrapped(many.prompt, ImageFont.load_default(15), width)) - 1
    assert prompt >= 4
    assert sizes[1][0] == sizes[0][0] and sizes[1][1] >= sizes[0][1] + 18 * prompt + 15


def test_a_film_has_a_column_per_evaluation(views):
    row = next(k for k, c in enumerate(views.result.run_cells) if c.solver == "heun")
    assert len(views.result.seen[row].t) == views.result.run_cells[row].evaluations
    assert pixels(views.png(f"film-{row}-0.png")).shape == (256, 128, 3)
    assert from_png(views.png(f"film-{row}-0.png"))[0] == from_png(views.png(f"picture-{row}.png"))[0]


@pytest.mark.parametrize("name", ["race-0.png", "race-99.png", "film-0-99.png", "picture-9.png", "table.gif", "x"])
def test_other_names_are_refused(views, name):
    with pytest.raises(KeyError):
        views.png(name)
