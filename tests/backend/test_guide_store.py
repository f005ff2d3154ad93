"""Pictures that visitors bring, and runs that start from them."""

from __future__ import annotations

import pytest
from PIL import Image

from playground.backend import Failed, Preview, Result
from playground.backend.guides import Guides
from playground.backend.runners import guide_of
from playground.errors import RecipeError
from playground.images.examples import EXAMPLES
from playground.images.guides import content_name
from playground.images.sdedit import SDEdit

RECIPE = SDEdit(model="tiny", prompt="a red cat", steps=4, t0=0.5, solver="ddim")


def plain(colour, size=(8, 8)) -> Image.Image:
    return Image.new("RGB", size, colour)


# The store


def test_equal_pictures_are_kept_once_and_by_their_content():
    guides = Guides()
    name = guides.put(plain("red"), "ann")
    assert name == guides.put(plain("red"), "bob") == content_name(plain("red"))
    assert guides.held == (1, 8 * 8 * 3)
    assert guides.get(name).tobytes() == plain("red").tobytes()
    assert guides.get("nothing") is None


def test_a_picture_that_is_painted_on_later_is_not_changed_in_the_store():
    guides, picture = Guides(), plain("red")
    name = guides.put(picture)
    picture.paste("blue", (0, 0, 8, 8))
    assert content_name(guides.get(name)) == name


def test_number_and_bytes_are_bounded_and_the_newest_stay():
    few = Guides(most=3)
    names = [few.put(plain((i, 0, 0))) for i in range(5)]
    assert [n for n in names if few.get(n)] == names[2:]
    small = Guides(limit=2 * 8 * 8 * 3)
    names = [small.put(plain((i, 0, 0))) for i in range(5)]
    assert small.held == (2, 2 * 8 * 8 * 3) and [n for n in names if small.get(n)] == names[3:]


def test_a_busy_painter_pushes_out_only_their_own():
    guides = Guides(per_visitor=2)
    anns = guides.put(plain("red"), "ann")
    bobs = [guides.put(plain((0, 0, i)), "bob") for i in range(9)]
    assert guides.get(anns) is not None
    assert [n for n in bobs if guides.get(n)] == bobs[-2:]


def test_bytes_are_taken_from_whoever_holds_most():
    guides = Guides(limit=10 * 8 * 8 * 3)
    anns = guides.put(plain("red"), "ann")
    bobs = [guides.put(plain((0, 0, i)), "bob") for i in range(20)]
    assert guides.get(anns) is not None
    assert [n for n in bobs if guides.get(n)] == bobs[-9:]


# Which picture a recipe means


def test_an_example_is_drawn_at_the_models_size_and_a_name_is_looked_up():
    guides = Guides()
    drawn, mask = guide_of(RECIPE.but(guide="castle"), guides, (64, 32))
    assert drawn.tobytes() == EXAMPLES["castle"].picture((64, 32)).tobytes() and mask is None
    own, marked = guides.put(plain("red")), guides.put(Image.new("L", (8, 8), 255))
    guide, mask = guide_of(RECIPE.but(guide=own, mask=marked), guides, (64, 32))
    assert guide.size == (8, 8) and mask.mode == "L"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"guide": ""}, "There is no guide yet"),
        ({"guide": "0123"}, "This guide is not on this installation"),
        ({"guide": "beach", "mask": "0123"}, "This mask is not on this installation"),
    ],
)
def test_what_is_not_there_is_said(changes, sentence, backend):
    with pytest.raises(RecipeError, match=sentence):
        guide_of(RECIPE.but(**changes), Guides(), (8, 8))
    (event,) = backend.run(RECIPE.but(**changes))
    assert isinstance(event, Failed) and event.text.startswith(sentence)


# Runs


def test_a_guide_becomes_a_picture(backend):
    *progress, last = backend.run(RECIPE)
    assert isinstance(last, Result) and last.value.guide is not None
    assert [e.step for e in progress if isinstance(e, Preview)] == [1, 2]
    assert last.value.count.evaluations == 2


def test_nothing_is_asked_of_the_model_at_t0_zero_and_the_pace_stays(backend):
    before = backend.pace("tiny")
    *_, last = backend.run(RECIPE.but(t0=0.0))
    assert isinstance(last, Result) and last.value.count.evaluations == 0
    assert backend.pace("tiny") == before


def test_a_mask_of_another_size_is_refused_and_the_next_run_works(backend):
    mask = backend.guides.put(Image.new("L", (3, 3), 255))
    *_, last = backend.run(RECIPE.but(mask=mask))
    assert isinstance(last, Failed) and "must agree" in last.text
    empty = backend.guides.put(Image.new("L", backend.model("tiny").picture_size, 0))
    *_, last = backend.run(RECIPE.but(mask=empty))
    assert isinstance(last, Failed) and "nothing is marked" in last.text
    *_, last = backend.run(RECIPE)
    assert isinstance(last, Result)


def test_equal_guides_share_a_result_and_other_pixels_do_not(backend):
    first = backend.guides.put(plain("red"), "ann")
    other = backend.guides.put(plain("blue"), "ann")
    *_, one = backend.run(RECIPE.but(guide=first))
    (again,) = backend.run(RECIPE.but(guide=backend.guides.put(plain("red"), "bob")))
    assert again.reused and again.value is one.value
    *_, two = backend.run(RECIPE.but(guide=other))
    assert not two.reused and not two.value.pictures.equal(one.value.pictures)
