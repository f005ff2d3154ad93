"""One 20-step picture: `backend.run` against one warm pipeline call, float32, equal kernels.

python -m benchmarks.single
"""

from __future__ import annotations

from benchmarks.common import Theirs, a_backend, agree, alternate, ours, report
from playground.recipes import TextToImage

PROMPT, W = "a cat on the grass", 4.0


def main() -> None:
    theirs = Theirs()
    with a_backend() as backend:
        worst = agree(ours(backend, TextToImage(prompt=PROMPT, w=W, seed=999)), [theirs(PROMPT, W, 999)])
        mine, reference = alternate(
            lambda i: ours(backend, TextToImage(prompt=PROMPT, w=W, seed=i)),
            lambda i: theirs(PROMPT, W, i),
            rounds=9,
        )
    print(f"ours {mine:.3f} s, diffusers {reference:.3f} s, pictures agree within {worst:.2f}/255")
    report(ratio=round(mine / reference, 3), seconds=round(mine, 3), diffusers=round(reference, 3))


if __name__ == "__main__":
    main()
