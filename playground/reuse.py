"""Prefix reuse: a run whose first steps equal those of an earlier run goes on where they end.

Everything step i reads goes into a hash chain: k_0 covers what all steps share (the field with its weights,
precision and device, the rows of the batch and their noise), and

    k_(i+1) = hash(k_i, times, branches, conditions, rule and weights of step i).

Two runs with the same k_i have done the same arithmetic up to step i, so x, the memories of solver and rule,
and the records of these steps can be taken over; going on is bit for bit what a full run would have done.
Only runs of the same batch layout share keys: other batch sizes round differently.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from playground.fields import Field
from playground.guidance import Guidance
from playground.plan import Plan, Row
from playground.sampling import Control, Snapshot
from playground.solvers import SOLVERS


def _weights(rule: Guidance) -> Hashable:
    """What a rule's formula reads. The window decides which branches are asked, and nothing else."""
    return type(rule).__qualname__, *(
        (f.name, getattr(rule, f.name)) for f in fields(rule) if f.name not in ("low", "high")
    )


def _reads(row: Row, step: int, times: Sequence[float]) -> Hashable:
    """What a row's step reads besides its x and its memories; `times` are those at which the field is asked."""
    questions = []
    for t in times:
        branches = row.guidance.branches(t, step)
        told = tuple((name, row.told(name)) for name in branches)
        questions.append((t, told, _weights(row.guidance) if len(branches) > 1 else None))
    return row.times[step], row.times[step + 1], tuple(questions)


def chain(plan: Plan, field: Field, controls: Sequence[Control] = (), where: Hashable = ()) -> tuple[str, ...]:
    """The keys k_0 ... k_N of a plan; empty for a plan whose steps cannot be taken over.

    Args:
        plan: all its rows must be in step (one lane), so that a step is one point in time for the whole batch.
        field: who answers; its `identity` stands for weights, precision and device.
        controls: each says what it reads (`Control.reads`).
        where: further facts on which the arithmetic depends (the weak field of autoguidance).
    """
    first = plan.rows[0]
    if len(plan.lanes(field.schedule)) > 1 or not SOLVERS[first.solver].resumable:
        return ()
    shared = (
        field.identity,
        field.shape,
        field.batches.limit,
        torch.__version__,
        torch.get_num_threads(),
        where,
        tuple(
            (r.seed, r.brownian, r.guide, r.solver, r.variable, r.eta, r.times[0], type(r.guidance).__qualname__)
            for r in plan.rows
        ),
        tuple(type(c).__qualname__ for c in controls),
    )
    queries = [r.queries(field.schedule) for r in plan.rows]
    keys = [_digest("", shared)]
    for step in range(len(first.times) - 1):
        edits = tuple(c.reads(step) for c in controls)
        if any(read is None for read in edits):
            return ()
        asked = tuple(_reads(r, step, q[step]) for r, q in zip(plan.rows, queries, strict=True))
        keys.append(_digest(keys[-1], (asked, edits)))
    return tuple(keys)


def _digest(before: str, value: Hashable) -> str:
    return blake2b(f"{before}{value!r}".encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Kept:
    """A step that has been done: where it ended, and what was noted of it."""

    snapshot: Snapshot
    record: Any


class Prefixes:
    """The steps of the last runs, as many as fit into a number of bytes."""

    def __init__(self, limit: int = 256 * 2**20):
        self._limit, self._held = limit, 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._sizes: dict[str, int] = {}

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self._held

    def longest(self, keys: Sequence[str]) -> list[Kept]:
        """The steps of a chain, from its first, that are all kept."""
        found: list[Kept] = []
        with self._lock:
            for key in keys[1:]:
                if key not in self._kept:
                    break
                found.append(self._kept[key])
            # The beginning of a run is worth more than its end: without it the rest cannot be used.
            for key in reversed(keys[1 : len(found) + 1]):
                self._kept.move_to_end(key)
        return found

    def put(self, key: str, kept: Kept, chain: Sequence[str] = ()) -> None:
        """Keep a step, in the place of those that were used longest ago.

        Args:
            chain: the run's keys. Its own earlier steps stay: without them this one could not be used.
        """
        size, own = nbytes(kept), set(chain)
        with self._lock:
            others = [k for k in self._kept if k not in own]
            room = self._limit - self._held + sum(self._sizes[k] for k in others)
            if key in self._kept or size > room:
                return
            self._kept[key], self._sizes[key] = kept, size
            self._held += size
            for old in others:
                if self._held <= self._limit:
                    break
                del self._kept[old]
                self._held -= self._sizes.pop(old)

    def clear(self) -> None:
        """Let go of all steps."""
        with self._lock:
            self._kept.clear()
            self._sizes.clear()
            self._held = 0


def nbytes(value: Any) -> int:
    """Memory of all tensors inside nested tuples, lists, dictionaries and dataclasses."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(nbytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(nbytes, value))
    if is_dataclass(value):
        return sum(nbytes(getattr(value, f.name)) for f in fields(value))
    return 0
