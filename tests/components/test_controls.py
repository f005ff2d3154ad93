"""The controls say and allow what the recipe does."""

from __future__ import annotations

import gradio as gr
import pytest
from pydantic_core import PydanticUndefined

from components.controls import control, link_script
from playground.errors import RecipeError
from playground.recipes import TextToImage, bounds, title

FIELDS = TextToImage.model_fields
NUMBERS = [n for n, info in FIELDS.items() if info.annotation in (int, float)]
SHOWN = [n for n in FIELDS if n not in ("sweep", "across", "values")]


@pytest.mark.parametrize("name", SHOWN)
def test_a_control_says_what_the_field_says(name):
    made, info = control(TextToImage, name), FIELDS[name]
    assert made.label == title(TextToImage, name) and made.info == info.description
    assert made.value == info.default
    assert made.elem_id == f"text-to-image-{name}"


@pytest.mark.parametrize("name", SHOWN)
def test_every_control_has_a_line_of_help_and_a_default(name):
    assert len(FIELDS[name].description or "") > 10
    assert FIELDS[name].default is not PydanticUndefined


@pytest.mark.parametrize("name", NUMBERS)
def test_the_range_is_the_recipes(name):
    made = control(TextToImage, name)
    low, high = bounds(FIELDS[name])
    if isinstance(made, gr.Slider):  # a number box leaves it to the recipe to say what is wrong
        assert (made.minimum, made.maximum) == (low, high)
    for edge in (low, high):
        TextToImage(**{name: edge})
    for beyond in (low - 1, high + 1):
        with pytest.raises(RecipeError):
            TextToImage.make(**{name: beyond})


@pytest.mark.parametrize("name", NUMBERS)
def test_the_step_reaches_both_ends_and_the_default(name):
    made = control(TextToImage, name)
    if isinstance(made, gr.Slider):
        for value in (made.maximum, FIELDS[name].default):
            steps = (value - made.minimum) / made.step
            assert abs(steps - round(steps)) < 1e-6


@pytest.mark.parametrize("name", [n for n in NUMBERS if FIELDS[n].annotation is int])
def test_whole_numbers_stay_whole(name):
    made = control(TextToImage, name)
    assert made.step == 1 if isinstance(made, gr.Slider) else made.precision == 0


def test_options_go_over_what_the_field_says():
    made = control(TextToImage, "model", choices=["a", "b"], value="b")
    assert isinstance(made, gr.Dropdown) and made.value == "b"
    assert [value for _, value in made.choices] == ["a", "b"]


def test_the_link_knows_every_default():
    script = link_script(TextToImage, SHOWN)
    assert all(f'"{name}"' in script for name in SHOWN)
    assert '"text-to-image"' in script
