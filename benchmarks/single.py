"""One 20-step picture: `backend.run` against one warm pipeline call.

    python -m benchmarks.single

ratio                float32 on both sides, nothing compiled; the pictures are asserted to agree
tuned_ratio          ours with the fastest setting: --dtype bfloat16 where the processor calculates in it, --compile
                     (after a minute of compiling) where it does not
tuned_difference     what that does to the picture: the mean absolute difference in steps of 1/255

Both sides are measured in turns, with float32 on diffusers' side.
"""

from __future__ import annotations

from benchmarks.common import Theirs, a_backend, agree, alternate, ours, report
from playground.backend import Backend
from playground.devices import calculates_in_bfloat16, choose_device
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
    half = calculates_in_bfloat16(choose_device().where)
    tuned = {"device": choose_device("auto", "bfloat16")} if half else {"compiled": True}
    with a_backend(**tuned) as backend:
        (picture,) = (ours(backend, recipe).pictures.float() / 2 + 0.5).permute(0, 2, 3, 1).numpy()
        mine, other = measured(backend, theirs)
    figures["tuned_ratio"] = round(mine / other, 3)
    figures["tuned_difference"] = round(float(abs(picture - reference).mean() * 255), 2)
    report(**figures, tuned="bfloat16" if half else "compiled")


if __name__ == "__main__":
    main()
