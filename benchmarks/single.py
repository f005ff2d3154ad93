"""One 20-step picture: `backend.run` against one warm pipeline call.

    python -m benchmarks.single

ratio                float32 on both sides, nothing compiled; the pictures are asserted to agree
tuned_ratio          ours with --dtype bfloat16, the fastest setting on a CPU (--compile gave 0.93 in float32 and
                     0.73 in bfloat16, after half a minute of compiling)
tuned_difference     what bfloat16 does to the picture: the mean absolute difference in steps of 1/255

Both sides are measured in turns, with float32 on diffusers' side.
"""

from __future__ import annotations

from benchmarks.common import Theirs, a_backend, agree, alternate, ours, report
from playground.backend import Backend
from playground.devices import choose_device
from playground.recipes import TextToImage

PROMPT, W = "a cat on the grass", 4.0


def measured(backend: Backend, theirs: Theirs, rounds: int = 9) -> list[float]:
    """Median seconds of both sides."""
    return alternate(
        lambda i: ours(backend, TextToImage(prompt=PROMPT, w=W, seed=i)),
        lambda i: theirs(PROMPT, W, i),
        rounds=rounds,
    )


def main() -> None:
    theirs, figures = Theirs(), {}
    reference = theirs(PROMPT, W, 999)
    recipe = TextToImage(prompt=PROMPT, w=W, seed=999)
    with a_backend() as backend:
        worst = agree(ours(backend, recipe), [reference])
        mine, other = measured(backend, theirs)
    print(f"ours {mine:.3f} s, diffusers {other:.3f} s, pictures agree within {worst:.2f}/255")
    figures |= {"ratio": round(mine / other, 3), "seconds": round(mine, 3), "diffusers": round(other, 3)}
    with a_backend(device=choose_device("auto", "bfloat16")) as backend:
        (picture,) = (ours(backend, recipe).pictures.float() / 2 + 0.5).permute(0, 2, 3, 1).numpy()
        mine, other = measured(backend, theirs)
    figures["tuned_ratio"] = round(mine / other, 3)
    figures["tuned_difference"] = round(float(abs(picture - reference).mean() * 255), 2)
    report(**figures)


if __name__ == "__main__":
    main()
