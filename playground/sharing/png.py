"""Pictures as PNG bytes that carry the experiment they came from."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from playground.recipes import VERSION, Recipe

CHUNK = "diffusion-playground"
"""The keyword of the text chunk that holds the recipe as JSON."""


ATTACHED = CHUNK + "/"
"""The keyword, and then the name, of a text chunk with a picture that the recipe names: PNG in base64."""


def record_of(recipe: Recipe) -> dict[str, Any]:
    """A recipe as it stands in a file: tab, version and all fields."""
    return {"tab": recipe.tab, "v": VERSION, **recipe.model_dump(mode="json")}


def to_png(
    image: Image.Image,
    recipe: Recipe | None = None,
    compress: int = 4,
    attached: Mapping[str, Image.Image] | None = None,
) -> bytes:
    """PNG bytes, with the recipe (tab, version and all fields) in a text chunk if one is given.

    Args:
        compress: how hard to try, 0 to 9.
        attached: pictures that the recipe names by their content; each gets a chunk of its own.
    """
    info = PngInfo()
    for name, picture in (attached or {}).items():
        info.add_text(ATTACHED + name, base64.b64encode(to_png(picture)).decode(), zip=False)
    if recipe is not None:
        info.add_itxt(CHUNK, json.dumps(record_of(recipe), ensure_ascii=False))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info, compress_level=compress)
    return buffer.getvalue()
