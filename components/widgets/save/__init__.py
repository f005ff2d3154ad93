"""What is on show as a file: one button for each kind, which is made when it is pressed."""

from components.widgets.base import Widget


class Save(Widget):
    """`{"files": [{"label": str, "url": str, "name": str, "help": str}], "note": str}`: a button for each
    file, saved under `name`, and a sentence below. `{"unfinished": true}`: the buttons stay and cannot
    be pressed.

    What a plane shows (`#plane=...` in the address) is sent along as `look`, so that a file shows the same.
    """
