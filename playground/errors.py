"""What can go wrong in a way a visitor should read about: each error is one clear sentence."""

from __future__ import annotations

import torch


class PlaygroundError(ValueError):
    """Base of the errors whose message is meant for the page. The message is one sentence."""


class RecipeError(PlaygroundError):
    """An experiment that cannot be run as written."""


class ModelError(PlaygroundError):
    """A model that cannot be loaded or does not exist."""


class NonFiniteError(PlaygroundError):
    """A run whose numbers became NaN or infinite."""


class OutOfMemory(PlaygroundError):
    """A single row that does not fit on the device."""


class Busy(PlaygroundError):
    """A queue that is full."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch ran out of memory (on a CPU this is a plain RuntimeError that says so)."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
