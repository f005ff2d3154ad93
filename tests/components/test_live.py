"""A hand on a slider, without a browser: many values, few full runs, and the last value always wins."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from components import live as live_module
from components.live import Live
from playground.backend import Backend, Failed, Result, Stopped, choose_device
from playground.recipes import TextToImage

PATIENCE = 60.0
BAD = -1.0
"""A value whose run fails."""


def recipe(w: float, steps: int = 6) -> TextToImage:
    if w == BAD:
        return TextToImage(model="absent", w=w, steps=steps)
    return TextToImage(model="tiny", w=w, steps=steps)


def quick(w: float) -> TextToImage:
    return recipe(w, steps=2)


class Slider:
    """A page's slider: each move is announced at once; of the runs that would follow, while one is going on,
    only the last is kept, as Gradio's `always_last` does."""

    def __init__(self, live: Live, visitor: str = "ann"):
        self.live, self.visitor = live, visitor
        self.full: list[float] = []
        """Values whose full run was completed."""
        self.seen: list[tuple[bool, object]] = []
        self._next: float | None = None
        self._busy = False
        self._news = threading.Condition()

    def move(self, w: float, announce: bool = True) -> None:
        if announce:
            self.live.announce(self.visitor, w)
        with self._news:
            self._next = w
            if not self._busy:
                self._busy = True
                threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._news:
                w, self._next = self._next, None
                if w is None:
                    self._busy = False
                    self._news.notify_all()
                    return
            for full, event in self.live.follow(self.visitor, w, recipe(w), quick(w)):
                self.seen.append((full, event))
                if full and isinstance(event, Result):
                    self.full.append(w)

    def wait(self) -> None:
        with self._news:
            assert self._news.wait_for(lambda: not self._busy, PATIENCE), "the runs never ended"


@pytest.fixture
def backend(folders) -> Iterator[Backend]:
    made = Backend({"tiny": str(folders["sd2"])}, choose_device("cpu"))
    made.model("tiny")
    yield made
    made.close()


@pytest.fixture
def live(backend) -> Live:
    return Live(backend, "text-to-image")


def hold(backend: Backend, call: int) -> tuple[threading.Event, threading.Event]:
    """Hold the denoiser at its call of this number, from 1. Returns (it is there, let it go)."""
    denoiser, reached, release = backend.model("tiny").denoiser, threading.Event(), threading.Event()
    evaluate, calls = denoiser.evaluate, 0

    def held(*args):
        nonlocal calls
        calls += 1
        if calls == call:
            reached.set()
            assert release.wait(PATIENCE)
        return evaluate(*args)

    denoiser.evaluate = held
    return reached, release


@pytest.mark.parametrize("last", [10.0, 1.5])
def test_twenty_moves_complete_few_full_runs_and_the_last_value(live, monkeypatch, last):
    monkeypatch.setattr(live_module, "SETTLE", 1.5)  # so that a busy machine does not look like a resting hand
    slider = Slider(live)
    for k in range(1, 20):
        slider.move(k * 0.5)
        time.sleep(0.03)
    slider.move(last)
    slider.wait()
    assert slider.full[-1] == last
    assert len(slider.full) <= 2
    pictures = [e for full, e in slider.seen if not full and isinstance(e, Result)]
    assert pictures, "a moving hand saw no finished picture"


def test_a_resting_hand_gets_the_full_run_after_the_quick_one(live):
    slider = Slider(live)
    slider.move(3.0)
    slider.wait()
    results = [(full, e.value.recipe.steps) for full, e in slider.seen if isinstance(e, Result)]
    assert results == [(False, 2), (True, 6)]


def test_a_kept_result_comes_without_a_quick_run(live):
    slider = Slider(live)
    for w in (3.0, 5.0, 3.0):
        slider.move(w)
        slider.wait()
    full, event = slider.seen[-1]
    assert full and event.reused
    assert [full for full, e in slider.seen if isinstance(e, Result)] == [False, True, False, True, True]


def test_what_was_refused_for_want_of_room_runs_when_it_is_told_again(live, monkeypatch):
    run = live._backend.run
    monkeypatch.setattr(live._backend, "run", lambda *_: iter([Failed("40 runs are waiting already", again=True)]))
    assert [e for _, e in live.follow("ann", 3.0, recipe(3.0))] == [
        Failed("40 runs are waiting already", again=True)
    ]
    monkeypatch.setattr(live._backend, "run", run)
    live.announce("ann", 3.0)
    *_, (full, last) = live.follow("ann", 3.0, recipe(3.0), quick(3.0))
    assert full and isinstance(last, Result)


def test_a_full_queue_says_that_it_may_go_well_later(folders, backend):
    full = Backend({"tiny": str(folders["sd2"])}, choose_device("cpu"), max_queue=0)
    try:
        *_, last = full.run(recipe(3.0), "ann")
    finally:
        full.close()
    assert isinstance(last, Failed) and last.again
    *_, last = backend.run(recipe(BAD), "ann")
    assert isinstance(last, Failed) and not last.again


def test_a_value_that_is_told_once_more_is_no_change(live):
    slider = Slider(live)
    for _ in range(2):
        slider.move(3.0)
        slider.wait()
    assert slider.full == [3.0]


def test_a_newer_value_stops_the_full_run(live, backend):
    reached, release = hold(backend, call=4)  # two quick ones, then in the middle of the full run
    slider = Slider(live)
    slider.move(3.0)
    assert reached.wait(PATIENCE)
    slider.move(5.0)
    release.set()
    slider.wait()
    assert slider.full == [5.0]


def test_the_same_value_again_does_not_stop_its_run(live, backend):
    reached, release = hold(backend, call=4)
    slider = Slider(live)
    slider.move(3.0)
    assert reached.wait(PATIENCE)
    live.announce("ann", 3.0)  # letting go of the mouse
    release.set()
    slider.wait()
    assert slider.full == [3.0]


@pytest.mark.parametrize("moves", [[2.0, BAD, 5.0], [BAD, BAD, 5.0], [BAD, 5.0, BAD, 2.0]])
@pytest.mark.parametrize("wait", [True, False])
def test_the_last_value_wins_after_a_failing_one(live, moves, wait):
    slider = Slider(live)
    for w in moves:
        slider.move(w)
        if wait:
            slider.wait()
    slider.wait()
    assert slider.full[-1] == moves[-1]


def test_the_last_value_wins_when_it_fails(live):
    slider = Slider(live)
    slider.move(2.0)
    slider.wait()
    slider.move(BAD)
    slider.wait()
    full, event = slider.seen[-1]
    assert full and isinstance(event, Failed)


def test_a_run_that_comes_before_its_announcement(live):
    slider = Slider(live)
    slider.move(2.0)
    slider.wait()
    following = live.follow("ann", 5.0, recipe(5.0), quick(5.0))
    next(following)
    live.announce("ann", 5.0)
    *_, (full, event) = following
    assert full and isinstance(event, Result)


def test_a_kept_result_that_is_asked_for_before_its_announcement(live, monkeypatch):
    monkeypatch.setattr(live_module, "SETTLE", 2.0)
    slider = Slider(live)
    for w in (5.0, 2.0):
        slider.move(w)
        slider.wait()
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(lambda: list(live.follow("ann", 5.0, recipe(5.0), quick(5.0))))
        time.sleep(0.1)
        live.announce("ann", 5.0)
        events = following.result(PATIENCE)
    assert events and isinstance(events[-1][1], Result)


def test_a_value_that_was_passed_by_is_given_up(live):
    following = live.follow("ann", 2.0, recipe(2.0), quick(2.0))
    live.announce("ann", 2.0)
    next(following)
    live.announce("ann", 5.0)
    assert all(not full for full, _ in following)


def test_stop_ends_the_full_run_and_says_so(live, backend):
    reached, release = hold(backend, call=4)
    slider = Slider(live)
    slider.move(3.0)
    assert reached.wait(PATIENCE)
    backend.stop("ann")
    release.set()
    slider.wait()
    assert slider.full == [] and isinstance(slider.seen[-1][1], Stopped)
    slider.move(3.0)  # the number field loses the focus
    slider.wait()
    assert slider.full == []


def test_stop_during_the_quick_run_ends_both(live, backend):
    reached, release = hold(backend, call=1)
    slider = Slider(live)
    slider.move(3.0)
    assert reached.wait(PATIENCE)
    backend.stop("ann")
    release.set()
    slider.wait()
    assert slider.full == []


def test_visitors_do_not_disturb_each_other(live, backend):
    reached, release = hold(backend, call=4)
    ann, bob = Slider(live, "ann"), Slider(live, "bob")
    ann.move(3.0)
    assert reached.wait(PATIENCE)
    for w in (1.5, 2.5, 4.5):
        bob.move(w)
    live.forget("carl")
    release.set()
    ann.wait()
    bob.wait()
    assert ann.full == [3.0] and bob.full[-1] == 4.5


def test_a_visitor_who_has_left_leaves_nothing_running(live, backend):
    reached, release = hold(backend, call=4)
    slider = Slider(live)
    slider.move(3.0)
    assert reached.wait(PATIENCE)
    live.forget("ann")
    release.set()
    slider.wait()
    assert slider.full == []


@pytest.mark.parametrize("short", [None, quick(1.0)])
def test_many_visitors_do_not_fill_the_memory(backend, short):
    live = Live(backend, "text-to-image", visitors=10)
    for k in range(30):
        list(live.follow(f"visitor {k}", 1.0, quick(1.0), short))
    assert len(live._hands) <= 10
