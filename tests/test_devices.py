"""How many threads compute, whatever other threads of the process do."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from playground import devices
from playground.devices import FEW, quickest_threads, threads_for, usual_threads

# In a process of its own, with two threads for an operation: the tests' own processes compute with one.
RACE = """
import threading, torch
from playground.backend import Backend
from playground.devices import FEW, USUAL, threads_for
assert USUAL == torch.get_num_threads() == 2

inside, leave, found = threading.Event(), threading.Event(), {}

def first():
    torch.ones(2).exp()
    with threads_for(10):
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


def test_a_thread_that_is_born_while_another_computes_with_one_keeps_them_all():
    done = subprocess.run(
        [sys.executable, "-c", RACE],
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
    """A clock for calls that take as long as they are told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: dict[int, list[float]]) -> None:
        self.now, self.seconds, self.called = 0.0, seconds, []
        monkeypatch.setattr(devices.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(devices, "usual_threads", lambda: 2)

    def __call__(self) -> None:
        count = torch.get_num_threads()
        self.called.append(count)
        queue = self.seconds[count]
        self.now += queue.pop(0) if len(queue) > 1 else queue[0]


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ([0.05], [0.08], 1),
        ([0.08], [0.05], 2),
        ([0.078], [0.08], 2),  # too close to be sure
        ([0.2, 0.05], [0.01, 0.08], 1),  # the first call of each warms up
        ([0.05, 0.05, 0.24, 0.24, 0.24], [0.08], 1),  # something else was in the way
    ],
)
def test_the_quickest_number_of_threads_is_measured(monkeypatch, one, two, expected):
    clock = Clock(monkeypatch, {1: one, 2: two})
    assert quickest_threads(clock) == expected
    assert clock.called == [1, 2] * (1 + devices.TRIES)


def test_long_calls_take_all_threads_without_more_ado(monkeypatch):
    clock = Clock(monkeypatch, {1: [9.0], 2: [8.0]})
    assert quickest_threads(clock) == 2
    assert clock.called == [1]


def test_where_there_is_one_thread_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(devices, "usual_threads", lambda: 1)
    assert quickest_threads(lambda: pytest.fail("called")) == 1
