"""Measures prompt-to-prompt on a model folder: does a swapped noun change its thing, and leave the rest alone?

    python -m training.swaps --model FOLDER

A swap counts when it can be judged: the scene verifier reads the source's noun in the source, and the new one in a
picture that the edited prompt makes from the same noise by itself. Of 50 such swaps it prints, as one line of JSON,

there: the share of edits in which the verifier reads the new noun;
moved: the mean absolute difference of edit and source outside the place where either noun attends, over that of the
    picture that the edited prompt makes by itself; of both, the mean over the swaps;
kept: the share of swaps in which that ratio is at most a half by itself.
"""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from playground.images.models import TextToImageModel, load_model
from playground.images.prompt_to_prompt import Prompted, PromptToPrompt, edit_prompt
from playground.images.reading import PLACES, Ask, read, with_article
from playground.images.text_to_image import generate
from playground.images.verifier import Labels, Verifier
from playground.recipes import TextToImage
from training import common

SWAPS, MOST_TRIED = 50, 1000
THERE, MOVED = 0.7, 0.5
"""What is aimed at: at least, and at most."""
LEAST_OUTSIDE = 0.2
"""Of the picture: where the nouns attend nearly everywhere, nothing is left that should stay."""
THRESHOLD = 0.3
"""Of a word's attention divided by its largest value: above it is where the word attends, as for local blend."""


@dataclass(frozen=True)
class Swap:
    """A source prompt and the one with another noun: what each asks for."""

    source: Ask
    target: Ask
    seed: int


@dataclass(frozen=True)
class Judged:
    """What came of a swap.

    Attributes:
        there: whether the verifier reads the new noun in the edit.
        edited, alone: mean absolute difference from the source outside the nouns' places, of the edit and of the
            edited prompt by itself; pictures are in [-1, 1].
    """

    swap: Swap
    there: bool
    edited: float
    alone: float


@dataclass(frozen=True)
class Summary:
    """Over all swaps that could be judged: their number, the share with the new noun, the mean of edited over the
    mean of alone, and the share in which edited is at most `MOVED` of alone."""

    swaps: int
    there: float
    moved: float
    kept: float


def candidates(labels: Labels, count: int = MOST_TRIED, seed: int = 0) -> list[Swap]:
    """Swaps of one thing for another in front of the same background, from a fixed seed."""
    rng, found = random.Random(seed), []
    nouns = [n for n in labels.nouns if " " not in n]  # a swap of one word for one
    for i in range(count):
        before, after = rng.sample(nouns, 2)
        background = rng.choice([b for b in labels.backgrounds if b in PLACES])
        found.append(Swap(_ask(before, background), _ask(after, background), 1000 + i))
    return found


def _ask(noun: str, background: str) -> Ask:
    return Ask(f"{with_article(noun)} {PLACES[background]}", (noun,))


def attended(result: Prompted, size: tuple[int, int]) -> Tensor:
    """Where the noun of the source or of the edit attends on average over the steps, [H, W] bool."""
    (alignment,) = result.alignments
    grid = next(g for g in result.grids if min(g) <= 16)
    place = torch.zeros(size, dtype=torch.bool)
    for row, words in enumerate((alignment.source, alignment.target)):
        tokens = list(words[1].tokens)  # behind the article
        steps = [result.maps(k).after[grid][row][:, tokens].float().mean(-1) for k in range(len(result.trace))]
        mean = F.max_pool2d(torch.stack(steps).mean(0).reshape(1, 1, *grid), 3, 1, 1)
        place |= F.interpolate(mean / mean.amax(), size=size)[0, 0] > THRESHOLD
    return place


def judged(model: TextToImageModel, verifier: Verifier, swaps: list[Swap], steps: int = 20) -> Iterator[Judged]:
    """What comes of the swaps that can be judged, one after the other, with the page's own settings."""
    for swap in swaps:
        if any(model.text.notes(ask.prompt) for ask in (swap.source, swap.target)):
            continue  # a word that the model does not know
        recipe = PromptToPrompt(
            model=model.name, prompt=swap.source.prompt, edits=(swap.target.prompt,), seed=swap.seed, steps=steps
        )
        result = edit_prompt(recipe, model)
        plain = {n: getattr(recipe, n) for n in TextToImage.model_fields if n in PromptToPrompt.model_fields}
        alone = generate(TextToImage(**plain).but(prompt=swap.target.prompt), model).pictures
        source, edit = result.pictures[:1].cpu(), result.pictures[1:].cpu()
        verdicts = read(verifier, torch.cat([source, edit, alone.cpu()]), [swap.source, swap.target, swap.target])
        before, there, possible = (v["noun"] for v in verdicts)
        if not (before and possible):
            continue
        outside = ~attended(result, (source.shape[-2], source.shape[-1]))
        if float(outside.float().mean()) < LEAST_OUTSIDE:
            continue
        apart = [float((picture - source).abs().mean(1)[0][outside].mean()) for picture in (edit, alone.cpu())]
        yield Judged(swap, there, *apart)


def summary(found: list[Judged]) -> Summary:
    """Of swaps that were judged."""
    if not found:
        return Summary(0, 0.0, float("inf"), 0.0)
    there = statistics.mean(j.there for j in found)
    moved = statistics.mean(j.edited for j in found) / max(statistics.mean(j.alone for j in found), 1e-6)
    return Summary(len(found), there, moved, statistics.mean(j.edited <= MOVED * j.alone for j in found))


def main() -> None:
    """Judge noun swaps on a model folder."""
    parser = common.parser(main.__doc__)
    parser.add_argument("--model", type=Path, help="model folder (default: <work>/package)")
    parser.add_argument("--verifier", type=Path, help="verifier folder (default: <work>/verifier)")
    parser.add_argument("--swaps", type=int, default=SWAPS)
    o = parser.parse_args()
    common.prepare(o.threads)
    model = load_model(str(o.model or o.work / "package"))
    verifier = Verifier.load(o.verifier or o.work / "verifier")
    found: list[Judged] = []
    for one in judged(model, verifier, candidates(verifier.labels)):
        found.append(one)
        print(f"{one.swap.source.prompt} -> {one.swap.target.prompt}: {'there' if one.there else 'not there'}, "
              f"{one.edited / max(one.alone, 1e-6):.2f}", flush=True)  # fmt: skip
        if len(found) == o.swaps:
            break
    if not found:
        raise SystemExit("The verifier reads no pair of nouns in this model's pictures: there is nothing to judge.")
    print(json.dumps(asdict(summary(found)) | {"aims": {"there": THERE, "moved": MOVED}}))


if __name__ == "__main__":
    main()
