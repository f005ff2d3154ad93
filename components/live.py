"""How a page follows a hand on a slider: quick runs while it moves, one full run when it rests.

Browser and server meet twice for each move. A light message (`announce`) always gets through at once and
says which values are the newest; it stops a full run that is no longer wanted. The run itself (`follow`) is
coalesced by Gradio (`trigger_mode="always_last"`): while one is going on, only the last of the moves made
meanwhile is kept. Values are compared, not counted, so it does not matter which of the two comes first.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterator

from playground.backend import FINAL, Backend, Event, Stopped
from playground.recipes import Recipe

SETTLE = 0.15
"""Seconds without a newer value after which a hand counts as resting."""


class Live:
    """The newest values of each visitor of one tab, and the runs that follow them."""

    def __init__(self, backend: Backend, slot: str, visitors: int = 500):
        self._backend, self._slot, self._visitors = backend, slot, visitors
        self._lock = threading.Lock()
        self._newest: OrderedDict[str, Hashable] = OrderedDict()
        self._started: dict[str, Hashable] = {}

    def announce(self, visitor: str, values: Hashable) -> None:
        """These values are now the newest; a full run of other values is stopped."""
        with self._lock:
            self._remember(visitor, values)
            mine = self._started.get(visitor) == values
        if not mine:
            self._backend.stop(visitor, self._slot)

    def follow(
        self, visitor: str, values: Hashable, recipe: Recipe, quick: Recipe | None = None
    ) -> Iterator[tuple[bool, Event]]:
        """Run the recipe of these values: first a quick version, if one is given, then in full.

        Yields:
            (whether it is the full run, event). Ends early, without a final event, when newer values are
            announced; a visitor's own stop gives a last Stopped.
        """
        with self._lock:
            if quick is None:
                self._remember(visitor, values)
        if quick is not None and quick != recipe and self._backend.finished(recipe) is None:
            # Allowed to finish, so that a moving hand sees pictures and not only beginnings.
            for event in self._backend.run(quick, visitor, f"{self._slot}/quick"):
                yield False, event
            if not self._rests(visitor, values):
                return
        with self._lock:
            if self._newest.get(visitor, values) != values:
                return
            self._started[visitor] = values
        for event in self._backend.run(recipe, visitor, self._slot):
            superseded = self._newest.get(visitor, values) != values
            if superseded and (isinstance(event, Stopped) or not isinstance(event, FINAL)):
                return
            if not superseded:
                yield True, event

    def forget(self, visitor: str) -> None:
        """The visitor has left."""
        with self._lock:
            self._newest.pop(visitor, None)
            self._started.pop(visitor, None)
        self._backend.forget(visitor)

    def _rests(self, visitor: str, values: Hashable) -> bool:
        until = time.monotonic() + SETTLE
        while self._newest.get(visitor, values) == values:
            if time.monotonic() >= until:
                return True
            time.sleep(0.01)
        return False

    def _remember(self, visitor: str, values: Hashable) -> None:
        self._newest[visitor] = values
        self._newest.move_to_end(visitor)
        while len(self._newest) > self._visitors:
            old, _ = self._newest.popitem(last=False)
            self._started.pop(old, None)
