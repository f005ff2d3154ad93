"""The pictures of a finished SDEdit run, by name."""

from __future__ import annotations

import re

from PIL import Image

from playground.images.models import TextToImageModel, to_images
from playground.images.sdedit import Edited
from playground.sharing.png import to_png
from playground.sharing.views import RunViews


class EditViews(RunViews):
    """Those of every run (`RunViews`), and

    guide.png       the guide as it entered
    start-R.png     where row R started in the last pass, x_t0, decoded
    """

    result: Edited

    def _make(self, name: str) -> bytes:
        if name == "guide.png" and self.result.guide is not None:
            return to_png(to_images(self.result.guide[None])[0])
        match = re.fullmatch(r"start-(\d{1,3})\.png", name)
        if match is None:
            return super()._make(name)
        starts, row = self.result.starts, int(match[1])
        if starts is None or row >= len(starts):
            raise KeyError(name)

        def make(model: TextToImageModel) -> bytes:
            image: Image.Image = to_images(model.autoencoder.decode(starts[row : row + 1]))[0]
            return to_png(image)

        return self._on_device(make)
