"""A guide that is painted, brought or put together, and the mask on it."""

from components.widgets.base import Widget


class Paint(Widget):
    """`{"id": str, "size": [width, height], "picture": str | None, "mask": str | None, "patch": {"id": str,
    "url": str} | None}`: a canvas of the model's size in pixels, so that what is seen is what enters the run.

    `picture` and `mask` (white where the picture is made anew) are put on the canvas when `id` is new, None is a
    white canvas and no mask; a new `patch` is a second picture, to be laid on the first by hand. A value with
    nothing but a `patch` leaves the canvas as it is. Pictures are URLs.

    Events: `painted` `{"picture": str, "mask": str | None, "done": bool, "number": int}`, the canvas and its mask
    as PNG `data:` URLs, while a stroke is drawn and when it is done; None where nothing is masked. `number` grows,
    so that the newer of two can be told: listen with `trigger_mode="multiple"`, for "always_last" would bring the
    first event's data once more. `brought` `{"data": str, "use": "guide" | "patch"}`, a file's bytes in base64. The
    camera is used in the browser alone, where it allows it.
    """
