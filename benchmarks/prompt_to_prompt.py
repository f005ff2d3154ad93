"""Prompt-to-prompt: a changed fraction repeats only the steps that it changes, and what keeping the maps costs.

    python -m benchmarks.prompt_to_prompt

recut_*: the cross-attention fraction from 0.8 to 0.6 of 20 steps. time_over_share is the time of the second run
over its share of the work, as in `benchmarks.prefix`, and leaves out decoding. maps_ratio: a source and one edit
whose fractions are 0, with all maps kept, over a plain batch of the same two prompts, its rows computed together as
those of an edit have to be; neither has a page to show itself to. maps_over_apart: over a plain batch whose
rows are computed as the measured default says, side by side where that is quicker.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

from benchmarks.common import STEPS, a_backend, alternate, ours, report
from playground.images.models import TextToImageModel
from playground.images.prompt_to_prompt import PromptToPrompt, edit_prompt
from playground.images.text_to_image import Generated
from playground.images.text_to_image import run as run_rows
from playground.plan import Plan
from playground.schedules import Schedule

ROUNDS = 7


class Batch(PromptToPrompt):
    """The same prompts and noise as a batch that shares nothing and keeps no maps."""

    def plan(self, schedule: Schedule) -> Plan:
        return Plan(tuple(replace(row, edit=None) for row in super().plan(schedule).rows))


def plain(recipe: Batch, model: TextToImageModel) -> Generated:
    """Run a batch to its end."""
    *_, last = run_rows(recipe, model)
    assert isinstance(last, Generated)
    return last


def main() -> None:
    whole: list[float] = []
    again: list[float] = []
    with a_backend() as backend:
        for i in range(ROUNDS + 1):
            recipe = PromptToPrompt(steps=STEPS, seed=i)
            ours(backend, recipe)
            recut = ours(backend, recipe.but(cross=0.6))
            full = ours(backend, recipe.but(cross=0.6, seed=1000 + i))
            assert recut.taken_over == 12, recut.taken_over
            if i:  # the first round warms up
                again.append(recut.seconds - recut.decoding)
                whole.append(full.seconds - full.decoding)
        share = recut.count.sample_forwards / full.count.sample_forwards
        seconds, total = statistics.median(again), statistics.median(whole)

        model = backend.model(next(iter(backend.models)))
        nothing: dict[str, Any] = {"steps": STEPS, "cross": 0.0, "self_fraction": 0.0}
        chosen = model.denoiser.apart

        def batch(i: int, apart: bool) -> Generated:
            model.denoiser.apart = apart
            return plain(Batch(seed=2000 + i, **nothing), model)

        kept, together, usual = alternate(
            lambda i: edit_prompt(PromptToPrompt(seed=2000 + i, **nothing), model),
            lambda i: batch(i, False),
            lambda i: batch(i, chosen),
            rounds=ROUNDS,
        )
    report(
        recut_evaluations=recut.count.evaluations,
        recut_time_over_share=round(seconds / (share * total), 3),
        maps_ratio=round(kept / together, 3),
        maps_over_apart=round(kept / usual, 3),
        recut_seconds=round(seconds, 3),
        seconds=round(total, 3),
    )


if __name__ == "__main__":
    main()
