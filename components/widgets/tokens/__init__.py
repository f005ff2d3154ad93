"""A prompt as the text encoder reads it."""

from components.widgets.base import Widget


class Tokens(Widget):
    """`{"tokens": [{"text": str, "kind": "word" | "special" | "padding" | "unknown", "id": int}],
    "note": str}`.

    Neighbouring paddings are drawn as one chip that counts them; hovering or focusing a chip shows its id.
    """
