"""Cross-attention laid over the pictures of a run, word by word."""

from components.widgets.base import SHARED, Widget


class Attention(Widget):
    """`{"url": str | None, "steps": int, "of": int, "grids": [str], "mask": str, "rows": [{"title": str, "url":
    str, "tokens": [{"text": str, "kind": str, "fresh": bool, "reads": str, "until": int}]}], "note": str}`.

    `url` is a packed buffer with arrays "before HxW" and "after HxW", [steps, rows, H * W, tokens], and, where
    `mask` names one ("HxW"), "mask HxW" of a local blend: one request for all steps and words. Each of the `steps`
    maps stands for as many of the `of` steps that were made; in the first `until` of these a token `reads` the
    source. Hovering or focusing a word lays its map over its picture; a click holds it. Step, grid, before or after
    the edit, and the mean over steps are chosen in the browser alone.
    """

    also = (SHARED / "plane" / "buffers.js",)
