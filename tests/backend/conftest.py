"""A backend on a tiny model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from holding import Hand

from playground.backend import Backend, choose_device


@pytest.fixture
def make_backend(folders) -> Iterator[Callable[..., Backend]]:
    """`make_backend(turn=0, ...)`: a backend with the models "tiny" and "flow", closed after the test."""
    made: list[Backend] = []

    def make(**options) -> Backend:
        models = {"tiny": str(folders["sd2"]), "flow": str(folders["flow"])}
        made.append(Backend(models, choose_device("cpu"), **options))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


@pytest.fixture
def backend(make_backend) -> Backend:
    return make_backend()


@pytest.fixture
def hands() -> Iterator[Callable[..., Hand]]:
    """`hands(backend)`: a hand on the denoiser of its model; whatever it holds is let go after the test."""
    made: list[Hand] = []

    def make(backend: Backend, name: str = "tiny") -> Hand:
        made.append(Hand(backend.model(name).denoiser))
        return made[-1]

    yield make
    for hand in made:
        hand.let_go()


@pytest.fixture
def hand(backend, hands) -> Hand:
    return hands(backend)
