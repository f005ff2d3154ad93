"""What the tab Prompt-to-prompt says of words, and what becomes of their sliders while prompts are typed."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from components.controls import listed
from components.tabs.prompt_to_prompt import (
    GRID,
    NAMES,
    PLAIN,
    PRESETS,
    alignment_chips,
    attention_value,
    carried,
    fitting,
    grid_tiles,
    known_presets,
    recipe_of,
    row_titles,
    shown_value,
    words_in,
)
from playground.images import attention
from playground.images.alignment import align
from playground.images.models import load_model
from playground.images.prompt_to_prompt import PromptToPrompt, edit_prompt, edits_of


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        (None, []),
        ("a cat\n\n  a dog ", ["a cat", "a dog"]),
        ("[[1, 2, 3.5]]", [[1, 2, 3.5]]),
        ('["a", "b"]', ["a", "b"]),
        ("[not json", ["[not json"]),
        ("3", ["3"]),
        ("[" * 100_000, ["[" * 100_000]),
    ],
)
def test_a_list_is_json_or_one_text_per_line(text, wanted):
    assert listed(text) == wanted


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_recipe_whose_controls_give_it_back(name, model):
    recipe = PromptToPrompt(**(PLAIN | PRESETS[name]))
    values = tuple(shown_value(n, getattr(recipe, n)) for n in NAMES)
    assert recipe_of(values) == recipe
    edits_of(recipe, model.text)  # all words are there
    weighted = {recipe.edits[p - 1].split()[w] for p, w, _ in recipe.weights}
    assert weighted <= {"red", "snowy", "starry", "rainy"}


def test_presets_with_words_that_the_model_does_not_know_are_left_out(model):
    known = known_presets(SimpleNamespace(models={"emoji": ""}, model={"emoji": model}.get))
    unread = [n for n, p in PRESETS.items() if any(model.text.notes(t) for t in (p["prompt"], *p["edits"]))]
    assert {*known, *unread} == {*PRESETS} and not {*known} & {*unread}
    assert {"Refine by place", "Swap a word: the cat becomes a dog", "More and less red"} <= {*known}


def test_entries_follow_their_words():
    before = [["a", "cat"], ["a", "red", "cat"]]
    after = [["the", "big", "cat"], ["a", "cat"]]
    entries = [[0, 1, 2.0], [1, 1, 3.0], [1, 2, 4.0], [2, 0, 5.0]]
    assert carried(entries, before, after) == [[0, 2, 2.0], [1, 1, 4.0]]
    # The nearest of equal words.
    assert carried([[0, 3]], [["a", "b", "a", "b"]], [["b", "a", "b", "b"]]) in ([[0, 2]], [[0, 3]])
    assert carried([[0, 9, 1.0], [7, 0, 1.0]], before, after) == []


def test_what_is_said_of_words_follows_its_line():
    source, dog, bird, fish = (["a", w, "on", "the", "grass"] for w in ("cat", "dog", "bird", "fish"))
    entries = [[0, 1, 2.0], [1, 4, 5.0], [2, 1, 3.0]]
    # A line is taken away, added before, between and behind.
    assert carried(entries, [source, dog, bird], [source, bird]) == [[0, 1, 2.0], [1, 1, 3.0]]
    assert carried(entries, [source, dog, bird], [source]) == [[0, 1, 2.0]]
    moved = [[0, 1, 2.0], [2, 4, 5.0], [3, 1, 3.0]]
    assert carried(entries, [source, dog, bird], [source, fish, dog, bird]) == moved
    assert carried(entries, [source, dog, bird], [source, dog, fish, bird])[1:] == [[1, 4, 5.0], [3, 1, 3.0]]
    assert carried(entries, [source, dog, bird], [source, dog, bird, fish]) == entries
    # Typed over, a line is still the same line.
    assert carried(entries, [source, dog, bird], [source, fish, bird]) == entries


def test_maps_that_are_not_kept_are_told(model, monkeypatch):
    recipe = PromptToPrompt(prompt="a cat", edits=("a dog",), steps=2)
    whole = attention_value(edit_prompt(recipe, model), model, "token")
    assert whole["grids"] == ["16x16", "8x8"] and "not kept" not in whole["note"]
    monkeypatch.setattr(attention, "MOST_BYTES", 4 * 2 * 2 * model.text.encoders[0].length * 100)
    less = attention_value(edit_prompt(recipe, model), model, "token")
    assert less["grids"] == ["8x8"] and "Maps of 16 × 16 places are not kept" in less["note"]


def test_a_preset_resets_whatever_it_does_not_say():
    fields = set(PLAIN) | {"model", "prompt", "edits"}
    assert fields == set(NAMES)
    default = PromptToPrompt()
    assert all(getattr(default, name) == value for name, value in PLAIN.items())


def test_what_is_said_of_words_that_are_not_there_is_left_out(model):
    recipe = PromptToPrompt(prompt="a cat", edits=("a dog",), weights=((1, 1, 3.0), (1, 4, 2.0), (3, 0, 2.0)))
    assert fitting(recipe, words_in(["a cat", "a dog"], model)).weights == ((1, 1, 3.0),)


def test_rows_have_names():
    recipe = PromptToPrompt(edits=("a dog", "a bird"), weights=((0, 1, 3.0),))
    assert row_titles(recipe) == ["source", "edit 1", "edit 2", "source, weighted"]
    assert len(recipe.prompts()) == 4


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("a cat on the grass", "a dog on the grass", {"dog": "← “cat”", "grass": "="}),
        ("a cat", "a red cat", {"red": "new", "cat": "="}),
        ("a cat", "a red cat", {"<i>red</i>": "new"}),
    ],
)
def test_the_alignment_is_told_and_escaped(model, source, target, said):
    reader = model.text.encoders[0]
    # As a tokenizer could have it.
    written = [replace(t, text=w) if (w := f"<i>{t.text}</i>") in said else t for t in reader.tokens(target)]
    chips = alignment_chips(align(source, target, model.text), reader.tokens(source), written)
    assert not re.search(r"<(?!/?(?:p|div|span|b)\b)", chips)
    found = dict(re.findall(r"<b>([^<]*)</b> ([^<]*)</span>", chips))
    read = {html.unescape(k): html.unescape(v) for k, v in found.items()}
    for word, what in said.items():
        assert read[word] == what


def test_a_word_that_went_is_told(model):
    reader = model.text.encoders[0]
    alignment = align("a red cat", "a cat", model.text)
    assert "No longer read: red." in alignment_chips(alignment, reader.tokens("a red cat"), reader.tokens("a cat"))


def test_the_grids_tiles_are_the_runs_pictures():
    recipe = PromptToPrompt(crosses=GRID, selves=GRID)
    tiles = grid_tiles(recipe, "token")["tiles"]
    for k, single in enumerate(recipe.singles()[1:]):
        assert tiles[k]["value"] == {"cross": single.cross, "self_fraction": single.self_fraction}
        assert tiles[k]["url"].endswith(f"picture-{k + 1}.png")
