"""How many threads compute, whatever other threads of the process do."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch

from playground import devices
from playground.devices import FEW, quickest, side_by_side, threads_for, usual_threads

# In a process of its own, with two threads for an operation: the tests' own processes compute with one.
RACE = """
import threading, torch
from playground.backend import Backend
from playground.devices import FEW, USUAL, threads, threads_for
assert USUAL == torch.get_num_threads() == 2

inside, leave, found = threading.Event(), threading.Event(), {}

def first():
    torch.ones(2).exp()
    with threads(HELD):
        inside.set()
        leave.wait(20)
    found["first, after"] = torch.get_num_threads()

def second():
    torch.ones(2).exp()  # this thread's first operation, while the other one is inside
    with threads_for(10):
        found["second, small"] = torch.get_num_threads()
    with threads_for(FEW + 1):
        found["second, large"] = torch.get_num_threads()
    found["second, after"] = torch.get_num_threads()

one = threading.Thread(target=first)
one.start()
inside.wait(20)
two = threading.Thread(target=second)
two.start()
two.join(20)
backend = Backend()  # its worker is born meanwhile, too
found["worker"] = backend.compute(torch.get_num_threads)
leave.set()
one.join(20)
backend.close()
assert found == {
    "second, small": 1, "second, large": 2, "second, after": 2, "worker": 2, "first, after": 2
}, found
"""


@pytest.mark.parametrize("held", [1, 3])
def test_a_thread_that_is_born_while_another_computes_otherwise_has_the_usual_number(held):
    done = subprocess.run(
        [sys.executable, "-c", RACE.replace("HELD", str(held))],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[1],
        env={"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE", "PATH": ""},
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture
def two_threads(monkeypatch):
    """This process with two threads for an operation, for a moment."""
    before = torch.get_num_threads()
    monkeypatch.setattr(devices, "USUAL", 2)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_small_work_has_one_thread_and_the_number_comes_back(two_threads):
    with threads_for(FEW):
        assert torch.get_num_threads() == 1
        with threads_for(FEW + 1):  # within, nothing changes
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with threads_for(FEW + 1):
        assert torch.get_num_threads() == 2
    with pytest.raises(KeyError), threads_for(1):
        raise KeyError
    assert torch.get_num_threads() == usual_threads() == 2


def test_many_threads_at_once_all_end_with_the_usual_number(two_threads):
    counts: list[int] = []
    start = threading.Barrier(8)

    def work(k: int) -> None:
        start.wait(10)
        for i in range(20):
            with threads_for(FEW * (i % 3)):
                torch.ones(4).exp()
                time.sleep(0.0005 * (k % 3))
        counts.append(torch.get_num_threads())

    several = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join(20)
    assert counts == [2] * 8


class Clock:
    """A clock for ways that take as long as they are told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: dict[str, list[float]]) -> None:
        self.now, self.called = 0.0, []
        self.ways = {way: partial(self._call, way, list(queue)) for way, queue in seconds.items()}
        monkeypatch.setattr(devices.time, "perf_counter", lambda: self.now)

    def _call(self, way: str, queue: list[float]) -> None:
        self.called.append(way)
        self.now += queue.pop(0) if len(queue) > 1 else queue[0]


@pytest.mark.parametrize(
    ("usual", "other", "expected"),
    [
        ([0.08], [0.05], "other"),
        ([0.05], [0.08], "usual"),
        ([0.08], [0.078], "usual"),  # too close to be sure
        ([0.01, 0.08], [0.2, 0.05], "other"),  # the first call of each warms up
        ([0.08], [0.05, 0.05, 0.24, 0.24, 0.24], "other"),  # something else was in the way
        ([0.4, 0.08], [0.9, 0.05], "other"),  # the first prepares what later ones use
    ],
)
def test_the_quickest_way_is_measured(monkeypatch, usual, other, expected):
    clock = Clock(monkeypatch, {"usual": usual, "other": other})
    assert quickest(clock.ways) == expected
    assert clock.called == ["usual", "other"] * (1 + devices.TRIES)


@pytest.mark.parametrize(
    ("usual", "other", "expected", "turns"),
    [
        (9.0, 8.5, "usual", 1),
        (4.2, 0.026, "other", 1),  # threads that spin for another program
        (0.7, 0.4, "other", 2),
    ],
)
def test_long_calls_are_not_measured_often(monkeypatch, usual, other, expected, turns):
    clock = Clock(monkeypatch, {"usual": [usual], "other": [other]})
    assert quickest(clock.ways) == expected
    assert clock.called == ["usual", "other"] * turns


@pytest.fixture
def crew(monkeypatch):
    """Four threads and a crew of their own."""
    monkeypatch.setattr(devices, "usual_threads", lambda: 4)
    made, before = ThreadPoolExecutor(3), torch.get_num_threads()
    torch.set_num_threads(4)
    monkeypatch.setattr(devices, "_crew", lambda: made)
    yield
    made.shutdown()
    torch.set_num_threads(before)


def test_parts_are_computed_at_the_same_time_each_with_threads_of_its_own(crew):
    together = threading.Barrier(2, timeout=20)  # breaks unless both parts wait at once

    def call(part: int) -> tuple[int, int, bool]:
        together.wait()
        return part, torch.get_num_threads(), torch.is_grad_enabled()

    assert side_by_side(call, [7, 8], 2) == [(7, 2, False), (8, 2, False)]
    assert side_by_side(lambda part: (part, torch.get_num_threads()), range(6), 1) == [(k, 1) for k in range(6)]


@pytest.mark.parametrize("bad", [0, 2])
def test_an_error_of_a_part_is_raised_when_all_have_ended(crew, bad):
    ended = []

    def call(part: int) -> None:
        if part == bad:
            raise MemoryError(f"part {part}")
        time.sleep(0.05)
        ended.append(part)

    with pytest.raises(MemoryError, match=f"part {bad}"):
        side_by_side(call, range(3), 1)
    assert sorted(ended) == sorted({0, 1, 2} - {bad})


@pytest.mark.parametrize("bad", [0, 2])
def test_what_a_failed_part_held_is_free_at_once(crew, bad):
    """Short memory is tried again with smaller batches, before anything collects cycles."""
    held = []

    def call(part: int) -> None:
        tensor = torch.zeros(4)
        held.append(weakref.ref(tensor))
        if part == bad:
            raise MemoryError

    gc.disable()
    try:
        with contextlib.suppress(MemoryError):
            side_by_side(call, range(3), 1)
        assert len(held) == 3 and all(tensor() is None for tensor in held)
    finally:
        gc.enable()
