"""What a run tells the one who reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from playground.fields import Count
from playground.recipes import Recipe


class Outcome(Protocol):
    """What comes out of a run, whatever the experiment."""

    @property
    def recipe(self) -> Recipe:
        """What was asked for."""

    @property
    def nbytes(self) -> int:
        """Memory held."""


@dataclass(frozen=True)
class Queued:
    """Waiting; `ahead` runs come first."""

    ahead: int


@dataclass(frozen=True)
class Preview:
    """A step is done.

    Attributes:
        step, steps: how far.
        count: evaluations and sample-forwards so far.
        pictures: [R, H, W, 3] bytes of the predicted pictures, None when only the numbers are news.
        value: what else there is to see, by experiment: the plane's `Moving` or `Training`.
    """

    step: int
    steps: int
    count: Count
    pictures: np.ndarray | None = None
    value: Any = None


@dataclass(frozen=True)
class Note:
    """Something about the run that the visitor should know, in one sentence."""

    text: str
    of_words: bool = False


@dataclass(frozen=True)
class Result:
    """The run is done; `reused` if an equal one had been done before and nothing had to be computed."""

    value: Any  # an Outcome; what kind follows from the recipe
    reused: bool = False


@dataclass(frozen=True)
class Failed:
    """The run ended with an error, said in one sentence.

    Attributes:
        again: whether the same may go well in a moment.
    """

    text: str
    again: bool = False


@dataclass(frozen=True)
class Stopped:
    """The run was stopped, or a newer one took its place."""


Event = Queued | Preview | Note | Result | Failed | Stopped

FINAL = (Result, Failed, Stopped)
