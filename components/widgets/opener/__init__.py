"""A saved file is dropped on the page, or chosen, to open the experiment it carries."""

from components.widgets.base import Widget


class Opener(Widget):
    """`{"link": str, "said": str}`: where to go, "" to stay, and what is to be said: where the page
    goes somewhere, it is said there.

    Event `dropped`: `{"data": str}`, the file in base64.
    """
