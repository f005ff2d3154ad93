"""A picture file as points of the plane."""

from __future__ import annotations

import torch

from playground.plane.targets import encode_points, picture_points
from playground.uploads import open_picture


def picture_as_points(data: bytes, most: int = 900) -> tuple[str, list[str]]:
    """The dark pixels of an image file, as the text a recipe carries.

    Args:
        data: the file's bytes.
        most: points kept, evenly thinned, so that the recipe still fits into a link.

    Returns:
        The text, and a sentence for each thing that was done to the picture.

    Raises:
        RecipeError: for a file that is not a picture, one that is too large, and one without dark pixels.
    """
    picture, notes = open_picture(data)
    points = picture_points(picture)
    if len(points) > most:
        points = points[torch.linspace(0, len(points) - 1, most).round().long()]
    return encode_points(points), notes
