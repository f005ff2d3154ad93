"""Picture files that come from outside, opened as the eye would see them; what was done to one is said in words."""

from __future__ import annotations

import io
import threading
import warnings

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from playground.errors import RecipeError

PIXELS = 40_000_000
"""More pixels than this are refused before they are unpacked: a small file can hold a huge picture."""

_AT_ONCE = threading.BoundedSemaphore(2)
"""A picture of the most pixels takes some hundred megabytes while it is opened."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


def open_picture(data: bytes, most: int = PIXELS) -> tuple[Image.Image, list[str]]:
    """A picture file as RGB, turned as its camera says, on white where it is transparent.

    Args:
        data: the file's bytes.
        most: pixels that it may have.

    Returns:
        The picture, and a sentence for each thing that was done to it.

    Raises:
        RecipeError: when it is not a picture or too large, in one sentence.
    """
    with _AT_ONCE:
        return _opened(data, most)


def _opened(data: bytes, most: int) -> tuple[Image.Image, list[str]]:
    notes = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, which are refused below with a sentence
            picture: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
            if picture.width * picture.height > most:
                raise RecipeError(
                    f"The picture has {picture.width} x {picture.height} pixels; {most // 1_000_000} million are "
                    "the most that is opened here."
                )
            # Not by the number of frames: to count them, all are looked at.
            if getattr(picture, "is_animated", False):
                notes.append("Only the first frame of the animation is used.")
            deep = _deep(picture)
            picture.load()
            if deep:
                notes.append("Its 16 bits per colour were reduced to 8.")
            oriented = picture.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
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
    if oriented:
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


def flat(picture: Image.Image, notes: list[str] | None = None) -> Image.Image:
    """Any picture as RGB: 16-bit ones scaled down, transparent ones on white. What was done is noted."""
    notes = [] if notes is None else notes
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(picture).astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
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
