"""The tests' side of `faulty.py`."""

from __future__ import annotations

import time
from pathlib import Path

PATIENCE = 60.0
KEPT = 24
"""Megabytes that the server keeps of each kind."""
ALLOWED = "play.example.org"
"""A name that the server was told to take."""


class Faults:
    """`faults("nan")` makes the server's denoiser fail from its next call on, `faults.end()` ends that."""

    def __init__(self, folder: Path):
        self.file = folder / "fault"
        self.end()
        (folder / "calls").touch()

    def __call__(self, kind: str) -> None:
        # Put in its place at once: the server may read at any moment.
        new = self.file.with_name("new")
        new.write_text(kind)
        new.replace(self.file)

    def end(self) -> None:
        self("none")

    @property
    def calls(self) -> int:
        """Calls of the denoiser so far."""
        return self.file.with_name("calls").stat().st_size

    def wait_for_call(self, after: int) -> int:
        """Until a call has begun after so many."""
        deadline = time.monotonic() + PATIENCE
        while self.calls <= after:
            assert time.monotonic() < deadline, "no call came"
            time.sleep(0.02)
        return self.calls
