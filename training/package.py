"""Puts the trained parts together as one model folder in diffusers' layout.

    python -m training.package --out FOLDER

The folder has half-precision safetensors in shards of at most 15 MB, the tokenizer, the scheduler, the verifier,
``vocabulary.json`` (every word the model knows, by kind) and the model card with a contact sheet of unpicked
samples. It loads in plain ``StableDiffusionPipeline.from_pretrained``.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from training import common, denoiser, evaluate, sampling, scenes, world

SHARD = "14MB"  # the last tensor that fits may pass the mark by its header; 15 MB is the most
LARGEST = 40  # megabytes: the folder is part of the repository
SHEET_PICTURES = 64
FIGURES = "evaluation.json"

EXAMPLES = (
    "a cat on the grass",
    "a red car on the beach",
    "a castle next to a river",
    "a rocket in space",
    "two apples on a white background",
    "a house in the very snowy mountains",
)
"""Prompts that the page offers, of the kinds of scenes there are."""

CARD = """\
# Emoji scenes: a text-to-image model for two CPU cores

{parameters:.1f} M parameters in Stable Diffusion's layout: a word tokenizer ({words} words, at most
{tokens} tokens a prompt), a text encoder trained with the denoiser, a denoiser (UNet with cross-attention
at 16x16 and 8x8) and an autoencoder ({channels} channels, 16x16). v-prediction under the DDPM linear
schedule, betas 1e-4 to 0.02. Pictures are 128x128. It loads in plain diffusers:

```python
from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained("{name}", safety_checker=None)
pipeline("a cat riding a bicycle on the grass", num_inference_steps=20, guidance_scale=4).images[0]
```

## What it knows

Scenes of one or two things out of {nouns} nouns in {colours} colours, three sizes and up to three of a
kind; how they stand to each other; {places} places and {plains} plain backgrounds; graded adjectives
(slightly / very snowy, rainy, foggy, crowded, starry, fluffy); rainbow, sun, moon, clouds and fireworks;
{styles} styles. `vocabulary.json` lists every word. Case and punctuation are ignored. A word it does not
know becomes one unknown token, which it has learnt to look past.

![{pictures} unpicked samples, w = 4, 20 steps](samples.png)

## How it was made

From nothing but drawn scenes with exact captions (`training/` in the repository). The things are glyphs of
Noto Color Emoji (Google, SIL Open Font License 1.1); places and styles are procedural. No other data and no
other weights. {cost}

One in {held_out} noun-colour and noun-noun pairs was kept from training, to measure whether attributes are
combined or remembered.

## Evaluation

{evaluation}

The judge is the scene verifier in `verifier/`, trained on real scenes of its own seeds, never on generated
ones.{aligned}

## Limits

It knows its small world only: a prompt outside the vocabulary gives a scene of what is left of it. More
than two kinds of things, more than three of a kind, and relations between colours, sizes or styles are
beyond it.
"""


def vocabulary() -> dict[str, object]:
    """What ``vocabulary.json`` holds: words by kind, the plural of each noun, and prompts to begin with."""
    plurals = {n: scenes.plural(n) for n in scenes.COMMON_NOUNS}
    return {"words": scenes.vocabulary(), "plurals": plurals, "examples": EXAMPLES}


def plainly_loaded(folder: Path) -> None:
    """Let a plain `from_pretrained` give all parts one precision: diffusers makes its own float32, whatever the
    file has, and transformers takes what the configuration says, which is that of the file."""
    path = folder / "text_encoder" / "config.json"
    config = json.loads(path.read_text()) | {"dtype": "float32"}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _evaluation(work: Path, folder: Path) -> str:
    """What was measured of just these weights; the figures alone are put into the folder, too."""
    path = work / "evaluation.json"
    report = json.loads(path.read_text()) if path.exists() else {}
    if report.get("weights") != evaluate.fingerprint(folder):
        return "Not evaluated yet."
    (folder / FIGURES).write_text(json.dumps(report["numbers"]) + "\n")
    numbers = report["numbers"]
    return (
        f"{report['prompts']} held-out prompts, w = {evaluate.GUIDANCE:g}, {evaluate.STEPS} steps:\n\n"
        f"{report['quality']}\n\nMore guidance buys fidelity with diversity:\n\n{report['guidance']}\n\n"
        f"Round trip of the autoencoder {numbers['psnr']} dB PSNR (aim {evaluate.PSNR:g}), "
        f"{numbers['seconds_per_picture']} s a picture on {report['machine']}, {numbers['megabytes']} MB.\n\n"
        + (f"**Short of its aims**: {'; '.join(report['short'])}." if report["short"] else "All aims are met.")
    )


def _aligned(counters: dict[str, float]) -> str:
    """That the judge was a teacher, too."""
    if not counters.get("aligned"):
        return ""
    return (
        f" It is no stranger to the denoiser: for {counters['aligned'] / 1e6:.2f} million samples the denoiser's "
        "features were drawn towards its own (representation alignment), though never on scenes with the pairs "
        "kept from training."
    )


def _cost(counters: dict[str, float]) -> str:
    step, samples, hours = counters["step"], counters["samples"] / 1e6, counters["seconds"] / 3600
    return f"The denoiser was trained for {step:,} updates on {samples:.2f} million samples in {hours:.1f} hours."


def main() -> None:
    """Assemble the model folder from the latest checkpoints."""
    parser = common.parser(main.__doc__)
    parser.add_argument("--out", type=Path, help="folder to write (default: <work>/package)")
    parser.add_argument("--verifier", type=Path, help="the verifier's folder (default: <work>/verifier)")
    o = parser.parse_args()
    out: Path = o.out or o.work / "package"
    judge: Path = o.verifier or o.work / "verifier"
    if not judge.exists():
        raise FileNotFoundError(f"There is no verifier in {judge}: train it first.")
    device = common.prepare(o.threads)
    model = sampling.Model.load(o.work / "denoiser", device, o.work / "autoencoder")
    parts = (model.unet, model.text_encoder, model.autoencoder)
    parameters = sum(p.numel() for part in parts for p in part.parameters()) / 1e6

    sheet = range(common.HELD_OUT_SEEDS, common.HELD_OUT_SEEDS + SHEET_PICTURES)
    captions = [world.example(seed).caption for seed in sheet]
    pictures = sampling.generate(model, captions, range(SHEET_PICTURES))
    images = [world.Image.fromarray(p) for p in common.to_pixels(pictures).numpy()]

    pipeline = StableDiffusionPipeline(
        vae=model.autoencoder,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=sampling.build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).to(torch.float16)
    with tempfile.TemporaryDirectory() as kept:  # it may be that of the folder itself
        shutil.copytree(judge, Path(kept) / "verifier")
        if out.exists():
            shutil.rmtree(out)
        pipeline.save_pretrained(out, safe_serialization=True, max_shard_size=SHARD)
        shutil.copytree(Path(kept) / "verifier", out / "verifier")
    plainly_loaded(out)
    (out / "vocabulary.json").write_text(json.dumps(vocabulary(), indent=1) + "\n")
    world.contact_sheet(list(zip(images, captions, strict=True))).save(out / "samples.png")
    counters = out / denoiser.COUNTERS
    shutil.copy(o.work / "denoiser" / denoiser.COUNTERS, counters)
    trained = json.loads(counters.read_text())
    card = CARD.format(
        parameters=parameters,
        words=sum(map(len, scenes.vocabulary().values())),
        tokens=scenes.MAX_TOKENS,
        channels=model.unet.config.in_channels,
        name=out.name,
        nouns=len(scenes.COMMON_NOUNS),
        colours=len(scenes.COLOURS),
        places=len(scenes.PLACES),
        plains=len(scenes.PLAIN_COLOURS),
        styles=len(scenes.STYLES),
        pictures=SHEET_PICTURES,
        held_out=scenes.HELD_OUT_SHARE,
        cost=_cost(trained),
        aligned=_aligned(trained),
        evaluation=_evaluation(o.work, out),
    )
    (out / "README.md").write_text(card)
    size = evaluate.size_in_megabytes(out)
    print(f"{out}: {size:.1f} MB")
    if size > LARGEST:
        raise ValueError(f"The folder has {size:.1f} MB; at most {LARGEST} MB may be bundled.")


if __name__ == "__main__":
    main()
