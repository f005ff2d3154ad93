"""Two pictures on one another, with an edge between them that is dragged."""

from components.widgets.base import Widget


class Compare(Widget):
    """`{"pictures": [{"name": str, "url": str, "help": str}], "before": int, "after": int, "caption": str}`: the
    stages of one picture, side by side and small, and two of them large with an edge between them.

    A click on a small picture lays it under the left side; the last one is on the right. All in the browser.
    """
