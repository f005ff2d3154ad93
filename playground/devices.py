"""Where to compute, and in what precision."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import torch

from playground.errors import ModelError

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


FEW = 2**18
"""Elements up to which one thread is as quick as several: waking the others costs as much as they save."""

USUAL = torch.get_num_threads()
"""Threads that an operation is computed with here, as the environment said when this was imported."""
_here = threading.local()

Way = TypeVar("Way", bound=Hashable)
Part = TypeVar("Part")
Out = TypeVar("Out")


def usual_threads() -> int:
    """The number of threads that operations of this Python thread are computed with outside `threads_for`.

    torch keeps it per thread, and a new one begins with what was set last by any: in the moment that another spends
    in `threads` that is some part of them, and would stay so.
    """
    # The main thread has its number from the start.
    return torch.get_num_threads() if threading.current_thread() is threading.main_thread() else USUAL


def threads_for(elements: int) -> AbstractContextManager[None]:
    """On the CPU, compute with one thread if the tensors are small, and with all of them otherwise."""
    return threads(1 if elements <= FEW else usual_threads())


@contextmanager
def threads(wanted: int) -> Iterator[None]:
    """Compute with so many threads on the CPU."""
    if getattr(_here, "inside", False):
        yield  # whoever came first puts the number back
        return
    own, usual = torch.get_num_threads(), usual_threads()
    if own != wanted:
        torch.set_num_threads(wanted)
    _here.inside = True
    try:
        yield
    finally:
        _here.inside = False
        if wanted != usual:
            torch.set_num_threads(usual)


TRIES = 4
LONG_ENOUGH = 2.0
"""Seconds of measuring after which no further turn begins."""


def quickest(ways: Mapping[Way, Callable[[], object]]) -> Way:
    """The quickest of several ways to compute the same here, of which the first is the usual one.

    They are measured in turns, and the quickest call of each counts, but for the first, which may prepare things,
    unless it took so long that there is no other. Another than the usual one must win by a tenth.
    """
    usual = next(iter(ways))
    taken: dict[Way, list[float]] = {way: [] for way in ways}
    for _ in range(1 + TRIES):
        for way, call in ways.items():
            began = time.perf_counter()
            call()
            taken[way].append(time.perf_counter() - began)
        if sum(map(sum, taken.values())) > LONG_ENOUGH:
            break
    best = {way: min(seconds[1:] or seconds) for way, seconds in taken.items()}
    winner = min(best, key=best.__getitem__)
    return winner if best[winner] < 0.9 * best[usual] else usual


@cache
def _crew() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, USUAL - 1), thread_name_prefix="side-by-side")


def side_by_side(call: Callable[[Part], Out], parts: Sequence[Part], each: int) -> list[Out]:
    """What a call gives for each part, computed at the same time on the CPU, with so many threads for each.

    The threads of one operation meet at its end, those of parts only when all is done. Nothing keeps track of
    gradients meanwhile. An error of any part is raised when all have ended.
    """

    def work(part: Part) -> Out:
        with torch.no_grad(), threads(each):
            return call(part)

    others: list[Future[Out]] = []
    try:
        others += (_crew().submit(work, part) for part in parts[1:])
        first = work(parts[0])
    finally:
        wait(others)
    error = next(filter(None, (other.exception() for other in others)), None)
    if error is not None:
        # It holds this frame, and what failed with it: an error that this frame held in turn would stay, with all
        # its tensors, until the next collection, when memory may be short already.
        others.clear()
        try:
            raise error
        finally:
            del error
    return [first, *(other.result() for other in others)]


@dataclass(frozen=True)
class Device:
    """A torch device and the precision of the networks on it. Sampling itself is always float32.

    Attributes:
        offload: whether a model's networks are there one at a time, and wait in the main memory.
    """

    where: torch.device
    dtype: torch.dtype
    offload: bool = False

    def __str__(self) -> str:
        return f"{self.where}/{str(self.dtype).removeprefix('torch.')}"

    @property
    def title(self) -> str:
        """For the page: "cpu, float32" or the card's name."""
        name = torch.cuda.get_device_name(self.where) if self.where.type == "cuda" else str(self.where)
        return f"{name}, {str(self.dtype).removeprefix('torch.')}"


def calculates_in_bfloat16(where: torch.device) -> bool:
    """Whether a device calculates in bfloat16 itself; a CPU that only emulates it is faster in float32."""
    return where.type != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def choose_device(device: str = "auto", dtype: str = "auto", offload: bool = False) -> Device:
    """The best device there is: CUDA, then Apple's MPS, then the CPU.

    Args:
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto" (float16 on a GPU, float32 elsewhere), "float32", "float16", "bfloat16".
        offload: whether large models should take less of the device's memory, and more time.

    Raises:
        ModelError: if the device is not there, has no memory of its own to save, or the precision is not known.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError):
        raise ModelError(f"The device {device!r} is not available here.") from None
    if dtype == "auto":
        dtype = "float32" if chosen.type == "cpu" else "float16"
    if dtype not in _DTYPES:
        raise ModelError(f"The precision {dtype!r} is not known: choose from {', '.join(_DTYPES)}.")
    if offload and chosen.type == "cpu":
        raise ModelError("Offloading saves the memory of a GPU, and the device here is the CPU.")
    return Device(chosen, _DTYPES[dtype], offload)
