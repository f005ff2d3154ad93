"""How a page follows a hand on a slider: quick runs while it moves, one full run when it rests.

Browser and server meet twice for each move. A light message (`announce`) always gets through at once and
says which values are the newest; it stops a full run that is no longer wanted. The run itself (`follow`) is
coalesced by Gradio (`trigger_mode="always_last"`): while one is going on, only the last of the moves made
meanwhile is kept. Values are compared, not counted, so it does not matter which of the two comes first.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator

from playground.backend import FINAL, Backend, Event, Failed, Stopped
from playground.recipes import Recipe

SETTLE = 0.15
"""Seconds without a newer value after which a hand counts as resting."""


class _Hand:
    """What one visitor's page has said.

    Attributes:
        last: the values announced last.
        since: the values announced since the last `follow` began.
        started: the values of the last full run, None once others have been announced.
    """

    def __init__(self) -> None:
        self.last: Hashable = None
        self.since: deque[Hashable] = deque(maxlen=100)
        self.started: Hashable = None

    def announce(self, values: Hashable) -> None:
        self.last = values
        self.since.append(values)

    def newest(self, values: Hashable) -> bool:
        """Whether nothing newer than these values has been announced."""
        return self.last is None or self.last == values


class Live:
    """The hands of all visitors on the controls of one tab, and the runs that follow them."""

    def __init__(self, backend: Backend, slot: str, visitors: int = 500):
        self._backend, self._slot, self._visitors = backend, slot, visitors
        self._lock = threading.Lock()
        self._hands: OrderedDict[str, _Hand] = OrderedDict()

    def announce(self, visitor: str, values: Hashable) -> None:
        """These values are now the newest; a full run of other values is stopped."""
        hand = self._hand(visitor)
        with self._lock:
            hand.announce(values)
            if hand.started == values:
                return
            hand.started = None
        self._backend.stop(visitor, self._slot)

    def follow(
        self, visitor: str, values: Hashable, recipe: Recipe, quick: Recipe | None = None
    ) -> Iterator[tuple[bool, Event]]:
        """Run the recipe of these values: first a quick version, if one is given, then in full.

        Yields:
            (whether it is the full run, event). Ends early, without a final event, when newer values are
            announced; a visitor's own stop gives a last Stopped.
        """
        hand = self._hand(visitor)
        with self._lock:
            # Not every event is a change: an example that is clicked also sets the prompt, a number field that
            # is left tells its value once more, and what was stopped must not begin again by that.
            if quick is not None and hand.started == values:
                return
            before = hand.since
            during: deque[Hashable] = deque(maxlen=100)
            hand.since = during
            if quick is None:
                hand.announce(values)
        if quick is not None:
            if quick != recipe and self._backend.finished(recipe) is None:
                # Allowed to finish, so that a moving hand sees pictures and not only beginnings.
                for event in self._backend.run(quick, visitor, f"{self._slot}/quick"):
                    if isinstance(event, Stopped):
                        if hand.newest(values):
                            yield True, event
                        return
                    yield False, event
            if not self._rests(hand, values, lambda: values in before or values in during):
                return
        with self._lock:
            if not hand.newest(values) or (quick is not None and hand.started == values):
                return
            hand.started = values
        for event in self._backend.run(recipe, visitor, self._slot):
            superseded = not hand.newest(values)
            if isinstance(event, Failed) and event.again:
                with self._lock:
                    if hand.started == values:
                        hand.started = None  # "try again" means the same values
            if superseded and (isinstance(event, Stopped) or not isinstance(event, FINAL)):
                return
            if not superseded:
                yield True, event

    def forget(self, visitor: str) -> None:
        """The visitor has left."""
        with self._lock:
            self._hands.pop(visitor, None)
        self._backend.forget(visitor)

    def _rests(self, hand: _Hand, values: Hashable, announced: Callable[[], bool]) -> bool:
        """Wait a moment: whether these values are the newest all through it, or at least at its end.

        Values that are not announced yet are waited for; values that others have followed are given up at once.
        """
        until = time.monotonic() + SETTLE
        while time.monotonic() < until:
            with self._lock:
                if not hand.newest(values) and announced():
                    return False
            time.sleep(0.01)
        return hand.newest(values)

    def _hand(self, visitor: str) -> _Hand:
        with self._lock:
            hand = self._hands.setdefault(visitor, _Hand())
            self._hands.move_to_end(visitor)
            while len(self._hands) > self._visitors:
                self._hands.popitem(last=False)
            return hand
