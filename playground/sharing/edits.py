"""The pictures of a finished SDEdit run, by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from PIL import Image

from playground.images.models import TextToImageModel, to_images
from playground.images.sdedit import Edited, SDEdit
from playground.sharing.png import to_png
from playground.sharing.views import RunViews


class EditViews(RunViews):
    """Those of every run (`RunViews`), and

    guide.png       the guide as it entered
    picture-R.png   also carries the guide and the mask that somebody has brought
    start-R.png     where row R started in the last pass, x_t0, decoded

    Args:
        brought: gives the picture of a name that a recipe has for its guide or mask.
    """

    result: Edited

    def __init__(
        self, *args: Any, brought: Callable[[str], Image.Image | None] = lambda name: None, **options: Any
    ):
        super().__init__(*args, **options)
        # At once: whoever keeps them may drop them while this run is still on show.
        named = {n for r in self._singles for n in (getattr(r, "guide", ""), getattr(r, "mask", "")) if n}
        self._brought = {n: picture for n in named if (picture := brought(n))}

    @property
    def nbytes(self) -> int:
        """Memory held, the pictures that somebody has brought included."""
        return super().nbytes + sum(p.width * p.height * len(p.getbands()) for p in self._brought.values())

    def attached(self, row: int) -> dict[str, Image.Image]:
        """The guide and the mask of a row that somebody has brought, by name."""
        recipe = self._singles[row]
        assert isinstance(recipe, SDEdit)
        return {n: self._brought[n] for n in (recipe.guide, recipe.mask) if n in self._brought}

    def _make(self, name: str) -> bytes:
        if name == "guide.png" and self.result.guide is not None:
            return to_png(to_images(self.result.guide[None])[0], self._singles[0], attached=self.attached(0))
        match = re.fullmatch(r"start-(\d{1,3})\.png", name)
        if match is None:
            return super()._make(name)
        starts, row = self.result.starts, int(match[1])
        if starts is None or row >= len(starts):
            raise KeyError(name)

        def make(model: TextToImageModel) -> bytes:
            image: Image.Image = to_images(model.autoencoder.decode(starts[row : row + 1]))[0]
            return to_png(image, self._singles[row], attached=self.attached(row))

        return self._on_device(make)
