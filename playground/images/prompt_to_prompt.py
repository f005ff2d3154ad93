"""Prompt-to-prompt: edit the words, keep the picture (Hertz et al. 2022).

The source prompt and its edits denoise together from one noise; the edits' rows take over attention from the
source's row, which nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from playground.errors import RecipeError
from playground.guidance import RULES, Composed
from playground.images.alignment import Alignment, Word, align
from playground.images.attention import AttentionEdits, Blend, Edit, Maps, shown_grid
from playground.images.models import Text, TextToImageModel
from playground.images.text_to_image import Generated, Progress
from playground.images.text_to_image import run as run_rows
from playground.plan import Plan
from playground.recipes import PROMPT_LIMIT, RECIPES, TextToImage
from playground.reuse import Prefixes
from playground.sampling import Evaluated
from playground.schedules import Schedule

Fraction = Annotated[float, Field(ge=0, le=1)]
Prompt = Annotated[str, Field(max_length=PROMPT_LIMIT)]
WordNumber = tuple[Annotated[int, Field(ge=0, le=3)], Annotated[int, Field(ge=0, le=200)], float]
"""(prompt, word, value): prompt 0 is the source, 1 the first edit; words are counted from 0."""


class PromptToPrompt(TextToImage):
    """A source prompt and edited ones, from one noise and with shared attention."""

    tab: ClassVar[str] = "prompt-to-prompt"

    prompt: str = Field(
        "a cat on the grass", title="source prompt", max_length=PROMPT_LIMIT, description="the picture to keep"
    )
    edits: tuple[Prompt, ...] = Field(
        ("a dog on the grass",), title="edited prompts", max_length=3, description="each one is a picture beside it"
    )
    method: Literal["auto", "replace", "refine"] = Field(
        "auto",
        title="alignment",
        description="replace swaps words; refine adds or moves some; auto: replace where words are only swapped",
    )
    cross: float = Field(
        0.8,
        title="cross-attention fraction",
        ge=0,
        le=1,
        json_schema_extra={"step": 0.05},
        description="share of the steps in which words attend where the source's did",
    )
    own_cross: tuple[WordNumber, ...] = Field(
        (), title="fraction of single words", max_length=16, description="(prompt, word, fraction)"
    )
    self_fraction: float = Field(
        0.4,
        title="self-attention fraction",
        ge=0,
        le=1,
        json_schema_extra={"step": 0.05},
        description="share of the steps in which places attend to places as in the source: layout and shape",
    )
    weights: tuple[WordNumber, ...] = Field(
        (), title="weights of words", max_length=16, description="(prompt, word, factor of its attention)"
    )
    renormalise: Literal["no", "yes"] = Field(
        "no", title="renormalise", description="with weights: divide attention by the sum of its absolute values"
    )
    blend: tuple[tuple[Annotated[int, Field(ge=0, le=3)], Annotated[int, Field(ge=0, le=200)]], ...] = Field(
        (), title="local blend", max_length=16, description="(prompt, word): pictures differ only where they attend"
    )
    threshold: float = Field(
        0.3,
        title="blend threshold",
        ge=0.05,
        le=0.95,
        json_schema_extra={"step": 0.05},
        description="of a local blend: a place is a word's where it attends with over this share of its maximum",
    )

    crosses: tuple[Fraction, ...] = Field(
        (), title="grid of cross-attention fractions", max_length=6, description="with the next, a table"
    )
    selves: tuple[Fraction, ...] = Field(
        (), title="grid of self-attention fractions", max_length=6, description="each with each of the other"
    )

    @model_validator(mode="after")
    def _numbers(self) -> Self:
        if any(not 0 <= value <= 1 for _, _, value in self.own_cross):
            raise ValueError("The fraction of a single word lies between 0 and 1.")
        if any(not -2 <= value <= 10 for _, _, value in self.weights):
            raise ValueError("The weight of a word lies between -2 and 10.")
        return self

    def lines(self) -> list[tuple[int, float, float]]:
        """(prompt, cross-attention fraction, self-attention fraction) of all rows. The source comes first, then the
        edits and, where its words are weighted, the source once more; in a grid, the first edit for each pair."""
        if self.crosses and self.selves:
            return [(0, 1.0, 1.0), *((1, c, s) for s in self.selves for c in self.crosses)]
        again = [0] if any(p == 0 and value != 1 for p, _, value in self.weights) else []
        return [(p, self.cross, self.self_fraction) for p in [0, *range(1, len(self.edits) + 1), *again]]

    def only(self, edit: int) -> Self:
        """With one of its edits, counted from 1, which becomes the first, and what is said of its words."""

        def kept(entries: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple((min(whose, 1), *rest) for whose, *rest in entries if whose in (0, edit))

        of_words = {name: kept(getattr(self, name)) for name in ("weights", "own_cross", "blend")}
        return self.but(edits=self.edits[edit - 1 : edit], **of_words)

    def prompts(self) -> list[str]:
        """The prompts of all rows."""
        known = [self.prompt, *self.edits]
        return [known[p] for p, _, _ in self.lines()]

    def texts(self) -> list[str]:
        return [*dict.fromkeys([self.prompt, *self.edits]), *([self.negative] if self.negative else [])]

    def singles(self) -> list[Self]:
        """One per picture of a run: each is part of the whole, which makes it."""
        if not (self.crosses and self.selves):
            return [self] * len(self.lines())
        plain = {"crosses": (), "selves": ()}
        return [self.but(cross=c, self_fraction=s, **plain) for _, c, s in self.lines()]

    def plan(self, schedule: Schedule) -> Plan:
        if self.sweep:
            raise RecipeError("A sweep over w is part of the tab Text to image.")
        if RULES[self.rule].weak:
            raise RecipeError("Prompt-to-prompt has no autoguidance: take another rule.")
        row = self._row(schedule)
        if not self.edits and self.crosses and self.selves:
            raise RecipeError("The grid of fractions needs an edited prompt.")
        if any(Composed.read(prompt) != prompt for prompt in (self.prompt, *self.edits)):
            raise RecipeError("Prompt-to-prompt edits plain prompts: parts joined by AND have no single attention.")
        return Plan(
            tuple(replace(row, cond=p, edit=f"edit {i}" if i else None) for i, p in enumerate(self.prompts()))
        )


@dataclass
class Prompted(Generated):
    """What prompt-to-prompt made: row 0 is the source, the others are its edits.

    Attributes:
        alignments: one per edit.
    """

    recipe: PromptToPrompt
    alignments: tuple[Alignment, ...] = ()

    def maps(self, step: int) -> Maps:
        """The cross-attention of a step: none where the prompts were not asked, as without guidance's c (w = 0)."""
        noted = self.trace[step].noted[0]
        return noted if isinstance(noted, Maps) else Maps()

    @property
    def grids(self) -> list[tuple[int, int]]:
        """(height, width) of the maps, the finest first; empty where no step has any."""
        found = {grid for step in range(len(self.trace)) for grid in self.maps(step).before}
        return sorted(found, key=lambda grid: -grid[0] * grid[1])


def steps_of(fraction: float, steps: int) -> int:
    """The number of steps that a fraction covers, rounded down."""
    return int(fraction * steps + 1e-9)


def edits_of(recipe: PromptToPrompt, text: Text) -> list[Edit]:
    """The edits of a recipe's rows after the first.

    Raises:
        RecipeError: for prompts that cannot be aligned, and words that a prompt does not have.
    """
    lines, prompts = recipe.lines(), recipe.prompts()
    made = []
    for (number, fraction, self_fraction), prompt in list(zip(lines, prompts, strict=True))[1:]:
        # The source beside itself, weighted, is aligned word by word.
        alignment = align(recipe.prompt, prompt, text, recipe.method if number else "replace")
        cross_steps = torch.full((len(alignment.own),), steps_of(fraction, recipe.steps))
        weights = torch.ones(len(alignment.own))
        for values, changed in ((recipe.own_cross, cross_steps), (recipe.weights, weights)):
            for whose, word, value in values:
                if whose != number:
                    continue
                tokens = _tokens(alignment.target, word, prompt)
                changed[tokens] = steps_of(value, recipe.steps) if changed is cross_steps else value
        self_steps = steps_of(self_fraction, recipe.steps)
        made.append(Edit(alignment, cross_steps, self_steps, weights, recipe.renormalise == "yes"))
    return made


def blend_of(recipe: PromptToPrompt, edits: list[Edit], text: Text) -> Blend | None:
    """The local blend of a recipe, None where no word is chosen."""
    if not recipe.blend or not edits:
        return None
    words = [edits[0].alignment.source, *(e.alignment.target for e in edits)]
    chosen: list[tuple[int, ...]] = []
    for (number, _, _), own, prompt in zip(recipe.lines(), words, recipe.prompts(), strict=True):
        picked = [t for whose, word in recipe.blend if whose == number for t in _tokens(own, word, prompt)]
        chosen.append(tuple(picked))
    # An edit without a chosen word of its own is blended by its tokens that read the source's; where none does, by
    # the source's place alone.
    if chosen[0]:
        for row, edit in enumerate(edits, 1):
            if not chosen[row]:
                read = {t for t, pairs in edit.alignment.pairs() if any(i in chosen[0] for i, _ in pairs)}
                chosen[row] = tuple(sorted(read))
    return Blend(tuple(chosen), steps_of(0.2, recipe.steps), recipe.threshold)


def _tokens(words: tuple[Word, ...], number: int, prompt: str) -> list[int]:
    if number >= len(words):
        raise RecipeError(
            f"The prompt “{prompt[:40]}” has {len(words)} words, and word {number + 1} was asked for."
        )
    return list(words[number].tokens)


def run(
    recipe: PromptToPrompt, model: TextToImageModel, prefixes: Prefixes | None = None
) -> Iterator[Evaluated | Progress | Prompted]:
    """Run a recipe; between any two denoiser calls something is yielded.

    Args:
        recipe: what to do.
        model: on what.
        prefixes: steps of earlier runs: a changed fraction repeats only the steps that it changes.

    Yields:
        Evaluated after a denoiser call, Progress after a step, Prompted at the end.

    Raises:
        RecipeError: for prompts that cannot be aligned.
        ModelError: for a model without cross-attention.
    """
    recipe.plan(model.denoiser.schedule)  # says what is wrong with it, before its rows are asked for
    edits, (_, height, width) = edits_of(recipe, model.text), model.denoiser.shape
    blend = blend_of(recipe, edits, model.text)
    # A grid of fractions has many rows, and nobody looks at their maps.
    keeps = not (recipe.crosses and recipe.selves)
    shown = shown_grid(recipe.steps, len(edits) + 1, model.text.encoders[0].length)
    network, batches = model.denoiser.network, model.denoiser.batches
    control = AttentionEdits(network, (height, width), edits, blend, keeps, shown, batches)
    for event in run_rows(recipe, model, [control], prefixes):
        if isinstance(event, Generated):
            yield Prompted(**vars(event), alignments=tuple(e.alignment for e in edits))
        else:
            yield event


def edit_prompt(recipe: PromptToPrompt, model: TextToImageModel, prefixes: Prefixes | None = None) -> Prompted:
    """Run a recipe to its end."""
    for event in run(recipe, model, prefixes):  # noqa: B007
        pass
    assert isinstance(event, Prompted)
    return event


def blend_masks(result: Prompted) -> np.ndarray | None:
    """Where a local blend lets each row be itself, [steps, R, height, width] of latents: the source everywhere, and
    all rows in steps in which it does not act yet. None without a blend."""
    masks = [result.maps(k).mask for k in range(len(result.trace))]
    there = next((mask for mask in masks if mask is not None), None)
    if there is None:
        return None
    return torch.stack([torch.ones_like(there) if mask is None else mask for mask in masks]).float().numpy()


def attention_arrays(result: Prompted, shown: int) -> dict[str, Any]:
    """The maps of a run for the browser: per grid "before HxW" and "after HxW", [steps, R, H * W, shown].

    Args:
        result: the run.
        shown: tokens from the beginning of the context; those behind are padding. A step in which the prompts were
            not asked has zeros.
    """
    arrays: dict[str, Any] = {}
    for kind in ("before", "after"):
        for grid in result.grids:
            found = [getattr(result.maps(k), kind).get(grid) for k in range(len(result.trace))]
            nothing = torch.zeros_like(next(maps for maps in found if maps is not None))
            stacked = torch.stack([nothing if maps is None else maps for maps in found])
            arrays[f"{kind} {grid[0]}x{grid[1]}"] = stacked[..., :shown].float().numpy()
    return arrays


RECIPES[PromptToPrompt.tab] = PromptToPrompt
