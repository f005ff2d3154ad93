"""The pictures of a finished run, by name, made when somebody looks at them.

Decoding all latents of a run (four rows, twenty steps) would cost more than the run itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from PIL import Image

from playground.fields import Count
from playground.images.models import TextToImageModel
from playground.images.text_to_image import (
    Generated,
    StepRecord,
    film_frame,
    latent_channels,
    noised,
    with_both_branches,
)
from playground.recipes import TextToImage
from playground.sharing.png import to_png

T = TypeVar("T")
OnDevice = Callable[[Callable[[TextToImageModel], Any]], Any]
"""Runs a function of the model where the model lives (`Backend.call` does)."""

NOISE_FRAMES = 101
"""Times of the forward noising, 0 to t_max; each is made when somebody looks at it."""


class RunViews:
    """PNG files of one run, each with the recipe of its row inside: `png(name)` with one of the names below.

    Pictures that somebody brought for it are in those of which a run has one (`attached`), not in films' frames.

    picture-R.png       the picture of row R
    film-R-S.png        step S of row R: x_t, x0 without prompt, with it, guided, from top to bottom; tiles
                        that were not computed are transparent
    film-R-S-all.png    the same with the skipped branches computed for this view
    noise-R-K.png       forward noising of row R at time K/100
    latents-R.png       the latent channels of row R side by side

    Args:
        result: the run.
        on_device: runs what needs the model.
        weak: gives the weak model of autoguidance, where that is the rule.
    """

    def __init__(
        self,
        result: Generated,
        on_device: OnDevice,
        weak: Callable[[], TextToImageModel] | None = None,
    ):
        self.result, self._on_device, self._weak = result, on_device, weak
        self._singles = result.recipe.singles()
        self._kept: dict[str, bytes] = {}
        self._both: dict[tuple[int, int], tuple[StepRecord, Count]] = {}
        size = result.pictures.shape[-1]
        self.tile = size

    @property
    def nbytes(self) -> int:
        """Memory held, made pictures included."""
        both = sum(record.nbytes for record, _ in list(self._both.values()))
        return self.result.nbytes + both + sum(map(len, list(self._kept.values())))

    def png(self, name: str) -> bytes:
        """The file.

        Raises:
            KeyError: when a run has no such picture.
        """
        if name not in self._kept:
            self._kept[name] = self._make(name)
        return self._kept[name]

    def attached(self, row: int) -> dict[str, Image.Image]:
        """What somebody brought for the recipe of a row, by name."""
        return {}

    def single(self, row: int) -> TextToImage:
        """The recipe of one picture by itself."""
        return self._singles[row]

    def completed(self, row: int) -> tuple[list[StepRecord], Count]:
        """The steps of a row with the branches that guidance skipped, and what those cost apart from the run."""
        count, records = Count(), []
        for step in range(len(self.result.trace)):
            record, extra = self._complete(row, step)
            records.append(record)
            count.evaluations += extra.evaluations
            count.sample_forwards += extra.sample_forwards
        return records, count

    def _complete(self, row: int, step: int) -> tuple[StepRecord, Count]:
        """One step of `completed`, computed once."""
        if (row, step) not in self._both:
            weak = self._weak() if self._weak else None

            def compute(model: TextToImageModel) -> tuple[StepRecord, Count]:
                return with_both_branches(self.result, model, step, weak, row)

            self._both[row, step] = self._on_device(compute)
        return self._both[row, step]

    def _make(self, name: str) -> bytes:
        match = re.fullmatch(r"(picture|film|noise|latents)-(\d{1,3})(?:-(\d{1,3}))?(-all)?\.png", name)
        if match is None:
            raise KeyError(name)
        kind, row, number, everything = match[1], int(match[2]), int(match[3] or 0), bool(match[4])
        last = {"film": len(self.result.trace), "noise": NOISE_FRAMES}.get(kind, 1)
        if row >= len(self.result.pictures) or number >= last:
            raise KeyError(name)
        if kind == "picture":
            return to_png(self.result.images[row], self._singles[row], attached=self.attached(row))
        if kind == "latents":
            channels = beside(latent_channels(self.result.latents[row]), 2 * self.tile // 4)
            return to_png(channels, self._singles[row], attached=self.attached(row))

        shown = self._complete(row, number)[0] if everything else None

        def make(model: TextToImageModel) -> bytes:
            if kind == "noise":
                path = model.denoiser.schedule
                t = number / (NOISE_FRAMES - 1) * path.t_max
                return to_png(noised(self.result, model, [t], row)[0], self._singles[row], compress=1)
            record = shown or self.result.trace[number]
            return to_png(stacked(film_frame(record, model, row), self.tile), self._singles[row], compress=1)

        return self._on_device(make)


def stacked(pictures: Sequence[Image.Image | None], tile: int) -> Image.Image:
    """Pictures from top to bottom, transparent where there is none."""
    sheet = Image.new("RGBA", (tile, tile * len(pictures)))
    for i, picture in enumerate(pictures):
        if picture is not None:
            sheet.paste(picture.resize((tile, tile)), (0, i * tile))
    return sheet


def beside(pictures: Sequence[Image.Image], tile: int, gap: int = 4) -> Image.Image:
    """Small pictures side by side in rows of four, many in rows of eight, enlarged without smoothing."""
    columns = min(4 if len(pictures) <= 16 else 8, len(pictures))
    lines = -(-len(pictures) // columns)
    sheet = Image.new("LA", (columns * (tile + gap) - gap, lines * (tile + gap) - gap))
    for i, picture in enumerate(pictures):
        at = ((i % columns) * (tile + gap), (i // columns) * (tile + gap))
        sheet.paste(picture.convert("LA").resize((tile, tile), Image.Resampling.NEAREST), at)
    return sheet
