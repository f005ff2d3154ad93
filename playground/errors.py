"""What can go wrong in a way a visitor should read about: each error is one clear sentence."""

from __future__ import annotations

import torch


class PlaygroundError(ValueError):
    """Base of the errors whose message is meant for the page. The message is one sentence."""


class RecipeError(PlaygroundError):
    """An experiment that cannot be run as written."""


class ModelError(PlaygroundError):
    """A model that cannot be loaded or does not exist."""


class TooLarge(ModelError):
    """A model for which the device's memory is too short as things stand."""


class NonFiniteError(PlaygroundError):
    """A run whose numbers became NaN or infinite."""


class OutOfMemory(PlaygroundError):
    """A single row that does not fit on the device."""


class Ended(PlaygroundError):
    """A run that failed, or was stopped before its end."""


class Busy(PlaygroundError):
    """A queue that is full."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch ran out of memory (on a CPU and on MPS a plain RuntimeError says so)."""
    signs = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
    )
