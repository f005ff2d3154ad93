"""What a model with a fixed vocabulary can be asked for."""

from components.widgets.base import Widget


class Words(Widget):
    """`{"examples": [str], "groups": [{"name": str, "words": [str]}]}`.

    Events `example` and `word`: `{"text": str}`, the whole prompt or the one word that was clicked.
    """
