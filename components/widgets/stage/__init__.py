"""The picture or pictures of a run, large, also while they are being made."""

from components.widgets.base import Widget


class Stage(Widget):
    """`{"pictures": [{"url": str, "label": str}], "live": bool, "caption": str}`: one to eight pictures.

    `url` is a path on this server or a `data:` URL. `live` marks previews. A click enlarges a picture, and
    each has a link that saves the very bytes of its `url`.
    """
