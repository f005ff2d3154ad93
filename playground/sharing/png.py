"""Pictures as PNG bytes that carry the experiment they came from."""

from __future__ import annotations

import io
import json

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from playground.recipes import VERSION, Recipe

CHUNK = "diffusion-playground"
"""The keyword of the text chunk that holds the recipe as JSON."""


def to_png(image: Image.Image, recipe: Recipe | None = None, compress: int = 4) -> bytes:
    """PNG bytes, with the recipe (tab, version and all fields) in a text chunk if one is given."""
    info = PngInfo()
    if recipe is not None:
        record = {"tab": recipe.tab, "v": VERSION, **recipe.model_dump(mode="json")}
        info.add_itxt(CHUNK, json.dumps(record, ensure_ascii=False))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info, compress_level=compress)
    return buffer.getvalue()
