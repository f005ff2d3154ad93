"""Noise as a pure function: a seed means one picture on every device, whatever the batch.

Always drawn on the CPU in float32. The start noise of seed s is `torch.randn` after `manual_seed(s)`, so a
diffusers pipeline with the same generator starts from the same point. Picture i of a run with seed s is
picture 0 of seed s + i. Fresh noise inside a step depends on (seed, step, draw) and on nothing else; or, where
runs with different steps are to be compared, it is the increment of one Brownian path that belongs to the seed.
"""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import Tensor


def start_noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise [*shape] to start from."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def repeated_seed(seed: int, repeat: int) -> int:
    """The seed whose start noise the repeat-th pass (from 0) over a picture of this seed uses: its own at first."""
    if repeat == 0:
        return seed
    digest = blake2b(f"{seed}/repeat {repeat}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def step_noise(seed: int, step: int, draw: int, shape: tuple[int, ...]) -> Tensor:
    """The draw-th standard normal noise [*shape] of a step."""
    digest = blake2b(f"{seed}/{step}/{draw}".encode(), digest_size=8).digest()
    return start_noise(int.from_bytes(digest, "big") >> 1, shape)


BROWNIAN_LEVELS = 20
"""Levels of halving: below a step of 2^-20 the path is a straight line."""


def brownian(seed: int, t: float, shape: tuple[int, ...]) -> Tensor:
    """The Brownian path of a seed at a time t in [0, 1], [*shape], float64, from its value 0 at t = 0.

    Levy's construction: W(t) = t Z_0 + the sum over levels of the tent functions at t times their normals, so any
    time can be asked for, in any order, and every run sees the same path.
    """
    w = t * _named(seed, "end", shape)
    for level in range(BROWNIAN_LEVELS):
        cells = 2**level
        index = min(int(t * cells), cells - 1)
        place = t * cells - index  # in [0, 1], across the cell
        tent = min(place, 1 - place)
        if tent > 0:
            # At a cell's middle the path leaves the straight line by a normal of variance (cell length) / 4.
            w = w + 2 * tent * (0.25 / cells) ** 0.5 * _named(seed, f"{level}/{index}", shape)
    return w


def brownian_noise(seed: int, t: float, s: float, shape: tuple[int, ...]) -> Tensor:
    """(W(t) - W(s)) / sqrt(t - s), [*shape]: standard normal noise for a step from t to s < t."""
    return ((brownian(seed, t, shape) - brownian(seed, s, shape)) / (t - s) ** 0.5).float()


def _named(seed: int, name: str, shape: tuple[int, ...]) -> Tensor:
    digest = blake2b(f"{seed}/brownian/{name}".encode(), digest_size=8).digest()
    return start_noise(int.from_bytes(digest, "big") >> 1, shape).double()
