"""Which of a widget's messages is the newest: several on their way at once arrive in any order.

Gradio's "always_last" does not help with a widget's events: it would run the last one with the data of the first.
So the widget counts its messages (``number`` in the data of the event), and the page skips what was overtaken.
"""

from __future__ import annotations


class Arrivals:
    """The highest number that has arrived, for each visitor."""

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}

    def note(self, visitor: str | None, number: object) -> bool:
        """A message has arrived; whether none with a higher number had. What is no number counts as the first."""
        told = number if isinstance(number, int) else 0
        self._newest[visitor or ""] = max(told, self._newest.get(visitor or "", told))
        return self.current(visitor, told)

    def current(self, visitor: str | None, number: object) -> bool:
        """Whether still none with a higher number has arrived."""
        return (number if isinstance(number, int) else 0) >= self._newest.get(visitor or "", 0)

    def forget(self, visitor: str | None) -> None:
        """The visitor has left."""
        self._newest.pop(visitor or "", None)
