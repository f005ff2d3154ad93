"""How far two samples are apart as distributions, and what as many draws of one law would give by chance."""

from __future__ import annotations

import torch
from torch import Tensor


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| of clouds [N, D] and [M, D], 0 if and only if the laws are equal.

    (Székely & Rizzo 2013, "Energy statistics", eq. 1.) The unbiased estimate: it may fall below 0 by its sampling
    error.
    """
    return _energy(torch.cdist(*_joined(x, y)), len(x))[0]


def energy_coefficient(x: Tensor, y: Tensor) -> float:
    """The energy distance as a share of 2 E|X - Y|: 0 for equal laws, 1 for two different points.

    (Székely & Rizzo 2013, section 2.) Without a unit, and not biased by the number of draws.
    """
    distance, between = _energy(torch.cdist(*_joined(x, y)), len(x))
    return distance / between if between else 0.0


def chance_level(x: Tensor, y: Tensor, share: float = 0.95, permutations: int = 400, seed: int = 0) -> float:
    """What the energy coefficient stays below, in this share of cases, when both clouds are draws of one law.

    The permutation test (Székely & Rizzo 2013, section 6): the draws are dealt out anew, `permutations` times.
    """
    distances = torch.cdist(*_joined(x, y))
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(permutations):
        order = torch.randperm(len(distances), generator=generator)
        distance, between = _energy(distances[order][:, order], len(x))
        values.append(distance / between if between else 0.0)
    return float(torch.tensor(values, dtype=torch.float64).quantile(share))


def _joined(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    both = torch.cat([x, y]).double()
    return both, both


def _energy(distances: Tensor, n: int) -> tuple[float, float]:
    """The energy distance from the distances [N + M, N + M] of all draws, and its first term."""
    m = len(distances) - n
    within = distances[:n, :n].sum() / (n * (n - 1)) + distances[n:, n:].sum() / (m * (m - 1))
    between = 2 * distances[:n, n:].mean()
    return float(between - within), float(between)


def verdict(without: float, with_noise: float, level: float) -> str:
    """What noise does to a distance, in words.

    Args:
        without, with_noise: the distances from the right distribution.
        level: what 95% of draws of the right distribution stay below; a smaller difference is not called one.
    """
    if abs(with_noise - without) <= level:
        return "no difference to speak of"
    return "noise repairs" if with_noise < without else "noise hurts"
