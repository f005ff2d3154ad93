"""A hand on a denoiser, and a reader of events: what the tests of the backend hold it with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import torch

from playground.backend import FINAL, Event
from playground.recipes import TextToImage

PATIENCE = 60.0
"""Seconds after which something that was expected counts as missing. Nothing waits for it when all is well."""


class Hand:
    """Takes the place of a denoiser's `evaluate`: counts its calls, holds them back, makes them fail."""

    def __init__(self, denoiser):
        self.calls = 0
        self.sizes: list[int] = []
        self.change: Callable[[torch.Tensor], torch.Tensor] = lambda out: out
        self._evaluate = denoiser.evaluate
        self._news = threading.Condition()
        self._allowed: float = float("inf")
        denoiser.evaluate = self

    def __call__(self, x, t, condition):
        with self._news:
            self.calls += 1
            self.sizes.append(len(x))
            self._news.notify_all()
            mine = self.calls
            assert self._news.wait_for(lambda: mine <= self._allowed, PATIENCE), "a call was held for too long"
        return self.change(self._evaluate(x, t, condition))

    def hold(self, after: int = 0) -> None:
        """Let `after` more calls through, and no other."""
        with self._news:
            self._allowed = self.calls + after

    def let_go(self) -> None:
        with self._news:
            self._allowed = float("inf")
            self._news.notify_all()

    def let(self, more: int) -> None:
        with self._news:
            self._allowed += more
            self._news.notify_all()

    def wait_for_call(self, number: int) -> None:
        """Until the call of this number has been made (it may be held)."""
        with self._news:
            assert self._news.wait_for(lambda: self.calls >= number, PATIENCE), f"call {number} was never made"


class Reader(threading.Thread):
    """Reads a run's events, as a page would."""

    def __init__(self, events: Iterator[Event]):
        super().__init__(daemon=True)
        self.source, self.events = events, []
        self._news = threading.Condition()
        self.start()

    def run(self) -> None:
        for event in self.source:
            with self._news:
                self.events.append(event)
                self._news.notify_all()

    def wait_for(self, kind: type) -> Event:
        def first():
            return next((e for e in self.events if isinstance(e, kind)), None)

        with self._news:
            found = self._news.wait_for(first, PATIENCE)
        assert found is not None, f"no {kind.__name__} among {self.events}"
        return found

    @property
    def final(self) -> Event:
        """The last event, when the run is over."""
        self.join(PATIENCE)
        assert not self.is_alive(), f"not over yet: {self.events}"
        assert isinstance(self.events[-1], FINAL)
        return self.events[-1]


def tiny(**values) -> TextToImage:
    """A recipe that takes a moment."""
    return TextToImage(**{"model": "tiny", "prompt": "a red cat", "steps": 3} | values)
