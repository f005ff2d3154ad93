"""Clouds of the same points at several moments, side by side."""

from components.widgets.base import Widget


class Clouds(Widget):
    """`{"clouds": [{"name": str, "points": [x, y, x, y, ...]}], "parts": [int], "names": [str], "behind":
    [x, y, ...], "reach": float, "caption": str}`: small panels that show [-reach, reach]^2.

    Point i belongs to part `parts[i]` in every cloud and has its colour; `names` are those of the parts. The points
    `behind` are drawn faintly under all of them. Coordinates are in thousandths.
    """
