"""Guidance: rules that combine what a field says with and without the condition.

Notation: c and u are the conditional and the unconditional prediction, D = c - u, and

    guided = u + w D,        w = 1 is "no guidance", w = 0 ignores the condition.

Some lectures write (1 + s) c - s u instead; that is the same rule with s = w - 1.

A rule is a small frozen dataclass: its fields are its parameters, `branches` says what has to be computed
for a row at a time, `combine` is the formula. Rows of one run may carry different parameters (a sweep), so
`combine` receives them as tensors that broadcast against the prediction.

To add a rule, write one class here and put it into `RULES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from playground.fields import Kind, Prediction, rows

Branch = Literal["cond", "uncond"]
State = dict[str, Tensor]
"""What a rule remembers between evaluations: named tensors of B rows."""


@dataclass(frozen=True)
class Guidance:
    """Base of all rules: only the conditional prediction, whatever w says.

    Attributes:
        w: the guidance scale.
        low, high: the window of times t in which the rule acts; outside it is c alone (Kynkäänniemi et al.
            2024, "Applying guidance in a limited interval"). They are noise levels, so a window means the
            same whatever the number of steps. A query at exactly `low` or `high` is inside.
    """

    w: float = 1.0
    low: float = 0.0
    high: float = 1.0

    title: ClassVar[str] = "none"
    formula: ClassVar[str] = r"\hat\epsilon = c"
    space: ClassVar[Kind | None] = None
    """What `combine` is written in; None for rules linear in c and u, which give the same in any kind and
    therefore act on the raw output, without a conversion's rounding."""

    def branches(self, t: float, step: int) -> tuple[Branch, ...]:
        """The predictions needed for a row at time t in a step. With a single one, that one is the answer."""
        return ("cond",)

    def inside(self, t: float) -> bool:
        """Whether t lies in the window (up to rounding of the grid)."""
        return self.low - 1e-9 <= t <= self.high + 1e-9

    @staticmethod
    def start(x: Tensor) -> State:
        """What the rule remembers before it has been asked, for B rows at x [B, ...]. Default: nothing."""
        return {}

    @staticmethod
    def combine(c: Tensor, u: Tensor, p: SimpleNamespace, state: State) -> tuple[Tensor, State]:
        """The guided prediction.

        Args:
            c, u: [B, ...] conditional and unconditional predictions, read as `space`.
            p: the rule's parameters, each [B, 1, ...].
            state: what the rule returned for these rows when it was last asked, at first from `start`. A
                solver with two evaluations a step asks twice.
        """
        return c, state


@dataclass(frozen=True)
class CFG(Guidance):
    """Classifier-free guidance, u + w (c - u) (Ho & Salimans 2022, eq. 6 with w there = w - 1 here)."""

    title: ClassVar[str] = "classifier-free guidance"
    formula: ClassVar[str] = r"\hat\epsilon = u + w\,(c - u)"

    def branches(self, t, step):
        if self.w == 1 or not self.inside(t):
            return ("cond",)
        return ("uncond",) if self.w == 0 else ("uncond", "cond")

    @staticmethod
    def combine(c, u, p, state):
        return u + p.w * (c - u), state


RULES: dict[str, type[Guidance]] = {"none": Guidance, "cfg": CFG}
"""The rules a recipe can name."""


def parameters(rules: Sequence[Guidance], like: Tensor) -> SimpleNamespace:
    """The parameters of the rules of B rows, each as [B, 1, ...] in the precision of `like`."""
    names = [f.name for f in fields(rules[0])]
    table = torch.tensor([[float(getattr(r, n)) for n in names] for r in rules], dtype=torch.float64)
    return SimpleNamespace(**{n: rows(table[:, i].to(like.device), like) for i, n in enumerate(names)})


def guided(
    rules: Sequence[Guidance], answers: Mapping[Branch, Prediction], state: State
) -> tuple[Prediction, State]:
    """Combine both branches of B rows that share one kind of rule.

    Args:
        rules: B rules of the same class.
        answers: "cond" and "uncond" predictions of these rows.
        state: the rule's state for these rows.
    """
    c, u = answers["cond"], answers["uncond"]
    kind = rules[0].space or c.kind
    value, state = rules[0].combine(c.read(kind), u.read(kind), parameters(rules, c.x), state)
    return c.replaced(kind, value), state
