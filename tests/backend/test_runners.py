"""Experiments without a model: they run on the same worker, under the same rules."""

from __future__ import annotations

import threading

import pytest
import torch
from holding import PATIENCE, Reader, tiny

from playground.backend import FINAL, Failed, Preview, Result, Stopped
from playground.backend.runners import RUNNERS, runner_of
from playground.errors import PlaygroundError
from playground.plane import PlaneFlow, Training, flow
from playground.recipes import RECIPES, Recipe

SMALL = PlaneFlow(target="eight", particles=200, steps=6)


def test_every_experiment_has_a_runner():
    assert set(RECIPES.values()) <= set(RUNNERS)
    with pytest.raises(PlaygroundError, match=r"cannot be run here\.$"):
        runner_of(Recipe())


def test_a_flow_reports_its_steps_and_ends_with_what_flow_makes(backend):
    *progress, last = backend.run(SMALL)
    assert all(isinstance(e, Preview) and e.pictures is None for e in progress)
    steps = [e.step for e in progress]
    assert steps == sorted(set(steps)) and progress[-1].steps == 6
    assert isinstance(last, Result)
    torch.testing.assert_close(last.value.frames, flow(SMALL).frames, rtol=0, atol=0)


def test_an_equal_flow_is_not_computed_again(backend):
    *_, first = backend.run(SMALL)
    (again,) = backend.run(SMALL, visitor="another")
    assert again.reused and again.value is first.value


def test_an_impossible_flow_fails_with_its_sentence(backend):
    (event,) = backend.run(PlaneFlow(target="points"))
    assert event == Failed("There are no points yet: draw at least one.")
    assert isinstance(list(backend.run(SMALL))[-1], Result)


def test_a_newer_flow_stops_the_older_between_two_evaluations(backend, hand):
    # The worker is held by a picture while both flows wait.
    hand.hold()
    picture = Reader(backend.run(tiny(), "bob"))
    hand.wait_for_call(1)
    older = Reader(backend.run(SMALL.but(steps=200), "ann"))
    while not backend._runs.get(("ann", PlaneFlow.tab)):
        pass
    newer = Reader(backend.run(SMALL, "ann"))
    assert isinstance(older.final, Stopped)
    hand.let_go()
    assert isinstance(newer.final, Result) and isinstance(picture.final, Result)


def test_a_flow_and_a_picture_of_one_visitor_do_not_disturb_each_other(backend):
    picture, dots = Reader(backend.run(tiny(), "ann")), Reader(backend.run(SMALL, "ann"))
    assert isinstance(picture.final, Result) and isinstance(dots.final, Result)


def test_compute_runs_on_the_worker_between_two_evaluations(backend):
    assert backend.compute(lambda: threading.current_thread().name) == "device"
    with pytest.raises(ZeroDivisionError):
        backend.compute(lambda: 1 // 0)
    reader = Reader(backend.run(SMALL.but(steps=200)))
    assert backend.compute(lambda: 7, timeout=PATIENCE) == 7
    assert isinstance(reader.final, FINAL)


def test_a_learned_field_is_trained_first_and_goes_on_where_it_stopped(backend):
    recipe = SMALL.but(field="learned", width=8, depth=1, batch=16, train_steps=100, target="three")
    *events, last = backend.run(recipe, "ann")
    # A slow reader misses some of them.
    reports = [e.value for e in events if isinstance(e, Preview) and isinstance(e.value, Training)]
    assert reports[0].floor > 0 and {r.step for r in reports} <= {25, 50, 75, 100}
    assert [s for s, _, _ in last.value.history] == [25, 50, 75, 100]
    # Another solver, and more updates: only what is missing is trained.
    *events, last = backend.run(recipe.but(solver="euler"), "ann")
    assert not any(isinstance(e.value, Training) for e in events) and isinstance(last, Result)
    events = list(backend.run(recipe.but(train_steps=125), "ann"))
    steps = [e.value.step for e in events if isinstance(e, Preview) and isinstance(e.value, Training)]
    assert set(steps) <= {125}
    assert [s for s, _, _ in events[-1].value.history] == [25, 50, 75, 100, 125]
    alone = flow(recipe.but(train_steps=125))
    torch.testing.assert_close(events[-1].value.frames, alone.frames, rtol=0, atol=1e-4)
    assert alone.history[-1] == pytest.approx(events[-1].value.history[-1], rel=1e-4)


def test_a_stopped_training_keeps_what_it_learned(backend):
    recipe = SMALL.but(field="learned", width=8, depth=1, batch=16, train_steps=50_000)
    running = backend.run(recipe, "ann")
    first = next(e.value for e in running if isinstance(e, Preview))
    backend.stop("ann")
    assert isinstance(list(running)[-1], Stopped)
    again = backend.run(recipe, "ann")
    assert next(e.value for e in again if isinstance(e, Preview)).step > first.step
    again.close()
