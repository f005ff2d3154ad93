"""Measures a model folder: does a picture show what its prompt says?

    python -m training.evaluate --model FOLDER

500 held-out prompts from fixed seeds, a fifth of them with noun-colour or noun-noun pairs that training never saw,
guidance w = 4, 20 steps. The judge is the scene verifier, whose own error is printed beside it: the ceiling is its
verdict on the real scenes that the same prompts describe. Prints tables and one line of JSON, and writes both to
``<work>/evaluation.json`` for the model card. The pictures are kept in ``<work>/evaluation``, so an interrupted
evaluation goes on with the scale of guidance at which it was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from playground.images.verifier import Verifier
from training import common, sampling, verifier, world

PROMPTS = 500
NOVEL_EVERY = 5
GUIDANCE, STEPS = 4.0, 20
SCALES = (0.0, 1.0, 2.0, 4.0, 7.0, 10.0)
PSNR = 32.0
"""What the autoencoder's round trip should reach, in dB."""
TARGETS = {"noun": 0.90, "colour": 0.80, "count": 0.80, "relation": 0.75, "place": 0.95, "style": 0.95, "all": 0.70}


def prompts(count: int = PROMPTS) -> list[world.Example]:
    """The held-out prompts with the real scenes they describe; every fifth shows a pair unseen in training."""
    first = common.HELD_OUT_SEEDS + 100_000
    return [world.example(first + i, novel=i % NOVEL_EVERY == 0) for i in range(count)]


def composition(examples: Sequence[world.Example]) -> dict[str, float]:
    """Shares of prompts with two nouns and a relation, with a style, and with a pair unseen in training."""
    total = len(examples)
    return {
        "two nouns": sum(e.scene.relation is not None for e in examples) / total,
        "style": sum(e.scene.style is not None for e in examples) / total,
        "novel": sum(i % NOVEL_EVERY == 0 for i in range(total)) / total,
    }


def real_pictures(examples: Sequence[world.Example]) -> torch.Tensor:
    """The drawn scenes, [B, 3, 128, 128] in [-1, 1]."""
    return common.to_signed(torch.from_numpy(np.stack([np.asarray(e.image) for e in examples])))


@torch.no_grad()
def diversity(judge: Verifier, pictures: torch.Tensor, group: int) -> float:
    """Mean distance between pictures of one prompt, as a share of that between pictures of different prompts.

    Pictures come in groups of ``group`` per prompt. The distance is Euclidean between the verifier's last feature
    maps, so it sees pose and place as well as kind.
    """
    maps = [
        judge(part.to(next(judge.parameters()).device)).maps[-1].flatten(1).cpu() for part in pictures.split(64)
    ]
    features = torch.cat(maps)
    distances = torch.cdist(features, features)
    same = (
        torch.eye(len(features) // group, dtype=torch.bool).repeat_interleave(group, 0).repeat_interleave(group, 1)
    )
    itself = torch.eye(len(features), dtype=torch.bool)
    return (distances[same & ~itself].mean() / distances[~same].mean()).item()


@dataclass(frozen=True)
class Table:
    """A table for the terminal and the model card."""

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def markdown(self) -> str:
        """The table in Markdown."""
        lines = [self.head, tuple("---" for _ in self.head), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def drawn(
    keep: Path, model: sampling.Model, captions: Sequence[str], guidance: float, device: torch.device
) -> torch.Tensor:
    """The model's picture of each caption, the seeds counting from 0, in [-1, 1] and 256 levels as they are shown.

    Args:
        keep: folder of what this model has drawn; what is there already is not drawn again.
    """
    asked = hashlib.sha256(json.dumps([list(captions), guidance, STEPS]).encode()).hexdigest()[:16]
    file = keep / f"{asked}.npy"
    if not file.exists():
        with common.autocast(device):
            seeds = range(len(captions))
            made = sampling.generate(model, captions, seeds, guidance, STEPS, label=f"w = {guidance:g}")
        keep.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        with partial.open("wb") as out:
            np.save(out, common.to_pixels(made).numpy())
        partial.replace(file)
    return common.to_signed(torch.from_numpy(np.load(file)))


def fingerprint(folder: Path) -> str:
    """Which weights a model folder draws with."""
    digest = hashlib.sha256()
    for part in ("text_encoder", "unet", "vae"):
        for file in sorted((folder / part).glob("*.safetensors")):
            digest.update(part.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def seconds_per_picture(model: sampling.Model, repeats: int = 5) -> float:
    """Median time of one guided picture alone, in seconds."""
    times = []
    for i in range(repeats + 1):
        start = time.perf_counter()
        sampling.generate(model, ["a cat riding a bicycle on the grass"], [i], GUIDANCE, STEPS)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])  # the first warms up


def size_in_megabytes(folder: Path) -> float:
    """Size of all files of a folder, in 10^6 bytes."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def main() -> None:
    """Evaluate a model folder."""
    parser = common.parser(main.__doc__)
    parser.add_argument("--model", type=Path, help="model folder (default: <work>/package)")
    parser.add_argument("--verifier", type=Path, help="verifier folder (default: <work>/verifier)")
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--sweep-prompts", type=int, default=48, help="prompts in the table over guidance scales")
    parser.add_argument("--sweep-pictures", type=int, default=4, help="pictures per prompt in that table")
    o = parser.parse_args()
    folder: Path = o.model or o.work / "package"
    device = common.prepare(o.threads)
    judge = Verifier.load(o.verifier or o.work / "verifier").to(device)
    model = sampling.Model.load(folder, device)
    every = o.work / "evaluation"
    keep = every / fingerprint(folder)
    for other in every.glob("*"):
        if other != keep:
            shutil.rmtree(other)  # of weights that have been trained on since
    examples = prompts(o.prompts)
    scenes_, captions = [e.scene for e in examples], [e.caption for e in examples]

    real = real_pictures(examples)
    ceiling = verifier.check(judge, real, scenes_)
    with torch.no_grad():
        round_trip = [
            common.psnr(x, model.autoencoder.decode(model.autoencoder.encode(x).latents).sample.clamp(-1, 1).cpu())
            for x in real.to(device).split(32)
        ]
    made = drawn(keep, model, captions, GUIDANCE, device)
    verdicts = verifier.check(judge, made, scenes_)
    seen, novel = verdicts, [v for i, v in enumerate(verdicts) if i % NOVEL_EVERY == 0]
    columns = {
        "generated": verifier.summarise(seen),
        "of these, unseen pairs": verifier.summarise(novel),
        "ceiling (real scenes)": verifier.summarise(ceiling),
    }
    rows = [
        (name, *(_percent(c[name]) for c in columns.values()), _percent(TARGETS[name]))
        for name in (*verifier.ATTRIBUTES, "all")
    ]
    quality = Table(("right in %", *columns, "aim"), rows)
    print(quality.markdown(), "\n")

    sweep_captions = [c for c in captions[: o.sweep_prompts] for _ in range(o.sweep_pictures)]
    sweep_scenes = [s for s in scenes_[: o.sweep_prompts] for _ in range(o.sweep_pictures)]
    sweep_rows = []
    for scale in SCALES if o.sweep_prompts else ():
        pictures = drawn(keep, model, sweep_captions, scale, device)
        shares = verifier.summarise(verifier.check(judge, pictures, sweep_scenes))
        spread = diversity(judge, pictures, o.sweep_pictures)
        sweep_rows.append((f"{scale:g}", _percent(shares["noun"]), _percent(shares["all"]), f"{spread:.3f}"))
    sweep = Table(("w", "noun right in %", "all right in %", "diversity"), sweep_rows)
    print(sweep.markdown(), "\n")

    numbers = {name: round(columns["generated"][name], 4) for name in (*verifier.ATTRIBUTES, "all")} | {
        "ceiling_all": round(columns["ceiling (real scenes)"]["all"], 4),
        "psnr": round(torch.cat(round_trip).mean().item(), 2),
        "seconds_per_picture": round(seconds_per_picture(model), 3),
        "megabytes": round(size_in_megabytes(folder), 2),
    }
    machine = f"{o.threads} CPU threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
    facts = {"prompts": len(examples), "machine": machine}
    report = {"numbers": numbers, "quality": quality.markdown(), "guidance": sweep.markdown(), **facts}
    (o.work / "evaluation.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()
