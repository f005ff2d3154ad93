"""A picture file as points of the plane."""

from __future__ import annotations

import warnings

import torch
from PIL import Image, UnidentifiedImageError

from playground.errors import RecipeError
from playground.plane.targets import encode_points, picture_points

LARGEST = 40_000_000
"""Pixels: a small file can unfold to far more than fits into memory."""


def picture_as_points(path: str, most: int = 900) -> str:
    """The dark pixels of an image file, as the text a recipe carries.

    Args:
        most: points kept, evenly thinned, so that the recipe still fits into a link.

    Raises:
        RecipeError: for a file that is not a picture, one that is too large, and one without dark pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > LARGEST:
                    raise RecipeError(f"The picture is too large: at most {LARGEST // 10**6} megapixels are taken.")
                points = picture_points(image)
    except (UnidentifiedImageError, Image.DecompressionBombError, Image.DecompressionBombWarning, OSError):
        raise RecipeError("This file cannot be read as a picture.") from None
    if len(points) > most:
        points = points[torch.linspace(0, len(points) - 1, most).round().long()]
    return encode_points(points)
