"""Attention inside the denoiser: looked at, and edited while a run goes on (Hertz et al. 2022, prompt-to-prompt).

`AttentionEdits` is a control of the driver. Around each call of the denoiser it puts its own processor into the
layers it needs, which computes the probabilities softmax(Q K^T / sqrt(d)) explicitly, and takes it out again. Which
step it is comes from the driver, so a solver that asks twice per step is edited twice in the same step. A layer is
known by its kind and by its grid of queries, never by its place in a list.

In the steps below their fraction of all, edited rows get

    cross-attention:  A* = A_source M, where the token has a counterpart (alignment.py)
    self-attention:   A* = A_source, on the coarse grids (`AttentionEdits.self_grid`)

and in all steps words have their weights: A*_j <- a_j A*_j.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from playground.batches import Batches
from playground.errors import ModelError, RecipeError
from playground.images.alignment import Alignment
from playground.sampling import Asked, Control

SELF_GRID = 16
"""Self-attention is copied on grids of at most this many queries a side, or a quarter of the latents' side if that
is more: the paper's 16 of Stable Diffusion's 64. Finer ones hold texture, not layout."""

SHOWN_GRID = 32 * 32
"""Maps are kept for looking at on grids of at most this many queries."""

MOST_BYTES = 2**27
"""What the kept maps of a run may take together."""


def shown_grid(steps: int, rows: int, tokens: int) -> int:
    """The most queries of a grid whose maps are kept, so that those of a whole run take at most `MOST_BYTES`."""
    queries = SHOWN_GRID
    # Two kinds of map of two bytes a number; grids of a quarter, a sixteenth, ... of the queries come on top.
    while queries > 1 and steps * rows * tokens * 4 * queries * 4 / 3 > MOST_BYTES:
        queries //= 4
    return queries


@dataclass(frozen=True)
class Edit:
    """What is done to one row of a run, in comparison with its first row, the source.

    Attributes:
        alignment: which source token each token reads.
        cross_steps: [L] per token of the row, the steps (from the first) in which it reads the source's attention.
        self_steps: the steps in which self-attention is the source's.
        weights: [L] factor of each token's attention (1: as it is).
        renormalise: whether the weighted attention is divided by the sum of its sizes: by its sum, where no weight
            is negative.
    """

    alignment: Alignment
    cross_steps: Tensor
    self_steps: int
    weights: Tensor
    renormalise: bool = False

    def reads(self, step: int) -> Hashable:
        """What matters of it in a step."""
        active = (self.cross_steps > step) & ~self.alignment.own
        divided = self.renormalise and bool((self.weights != 1).any())
        parts = [active, self.weights, torch.tensor([step < self.self_steps, divided])]
        if bool(active.any()):
            parts.append(self.alignment.matrix[:, active])
        return blake2b(b"".join(p.contiguous().numpy().tobytes() for p in parts), digest_size=12).hexdigest()


@dataclass(frozen=True)
class Blend:
    """Local blend: outside where the chosen words attend, edited rows are the source.

    Attributes:
        tokens: per row of the run, the tokens of its chosen words. A row without any is blended where the source's
            attend; where the source has none either, it is not blended.
        start: the first step in which it acts.
        threshold: of the map divided by its largest value.
    """

    tokens: tuple[tuple[int, ...], ...]
    start: int = 4
    threshold: float = 0.3


@dataclass
class Maps:
    """Cross-attention of one step (its first evaluation), averaged over heads and layers of a grid.

    Attributes:
        before, after: per grid (height, width), [R, height * width, L] of all rows, before and after editing.
        mask: [R, height, width] of the local blend after this step, None without one.
    """

    before: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    after: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    mask: Tensor | None = None


class AttentionEdits(Control):
    """Edits the attention of rows 1, 2, ... of a run by that of row 0, and keeps the maps of all.

    Args:
        network: diffusers' UNet2DConditionModel.
        latent: (height, width) of the latents.
        edits: one per row after the first.
        blend: the local blend, if any.
        keeps: whether the maps are kept.
        shown: the most queries of a grid whose maps are kept. The local blend takes them wherever they are.
        batches: those of the field that is asked: the rows go through it together or not at all.

    Raises:
        ModelError: for a network without cross-attention layers.
    """

    def __init__(
        self,
        network: Any,
        latent: tuple[int, int],
        edits: Sequence[Edit],
        blend: Blend | None = None,
        keeps: bool = True,
        shown: int = SHOWN_GRID,
        batches: Batches | None = None,
    ):
        self.layers = {
            name: layer for name, layer in network.named_modules() if name.endswith((".attn1", ".attn2"))
        }
        # By what it is: an "attn2" of Stable Diffusion 3.5 looks at the picture a second time.
        if not any(getattr(layer, "is_cross_attention", False) for layer in self.layers.values()):
            raise ModelError(
                "Prompt-to-prompt needs a denoiser with cross-attention layers, and this model has none."
            )
        self.network = network
        self.latent, self.edits, self.blend, self.keeps = latent, list(edits), blend, keeps
        self.shown, self.batches = shown, batches or Batches()
        height, width = (max(SELF_GRID, math.ceil(side / 4)) for side in latent)
        self.self_grid = height * width
        self.rows = len(self.edits) + 1
        self._asked: list[Asked] = []
        self._sums: dict[tuple[int, int], list[tuple[Tensor, ...]]] = {}
        self._total: Tensor | None = None
        self._noted: Maps | None = None
        self._noted_step = -1

    # --- what the driver calls ------------------------------------------------------------------------

    @contextmanager
    def during_call(self, asked: Sequence[Asked]) -> Iterator[None]:
        self._asked, self._sums = list(asked), {}
        kept = {name: layer.processor for name, layer in self.layers.items()}
        # What is edited differs from step to step: compiled, each would be another program, minutes each.
        compiled, self.network._compiled_call_impl = self.network._compiled_call_impl, None
        outer = vars(self.network).get("looked_into", 0)
        self.network.looked_into = outer + 1  # the rows stay together
        # What was too much once is tried again, and what is too much for these, with their maps, need not be so for
        # others. Calls of other runs come between two of these, and know nothing of it.
        limit, self.batches.limit = self.batches.limit, None
        try:
            for name, layer in self.layers.items():
                layer.processor = _Explicit(self, layer.is_cross_attention, kept[name])
            yield
        finally:
            self.network._compiled_call_impl = compiled
            for name, layer in self.layers.items():
                layer.processor = kept[name]
            self.network.looked_into = outer
            self.batches.limit = limit
        self._note(asked[0].step, asked[0].stage)

    def after_step(self, plan_rows: list[int], step: int, x: Tensor, s: Tensor) -> Tensor:
        if self._noted_step != step:
            # The conditional branch was not asked, and an earlier step's maps are not this one's.
            self._noted = None
        if self.blend is None or self._total is None or step < self.blend.start:
            return x
        mask = self._mask(x.shape[-2:]).to(x)
        if self._noted is not None:
            self._noted.mask = mask[:, 0].half().cpu()
        return torch.where(mask.bool(), x, x[:1])

    def reads(self, step: int) -> Hashable:
        blend = self.blend
        # The threshold matters once it is compared with; what is attended to before is collected without it.
        chosen = None if blend is None else (blend.tokens, blend.threshold if step >= blend.start else None)
        return tuple(edit.reads(step) for edit in self.edits), chosen, self.shown if self.keeps else None

    def remember(self) -> Any:
        return self._total

    def recall(self, memory: Any) -> None:
        self._total = memory

    def noted(self) -> Maps | None:
        return self._noted

    # --- what the layers call -------------------------------------------------------------------------

    def grid(self, queries: int) -> tuple[int, int]:
        """The (height, width) of a layer's queries: the latents', halved some times."""
        height, width = self.latent
        while height * width > queries and height * width > 1:
            height, width = math.ceil(height / 2), math.ceil(width / 2)
        return height, width

    def places(self, batch: int) -> list[int]:
        """Where in a batch the R conditional rows are, in the order of the run's; empty where they were not asked.

        Raises:
            RecipeError: for a part of what was asked, as there is when memory is short.
        """
        if batch != len(self._asked):
            raise RecipeError(
                f"Prompt-to-prompt computes its {self.rows} pictures together, and memory is too short for that."
            )
        found = {a.row: i for i, a in enumerate(self._asked) if a.role == "cond"}
        return [found[row] for row in range(self.rows)] if found else []

    def cross(self, probabilities: Tensor) -> Tensor:
        """Edit the cross-attention of a layer, [R, heads, queries, L], and keep its mean over heads."""
        step = self._asked[0].step
        made = taken = probabilities
        if any(self._changes(edit, step) for edit in self.edits):
            made, taken = probabilities.clone(), probabilities.clone()
            source = probabilities[0].float()
            for row, edit in enumerate(self.edits, start=1):
                value = self._taken(edit, step, source, probabilities[row].float())
                taken[row] = value.to(made.dtype)
                made[row] = self._weighted(edit, value).to(made.dtype)
        if probabilities.shape[2] <= SHOWN_GRID:
            before = probabilities.float().mean(1)
            three = before, *(before if x is probabilities else x.float().mean(1) for x in (made, taken))
            self._sums.setdefault(self.grid(probabilities.shape[2]), []).append(three)
        return made

    def self_attention(self, probabilities: Tensor) -> Tensor:
        """Copy the source's self-attention, [R, heads, queries, queries], into the rows whose edit says so."""
        copied = [row for row, edit in enumerate(self.edits, 1) if self._asked[0].step < edit.self_steps]
        if not copied:
            return probabilities
        made = probabilities.clone()
        made[copied] = probabilities[0]
        return made

    @staticmethod
    def _changes(edit: Edit, step: int) -> bool:
        return bool((edit.cross_steps > step).any()) or bool((edit.weights != 1).any())

    @staticmethod
    def _taken(edit: Edit, step: int, source: Tensor, own: Tensor) -> Tensor:
        """One row's attention [heads, queries, L] from the source's and its own, before words are weighted."""
        reading = (edit.cross_steps > step) & ~edit.alignment.own
        if not bool(reading.any()):
            return own
        return torch.where(reading.to(own.device), source @ edit.alignment.matrix.to(own.device), own)

    @staticmethod
    def _weighted(edit: Edit, value: Tensor) -> Tensor:
        """One row's attention with its words' weights."""
        if bool((edit.weights != 1).any()):
            value = value * edit.weights.to(value.device)
            if edit.renormalise:
                # Of sizes: with a negative weight, the sum itself may be next to nothing or turn every sign.
                total = value.abs().sum(-1, keepdim=True)
                value = value / torch.where(total > 0, total, 1.0)
        return value

    # --- after a call ---------------------------------------------------------------------------------

    def _note(self, step: int, stage: int) -> None:
        if stage or not self._sums:
            return
        means = {
            grid: tuple(torch.stack(part).mean(0) for part in zip(*pairs, strict=True))
            for grid, pairs in self._sums.items()
        }
        kept = {g: m for g, m in means.items() if self.keeps and g[0] * g[1] <= self.shown}
        self._noted_step = step
        self._noted = Maps(
            {grid: before.half().cpu() for grid, (before, _, _) in kept.items()},
            {grid: after.half().cpu() for grid, (_, after, _) in kept.items()},
        )
        if self.blend is not None:
            # A word that is turned down is still where it is.
            taken = means[self._blend_grid(means)][2]
            chosen = torch.zeros(taken.shape[:2])
            for row, tokens in enumerate(self.blend.tokens):
                if tokens:
                    chosen[row] = taken[row][:, list(tokens)].mean(-1).cpu()
            # A new tensor each time: an older one may have been remembered.
            self._total = chosen if self._total is None else self._total + chosen

    @staticmethod
    def _blend_grid(means: dict[tuple[int, int], Any]) -> tuple[int, int]:
        """The finest grid of at most 16 x 16 (or so), where the maps are sharpest in meaning."""
        small = [grid for grid in means if min(grid) <= 16]
        return max(small or means, key=lambda grid: grid[0] * grid[1])

    def _mask(self, size: torch.Size) -> Tensor:
        """[R, 1, h, w], 1 where a row is itself and 0 where it is the source; the source is itself everywhere."""
        assert self._total is not None and self.blend is not None
        total = self._total
        height, width = self.grid(total.shape[1])
        maps = F.max_pool2d(total.reshape(-1, 1, height, width), 3, 1, 1)
        maps = F.interpolate(maps, size=tuple(size))
        strongest = maps.amax((1, 2, 3), keepdim=True)
        mask = (maps / torch.where(strongest > 0, strongest, 1.0)) > self.blend.threshold
        union = (mask | mask[:1]).float()
        for row, tokens in enumerate(self.blend.tokens):
            if row == 0 or not (tokens or self.blend.tokens[0]):
                union[row] = 1.0
        return union


def _span(places: list[int]) -> slice | list[int]:
    """Places in a batch as a slice where they are one, which copies nothing."""
    first, last = places[0], places[-1]
    return slice(first, last + 1) if places == list(range(first, last + 1)) else places


class _Explicit:
    """The processor of a layer during one call: attention of the conditional rows with its probabilities in sight.

    The others' is not looked at, and takes the fast kernel.
    """

    def __init__(self, edits: AttentionEdits, is_cross: bool, usual: Any):
        self.edits, self.is_cross, self.usual = edits, is_cross, usual

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *args: Any,
        **options: Any,
    ) -> Tensor:
        if not self.is_cross and hidden_states.shape[1] > self.edits.self_grid:
            # Large self-attention maps would not fit into memory, and are not edited. Smaller ones are made
            # explicit also where nothing is copied: with one kernel all along, no edit changes a bit of the source.
            return self.usual(attn, hidden_states, encoder_hidden_states, attention_mask, *args, **options)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        batch = len(hidden_states)
        seen = self.edits.places(batch)
        others = [i for i in range(batch) if i not in seen]
        query, key, value = (
            made.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for made in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        mask = attn.prepare_attention_mask(attention_mask, context.shape[1], batch)
        if mask is not None:
            mask = mask.unflatten(0, (batch, -1))
        out = query.new_empty(batch, query.shape[2], attn.heads * value.shape[-1])
        by_head = out.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        if others:
            part = _span(others)
            own = None if mask is None else mask[part]
            by_head[part] = F.scaled_dot_product_attention(
                query[part], key[part], value[part], own, scale=attn.scale
            )
        if seen:
            part = _span(seen)
            own = None if mask is None else mask[part].flatten(0, 1)
            q, k, v = (x[part].flatten(0, 1) for x in (query, key, value))
            probabilities = attn.get_attention_scores(q, k, own).unflatten(0, (len(seen), -1))
            made = self.edits.cross(probabilities) if self.is_cross else self.edits.self_attention(probabilities)
            by_head[part] = torch.bmm(made.flatten(0, 1), v).unflatten(0, (len(seen), -1))
        out = attn.to_out[1](attn.to_out[0](out))
        if attn.residual_connection:
            out = out + hidden_states
        return out / attn.rescale_output_factor
