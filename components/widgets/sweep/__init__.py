"""One setting at several values from the same noise, side by side, or two as a table."""

from components.widgets.base import Widget


class Sweep(Widget):
    """`{"axis": str, "tiles": [{"value": value, "label": str, "url": str | None}], "columns": int | None,
    "selected": value | None, "caption": str}`: tiles in a row, or in a table of so many columns; one whose `url`
    is None keeps its place. A value is a number, or numbers by name; the tile whose value is selected is marked.
    `"stale": True` says that the pictures are of other settings than the page shows by now.

    Event `pick`: `{"value": value}`, that of the tile that was clicked or chosen with Enter.
    """
