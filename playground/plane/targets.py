"""Targets: the data distributions of the plane and of the line, all as mixtures with a closed-form flow.

Named shapes stand in `TARGETS` (the plane) and `LINES` (the line). Words, pictures and drawn points become
kernel mixtures: one round component of standard deviation `bandwidth` at each of at most `MAX_COMPONENTS`
points. All of them fit the square [-3, 3]^2.
"""

from __future__ import annotations

import base64
import binascii
import math
import unicodedata
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from playground.errors import RecipeError
from playground.plane.mixtures import Mixture

MAX_COMPONENTS = 1000
"""More points than this are thinned out: every one of them costs a kernel value per particle and evaluation."""
EDGE = 4.0
"""Points lie in [-EDGE, EDGE]^2."""
MAX_LABELS = 8
"""Classes a visitor can give to points and components."""


def _round(means: Tensor, scales: Tensor | float, labels: Sequence[int] | None = None, weights=None) -> Mixture:
    """Components with covariance scale^2 I; means [K, D]."""
    scales = torch.as_tensor(scales, dtype=torch.float64).expand(len(means))
    return Mixture(means, scales[:, None, None] ** 2 * torch.eye(means.shape[1]), weights, labels)


def _circle(count: int, radius: float, start: float = 0.0, turn: float = 1.0, ends: bool = False) -> Tensor:
    """Points [count, 2] on an arc of `turn` full turns; `ends` says whether the last closes the arc."""
    fraction = torch.arange(count, dtype=torch.float64) / (count - 1 if ends else count)
    angle = 2 * math.pi * (start + turn * fraction)
    return radius * torch.stack([angle.cos(), angle.sin()], -1)


def _moons() -> Mixture:
    upper = _circle(24, 1.25, 0.0, 0.5, ends=True) + torch.tensor([-0.62, -0.3])
    lower = -_circle(24, 1.25, 0.0, 0.5, ends=True) + torch.tensor([0.62, 0.3])
    return _round(torch.cat([upper, lower]), 0.1, [0] * 24 + [1] * 24)


def _eight() -> Mixture:
    return _round(_circle(8, 2.0), 0.16, range(8))


def _checkerboard() -> Mixture:
    """Eight of the sixteen unit cells of [-2, 2]^2, each filled with 6 x 6 round components."""
    inside = (torch.arange(6, dtype=torch.float64) + 0.5) / 6
    cells = [(i, j) for i in range(-2, 2) for j in range(-2, 2) if (i + j) % 2]
    means = torch.cat([torch.cartesian_prod(i + inside, j + inside) for i, j in cells])
    return _round(means, 0.075)


def _spirals() -> Mixture:
    fraction = torch.linspace(0, 1, 72, dtype=torch.float64) ** 0.6  # equally spaced along the arm, nearly
    angle, radius = 3 * math.pi * fraction, 0.25 + 2.1 * fraction
    arm = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
    return _round(torch.cat([arm, -arm]), 0.075, [0] * 72 + [1] * 72)


def _rings() -> Mixture:
    counts, radii = (28, 52, 76), (0.8, 1.6, 2.4)
    means = torch.cat([_circle(c, r) for c, r in zip(counts, radii, strict=True)])
    return _round(means, 0.07, [i for i, c in enumerate(counts) for _ in range(c)])


def _pinwheel() -> Mixture:
    """Five curved blades of stretched components (after Johnson et al. 2016, "Composing graphical models")."""
    means, covariances, labels = [], [], []
    for blade in range(5):
        for radius in torch.linspace(0.45, 2.3, 9, dtype=torch.float64).tolist():
            bend = 0.62 * math.log(radius / 0.45)
            angle = 2 * math.pi * blade / 5 + bend
            # Along the blade r = 0.45 exp(bend/0.62) the direction turns off the radius by atan 0.62.
            along = angle + math.atan(0.62)
            turn = torch.tensor([[math.cos(along), -math.sin(along)], [math.sin(along), math.cos(along)]])
            scales = torch.tensor([0.15, 0.05 + 0.05 * radius])
            means.append([radius * math.cos(angle), radius * math.sin(angle)])
            covariances.append(turn @ torch.diag(scales**2) @ turn.T)
            labels.append(blade)
    return Mixture(torch.tensor(means), torch.stack(covariances), None, labels)


def _smiley() -> Mixture:
    face = _circle(72, 2.2)
    eyes = torch.tensor([[-0.75, 0.7], [0.75, 0.7]], dtype=torch.float64)
    mouth = _circle(28, 1.3, 0.56, 0.38, ends=True)
    weights = torch.tensor([1.0] * 72 + [9.0] * 2 + [1.0] * 28)
    scales = torch.tensor([0.07] * 72 + [0.2] * 2 + [0.08] * 28)
    return _round(torch.cat([face, eyes, mouth]), scales, [0] * 72 + [1] * 2 + [2] * 28, weights)


def _three() -> Mixture:
    """Three classes that overlap, on which growing guidance is usually drawn."""
    return _round(_circle(3, 1.0, 0.25), 0.6, range(3))


def _line(means: Sequence[float], scales: Sequence[float], weights: Sequence[float], labels=None) -> Mixture:
    return _round(torch.tensor(means).double()[:, None], torch.tensor(scales), labels, torch.tensor(weights))


TARGETS: dict[str, Mixture] = {
    "moons": _moons(),
    "eight": _eight(),
    "checkerboard": _checkerboard(),
    "spirals": _spirals(),
    "rings": _rings(),
    "pinwheel": _pinwheel(),
    "smiley": _smiley(),
    "three": _three(),
}
"""Named targets in the plane."""

LINES: dict[str, Mixture] = {
    "pair": _line([-1.2, 1.2], [0.25, 0.25], [1, 1], [0, 1]),
    "unequal": _line([-1.5, 0.2, 1.6], [0.15, 0.5, 0.25], [0.25, 0.45, 0.3], [0, 1, 2]),
    "comb": _line([-2, -1, 0, 1, 2], [0.08] * 5, [1] * 5, [0, 1, 2, 3, 4]),
    "block": _line([-1.45 + 0.1 * i for i in range(30)], [0.06] * 30, [1] * 30),
}
"""Named targets on the line."""

TITLES = {
    "moons": "two moons",
    "eight": "eight Gaussians",
    "checkerboard": "checkerboard",
    "spirals": "two spirals",
    "rings": "rings",
    "pinwheel": "pinwheel",
    "smiley": "smiley",
    "three": "three overlapping classes",
    "pair": "two peaks (line)",
    "unequal": "three unequal peaks (line)",
    "comb": "comb (line)",
    "block": "block (line)",
    "word": "a word",
    "points": "drawn points or a picture",
    "mixture": "mixture editor",
}


# --- points ---------------------------------------------------------------------------------------------


Points: TypeAlias = Tensor | np.ndarray | Sequence
Labels: TypeAlias = Sequence[int] | Tensor | None


def _checked(points: Points, labels: Labels) -> tuple[Tensor, Tensor]:
    """Points [N, 2] and labels [N] that can be used, at least one."""
    try:
        x = torch.as_tensor(np.asarray(points, dtype=np.float64))
        c = torch.zeros(len(x), dtype=torch.long) if labels is None else torch.as_tensor(labels).long()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise RecipeError("Points must be pairs of numbers with a class each.") from None
    if x.numel() == 0:
        raise RecipeError("There are no points yet: draw at least one.")
    if x.ndim != 2 or x.shape[1] != 2 or c.shape != x.shape[:1]:
        raise RecipeError("Points must be pairs of numbers with a class each.")
    if not bool(torch.isfinite(x).all()):
        raise RecipeError("A point's coordinates must be finite numbers.")
    if float(x.abs().max()) > EDGE:
        raise RecipeError(f"Points must lie between −{EDGE:g} and {EDGE:g} on both axes.")
    if not 0 <= int(c.min()) <= int(c.max()) < MAX_LABELS:
        raise RecipeError(f"A point's class must be one of 0 to {MAX_LABELS - 1}.")
    return x, c


def _thinned(x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """At most MAX_COMPONENTS of the points, evenly over the plane and the classes.

    Points are put in order of class and then along a Z-shaped curve through the plane; every n-th is kept,
    so that dense places stay dense and no place is lost by chance.
    """
    if len(x) <= MAX_COMPONENTS:
        return x, c
    cell = ((x + EDGE) / (2 * EDGE) * 1023).round().long()
    code = torch.zeros(len(x), dtype=torch.long)
    for bit in range(10):
        for axis in range(2):
            code |= ((cell[:, axis] >> bit) & 1) << (2 * bit + axis)
    order = torch.argsort((c << 20) | code, stable=True)
    keep = order[torch.linspace(0, len(x) - 1, MAX_COMPONENTS).round().long()]
    return x[keep], c[keep]


def point_target(points: Points, labels: Labels = None, bandwidth: float = 0.05) -> Mixture:
    """A kernel mixture of points [N, 2] with classes [N] from 0: one component N(point, bandwidth^2 I) each.

    More than `MAX_COMPONENTS` points are thinned out evenly; the components are the ones that remain.

    Raises:
        RecipeError: for no points, NaN, points outside [-EDGE, EDGE]^2, or unknown classes.
    """
    if not bandwidth > 0:
        raise RecipeError("The bandwidth must be above 0.")
    x, c = _thinned(*_checked(points, labels))
    return _round(x, bandwidth, c.tolist())


def encode_points(points: Points, labels: Labels = None) -> str:
    """Points as the text a recipe carries: (x, y, class) per point as int16, thousandths, in base64.

    Thinned to MAX_COMPONENTS; raises as `point_target` does.
    """
    x, c = _thinned(*_checked(points, labels))
    table = np.concatenate([np.round(x.numpy() * 1000), c.numpy()[:, None]], 1)
    return _packed(table)


def decode_points(text: str) -> tuple[Tensor, list[int]]:
    """Points [N, 2] and classes from a recipe's text.

    Raises:
        RecipeError: when it is not such a text.
    """
    table = _unpacked(text, 3, "points")
    return torch.tensor(table[:, :2] / 1000.0), table[:, 2].tolist()


def _packed(table: np.ndarray) -> str:
    return base64.urlsafe_b64encode(table.astype("<i2").tobytes()).decode()


def _unpacked(text: str, columns: int, what: str) -> np.ndarray:
    try:
        raw = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
        return np.frombuffer(raw, "<i2").reshape(-1, columns).astype(np.int64)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        raise RecipeError(f"The {what} of this recipe cannot be read.") from None


# --- the mixture editor -----------------------------------------------------------------------------------

MAX_EDITED = 64
Component = tuple[float, float, float, float, float, float, int]
"""(mean x, mean y, scale x, scale y, angle in radians, weight, class)"""


def encode_mixture(components: Sequence[Component]) -> str:
    """Components as the text a recipe carries: int16, thousandths (the class as it is), in base64.

    Raises:
        RecipeError: for numbers that are not finite, or out of range.
    """
    try:
        table = np.asarray(components, dtype=np.float64).reshape(-1, 7)
    except (TypeError, ValueError):
        raise RecipeError("A component is seven numbers.") from None
    if not np.isfinite(table).all() or (np.abs(table[:, :6]) > 32).any():
        raise RecipeError("A component's numbers must be finite and below 32.")
    table = np.round(table * np.array([1000] * 6 + [1]))
    edited_mixture(_packed(table))
    return _packed(table)


def decode_mixture(text: str) -> list[Component]:
    """The components of a recipe's text."""
    table = _unpacked(text, 7, "mixture")
    return [(*(row[:6] / 1000.0).tolist(), int(row[6])) for row in table]  # type: ignore[misc]


def edited_mixture(text: str) -> Mixture:
    """The mixture of a recipe's text.

    Raises:
        RecipeError: for no components or too many, scales or weights that are not above 0, means outside
            [-EDGE, EDGE]^2.
    """
    rows = decode_mixture(text)
    if not rows:
        raise RecipeError("The mixture has no components yet: add one.")
    if len(rows) > MAX_EDITED:
        raise RecipeError(f"A mixture made by hand has at most {MAX_EDITED} components.")
    table = torch.tensor([r[:6] for r in rows], dtype=torch.float64)
    _checked(table[:, :2], [r[6] for r in rows])
    scales, angle, weights = table[:, 2:4], table[:, 4], table[:, 5]
    if not bool((scales > 0).all()) or float(scales.max()) > EDGE:
        raise RecipeError(f"A component's scales must be above 0 and at most {EDGE:g}.")
    if not bool((weights > 0).all()):
        raise RecipeError("A component's weight must be above 0.")
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).reshape(-1, 2, 2)
    covariances = turn @ torch.diag_embed(scales**2) @ turn.mT
    # Equal scales are a round component whatever the angle; its rotation would leave rounding behind.
    equal = (scales[:, 0] == scales[:, 1])[:, None, None]
    covariances = torch.where(equal, scales[:, :1, None] ** 2 * torch.eye(2), covariances)
    return Mixture(table[:, :2], covariances, weights, [r[6] for r in rows])


# --- words and pictures -----------------------------------------------------------------------------------

FONT_SIZE = 120


def _missing(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, letter: str) -> bool:
    """Whether the font draws this letter as its box for unknown ones."""
    box = font.getmask("\U0010fffe")
    drawn = font.getmask(letter)
    return drawn.size == box.size and bytes(drawn) == bytes(box)


def word_points(text: str) -> Tensor:
    """Points [N, 2] that fill the letters of a word.

    Raises:
        RecipeError: for an empty word and for letters the font does not have.
    """
    word = unicodedata.normalize("NFC", text).strip()
    if not word:
        raise RecipeError("Type a word of at least one letter.")
    font = ImageFont.load_default(FONT_SIZE)
    for letter in word:
        if not letter.isspace() and (not letter.isprintable() or _missing(font, letter)):
            name = repr(letter) if letter.isprintable() else "one of these characters"
            raise RecipeError(f"The font has no letter for {name}: use letters from A to Z, digits and signs.")
    left, top, right, bottom = (int(v) for v in font.getbbox(word))
    image = Image.new("L", (right - left + 4, bottom - top + 4), 255)
    ImageDraw.Draw(image).text((2 - left, 2 - top), word, fill=0, font=font)
    return picture_points(image)


def word_target(text: str, bandwidth: float = 0.05) -> Mixture:
    """The letters of a word as a kernel mixture."""
    return point_target(word_points(text), None, bandwidth)


def picture_points(image: Image.Image, width: float = 5.0) -> Tensor:
    """The dark pixels of a picture as points [N, 2], N at most MAX_COMPONENTS, in a square of side `width`.

    Transparent is white. The picture is made smaller until so many of its pixels are darker than half that
    they can all be kept: the points lie on a regular grid.

    Raises:
        RecipeError: for a picture without dark pixels.
    """
    flat = Image.new("RGBA", image.size, "white")
    flat.alpha_composite(image.convert("RGBA"))
    grey = flat.convert("L")
    grey.thumbnail((256, 256))
    share = np.mean(np.asarray(grey) < 128)
    if share == 0:
        raise RecipeError("The picture has no dark pixels: darker than middle grey is what counts.")
    # The largest grid whose dark cells are few enough; thin strokes lose or gain some when they shrink.
    side = min(1.0, math.sqrt(MAX_COMPONENTS / (share * grey.width * grey.height)))
    while True:
        size = (max(1, round(grey.width * side)), max(1, round(grey.height * side)))
        dark = np.asarray(grey.resize(size, Image.Resampling.BOX)) < 128
        if dark.sum() <= MAX_COMPONENTS:
            break
        side *= 0.97
    if not dark.any():  # a few scattered pixels that vanish among white ones
        dark = np.asarray(grey) < 128
        size = grey.size
    y, x = np.nonzero(dark)
    centre = np.stack([x - (size[0] - 1) / 2, (size[1] - 1) / 2 - y], -1)
    return _thinned(torch.tensor(centre * width / max(size)), torch.zeros(len(x), dtype=torch.long))[0]


def picture_target(image: Image.Image, bandwidth: float = 0.05) -> Mixture:
    """The dark pixels of a picture as a kernel mixture."""
    return point_target(picture_points(image), None, bandwidth)


START_MIXTURE = encode_mixture(
    [(-1.2, -0.6, 0.45, 0.2, 0.5, 1.0, 0), (1.1, -0.7, 0.3, 0.3, 0.0, 1.0, 1), (0.1, 1.2, 0.6, 0.18, -0.3, 0.7, 2)]
)
"""What the mixture editor begins with."""
