"""One setting at several values from the same noise, side by side."""

from components.widgets.base import Widget


class Sweep(Widget):
    """`{"axis": str, "tiles": [{"value": number, "label": str, "url": str | None}],
    "selected": number | None, "caption": str}`: a row of tiles; one whose `url` is None keeps its place.

    Event `pick`: `{"value": number}`, the value of the tile that was clicked or chosen with Enter.
    """
