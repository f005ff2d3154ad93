"""What a model knows: a Field answers a point, a time and a condition with a Prediction.

An exact mixture in the plane, an MLP trained a minute ago and a Stable Diffusion UNet are all Fields.
Networks are trained to output different things; a `Prediction` holds whatever came out and converts it on
demand, so that solvers and guidance rules can ask for the quantity their paper is written in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from playground.batches import Batches
from playground.schedules import Schedule

Kind = Literal["x0", "eps", "v", "velocity"]
Condition = Mapping[str, Tensor]
"""What a field is conditioned on, as named tensors with the batch first (text states, labels, control pictures)."""


def rows(values: Tensor | float, like: Tensor) -> Tensor:
    """Per-row numbers [B] (or one number) shaped [B, 1, ...] to multiply `like` [B, ...], in its precision."""
    values = torch.as_tensor(values)
    values = values.to(like.dtype).to(like.device)  # in this order: MPS has no float64
    return values.reshape(-1, *[1] * (like.ndim - 1)) if values.ndim else values


@dataclass(frozen=True)
class Prediction:
    """A field's answer at (x, t), readable as x0, eps, v, velocity or score.

    With a = alpha(t), s = sigma(t) and x = a x0 + s eps, each of these determines the others:

        v        = a eps - s x0          (Salimans & Ho 2022; an output format, not dx/dt)
        velocity = a' x0 + s' eps        (the slope dx/dt of the flow; Lipman et al. 2022)
        score    = -eps / s              (the gradient of log p_t)

    Attributes:
        kind: what `value` is.
        value: [B, ...], the same shape as x.
        x: [B, ...], where the field was asked.
        t: [B] float64, when.
        schedule: the path that gives a and s.
        back: [B, ...] the noise that solvers which remove noise and put noise back have to put back, where a
            guidance rule wants another than eps (CFG++).
    """

    kind: Kind
    value: Tensor
    x: Tensor
    t: Tensor
    schedule: Schedule
    back: Tensor | None = None

    def _row(self, name: str) -> Tensor:
        return rows(getattr(self.schedule, name)(self.t), self.x)

    @cached_property
    def _path(self) -> tuple[Tensor, Tensor]:
        return self._row("alpha"), self._row("sigma")

    @cached_property
    def _path_dot(self) -> tuple[Tensor, Tensor]:
        return self._row("alpha_dot"), self._row("sigma_dot")

    @cached_property
    def x0(self) -> Tensor:
        """The expected data given x: E[x_0 | x_t = x]."""
        (a, s), value = self._path, self.value
        if self.kind == "x0":
            return value
        if self.kind == "eps":
            return (self.x - s * value) / a
        if self.kind == "v":
            # Divided by a^2 + s^2 so that it holds on every path; it is 1 on variance-preserving ones.
            return (a * self.x - s * value) / (a**2 + s**2)
        a_dot, s_dot = self._path_dot
        return (s_dot * self.x - s * value) / (a * s_dot - a_dot * s)

    @cached_property
    def eps(self) -> Tensor:
        """The expected noise given x: E[eps | x_t = x]."""
        (a, s), value = self._path, self.value
        if self.kind == "eps":
            return value
        if self.kind == "x0":
            return (self.x - a * value) / s
        if self.kind == "v":
            return (s * self.x + a * value) / (a**2 + s**2)
        a_dot, s_dot = self._path_dot
        return (a * value - a_dot * self.x) / (a * s_dot - a_dot * s)

    @property
    def renoise(self) -> Tensor:
        """The noise to put back: eps, unless `back` says otherwise."""
        return self.eps if self.back is None else self.back

    @cached_property
    def v(self) -> Tensor:
        """a eps - s x0."""
        if self.kind == "v":
            return self.value
        a, s = self._path
        return a * self.eps - s * self.x0

    @cached_property
    def velocity(self) -> Tensor:
        """dx/dt of the probability-flow ODE: a' x0 + s' eps."""
        if self.kind == "velocity":
            return self.value
        a_dot, s_dot = self._path_dot
        return a_dot * self.x0 + s_dot * self.eps

    @cached_property
    def score(self) -> Tensor:
        """The gradient of log p_t at x: -eps / sigma(t)."""
        return -self.eps / self._path[1]

    def read(self, kind: Kind) -> Tensor:
        """This prediction in another kind."""
        return getattr(self, kind)

    def replaced(self, kind: Kind, value: Tensor) -> Prediction:
        """A prediction at the same point and time that says something else."""
        return replace(self, kind=kind, value=value)

    def take(self, index: Tensor | slice) -> Prediction:
        """The prediction of some rows."""
        back = None if self.back is None else self.back[index]
        return Prediction(self.kind, self.value[index], self.x[index], self.t[index], self.schedule, back)

    @staticmethod
    def joined(parts: Sequence[Prediction]) -> Prediction:
        """Predictions of the same kind, one after the other."""
        if len(parts) == 1:
            return parts[0]
        first = parts[0]
        value, x, t = (torch.cat([getattr(p, n) for p in parts]) for n in ("value", "x", "t"))
        back = None if all(p.back is None for p in parts) else torch.cat([p.renoise for p in parts])
        return Prediction(first.kind, value, x, t, first.schedule, back)


@dataclass
class Count:
    """How often a field was asked.

    Attributes:
        evaluations: questions, whatever the batch; one that had to be split for memory counts once.
        sample_forwards: rows summed over the calls; guidance with two branches doubles these.
    """

    evaluations: int = 0
    sample_forwards: int = 0


class Field(ABC):
    """Something that predicts, and counts how often it was asked.

    Attributes:
        schedule: the path it was trained on (or is exact for).
        kind: what `evaluate` returns.
        shape: the shape of one sample, without the batch.
        cloud: whether a sample is a cloud of points, shape [N, ...], and not one thing.
        count: all calls so far; a run takes the difference.
        batches: how many rows `evaluate` gets at once; shrinks when memory runs out.
    """

    schedule: Schedule
    kind: Kind
    shape: tuple[int, ...]
    cloud: bool = False

    def __init__(self) -> None:
        self.count = Count()
        self.batches = Batches()

    @property
    @abstractmethod
    def identity(self) -> str:
        """A string that differs whenever the answers may (weights, adapters, precision, device)."""

    @abstractmethod
    def evaluate(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The raw output, as `kind`, for x [B, ...] at times t [B] under a condition of B rows."""

    def encode(self, conditions: Sequence[object]) -> Condition:
        """Conditions of B rows (prompts, labels, None for unconditional) as tensors. Default: nothing to tell."""
        return {}

    def predict(self, x: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """Ask the field, and count it.

        Args:
            x: [B, ...] points.
            t: [B] float64 times in [t_min, t_max].
            condition: named tensors of B rows.
        """
        self.count.evaluations += 1
        self.count.sample_forwards += len(x)
        value = self.batches(self.evaluate, x, t, named=condition)
        return Prediction(self.kind, value, x, t, self.schedule)
