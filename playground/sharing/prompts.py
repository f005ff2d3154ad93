"""The pictures and maps of a prompt-to-prompt run, by name."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

from playground.images.models import TextToImageModel, to_uint8
from playground.images.prompt_to_prompt import Prompted, PromptToPrompt, attention_arrays
from playground.plane.packing import pack
from playground.sharing.png import to_png
from playground.sharing.views import OnDevice, RunViews


class PromptViews(RunViews):
    """What `RunViews` has, and

    difference-R.png    the absolute difference of row R and the source, in grey; white is the largest there is
    attention.bin       the cross-attention of all steps (`attention_arrays`), packed

    Args:
        result: the run.
        shown: tokens whose maps are packed.
        on_device: as for `RunViews`.
    """

    result: Prompted

    def __init__(self, result: Prompted, on_device: OnDevice, shown: int):
        super().__init__(result, on_device)
        self.tokens = shown

    def binary(self, name: str) -> bytes:
        """The file.

        Raises:
            KeyError: when a run has no such file.
        """
        if name != "attention.bin":
            raise KeyError(name)
        if name not in self._kept:
            self._kept[name] = pack(attention_arrays(self.result, self.tokens))
        return self._kept[name]

    def packed(self, most: int) -> tuple[bytes, int]:
        """The cross-attention as `attention.bin` has it within a number of bytes, and how many maps a word has.

        Where that takes fewer than one for each step, each is the mean over neighbouring steps, so that the mean
        over all stays what it is wherever their number divides the steps.
        """
        whole = attention_arrays(self.result, self.tokens)
        steps = len(self.result.trace)
        maps = max(1, min(steps, int(most * steps / max(1, 2 * sum(a.size for a in whole.values())))))
        maps = next(n for n in range(maps, 0, -1) if steps % n == 0 or n <= maps - 3)
        return pack({k: _grouped(a, maps) for k, a in whole.items()}), maps

    def _make(self, name: str) -> bytes:
        match = re.fullmatch(r"difference-(\d{1,3})\.png", name)
        if match is None:
            return super()._make(name)
        if int(match[1]) >= len(self.result.pictures):
            raise KeyError(name)
        row = int(match[1])
        return to_png(difference(to_uint8(self.result.pictures), row), self._singles[row], compress=1)


def shown_tokens(recipe: PromptToPrompt, model: TextToImageModel) -> int:
    """Tokens before the padding, in the longest prompt."""
    reader = model.text.encoders[0]
    return max(sum(t.kind != "padding" for t in reader.tokens(p)) for p in recipe.prompts())


def _grouped(maps: np.ndarray, count: int) -> np.ndarray:
    """[S, ...] as means [count, ...] over neighbouring steps."""
    return np.stack([part.mean(0) for part in np.array_split(maps, count)]) if count < len(maps) else maps


def difference(pictures: np.ndarray, row: int) -> Image.Image:
    """|picture - source| averaged over colours, as a grey picture; its largest value is white."""
    apart = np.abs(pictures[row].astype(np.float32) - pictures[0]).mean(-1)
    return Image.fromarray((apart / max(float(apart.max()), 1.0) * 255).round().astype(np.uint8))
