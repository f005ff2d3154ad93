"""Guides that come with the playground: rough strokes, drawn by code, and the prompt that makes a scene of each.

    example("beach").picture((128, 128))

A link names an example by its name. With strength t0 around 0.6 the layout and the colours of the strokes stay, and
the model fills in what they stand for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw

from playground.errors import RecipeError

Colour = str | tuple[int, int, int]
Points = list[tuple[float, float]]

SKY, SEA, SAND, GRASS, SNOW = (104, 178, 236), (40, 110, 190), (240, 213, 130), (88, 166, 74), (240, 245, 250)


class Brush:
    """Strokes on a canvas whose sides have length 1; (0, 0) is the left top corner.

    Args:
        size: (width, height) of the picture.
        background: its colour.
    """

    FINE = 4
    """Pixels are drawn this much finer and averaged, which smooths the edges of the strokes."""

    def __init__(self, size: tuple[int, int], background: Colour):
        self._size = size
        self._canvas = Image.new("RGB", (size[0] * self.FINE, size[1] * self.FINE), background)
        self._draw = ImageDraw.Draw(self._canvas)

    def _at(self, points: Points) -> Points:
        return [(x * self._canvas.width, y * self._canvas.height) for x, y in points]

    def stroke(self, colour: Colour, width: float, *points: tuple[float, float]) -> None:
        """A line with round ends."""
        at, wide = self._at(list(points)), width * self._canvas.width
        self._draw.line(at, fill=colour, width=round(wide), joint="curve")
        for x, y in (at[0], at[-1]):
            self._draw.ellipse((x - wide / 2, y - wide / 2, x + wide / 2, y + wide / 2), fill=colour)

    def area(self, colour: Colour, *points: tuple[float, float]) -> None:
        """A polygon."""
        self._draw.polygon(self._at(list(points)), fill=colour)

    def spot(self, colour: Colour, x: float, y: float, radius: float, high: float | None = None) -> None:
        """An ellipse around (x, y)."""
        (left, top), (right, bottom) = self._at(
            [(x - radius, y - (high or radius)), (x + radius, y + (high or radius))]
        )
        self._draw.ellipse((left, top, right, bottom), fill=colour)

    def picture(self) -> Image.Image:
        return self._canvas.resize(self._size, Image.Resampling.BOX)


def _beach(b: Brush) -> None:
    b.area(SEA, (0, 0.5), (1, 0.47), (1, 0.6), (0, 0.62))
    b.area(SAND, (0, 0.6), (1, 0.57), (1, 1), (0, 1))
    b.area((214, 40, 40), (0.24, 0.74), (0.24, 0.62), (0.36, 0.6), (0.43, 0.5), (0.63, 0.5), (0.72, 0.61), (0.8, 0.64), (0.8, 0.74))  # fmt: skip  # noqa: E501
    b.area((190, 225, 245), (0.43, 0.6), (0.47, 0.53), (0.61, 0.53), (0.67, 0.6))
    for x in (0.37, 0.67):
        b.spot((35, 35, 40), x, 0.75, 0.065)


def _castle(b: Brush) -> None:
    for colour, y in (((250, 140, 80), 0.34), ((252, 186, 96), 0.48), ((120, 70, 90), 0.72)):
        b.area(colour, (0, y), (1, y + 0.03), (1, 1), (0, 1))
    b.spot((255, 226, 120), 0.82, 0.5, 0.09)
    stone, roof = (138, 132, 140), (92, 62, 96)
    b.area(stone, (0.28, 0.84), (0.28, 0.5), (0.72, 0.5), (0.72, 0.84))
    for x in (0.26, 0.5, 0.74):
        b.area(stone, (x - 0.09, 0.84), (x - 0.09, 0.38), (x + 0.09, 0.38), (x + 0.09, 0.84))
        b.area(roof, (x - 0.11, 0.39), (x, 0.2), (x + 0.11, 0.39))
    b.spot((60, 45, 55), 0.5, 0.8, 0.06, 0.11)


def _rocket(b: Brush) -> None:
    for x, y in ((0.12, 0.2), (0.3, 0.1), (0.82, 0.14), (0.9, 0.5), (0.15, 0.62), (0.7, 0.86), (0.3, 0.88)):
        b.spot((235, 235, 215), x, y, 0.014)
    b.area((250, 150, 40), (0.4, 0.7), (0.6, 0.7), (0.5, 0.93))
    b.area((205, 45, 45), (0.3, 0.74), (0.42, 0.5), (0.58, 0.5), (0.7, 0.74))
    b.spot((228, 230, 236), 0.5, 0.45, 0.12, 0.3)
    b.area((205, 45, 45), (0.42, 0.24), (0.5, 0.1), (0.58, 0.24))
    b.spot((70, 140, 210), 0.5, 0.4, 0.055)


def _snowman(b: Brush) -> None:
    b.area(SNOW, (0, 0.62), (1, 0.58), (1, 1), (0, 1))
    white, black = (252, 253, 255), (36, 36, 42)
    b.spot((205, 218, 232), 0.51, 0.76, 0.2)
    b.spot(white, 0.5, 0.74, 0.19)
    b.spot(white, 0.5, 0.46, 0.135)
    b.area(black, (0.39, 0.34), (0.39, 0.17), (0.61, 0.17), (0.61, 0.34))
    b.stroke(black, 0.04, (0.33, 0.34), (0.67, 0.34))
    for x in (0.45, 0.55):
        b.spot(black, x, 0.43, 0.018)
    b.area((240, 130, 40), (0.49, 0.46), (0.49, 0.5), (0.62, 0.49))
    b.stroke((205, 45, 45), 0.05, (0.4, 0.58), (0.6, 0.58))
    for side in (-1, 1):
        b.stroke((110, 75, 45), 0.025, (0.5 + side * 0.17, 0.68), (0.5 + side * 0.34, 0.54))


def _tree(b: Brush) -> None:
    b.area(GRASS, (0, 0.68), (1, 0.64), (1, 1), (0, 1))
    b.spot((255, 220, 80), 0.84, 0.16, 0.09)
    b.stroke((118, 78, 44), 0.09, (0.44, 0.82), (0.45, 0.5))
    for x, y, r in ((0.45, 0.3, 0.19), (0.3, 0.42, 0.14), (0.6, 0.42, 0.14)):
        b.spot((44, 122, 52), x, y, r)
    b.spot((214, 40, 40), 0.78, 0.78, 0.055)


def _boat(b: Brush) -> None:
    b.area(SEA, (0, 0.58), (1, 0.56), (1, 1), (0, 1))
    b.area((150, 84, 44), (0.2, 0.62), (0.84, 0.62), (0.72, 0.78), (0.32, 0.78))
    b.stroke((90, 60, 40), 0.03, (0.5, 0.62), (0.5, 0.14))
    b.area((248, 248, 244), (0.53, 0.16), (0.8, 0.56), (0.53, 0.56))
    b.area((232, 90, 60), (0.47, 0.24), (0.47, 0.56), (0.26, 0.56))


@dataclass(frozen=True)
class Example:
    """A shipped guide.

    Attributes:
        title: what it is called on the page.
        prompt: what makes a scene of it.
        background: the colour that is painted on.
        draw: paints it.
    """

    title: str
    prompt: str
    background: Colour
    draw: Callable[[Brush], None]

    def picture(self, size: tuple[int, int]) -> Image.Image:
        """RGB, (width, height)."""
        brush = Brush(size, self.background)
        self.draw(brush)
        return brush.picture()


EXAMPLES: dict[str, Example] = {
    "beach": Example("a red car on the beach", "a red car on the beach", SKY, _beach),
    "castle": Example("a castle at sunset", "a castle at sunset", (236, 96, 86), _castle),
    "rocket": Example("a rocket in space", "a rocket in space", (12, 12, 28), _rocket),
    "snowman": Example("a snowman", "a snowman in the snow", (150, 200, 240), _snowman),
    "tree": Example("a tree on the grass", "a tree on the grass", SKY, _tree),
    "boat": Example("a sailboat", "a boat on the sea", (170, 214, 244), _boat),
}


def example(name: str) -> Example:
    """A shipped guide by its name. Raises RecipeError for a name that there is not."""
    if name not in EXAMPLES:
        raise RecipeError(f"There is no example guide called {name[:32]!r}.")
    return EXAMPLES[name]


def pasted(
    base: Image.Image, patch: Image.Image, at: tuple[float, float], width: float
) -> tuple[Image.Image, Image.Image]:
    """A composite: an ellipse of one picture on another.

    Args:
        base: RGB.
        patch: RGB, of which the inscribed ellipse is taken.
        at: the patch's middle on the base, as parts of its sides.
        width: the patch's width, as a part of the base's.

    Returns:
        The composite, and the mask [L] that marks the patch with a margin of a sixth: there they have
        to be joined.
    """
    wide = max(1, round(width * base.width))
    high = max(1, round(wide * patch.height / patch.width))
    left, top = round(at[0] * base.width - wide / 2), round(at[1] * base.height - high / 2)
    shape = Image.new("L", (wide * 4, high * 4), 0)
    ImageDraw.Draw(shape).ellipse((0, 0, wide * 4 - 1, high * 4 - 1), fill=255)
    made = base.copy()
    made.paste(patch.resize((wide, high), Image.Resampling.LANCZOS), (left, top), shape.resize((wide, high)))
    mask = Image.new("L", base.size, 0)
    margin_x, margin_y = wide / 6, high / 6
    box = (left - margin_x, top - margin_y, left + wide + margin_x, top + high + margin_y)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    return made, mask


def stroked(
    base: Image.Image, colour: Colour, at: tuple[float, float], radius: float
) -> tuple[Image.Image, Image.Image]:
    """A stroke edit: a spot of one colour painted on a picture.

    Returns:
        The guide, and the mask [L] that marks the spot with a margin.
    """
    made, mask = base.copy(), Image.new("L", base.size, 0)
    x, y, r = at[0] * base.width, at[1] * base.height, radius * base.width
    ImageDraw.Draw(made).ellipse((x - r, y - r, x + r, y + r), fill=colour)
    r *= 1.35
    ImageDraw.Draw(mask).ellipse((x - r, y - r, x + r, y + r), fill=255)
    return made, mask
