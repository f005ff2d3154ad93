"""SDEdit in the plane: points noised to t0, and taken back by a field that is known exactly.

    guide, parts = strokes()
    edit_points(guide, t0=0.5).result  # [N, 2]

What is drawn roughly becomes what the data look like (Meng et al. 2022, Fig. 2), on the driver and with a solver
that also make pictures. The path is the linear one, alpha = 1 - t and sigma = t, so at t0 = 1 nothing of a point
is left. A picture's layout survives more noise than a point does: many latents carry it, a point is two numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from playground.errors import RecipeError
from playground.fields import Count
from playground.guidance import Guidance
from playground.noise import start_noise
from playground.plan import Plan, Row
from playground.plane.flow import Cloud, exact_field
from playground.plane.mixtures import ExactField, Mixture
from playground.plane.recipe import PlaneFlow
from playground.sampling import run

TARGET = PlaneFlow(target="smiley")
"""What the data look like: a face, two eyes and a mouth."""

STEPS = 16
PARTS = ("face", "eyes", "mouth")
DRAWS = 10_000


@dataclass(frozen=True)
class PlaneEdit:
    """Points on their way to t0 and back.

    Attributes:
        t0: the noise level.
        guide, noised, result: [N, 2] where they were, at t0, and where the field takes them.
        to_guide: how far result is from guide, root mean square over the points: small is faithful.
        typical: share of the results that are as probable under the data as 99 of 100 draws from it are.
        count: evaluations of the field; a sample-forward is one of the whole cloud.
    """

    t0: float
    guide: Tensor
    noised: Tensor
    result: Tensor
    to_guide: float
    typical: float
    count: Count


def strokes() -> tuple[Tensor, Tensor]:
    """A face as a hasty hand draws it: points [N, 2], and for each the index of its part in `PARTS`.

    The parts have the shares of points that they have in the data.
    """
    face = ((-0.3, 2.7), (2.5, 1.7), (2.3, -1.4), (0.4, -2.8), (-2.5, -1.8), (-2.3, 1.8), (-0.3, 2.7))
    eyes = (((-1.3, 1.2), (-0.7, 1.0)), ((0.5, 1.0), (1.2, 1.1)))
    mouth = ((-1.4, -1.3), (1.3, -0.9))
    drawn = [_line(face, 183), *(_line(eye, 23) for eye in eyes), _line(mouth, 71)]
    parts = torch.tensor([0, 1, 1, 2]).repeat_interleave(torch.tensor([len(d) for d in drawn]))
    shaking = 0.06 * torch.randn(len(parts), 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.cat(drawn) + shaking, parts


def _line(corners: tuple[tuple[float, float], ...], count: int) -> Tensor:
    """[count, 2] points, evenly spaced along straight lines through corners."""
    at = torch.tensor(corners, dtype=torch.float64)
    lengths = at.diff(dim=0).norm(dim=1)
    ends = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    place = torch.linspace(0, float(ends[-1]), count, dtype=torch.float64)
    k = (torch.searchsorted(ends, place, right=True) - 1).clamp(0, len(lengths) - 1)
    share = ((place - ends[k]) / lengths[k])[:, None]
    return torch.lerp(at[k], at[k + 1], share)


def edit_points(
    guide: Tensor, t0: float, seed: int = 7, field: ExactField | None = None, steps: int = STEPS
) -> PlaneEdit:
    """x_t0 = alpha(t0) guide + sigma(t0) eps, and back along the exact flow with Heun's method.

    Args:
        guide: [N, D].
        t0: the noise level, from 0, which gives the guide back, to 1, which forgets it.
        seed: of eps; a point has the same noise at every t0.
        field: who answers; by default that of `TARGET`.
        steps: of equal length in t, from t0 down to 0.

    Raises:
        RecipeError: for a level outside 0 to 1.
    """
    if not 0 <= t0 <= 1:
        raise RecipeError("A noise level lies between 0 and 1.")
    field = field or exact_field(TARGET)
    times = torch.linspace(t0, 0, steps + 1, dtype=torch.float64).tolist() if t0 > 0 else [0.0]
    row = Row(seed, tuple(times), "heun", Guidance(), variable="t", guide="guide")
    cloud, path = Cloud(field, len(guide)), field.schedule
    finished = run(Plan((row,)), cloud, dtype=torch.float64, guides={"guide": guide})
    noise = start_noise(seed, cloud.shape)  # the driver's own
    result = finished.x[0]
    return PlaneEdit(
        t0=t0,
        guide=guide,
        noised=float(path.alpha(t0)) * guide + float(path.sigma(t0)) * noise,
        result=result,
        to_guide=float((result - guide).square().sum(-1).mean().sqrt()),
        typical=float((field.mixture.log_density(result) >= least_typical(field.mixture)).double().mean()),
        count=finished.count,
    )


@lru_cache(maxsize=8)
def least_typical(data: Mixture) -> float:
    """The log-density that 99 of 100 draws from the data reach."""
    x = data.sample(DRAWS, torch.Generator().manual_seed(0))
    return float(data.log_density(x).quantile(0.01))
