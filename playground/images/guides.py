"""Pictures that come from outside: made into what a model of a certain size can start from, without surprises.

Nothing is resized or cropped silently: `prepare` says in words what it did.
"""

from __future__ import annotations

import math
from hashlib import blake2b

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from playground.errors import RecipeError


def fit_both(
    picture: Image.Image, mask: Image.Image | None, size: tuple[int, int]
) -> tuple[Image.Image, Image.Image | None, str]:
    """A guide and its mask cut and scaled alike (`prepare`), and what was done in words.

    Raises:
        RecipeError: for a mask of another size than the guide's, or without anything to edit at the new size.
    """
    fitted, done = prepare(picture, size)
    if mask is None:
        return fitted, None, done
    painted = Image.fromarray((mask_tensor(mask, picture.size)[0, 0] * 255).to(torch.uint8).numpy())
    marked = np.asarray(prepare(painted.convert("RGB"), size)[0])[..., 0] > 127
    if not marked.any():
        raise RecipeError("What the mask marks is too small: nothing of it is left at the model's size.")
    return fitted, Image.fromarray(np.where(marked, 255, 0).astype(np.uint8)), done


def prepare(picture: Image.Image, size: tuple[int, int]) -> tuple[Image.Image, str]:
    """A picture cut to a model's shape around its middle, and scaled.

    Args:
        picture: RGB.
        size: (width, height).

    Returns:
        The picture at that size, and what was done in words ("" if nothing).
    """
    width, height = picture.size
    if (width, height) == size:
        return picture, ""
    wide, high = size
    scale = max(wide / width, high / height)
    kept = (min(width, round(wide / scale)), min(height, round(high / scale)))
    made = ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    done = f"{width} × {height} scaled to {wide} × {high}"
    if kept != (width, height):
        done = f"{width} × {height} cut to its middle {kept[0]} × {kept[1]} and scaled to {wide} × {high}"
    if scale > 4:
        done += ", which is so much larger that it is blurred"
    return made, f"The picture was {done.removeprefix('The picture was ')}."


def to_tensor(picture: Image.Image) -> Tensor:
    """[1, 3, H, W] in [-1, 1] of an RGB picture."""
    pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float()
    return (pixels / 127.5 - 1)[None]


def mask_tensor(mask: Image.Image, size: tuple[int, int]) -> Tensor:
    """[1, 1, H, W], 1 where the picture is to be made anew and 0 where the guide is kept.

    Args:
        mask: white (or painted) where to edit; its size must be the guide's.
        size: (width, height) of the guide.

    Raises:
        RecipeError: for another size, or a mask without anything to edit.
    """
    if mask.size != size:
        raise RecipeError(
            f"The mask has {mask.width} × {mask.height} pixels, the guide {size[0]} × {size[1]}: they must agree."
        )
    painted = torch.from_numpy(np.array(mask.convert("L"))) > 127
    if not bool(painted.any()):
        raise RecipeError("The mask is empty: nothing is marked to be made anew.")
    return painted.float()[None, None]


def coarse(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A pixel mask [1, 1, H, W] on the latent grid (height, width): a cell is edited if any of its pixels is."""
    high, wide = size
    kernel = (math.ceil(mask.shape[2] / high), math.ceil(mask.shape[3] / wide))
    return torch.nn.functional.max_pool2d(mask, kernel, kernel)


def content_name(picture: Image.Image) -> str:
    """A name that says what is on the picture and nothing else: the hash of its size and pixels."""
    digest = blake2b(f"{picture.mode}{picture.size}".encode() + picture.tobytes(), digest_size=12)
    return digest.hexdigest()
