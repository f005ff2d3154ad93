"""Reads a scene from a picture: which nouns, how many, in which colours, how they stand, where, in which style.

A small convolutional network trained on noise-free scenes of the bundled model's world (`training/verifier.py`),
never on generated ones. It measures whether a picture shows what its prompt asked for, and its layers serve as
perceptual features. Everything is differentiable with respect to the picture.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

GRID = 4
"""Width of a block of pixel art in pixels."""


@dataclass(frozen=True)
class Labels:
    """What a verifier can tell apart. The order of each tuple is the order of the logits."""

    nouns: tuple[str, ...]
    colours: tuple[str, ...]
    """Colours a noun may be asked to have; logit 0 is "its own colour", logit i + 1 is colour i."""
    counts: tuple[int, ...]
    relations: tuple[str, ...]
    backgrounds: tuple[str, ...]
    styles: tuple[str, ...]
    """Styles; logit 0 is "none", logit i + 1 is style i."""


@dataclass(frozen=True)
class Features:
    """What the verifier saw in a batch of pictures."""

    maps: tuple[Tensor, ...]
    """Feature maps from fine to coarse, [B, C_i, H_i, W_i]."""
    nouns: Tensor
    """What is seen where each noun would be, [B, N, C]."""
    positions: Tensor
    """Where each noun would be, [B, N, 2]: x and y from -1 to 1."""
    whole: Tensor
    """The picture as a whole, [B, D]."""
    texture: Tensor
    """What its surface is like, wherever: logarithms of the finest maps' means, :func:`grid_contrast`, [B, T]."""


class _Block(nn.Module):
    """Two convolutions with a shortcut; the first may halve the resolution."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(8, channels), nn.GroupNorm(8, channels)])
        same = stride == 1 and channels_in == channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norms[0](self.first(x)))
        return torch.relu(self.norms[1](self.second(h)) + self.shortcut(x))


def _head(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, 192), nn.ReLU(), nn.Linear(192, width_out))


class Verifier(nn.Module):
    """Reads scenes from pictures of 128x128 pixels.

    Attributes:
        accuracy: the share of drawn scenes it has never seen that it reads right, by attribute, and of "all" at
            once; empty where nobody has measured it.

    Calling it gives :class:`Features`; the ``*_logits`` methods read one attribute from them. Colour, count and
    relation are asked of a noun (an index into ``labels.nouns`` per picture, [B]): "which colour is the cat?"
    """

    def __init__(self, labels: Labels, widths: tuple[int, ...] = (24, 48, 96, 128), whole: int = 192) -> None:
        super().__init__()
        self.labels = labels
        self.accuracy: dict[str, float] = {}
        self.config = {"widths": list(widths), "whole": whole}
        self.stem = nn.Conv2d(3, widths[0], 5, 2, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(_Block(before, width, 2), _Block(width, width, 1)) for before, width in pairwise(widths)
        )
        seen = widths[-2] + widths[-1]
        self.merge = nn.Conv2d(seen, widths[-1], 1)
        self.queries = nn.Parameter(torch.randn(len(labels.nouns), widths[-1]) * widths[-1] ** -0.5)
        self.noun_weight = nn.Parameter(torch.randn(len(labels.nouns), widths[-1]) * widths[-1] ** -0.5)
        self.noun_bias = nn.Parameter(torch.full((len(labels.nouns),), -4.0))
        self.summary = nn.Sequential(
            nn.Conv2d(widths[-1], 64, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 16, whole), nn.ReLU()
        )
        noun = widths[-1]
        self.colour = _head(noun, 1 + len(labels.colours))
        whole += noun  # the mean over all places is added to the summary
        self.count = _head(noun + whole, len(labels.counts))
        self.relation = _head(2 * (noun + 2) + whole, len(labels.relations))
        self.background = _head(whole, len(labels.backgrounds))
        # A style is in the strokes: pixels and pencil lines are gone from the coarse maps.
        self.style = _head(whole + widths[0] + widths[1] + 2 * GRID, 1 + len(labels.styles))

    def forward(self, pictures: Tensor) -> Features:
        """Look at pictures [B, 3, 128, 128] in [-1, 1]."""
        x = stem = torch.relu(self.stem(pictures))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        fine, coarse = maps[-2], maps[-1]
        # 16x16 places: fine enough for small things, seen with the coarse map's surroundings.
        merged = torch.cat([fine, nn.functional.interpolate(coarse, scale_factor=2)], 1)
        seen = torch.relu(self.merge(merged)).float()
        places = seen.flatten(2).transpose(1, 2)
        attention = torch.einsum("bpc,nc->bnp", places, self.queries).softmax(-1)
        height, width = seen.shape[2:]
        ys, xs = torch.meshgrid(
            torch.linspace(-1, 1, height, device=x.device),
            torch.linspace(-1, 1, width, device=x.device),
            indexing="ij",
        )
        grid = torch.stack([xs.flatten(), ys.flatten()], -1)
        whole = torch.cat([self.summary(coarse).float(), places.mean(1)], -1)
        strokes = torch.cat([stem.float().mean((2, 3)), maps[0].float().mean((2, 3))], -1)
        # In logarithms, one kind of edge against another does not depend on how many edges there are.
        texture = torch.cat([_log(strokes), 3 * grid_contrast(pictures)], -1)  # spread alike
        return Features(tuple(maps), attention @ places, attention @ grid, whole, texture)

    def noun_logits(self, seen: Features) -> Tensor:
        """Log-odds that each noun is in the picture, [B, N]."""
        return (seen.nouns * self.noun_weight).sum(-1) + self.noun_bias

    def colour_logits(self, seen: Features, noun: Tensor) -> Tensor:
        """Logits of a noun's colour, [B, 1 + colours]."""
        return self.colour(_of(seen.nouns, noun))

    def count_logits(self, seen: Features, noun: Tensor) -> Tensor:
        """Logits of how many of a noun there are, [B, counts]."""
        return self.count(torch.cat([_of(seen.nouns, noun), seen.whole], -1))

    def relation_logits(self, seen: Features, first: Tensor, second: Tensor) -> Tensor:
        """Logits of how the first noun stands to the second, [B, relations]."""
        both = [torch.cat([_of(seen.nouns, n), _of(seen.positions, n)], -1) for n in (first, second)]
        return self.relation(torch.cat([*both, seen.whole], -1))

    def background_logits(self, seen: Features) -> Tensor:
        """Logits of the place or the plain background, [B, backgrounds]."""
        return self.background(seen.whole)

    def style_logits(self, seen: Features) -> Tensor:
        """Logits of the style, [B, 1 + styles]."""
        return self.style(torch.cat([seen.whole, seen.texture], -1))

    def told(self) -> str:
        """How far it can be trusted, in a sentence; "" where that is not known."""
        if len(self.accuracy) < 2 or "all" not in self.accuracy:
            return ""
        *single, _ = shares = [f"{name} {share:.0%}" for name, share in self.accuracy.items() if name != "all"]
        return (
            "Of drawn scenes that it has never seen, the verifier reads right: "
            f"{', '.join(single)} and {shares[-1]}; everything at once in {self.accuracy['all']:.0%}."
        )

    def save(self, folder: Path) -> None:
        """Write labels, accuracy and weights, half precision."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {"labels": asdict(self.labels)} | self.config
        if self.accuracy:
            config["accuracy"] = {name: round(share, 4) for name, share in self.accuracy.items()}
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        half = {name: value.half().contiguous() for name, value in self.state_dict().items()}
        save_file(half, folder / "model.safetensors")

    @classmethod
    def load(cls, folder: Path) -> Verifier:
        """Read a saved verifier, float32, ready to use."""
        config = json.loads((folder / "config.json").read_text())
        labels = Labels(**{name: tuple(values) for name, values in config["labels"].items()})
        model = cls(labels, tuple(config["widths"]), config["whole"])
        model.accuracy = {str(name): float(share) for name, share in config.get("accuracy", {}).items()}
        weights = load_file(folder / "model.safetensors")
        model.load_state_dict({name: value.float() for name, value in weights.items()})
        return model.eval()


def grid_contrast(pictures: Tensor) -> Tensor:
    """How much more neighbouring pixels differ at each phase of a grid than on average, in logarithms, [B, 2 GRID].

    Pixel art differs across the borders of its blocks and not within them; everything else differs alike
    everywhere. Means over learnt maps of half the resolution never showed it: without this, every scene in pixel
    art was read as one in no style.

    Args:
        pictures: [B, 3, H, W], H and W above GRID; phases count from the left and from the top.
    """
    gray = pictures.float().mean(1)
    phases = []
    for differences in (gray.diff(dim=2).abs().mean(1), gray.diff(dim=1).abs().mean(2)):
        logs = _log(torch.stack([differences[:, phase::GRID].mean(1) for phase in range(GRID)], 1))
        phases.append(logs - logs.mean(1, keepdim=True))
    return torch.cat(phases, 1)


def _log(means: Tensor) -> Tensor:
    """Logarithm of means of what is not negative, finite also where there is nothing."""
    return (means + 1e-3).log()


def _of(values: Tensor, noun: Tensor) -> Tensor:
    """The row of one noun per picture: [B, N, C] and [B] to [B, C]."""
    return values[torch.arange(len(values), device=values.device), noun]
