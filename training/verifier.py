"""Trains the scene verifier on noise-free scenes of its own seeds, never on generated pictures.

    python -m training.verifier --steps 8000

Resumes from its checkpoint; the result is ``<work>/verifier`` (``config.json`` and ``model.safetensors``).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from playground.images.reading import shows
from playground.images.verifier import Features, Labels, Verifier
from training import common, data, scenes, world
from training.muon import MuonAndAdam
from training.scenes import Scene

RELATIONS = ("left", "right", "above", "under", "on", "wearing", "with")
"""Relations a picture can show; a caption's "beside" leaves open which of the first two it is."""
IGNORE = -100  # what cross entropy skips


def labels() -> Labels:
    """What the verifier of this world tells apart."""
    return Labels(
        nouns=scenes.NOUNS,
        colours=scenes.COLOURS,
        counts=(1, *scenes.NUMBERS),
        relations=RELATIONS,
        backgrounds=scenes.BACKGROUNDS,
        styles=tuple(scenes.STYLES),
    )


@dataclasses.dataclass(frozen=True)
class Targets:
    """The truth about a batch of scenes as tensors; slots are the up to two things of a scene."""

    present: torch.Tensor
    """Which nouns there are, [B, N]."""
    nouns: torch.Tensor
    """The noun in each slot, [B, 2]; 0 where there is none."""
    colours: torch.Tensor
    """Colour logit of each slot, [B, 2]; IGNORE where there is no thing or the style shows no colour."""
    counts: torch.Tensor
    """Count logit of each slot, [B, 2]."""
    relation: torch.Tensor
    """How slot 0 stands to slot 1, [B]; IGNORE where there is no slot 1 or the relation is "beside"."""
    beside: torch.Tensor
    """Whether the relation is "beside", [B]."""
    background: torch.Tensor
    style: torch.Tensor


def targets(truths: Sequence[Scene], names: Labels) -> Targets:
    """The truth about scenes in the terms of the verifier's labels."""
    noun_index = {n: i for i, n in enumerate(names.nouns)}
    present = torch.zeros(len(truths), len(names.nouns))
    nouns = torch.zeros(len(truths), 2, dtype=torch.long)
    colours = torch.full((len(truths), 2), IGNORE)
    counts = torch.full((len(truths), 2), IGNORE)
    relation = torch.full((len(truths),), IGNORE)
    beside = torch.zeros(len(truths), dtype=torch.bool)
    for row, scene in enumerate(truths):
        for slot, thing in enumerate(scene.things):
            nouns[row, slot] = noun_index[thing.noun]
            present[row, noun_index[thing.noun]] = 1
            counts[row, slot] = names.counts.index(thing.count)
            if scene.style not in scenes.COLOURLESS_STYLES:
                colours[row, slot] = 1 + names.colours.index(thing.colour) if thing.colour else 0
        if scene.relation == "beside":
            beside[row] = True
        elif scene.relation is not None:
            relation[row] = names.relations.index(scene.relation)
    background = torch.tensor([names.backgrounds.index(s.background) for s in truths])
    style = torch.tensor([1 + names.styles.index(s.style) if s.style else 0 for s in truths])
    return Targets(present, nouns, colours, counts, relation, beside, background, style)


def loss(model: Verifier, seen: Features, true: Targets) -> torch.Tensor:
    """Sum of the cross entropies of all attributes."""
    total = F.binary_cross_entropy_with_logits(model.noun_logits(seen), true.present, reduction="sum")
    total = total / len(true.present)
    for slot in (0, 1):
        noun = true.nouns[:, slot]
        total = total + _cross_entropy(model.colour_logits(seen, noun), true.colours[:, slot])
        total = total + _cross_entropy(model.count_logits(seen, noun), true.counts[:, slot])
    relation = model.relation_logits(seen, true.nouns[:, 0], true.nouns[:, 1])
    total = total + _cross_entropy(relation, true.relation)
    if true.beside.any():  # left or right, whichever: the sum of both probabilities
        sides = relation[true.beside].log_softmax(-1)[:, :2].logsumexp(-1)
        total = total - sides.mean()
    total = total + F.cross_entropy(model.background_logits(seen), true.background)
    return total + F.cross_entropy(model.style_logits(seen), true.style)


def _cross_entropy(logits: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    # The mean over an empty selection would be NaN.
    return F.cross_entropy(logits, true, ignore_index=IGNORE, reduction="sum") / (true != IGNORE).sum().clamp_min(1)


ATTRIBUTES = ("noun", "colour", "count", "relation", "place", "style")
SINGLE = "single"
"""That there is one of each, where no number is spoken of."""


@torch.no_grad()
def check(
    model: Verifier, pictures: torch.Tensor, truths: Sequence[Scene], batch: int = 64
) -> list[dict[str, bool]]:
    """For each picture, whether the verifier reads what its caption says; attributes not spoken of are left out.

    ``noun``: the picture `shows` those asked for, as the page reads them. ``colour``, ``count`` and ``single``:
    right for every thing. ``relation``: right for the pair. Numbers and colours are asked of the noun they
    belong to, so a colour on the wrong thing is wrong. ``count`` is asked where there shall be two or three of
    something, ``single`` where there shall be one of each: a model that cannot count gets this right.
    """
    device = next(model.parameters()).device
    verdicts = []
    for start in range(0, len(truths), batch):
        part = truths[start : start + batch]
        seen = model(pictures[start : start + batch].to(device))
        true = targets(part, model.labels)
        nouns = model.noun_logits(seen).cpu()
        slots = [true.nouns[:, slot].to(device) for slot in (0, 1)]
        colours = torch.stack([model.colour_logits(seen, slot).argmax(-1) for slot in slots], 1).cpu()
        counts = torch.stack([model.count_logits(seen, slot).argmax(-1) for slot in slots], 1).cpu()
        relation = model.relation_logits(seen, *slots).argmax(-1).cpu()
        background = model.background_logits(seen).argmax(-1).cpu()
        style = model.style_logits(seen).argmax(-1).cpu()
        for i, scene in enumerate(part):
            verdict = {"noun": shows(nouns[i], true.present[i].nonzero()[:, 0].tolist())}
            named = [slot for slot, thing in enumerate(scene.things) if thing.colour]
            if named:
                verdict["colour"] = all(colours[i, slot] == true.colours[i, slot] for slot in named)
            # A topping's number is not spoken of ("a cake with cherries").
            counted = [slot for slot in range(len(scene.things)) if scene.relation != "with" or slot == 0]
            spoken = "count" if any(scene.things[slot].count > 1 for slot in counted) else SINGLE
            verdict[spoken] = all(counts[i, slot] == true.counts[i, slot] for slot in counted)
            if scene.relation == "beside":
                verdict["relation"] = model.labels.relations[relation[i]] in ("left", "right")
            elif scene.relation is not None:
                verdict["relation"] = bool(relation[i] == true.relation[i])
            if scene.background_named:
                verdict["place"] = bool(background[i] == true.background[i])
            if scene.style is not None:
                verdict["style"] = bool(style[i] == true.style[i])
            verdicts.append({name: bool(value) for name, value in verdict.items()})
    return verdicts


def summarise(verdicts: Sequence[dict[str, bool]]) -> dict[str, float]:
    """The share of right verdicts per attribute among the pictures asked for it, and of all attributes at once."""
    shares = {}
    for name in (*ATTRIBUTES, SINGLE):
        found = [verdict[name] for verdict in verdicts if name in verdict]
        shares[name] = sum(found) / len(found) if found else float("nan")
    shares["all"] = sum(all(verdict.values()) for verdict in verdicts) / len(verdicts)
    return shares


def _augment(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Small changes of brightness and contrast and a little blur or noise: what separates drawn from decoded."""
    gain = torch.from_numpy(rng.uniform(0.92, 1.08, (len(x), 1, 1, 1)).astype(np.float32))
    shift = torch.from_numpy(rng.uniform(-0.06, 0.06, (len(x), 1, 1, 1)).astype(np.float32))
    x = x * gain + shift
    kind = rng.random()
    if kind < 0.3:
        x = 0.5 * x + 0.5 * F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    elif kind < 0.5:
        x = x + 0.05 * torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32))
    return x.clamp(-1, 1)


def _mirror(x: torch.Tensor, true: Targets, rng: np.random.Generator) -> tuple[torch.Tensor, Targets]:
    """Half of the pictures mirrored: left is right then, and everything else stays what it is."""
    turned = torch.from_numpy(rng.random(len(x)) < 0.5)
    left, right = RELATIONS.index("left"), RELATIONS.index("right")
    relation = true.relation.clone()
    relation[turned & (true.relation == left)] = right
    relation[turned & (true.relation == right)] = left
    return torch.where(turned[:, None, None, None], x.flip(3), x), dataclasses.replace(true, relation=relation)


def main() -> None:
    """Train the verifier; an interrupted run resumes from its checkpoint."""
    parser = common.parser(main.__doc__)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--count", type=int, default=80_000, help="scenes to train on")
    parser.add_argument("--minutes", type=float, default=5, help="minutes between checkpoints")
    parser.add_argument("--compile", action="store_true", help="a minute or more at first, then faster")
    o = parser.parse_args()
    device = common.prepare(o.threads)
    # Unlike the denoiser, it must read the held-out pairs as well as any other.
    data.render(o.work, "verifier-scenes", common.VERIFIER_SEEDS, o.count, o.threads, novel_every=8)
    pictures, truths = data.load(o.work, "verifier-scenes")
    styled = np.flatnonzero([scene.style is not None for scene in truths])
    checkpoint = o.work / "verifier.pt"
    start = o.work / "verifier"
    model = Verifier.load(start).train() if start.exists() else Verifier(labels())
    model = model.to(device, memory_format=torch.channels_last)
    parameters = list(model.parameters())
    ends = [model.stem.weight, model.queries, model.noun_weight]
    heads = (model.colour, model.count, model.relation, model.background, model.style)
    ends += [layer.weight for head in heads for layer in head.modules() if isinstance(layer, torch.nn.Linear)]
    optimizer = MuonAndAdam(parameters, ends, muon_rate=0.02, adam_rate=1.5e-3)
    average = common.Average(parameters)
    step = 0
    if checkpoint.exists():
        state = common.load_checkpoint(checkpoint, device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.load(state["average"])
        step = state["step"]
    if o.compile:
        model.compile()

    def save() -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average.values}
        common.save_checkpoint(checkpoint, state | {"step": step})
        with average.applied():
            model.save(o.work / "verifier")

    progress, saved = common.Progress(o.steps, step, "verifier"), time.monotonic()
    while step < o.steps:
        rng = np.random.default_rng(step)
        # Things are hardest to tell in pencil and in neon: a third of the scenes have a style for certain.
        chosen = rng.integers(0, len(truths), o.batch)
        chosen[: o.batch // 3] = rng.choice(styled, o.batch // 3)
        chosen.sort()
        x = _augment(common.to_signed(torch.from_numpy(pictures[chosen])), rng)
        x, true = _mirror(x, targets([truths[i] for i in chosen], model.labels), rng)
        true = Targets(**{f.name: getattr(true, f.name).to(device) for f in dataclasses.fields(true)})
        with common.autocast(device):
            seen = model(x.to(device).contiguous(memory_format=torch.channels_last))
            value = loss(model, seen, true)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step(min(1.0, (step + 1) / 200) * common.cooldown(step, o.steps))
        average.update(step)
        step += 1
        progress.update(o.batch, loss=value.item())
        if time.monotonic() - saved > 60 * o.minutes:
            save()
            saved = time.monotonic()
    save()

    with average.applied():
        made = [world.example(seed) for seed in range(common.HELD_OUT_SEEDS, common.HELD_OUT_SEEDS + 1000)]
        held_out = common.to_signed(torch.from_numpy(np.stack([np.asarray(e.image) for e in made])))
        shares = summarise(check(model.eval(), held_out, [e.scene for e in made]))
        model.accuracy = shares
        model.save(o.work / "verifier")
    print("held-out scenes: " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items()))


if __name__ == "__main__":
    main()
