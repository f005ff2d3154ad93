"""How far the particles of a flow end from the distribution they should have."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from playground.plane.flow import Flow
from playground.plane.metrics import sliced_wasserstein
from playground.plane.recipe import PlaneFlow
from playground.plane.views import WORLD, reduced

DRAWS = 4000


def distance(flow: Flow) -> tuple[float, float]:
    """(sliced Wasserstein distance of the particles from exact draws of the target, the same of exact draws).

    The target is that of the flow's class, if it has one: guidance with w other than 1 aims elsewhere. The second
    number is the floor: a distance near it cannot be told from none.
    """
    truth, floor = _truth(reduced(flow.recipe, *WORLD), flow.recipe.particles)
    return sliced_wasserstein(flow.x.double(), truth), floor


@lru_cache(maxsize=64)
def _truth(world: PlaneFlow, count: int) -> tuple[Tensor, float]:
    mixture = world.data() if world.label < 0 else world.data().restricted(world.label)
    draws = [mixture.sample(n, torch.Generator().manual_seed(i)) for i, n in enumerate((DRAWS, count))]
    return draws[0], sliced_wasserstein(draws[1], draws[0])
