"""Densities on a grid: the closed-form marginals p_t of the plane and of the line, and what guidance aims at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from playground.errors import RecipeError
from playground.plane.flow import zoom
from playground.plane.mixtures import ExactField, Mixture, boxed
from playground.plane.packing import pack
from playground.plane.recipe import PlaneFlow
from playground.schedules import Schedule

BOX = 3.2
"""Half the width of the view, in units of the data; times the zoom of its time."""

CELL_NODES = 8
"""Of Gauss-Legendre quadrature within a cell."""


@dataclass(frozen=True)
class Density:
    """Densities on the cells of a square grid.

    Attributes:
        values: [T, H, W], or [T, W] on the line; float32, per unit of x. Row 0 is the lowest y; the cells fill
            [-box, box] times the zoom. Densities are means over their cells, those of stretched components in
            the plane and everything else the values at their middles.
        times: [T].
        zoom: [T], as `Flow.zoom`.
        box: half the width of the view.
        name: of the array in `to_bytes`.
    """

    values: Tensor
    times: Tensor
    zoom: Tensor
    box: float
    name: str = "density"

    @property
    def maxima(self) -> Tensor:
        """[T] the largest value of each frame."""
        return self.values.flatten(1).amax(1)

    def to_bytes(self) -> bytes:
        """For the page: bytes 255 sqrt(value / maximum) by frame; times, zoom, box, maxima in the header."""
        peak = self.maxima.clamp(min=1e-30).reshape(-1, *[1] * (self.values.ndim - 1))
        array = (255 * (self.values / peak).sqrt()).round().to(torch.uint8).numpy()
        return pack(
            {self.name: array},
            times=self.times.tolist(),
            zoom=self.zoom.tolist(),
            box=self.box,
            maxima=self.maxima.tolist(),
        )


def cells(box: float, size: int) -> Tensor:
    """[size] middles of the cells that fill [-box, box]."""
    return ((torch.arange(size, dtype=torch.float64) + 0.5) / size * 2 - 1) * box


def grid_points(box: float, size: int) -> Tensor:
    """[size * size, 2] middles of cells, row by row from the lowest y."""
    at = cells(box, size)
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2)


def _exact(target: PlaneFlow | Mixture | ExactField, schedule: Schedule | None) -> ExactField:
    if isinstance(target, ExactField):
        return target
    if isinstance(target, PlaneFlow):
        return ExactField(target.data(), target.schedule(), "x0", target.source)
    if schedule is None:
        raise RecipeError("A density at a time needs a path.")
    return ExactField(target, schedule, "x0")


def _along_axis(field: ExactField, mixture: Mixture, axis: int, x: Tensor, t: Tensor) -> Tensor:
    """Per component the density of one coordinate at one time t [], its mean over each of the adjoining cells of
    equal width around x [W]: [K, W]. float64.

    A kernel may be much narrower than a cell: values at the middles would be a moire of kernels and cells.
    """
    a, s = field.schedule.alpha(t), field.schedule.sigma(t)
    offset, half = x - a * mixture.means[:, axis, None], (x[1] - x[0]) / 2
    variance = (a**2 * mixture.covariances[:, axis, axis])[:, None]
    if field.source == "uniform":
        deviation = variance.clamp(min=1e-18).sqrt()
        nodes, shares = np.polynomial.legendre.leggauss(CELL_NODES)
        terms = (
            share / 2 * boxed(offset + half * node, s, deviation)[0].exp()
            for node, share in zip(nodes.tolist(), shares.tolist(), strict=True)
        )
        return sum(terms, torch.zeros_like(offset))
    root = (2 * (variance + s**2)).sqrt()
    return (torch.erf((offset + half) / root) - torch.erf((offset - half) / root)) / (4 * half)


def density(
    target: PlaneFlow | Mixture | ExactField,
    schedule: Schedule | None = None,
    times: Sequence[float] | Tensor = (0.0,),
    box: float = BOX,
    size: int = 96,
    label: int = -1,
) -> Density:
    """The closed-form marginals p_t: [T, size, size], on the line [T, size].

    Args:
        target: a recipe, or a mixture with a path, or an exact field.
        times: times of the frames.
        label: a class for p_t(x | c), -1 for all of them.
    """
    field = _exact(target, schedule)
    mixture = field.of_class(label)
    at = torch.as_tensor(times, dtype=torch.float64)
    zooms = zoom(field.schedule, at)
    if mixture.dim == 1:
        return marginal(field, None, at, 0, box, size, label)
    frames = []
    for t, z in zip(at, zooms, strict=True):
        if mixture.is_isotropic:
            # Round components are products of their coordinates' densities: one product of matrices.
            x, y = (_along_axis(field, mixture, d, z * cells(box, size), t) for d in range(2))
            frames.append((y.T * mixture.weights) @ x)
        else:
            points = (z * grid_points(box, size)).float()
            frames.append(field.log_density(points, float(t), label).exp().reshape(size, size))
    return Density(torch.stack(frames).float(), at, zooms, box)


def marginal(
    target: PlaneFlow | Mixture | ExactField,
    schedule: Schedule | None = None,
    times: Sequence[float] | Tensor = (0.0,),
    axis: int = 0,
    box: float = BOX,
    size: int = 256,
    label: int = -1,
) -> Density:
    """The density of one coordinate over time, [T, size]: the picture of a value against time."""
    field = _exact(target, schedule)
    mixture, at = field.of_class(label), torch.as_tensor(times, dtype=torch.float64)
    zooms = zoom(field.schedule, at)
    frames = [
        mixture.weights @ _along_axis(field, mixture, axis, z * cells(box, size), t)
        for t, z in zip(at, zooms, strict=True)
    ]
    return Density(torch.stack(frames).float(), at, zooms, box, "line")


def tilted_log_density(mixture: Mixture, label: int, w: float, x: Tensor, alpha=1.0, sigma=0.0) -> Tensor:
    """log p_t(x) + w log p_t(c | x), not normalised, at x [B, D]: [B].

    For w = 0 this is p, for w = 1 p(x, c). Its gradient is what classifier-free guidance with exact fields
    follows at each t; sampling along these gradients does not end at the tilted density of t = 0 (Bradley &
    Nakkiran 2024, "Classifier-free guidance is a predictor-corrector").
    """
    share = float(mixture.weights[mixture.labels == label].sum())
    if share == 0:
        raise RecipeError(f"The distribution has no class {label}.")
    whole = mixture.log_density(x, alpha, sigma)
    joint = mixture.restricted(label).log_density(x, alpha, sigma) + float(np.log(share))
    return whole + w * (joint - whole)


def tilted_density(
    target: PlaneFlow | Mixture,
    label: int,
    w: float,
    box: float = BOX,
    size: int = 96,
    times: Sequence[float] | Tensor = (0.0,),
) -> Density:
    """p_t(x) p_t(c|x)^w on the grid, [T, size, size] (on the line [T, size]), each normalised over the box.

    Args:
        times: for a recipe, the times at which both factors are taken; 0 is data, and all that a mixture has.
    """
    at = torch.as_tensor(times, dtype=torch.float64)
    if isinstance(target, PlaneFlow):
        path, mixture = target.schedule(), target.data()
        if target.source != "gaussian":
            raise RecipeError("The tilted density is shown for a Gaussian source.")
        levels = list(zip(path.alpha(at).tolist(), path.sigma(at).tolist(), strict=True))
        zooms = zoom(path, at)
    else:
        mixture, levels, zooms = target, [(1.0, 0.0)] * len(at), torch.ones_like(at)
    points = grid_points(box, size) if mixture.dim == 2 else cells(box, size)[:, None]
    frames = []
    for (a, s), z in zip(levels, zooms.tolist(), strict=True):
        log = tilted_log_density(mixture, label, w, z * points, a, s)
        frames.append(torch.softmax(log, 0) / (2 * box * z / size) ** mixture.dim)
    values = torch.stack(frames).reshape(len(at), *[size] * mixture.dim)
    return Density(values.float(), at, zooms, box, "tilted")
