"""What the tab 2D flow decides without a browser."""

from __future__ import annotations

import pytest

from components.tabs.flow import COMPARED, Pace, comparison_of
from playground.plane import PlaneFlow, flow


def test_a_flow_that_is_held_still_in_every_step_does_not_stop_the_page():
    held = PlaneFlow(target="three", label=0, w=3.0, rule="zero_star", zero_star_still=10, steps=4, particles=200)
    pace = Pace()
    assert pace.quick(held).particles == 200
    before = pace.seconds
    pace.learn(flow(held))
    assert pace.seconds == before


@pytest.mark.parametrize(
    "changes",
    [{"steps": 7}, {"w": 5.0, "rule": "apg"}, {"field": "learned"}, {"grid": "karras"}, {"particles": 300}],
)
def test_errors_against_cost_are_those_of_the_problem_and_not_of_the_run(changes):
    recipe = PlaneFlow(target="three", label=1)
    assert comparison_of(recipe.but(**changes), COMPARED) == comparison_of(recipe, COMPARED)
    assert comparison_of(recipe.but(path="vp"), COMPARED) != comparison_of(recipe, COMPARED)
