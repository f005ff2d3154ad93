"""Pictures that come from outside: made into what a model of a certain size can start from, without surprises.

Nothing is resized or cropped silently: `prepare` says in words what it did.
"""

from __future__ import annotations

import io
import math
import warnings
from hashlib import blake2b

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from playground.errors import RecipeError

PIXELS = 40_000_000
"""More pixels than this are refused before they are unpacked: a small file can hold a huge picture."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


def open_picture(data: bytes) -> tuple[Image.Image, list[str]]:
    """A picture file as RGB, turned as its camera says, on white where it is transparent.

    Args:
        data: the file's bytes.

    Returns:
        The picture, and a sentence for each thing that was done to it.

    Raises:
        RecipeError: when it is not a picture or too large, in one sentence.
    """
    notes = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, which are refused below with a sentence
            picture: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
            if picture.width * picture.height > PIXELS:
                raise RecipeError(
                    f"The picture has {picture.width} x {picture.height} pixels; {PIXELS // 1_000_000} million are "
                    "the most that is opened here."
                )
            if getattr(picture, "n_frames", 1) > 1:
                notes.append("Only the first frame of the animation is used.")
            deep = _deep(picture)
            picture.load()
            if deep:
                notes.append("Its 16 bits per colour were reduced to 8.")
            turned = ImageOps.exif_transpose(picture)
    except RecipeError:
        raise
    except Image.DecompressionBombError:
        # Pillow refuses such sizes before it tells them.
        raise RecipeError(
            f"The picture has more pixels than are opened here: {PIXELS // 1_000_000} million are the most."
        ) from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError):
        raise RecipeError(
            "This file is not a picture that can be opened here: PNG, JPEG, WebP, GIF, BMP or TIFF."
        ) from None
    if turned is not None and turned.size != picture.size:
        notes.append("The picture was turned upright, as its camera noted.")
    return flat(turned if turned is not None else picture, notes), notes


def _deep(picture: Image.Image) -> bool:
    """Whether the colours of a file that is not read yet have 16 bits, of which Pillow keeps the upper 8.

    Grey pictures of 16 bits keep all of them, and are left to `flat`.
    """
    for part in getattr(picture, "tile", ()):
        name = part.args if isinstance(part.args, str) else part.args[0] if part.args else ""
        if ";16" in str(name) and not picture.mode.startswith("I"):
            return True
    return False


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


def flat(picture: Image.Image, notes: list[str] | None = None) -> Image.Image:
    """Any picture as RGB: 16-bit ones scaled down, transparent ones on white. What was done is noted."""
    notes = [] if notes is None else notes
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(picture).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        most = float(values.max(initial=0))
        if picture.mode.startswith("I;16"):
            top = 65535.0
            notes.append("Its 16 bits per pixel were reduced to 8.")
        else:
            # Numbers without a stated white: the smallest of the usual ones that holds them all.
            usual = (1.0, 255.0, 65535.0) if picture.mode == "F" else (255.0, 65535.0)
            top = next((w for w in usual if most <= w), most)
            notes.append(f"Its numbers were read as 0, black, to {top:g}, white, and reduced to 8 bits.")
        picture = Image.fromarray((values.clip(0, top) / top * 255).round().astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        if np.asarray(layer)[..., 3].min() < 255:
            notes.append("Transparent parts are shown on white.")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    if picture.mode == "CMYK":
        notes.append("Its CMYK colours were turned into RGB, without a colour profile.")
    return picture.convert("RGB")


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
