"""Eight guidance scales from one noise: one sweep of ours against eight warm pipeline calls, float32.

python -m benchmarks.sweep
"""

from __future__ import annotations

from benchmarks.common import Theirs, a_backend, agree, alternate, ours, report
from playground.recipes import TextToImage

PROMPT = "a cat on the grass"
SCALES = (1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


def main() -> None:
    theirs = Theirs()
    with a_backend() as backend:
        recipe = TextToImage(prompt=PROMPT, sweep=SCALES)
        worst = agree(ours(backend, recipe.but(seed=999)), [theirs(PROMPT, w, 999) for w in SCALES])
        mine, reference = alternate(
            lambda i: ours(backend, recipe.but(seed=i)),
            lambda i: [theirs(PROMPT, w, i) for w in SCALES],
            rounds=3,
        )
    print(f"ours {mine:.2f} s, diffusers {reference:.2f} s, pictures agree within {worst:.2f}/255")
    report(ratio=round(mine / reference, 3), seconds=round(mine, 3), diffusers=round(reference, 3))


if __name__ == "__main__":
    main()
