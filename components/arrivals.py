"""Which of a widget's messages is the newest: several on their way at once arrive in any order.

Gradio's "always_last" does not help with a widget's events: it would run the last one with the data of the first.
So the widget counts its messages (``number`` in the data of the event), and the page skips what was overtaken.
"""

from __future__ import annotations

import threading

MOST_VISITORS = 1000
"""Of whom numbers are kept; those who have been silent longest are forgotten."""


def _count(number: object) -> int:
    return max(0, number) if isinstance(number, int) else 0


class Arrivals:
    """The highest number that has arrived, for each visitor."""

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}
        self._lock = threading.Lock()

    def note(self, visitor: str | None, number: object) -> bool:
        """A message has arrived; whether none with a higher number had. What is no number counts as the first."""
        told, who = _count(number), visitor or ""
        with self._lock:
            newest = self._newest[who] = max(told, self._newest.pop(who, 0))
            while len(self._newest) > MOST_VISITORS:  # who calls without a page never leaves
                del self._newest[next(iter(self._newest))]
        return told >= newest

    def current(self, visitor: str | None, number: object) -> bool:
        """Whether still none with a higher number has arrived."""
        with self._lock:
            return _count(number) >= self._newest.get(visitor or "", 0)

    def forget(self, visitor: str | None) -> None:
        """The visitor has left."""
        with self._lock:
            self._newest.pop(visitor or "", None)
