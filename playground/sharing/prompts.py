"""The pictures and maps of a prompt-to-prompt run, by name."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

from playground.images.models import TextToImageModel, to_uint8
from playground.images.prompt_to_prompt import Prompted, PromptToPrompt, attention_arrays, blend_masks
from playground.plane.packing import pack
from playground.sharing.png import to_png
from playground.sharing.views import OnDevice, RunViews


class PromptViews(RunViews):
    """What `RunViews` has, and

    difference-R.png    the absolute difference of row R and the source, in grey; white is the largest there is
    attention.bin       the cross-attention of all steps (`attention_arrays`), packed; with a local blend also its
                        masks, "mask HxW" [steps, rows, H * W, 1]

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
        # Not kept: the maps themselves are, and a browser asks once.
        return pack(self._arrays())

    def packed(self, most: int) -> tuple[bytes, int, list[tuple[int, int]]]:
        """The cross-attention as `attention.bin` has it within a number of bytes, how many maps a word has, and the
        (height, width) of those grids that fit.

        Where that takes fewer maps than one for each step, each is the mean over neighbouring steps that asked the
        prompts, so that the mean over all stays what it is wherever their number divides the steps and all asked.
        """
        whole, grids = self._arrays(), self.result.grids
        steps = len(self.result.trace)

        def size() -> int:
            return max(1, 2 * sum(a.size for a in whole.values()))

        while size() > most * steps and len(grids) > 1:
            # Not even one map of each: the finest grid takes most of it.
            (h, w), *grids = grids
            whole = {k: a for k, a in whole.items() if k not in (f"before {h}x{w}", f"after {h}x{w}")}
        maps = max(1, min(steps, int(most * steps / size())))
        maps = next(n for n in range(maps, 0, -1) if steps % n == 0 or n <= maps - 3)
        asked = np.array([bool(self.result.maps(k).before) for k in range(steps)])
        return pack({k: _grouped(a, maps, asked) for k, a in whole.items()}), maps, grids

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = attention_arrays(self.result, self.tokens)
        masks = blend_masks(self.result)
        if masks is not None:
            arrays[f"mask {masks.shape[2]}x{masks.shape[3]}"] = masks.reshape(*masks.shape[:2], -1, 1)
        return arrays

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


def _grouped(maps: np.ndarray, count: int, asked: np.ndarray) -> np.ndarray:
    """[S, ...] as means [count, ...] over neighbouring steps, those that asked [S] where there are any."""
    if count == len(maps):
        return maps
    parts = zip(np.array_split(maps, count), np.array_split(asked, count), strict=True)
    return np.stack([(part[own] if own.any() else part).mean(0) for part, own in parts])


def difference(pictures: np.ndarray, row: int) -> Image.Image:
    """|picture - source| averaged over colours, as a grey picture; its largest value is white."""
    apart = np.abs(pictures[row].astype(np.float32) - pictures[0]).mean(-1)
    return Image.fromarray((apart / max(float(apart.max()), 1.0) * 255).round().astype(np.uint8))
