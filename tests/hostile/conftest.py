"""One real server for all that is done to it here; it has to be well after each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import ALLOWED, KEPT, Faults
from serving import Server, answer
from visiting import patience, visit  # noqa: F401  fixtures


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    """The server's folder for temporary files."""
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="session")
def all_faults(place) -> Faults:
    (place / "faults").mkdir()
    return Faults(place / "faults")


@pytest.fixture(scope="session")
def server(place, all_faults) -> Iterator[Server]:
    made = Server(
        place / "log.txt",
        "--allow-host",
        ALLOWED,
        program=str(Path(__file__).with_name("faulty.py")),
        FAULT=str(all_faults.file),
        KEPT=str(KEPT),
        TMPDIR=str(place),
    )
    yield made
    made.close()


@pytest.fixture
def faults(all_faults) -> Iterator[Faults]:
    yield all_faults
    all_faults.end()


fresh = itertools.count(1000)


@pytest.fixture(autouse=True)
def the_next_request_succeeds(server, all_faults) -> Iterator[None]:
    """After each test: somebody else gets a picture, and nothing has been printed that only a programmer reads."""
    yield
    all_faults.end()
    made = answer(server, "text_to_image", {"prompt": "a red car", "steps": 1, "seed": next(fresh)})
    assert not isinstance(made, str), made
    assert len(made["pictures"]) == 1
    assert "Traceback" not in server.printed
