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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from playground import TextToImage, generate, load_model
from playground.images.verifier import Verifier
from training import common, sampling, scenes, verifier, world

PROMPTS = 500
NOVEL_EVERY = 5
GUIDANCE, STEPS = 4.0, 20
SCALES = (0.0, 1.0, 2.0, 4.0, 7.0, 10.0)
PSNR = 32.0
"""What the autoencoder's round trip should reach, in dB."""
SHARES = {"two nouns": 0.4, "style": 0.2, "novel": 0.2}
"""Of the prompts, at least: those with two nouns and a relation, with a style, with a pair unseen in training."""
CEILING = 0.97
"""What the verifier should read of real scenes, of each attribute."""
SECONDS = 1.0
"""What a guided picture of 20 steps should take at most on two idle cores."""
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
        "novel": sum(scenes.is_novel(e.scene) for e in examples) / total,
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


def drawn(keep: Path, model: sampling.Model, captions: Sequence[str], guidance: float) -> torch.Tensor:
    """The model's picture of each caption, the seeds counting from 0, in [-1, 1] and 256 levels as they are shown.

    Args:
        keep: folder of what this model has drawn; what is there already is not drawn again.
    """
    asked = hashlib.sha256(json.dumps([list(captions), guidance, STEPS]).encode()).hexdigest()[:16]
    file = keep / f"{asked}.npy"
    if not file.exists():
        # In single precision, as on the page: guidance multiplies what is rounded away.
        made = sampling.generate(model, captions, range(len(captions)), guidance, STEPS, label=f"w = {guidance:g}")
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


def seconds_per_picture(folder: Path, repeats: int = 5) -> float:
    """Median time of one guided picture alone, drawn as the page draws it, with two threads at most, in seconds."""
    torch.set_num_threads(min(2, torch.get_num_threads()))
    model = load_model(str(folder))
    times = []
    for i in range(repeats + 1):
        start = time.perf_counter()
        recipe = TextToImage(prompt="a cat riding a bicycle on the grass", w=GUIDANCE, steps=STEPS, seed=i)
        generate(recipe, model)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])  # the first warms up


def size_in_megabytes(folder: Path) -> float:
    """Size of all files of a folder, in 10^6 bytes."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6


def short(numbers: Mapping[str, float], ceiling: Mapping[str, float]) -> list[str]:
    """Where a model falls short of its aims, and by how much."""
    told = [
        f"{name} {_percent(numbers[name])} % of {_percent(aim)} %"
        for name, aim in TARGETS.items()
        if not numbers[name] >= aim
    ]
    if numbers["psnr"] < PSNR:
        told.append(f"round trip {numbers['psnr']:.1f} dB of {PSNR:g} dB")
    if numbers["seconds_per_picture"] > SECONDS:
        told.append(f"{numbers['seconds_per_picture']:.2f} s a picture instead of {SECONDS:g} s")
    told += [
        f"the verifier's own {name} on real scenes {_percent(share)} % of {_percent(CEILING)} %"
        for name, share in ceiling.items()
        if not share >= CEILING
    ]
    return told


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def main() -> None:
    """Evaluate a model folder."""
    parser = common.parser(main.__doc__)
    parser.add_argument("--model", type=Path, help="model folder (default: <work>/package)")
    parser.add_argument("--verifier", type=Path, help="verifier folder (default: that of the model, if it has one)")
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--sweep-prompts", type=int, default=48, help="prompts in the table over guidance scales")
    parser.add_argument("--sweep-pictures", type=int, default=4, help="pictures per prompt in that table")
    o = parser.parse_args()
    folder: Path = o.model or o.work / "package"
    device = common.prepare(o.threads)
    beside = folder / "verifier"
    judge = Verifier.load(o.verifier or (beside if beside.exists() else o.work / "verifier")).to(device)
    model = sampling.Model.load(folder, device)
    every = o.work / "evaluation"
    keep = every / fingerprint(folder)
    for other in every.glob("*"):
        if other != keep:
            shutil.rmtree(other)  # of weights that have been trained on since
    examples = prompts(o.prompts)
    truths, captions = [e.scene for e in examples], [e.caption for e in examples]
    shares = composition(examples)
    print("prompts:", ", ".join(f"{name} {_percent(share)} %" for name, share in shares.items()), "\n")
    if len(examples) == PROMPTS and any(shares[name] < least for name, least in SHARES.items()):
        raise ValueError(f"The prompts are not what they should be: {shares}, at least {SHARES}.")

    real = real_pictures(examples)
    ceiling = verifier.check(judge, real, truths)
    with torch.no_grad():
        round_trip = [
            common.psnr(x, model.autoencoder.decode(model.autoencoder.encode(x).latents).sample.clamp(-1, 1)).cpu()
            for x in real.to(device).split(32)
        ]
    verdicts = verifier.check(judge, drawn(keep, model, captions, GUIDANCE), truths)
    novel = [v for v, truth in zip(verdicts, truths, strict=True) if scenes.is_novel(truth)]
    columns = {
        "generated": verifier.summarise(verdicts),
        "of these, unseen pairs": verifier.summarise(novel),
        "ceiling (real scenes)": verifier.summarise(ceiling),
    }
    rows = [
        (name, *(_percent(c[name]) for c in columns.values()), _percent(TARGETS[name]) if name in TARGETS else "–")
        for name in (*verifier.ATTRIBUTES, verifier.SINGLE, "all")
    ]
    quality = Table(("right in %", *columns, "aim"), rows)
    print(quality.markdown(), "\n")

    sweep_captions = [c for c in captions[: o.sweep_prompts] for _ in range(o.sweep_pictures)]
    sweep_scenes = [s for s in truths[: o.sweep_prompts] for _ in range(o.sweep_pictures)]
    sweep_rows = []
    for scale in SCALES if o.sweep_prompts else ():
        pictures = drawn(keep, model, sweep_captions, scale)
        shares = verifier.summarise(verifier.check(judge, pictures, sweep_scenes))
        spread = diversity(judge, pictures, o.sweep_pictures)
        sweep_rows.append((f"{scale:g}", _percent(shares["noun"]), _percent(shares["all"]), f"{spread:.3f}"))
    sweep = Table(("w", "noun right in %", "all right in %", "diversity"), sweep_rows)
    print(sweep.markdown(), "\n")

    numbers = {name: round(columns["generated"][name], 4) for name in (*verifier.ATTRIBUTES, "all")} | {
        "ceiling_all": round(columns["ceiling (real scenes)"]["all"], 4),
        "psnr": round(torch.cat(round_trip).mean().item(), 2),
        "seconds_per_picture": round(seconds_per_picture(folder), 3),
        "megabytes": round(size_in_megabytes(folder), 2),
    }
    machine = f"{min(2, o.threads)} CPU threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
    own = {name: columns["ceiling (real scenes)"][name] for name in verifier.ATTRIBUTES}
    facts = {
        "prompts": len(examples),
        "machine": machine,
        "weights": fingerprint(folder),
        "short": short(numbers, own),
    }
    report = {"numbers": numbers, "quality": quality.markdown(), "guidance": sweep.markdown(), **facts}
    (o.work / "evaluation.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()
