"""Faithful or realistic: what SDEdit trades when t0 grows (Meng et al. 2022, Fig. 3), measured over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from playground.errors import ModelError
from playground.images.models import ASSETS, BUNDLED
from playground.images.sdedit import Edited, SDEdit
from playground.images.verifier import Verifier

LEVELS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0)
"""The noise levels that are measured."""

SEEDS = 16


@dataclass
class Tradeoff:
    """The curve over t0.

    Attributes:
        t0: noise levels.
        distance: mean distance to the guide over the seeds, L2 in 1/255 (`Edited.distances`).
        spread: its standard deviation over the seeds.
        seeds: how many.
        perceptual: mean distance to the guide in the verifier's layers (`perceptual`), empty where there is no
            verifier; realism: distance to text to image in its features (`realism`), likewise.
        masked: whether all of them are of the part that a mask marks to be made anew.
    """

    t0: list[float]
    distance: list[float]
    spread: list[float]
    seeds: int
    perceptual: list[float] = field(default_factory=list)
    realism: list[float] = field(default_factory=list)
    masked: bool = False

    @property
    def correlation(self) -> float:
        """Spearman's rank correlation of t0 and mean distance."""
        return spearman(self.t0, self.distance)


def parts(recipe: SDEdit, levels: Sequence[float] = LEVELS, seeds: int = SEEDS) -> list[SDEdit]:
    """The strips whose pictures are measured, eight seeds each: levels x seeds rows altogether."""
    return [
        recipe.but(strip=tuple(levels), pictures=min(8, seeds - first), seed=(recipe.seed + first) % 2**31)
        for first in range(0, seeds, 8)
    ]


def tradeoff(strips: Sequence[Edited]) -> Tradeoff:
    """The curve that finished strips make (the runs of `parts`)."""
    levels = strips[0].recipe.strip
    table = torch.cat([s.distances.view(-1, len(levels)) for s in strips])
    spread = table.std(0) if len(table) > 1 else torch.zeros(len(levels))
    masked = strips[0].free is not None
    return Tradeoff(list(levels), table.mean(0).tolist(), spread.tolist(), len(table), masked=masked)


def gaussian_distance(a: Tensor, b: Tensor) -> float:
    """Frechet distance of two sets of features [N, D], taken as Gaussians with independent components:
    sqrt(|mu_a - mu_b|^2 + |sd_a - sd_b|^2). A full covariance cannot be estimated from a few seeds."""
    means = (a.mean(0) - b.mean(0)).square().sum()
    return float((means + (a.std(0) - b.std(0)).square().sum()).sqrt())


def _home(folder: str) -> Path:
    return (ASSETS / folder if folder == BUNDLED else Path(folder)) / "verifier"


def has_verifier(folder: str) -> bool:
    """Whether a scene verifier lies beside a model (`verifier_of`)."""
    return (_home(folder) / "config.json").is_file()


def verifier_of(folder: str) -> Verifier | None:
    """The scene verifier that lies beside a model, None where there is none.

    Args:
        folder: the model's, as the operator gave it, or the bundled model's name.

    Raises:
        ModelError: when it cannot be read.
    """
    if not has_verifier(folder):
        return None
    try:
        return Verifier.load(_home(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError):
        raise ModelError("The scene verifier beside this model cannot be read.") from None


def fitted(pictures: Tensor) -> Tensor:
    """Pictures [R, 3, H, W] brought to the verifier's 128 x 128 pixels."""
    if pictures.shape[-2:] == (128, 128):
        return pictures
    return torch.nn.functional.interpolate(pictures, (128, 128), mode="bilinear", antialias=True)


def _shares(free: Tensor, like: Tensor) -> Tensor:
    """[1, 1, h, w], adding up to 1: how much of a mask [H, W] lies at each place of a layer [B, C, h, w]."""
    high, wide = like.shape[-2:]
    at = torch.nn.functional.adaptive_avg_pool2d(free.float()[None, None], (high, wide))
    return at / at.sum()


@torch.no_grad()
def features(verifier: Verifier, pictures: Tensor, free: Tensor | None = None) -> Tensor:
    """[R, D] of pictures [R, 3, H, W] in [-1, 1]; of a part [H, W] of them the mean of the two coarsest layers."""

    def see(part: Tensor) -> Tensor:
        seen = verifier(part)
        if free is None:
            return seen.whole.float()
        layers = [m.float() for m in seen.maps[-2:]]
        return torch.cat([(m * _shares(free, m)).sum((2, 3)) for m in layers], 1)

    return torch.cat([see(part) for part in fitted(pictures).split(32)])


@torch.no_grad()
def perceptual(verifier: Verifier, pictures: Tensor, guide: Tensor, free: Tensor | None = None) -> Tensor:
    """[R] how different pictures [R, 3, H, W] look from a guide [3, H, W], to the verifier.

    Zhang et al. 2018 ("The unreasonable effectiveness of deep features", eq. 1) with all weights 1: the features at
    each place, made to length 1, squared difference, mean over the places, sum over the layers.

    Args:
        free: [H, W], 1 at the places that count: the mean is over them. All do by default.
    """

    def layers(x: Tensor) -> list[Tensor]:
        return [torch.nn.functional.normalize(m.float(), dim=1) for m in verifier(fitted(x)).maps]

    theirs = layers(guide[None])
    where = torch.ones(guide.shape[1:]) if free is None else free

    def compared(part: Tensor) -> Tensor:
        pairs = zip(layers(part), theirs, strict=True)
        return torch.stack([((a - b).square().sum(1) * _shares(where, a)[0]).sum((1, 2)) for a, b in pairs]).sum(0)

    return torch.cat([compared(part) for part in pictures.split(32)])


def judged(curve: Tradeoff, strips: Sequence[Edited], real: Sequence[Tensor], verifier: Verifier) -> Tradeoff:
    """The curve with what the verifier sees: `strips` as for `tradeoff`, `real` as for `realism`.

    With a mask both are of the marked part: realism then compares with the same part of the pictures without guide.
    """
    free = strips[0].free
    guides = [s.guide for s in strips if s.guide is not None]
    seen = [perceptual(verifier, s.pictures, g, free) for s, g in zip(strips, guides, strict=True)]
    means = torch.cat(seen).view(-1, len(curve.t0)).mean(0).tolist()
    return replace(
        curve, perceptual=means, realism=realism(strips, real, lambda pictures: features(verifier, pictures, free))
    )


def realism(strips: Sequence[Edited], real: Sequence[Tensor], see: Callable[[Tensor], Tensor]) -> list[float]:
    """For each level of the strips, how far its pictures are from pictures without a guide.

    Args:
        strips: the runs of `parts`.
        real: pictures [R, 3, H, W] made from the prompt alone, of other seeds.
        see: the features [R, D] of pictures.
    """
    seen, theirs = torch.cat([see(s.pictures) for s in strips]), torch.cat([see(p) for p in real])
    table = seen.view(-1, len(strips[0].recipe.strip), seen.shape[-1])
    return [gaussian_distance(table[:, i], theirs) for i in range(table.shape[1])]


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation: Pearson's correlation of the ranks, equal values sharing theirs."""

    def ranks(values: Sequence[float]) -> Tensor:
        v = torch.tensor(values, dtype=torch.float64)
        return (v[:, None] > v).double().sum(1) + ((v[:, None] == v).double().sum(1) - 1) / 2

    x, y = ranks(a) - ranks(a).mean(), ranks(b) - ranks(b).mean()
    return float((x * y).sum() / (x.norm() * y.norm()))
