"""What a recipe of the plane makes of values that leave something to the target."""

from __future__ import annotations

import pytest

from playground.plane import PlaneFlow, flow
from playground.plane.targets import LINES, TARGETS


@pytest.mark.parametrize("target", [*LINES, *TARGETS, "mixture", "word"])
def test_a_link_says_the_target_and_no_more(target):
    """The page's links leave out the dimension, and the mixture that nobody has edited."""
    recipe, notes = PlaneFlow.from_query({"tab": "flow", "target": target, "particles": "100", "steps": "2"})
    assert notes == [] and recipe.dimension == (1 if target in LINES else 2)
    assert flow(recipe).x.shape == (100, recipe.dimension)


def test_what_is_no_target_is_still_told():
    recipe, notes = PlaneFlow.from_query({"tab": "flow", "target": "nowhere"})
    assert recipe == PlaneFlow() and "target" in notes[0]
