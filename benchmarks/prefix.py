"""The end of the guidance window moved from step 15 to step 12: only the steps behind it are run again.

    python -m benchmarks.prefix

time_over_share is the time of the second run over its share of the work: (forwards run again / forwards of the
whole new recipe) times the time of a whole run of the new recipe. Decoding, which both need, is left out.
"""

from __future__ import annotations

import statistics

from benchmarks.common import STEPS, a_backend, ours, report
from playground.recipes import TextToImage

ROUNDS = 7


def main() -> None:
    whole: list[float] = []
    again: list[float] = []
    with a_backend() as backend:
        schedule = backend.model(next(iter(backend.models))).denoiser.schedule
        for i in range(ROUNDS + 1):
            recipe = TextToImage(steps=STEPS, seed=i)
            times = recipe.plan(schedule).rows[0].times
            at = {step: (times[step - 1] + times[step]) / 2 for step in (12, 15)}
            ours(backend, recipe.but(low=at[15]))
            resumed = ours(backend, recipe.but(low=at[12]))
            full = ours(backend, recipe.but(low=at[12], seed=1000 + i))
            assert resumed.taken_over == 12, resumed.taken_over
            if i:  # the first round warms up
                again.append(resumed.seconds - resumed.decoding)
                whole.append(full.seconds - full.decoding)
    share = resumed.count.sample_forwards / full.count.sample_forwards
    seconds, total = statistics.median(again), statistics.median(whole)
    report(
        evaluations=resumed.count.evaluations,
        sample_forwards=resumed.count.sample_forwards,
        time_over_share=round(seconds / (share * total), 3),
        seconds=round(seconds, 3),
        whole=round(total, 3),
    )


if __name__ == "__main__":
    main()
