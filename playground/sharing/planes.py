"""A flow of the plane as a picture that carries its recipe."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from playground.plane.density import BOX, density
from playground.plane.flow import Flow
from playground.sharing.png import to_png

PAPER, INK = (255, 255, 255), (191, 132, 0)
CLASSES = (
    (0, 158, 115),
    (17, 99, 196),
    (181, 71, 8),
    (201, 87, 181),
    (191, 132, 0),
    (58, 150, 207),
    (138, 144, 153),
    (15, 23, 42),
)
"""The exact density's colour, and those of the particles by class, as on the page."""


def flow_picture(flow: Flow, size: int = 720) -> Image.Image:
    """Where the particles end, over the exact density p_0: [size, size]; on the line, against time.

    A flow on the line is drawn with time from noise on the left to data on the right.
    """
    return line_picture(flow, size) if flow.recipe.dimension == 1 else _plane(flow, size)


def flow_png(flow: Flow, size: int = 720) -> bytes:
    """`flow_picture` as a PNG file with the recipe inside."""
    return to_png(flow_picture(flow, size), flow.recipe)


def shade(values: np.ndarray, size: int) -> Image.Image:
    """A density [H, W] >= 0 as a tint of the paper."""
    share = np.sqrt(values / max(float(values.max()), 1e-12))[..., None]
    tint = np.array(PAPER) + share * 0.55 * (np.array(INK) - np.array(PAPER))
    return Image.fromarray(tint.round().astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)


def _plane(flow: Flow, size: int) -> Image.Image:
    exact = density(flow.recipe, times=[0.0], label=flow.recipe.label).values[0].numpy()
    picture = shade(exact[::-1], size)  # rows run from the lowest y, pictures from the top
    draw = ImageDraw.Draw(picture, "RGBA")
    for (x, y), label in zip(flow.x.tolist(), flow.labels.tolist(), strict=True):
        if abs(x) < BOX and abs(y) < BOX:
            u, v = (x / BOX + 1) / 2 * size, (1 - y / BOX) / 2 * size
            draw.ellipse((u - 1.6, v - 1.6, u + 1.6, v + 1.6), fill=(*CLASSES[label % len(CLASSES)], 150))
    return picture


def line_picture(flow: Flow, size: int, until: int | None = None) -> Image.Image:
    """The density against time and the particles' paths in it, to the end or over the first `until` frames."""
    times = flow.times
    exact = density(flow.recipe, times=times, size=size // 4, label=flow.recipe.label).values.numpy()
    picture = shade((exact / exact.max(1, keepdims=True))[:, ::-1].T, size)
    draw = ImageDraw.Draw(picture, "RGBA")
    places = (flow.frames[..., 0] / flow.zoom[:, None])[:, :200]
    across = np.linspace(0, size - 1, len(times))
    for i in range(places.shape[1]):
        heights = ((1 - places[:, i].numpy() / BOX) / 2 * size).tolist()
        colour = (*CLASSES[int(flow.labels[i]) % len(CLASSES)], 110)
        draw.line(list(zip(across.tolist(), heights, strict=True))[: until and max(2, until)], fill=colour, width=1)
    return picture
