"""The steps of a run, looked through after it has ended."""

from components.widgets.base import Widget


class Filmstrip(Widget):
    """`{"tile": int, "rows": [{"name": str, "key": str, "help": str}], "columns": [{"step": int, "t": float,
    "level": str, "url": str, "computed": [bool per row], "reason": str}], "note": str}`.

    A column is one step, and its `url` one PNG of the rows' pictures stacked from top to bottom, each `tile`
    pixels square. It is fetched when the column comes into view or is scrubbed to, not before, and never more
    than two at a time. `key` is the palette's name for the row (noise, uncond, cond or guided). A picture
    that was not computed is hatched and says why (`reason`, optional). Everything happens in the browser.
    """
