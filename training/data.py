"""Renders scenes once, for everything that is trained on them.

    python -m training.data --count 60000

writes ``scenes.npy`` (uint8 [N, 128, 128, 3], memory-mapped) and ``scenes.jsonl`` (the truth about each).
"""

from __future__ import annotations

import functools
import json
import multiprocessing
from pathlib import Path

import numpy as np
from tqdm import tqdm

from training import common, world
from training.scenes import Scene


def render_one(seed: int, novel_every: int = 0) -> tuple[np.ndarray, str]:
    """The picture (uint8 [H, W, 3]) and the truth (a line of JSON) of a seed.

    With ``novel_every`` = n, each n-th seed shows a pair that the denoiser's training never sees.
    """
    made = world.example(seed, novel=novel_every > 0 and seed % novel_every == 0)
    return np.asarray(made.image), json.dumps(made.scene.to_json())


def render(folder: Path, name: str, first_seed: int, count: int, processes: int, novel_every: int = 0) -> None:
    """Render the scenes of ``count`` seeds into ``folder``, unless they are there already."""
    pictures, truths = folder / f"{name}.npy", folder / f"{name}.jsonl"
    if truths.exists() and pictures.exists() and len(np.load(pictures, mmap_mode="r")) >= count:
        return
    folder.mkdir(parents=True, exist_ok=True)
    truths.unlink(missing_ok=True)  # of fewer: until these are all drawn, there are none
    out = np.lib.format.open_memmap(pictures, "w+", np.uint8, (count, world.SIZE, world.SIZE, 3))
    partial = truths.with_suffix(".partial")
    with multiprocessing.Pool(processes) as pool, partial.open("w") as lines:
        seeds = range(first_seed, first_seed + count)
        for i, (picture, truth) in enumerate(
            tqdm(
                pool.imap(functools.partial(render_one, novel_every=novel_every), seeds, chunksize=64),
                name,
                count,
                mininterval=10,
            )
        ):
            out[i] = picture
            lines.write(truth + "\n")
    out.flush()
    partial.replace(truths)


def load(folder: Path, name: str) -> tuple[np.ndarray, list[Scene]]:
    """The rendered pictures (memory-mapped uint8 [N, H, W, 3]) and the truth about them."""
    with (folder / f"{name}.jsonl").open() as lines:
        truths = [Scene.from_json(json.loads(line)) for line in lines]
    return np.load(folder / f"{name}.npy", mmap_mode="r"), truths


def main() -> None:
    """Render the scenes that the autoencoder and the denoiser are trained on."""
    parser = common.parser(main.__doc__)
    parser.add_argument("--count", type=int, default=60_000)
    options = parser.parse_args()
    render(options.work, "scenes", common.TRAINING_SEEDS, options.count, options.threads)


if __name__ == "__main__":
    main()
