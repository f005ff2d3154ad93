"""A saved picture is dropped on the page, or chosen, to open the experiment it carries."""

from components.widgets.base import Widget


class Opener(Widget):
    """`{"link": str, "said": str}`: where to go, "" to stay, and a sentence.

    Event `dropped`: `{"data": str}`, the file in base64.
    """
