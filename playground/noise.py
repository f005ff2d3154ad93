"""Noise as a pure function: a seed means one picture on every device, whatever the batch.

Always drawn on the CPU in float32. The start noise of seed s is `torch.randn` after `manual_seed(s)`, so a
diffusers pipeline with the same generator starts from the same point. Picture i of a run with seed s is
picture 0 of seed s + i. Fresh noise inside a step depends on (seed, step, draw) and on nothing else.
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
