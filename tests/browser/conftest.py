"""The real page: `app.py` in a process of its own, Debian's chromium, and a context for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serving import Server
from visiting import patience, visit  # noqa: F401  fixtures


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server") / "log.txt")
    yield made
    made.close()
