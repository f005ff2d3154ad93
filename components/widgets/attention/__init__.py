"""Cross-attention laid over the pictures of a run, word by word."""

from components.widgets.base import SHARED, Widget


class Attention(Widget):
    """`{"url": str | None, "steps": int, "grids": [str], "rows": [{"title": str, "url": str, "tokens":
    [{"text": str, "kind": str, "reads": str}]}], "note": str}`.

    `url` is a packed buffer with arrays "before HxW" and "after HxW", [steps, rows, H * W, tokens]: one request
    for all steps and words. Hovering or focusing a word lays its map over its picture; a click holds it.
    Step, grid, before or after the edit, and the mean over steps are chosen in the browser alone.
    """

    also = (SHARED / "plane" / "buffers.js",)
