"""A finished run as a file of one's choice."""

from __future__ import annotations

from playground.plane.views import FlowViews
from playground.sharing.animation import film_gif, flow_gif, race_gif
from playground.sharing.comparisons import ComparisonViews
from playground.sharing.planes import flow_png
from playground.sharing.programs import python_lines
from playground.sharing.tables import (
    comparison_arrays,
    comparison_csv,
    flow_arrays,
    flow_csv,
    run_arrays,
    run_csv,
    to_npz,
)
from playground.sharing.views import RunViews

Views = RunViews | ComparisonViews | FlowViews

KINDS = {
    "png": "image/png",
    "gif": "image/gif",
    "npz": "application/octet-stream",
    "csv": "text/csv; charset=utf-8",
    "py": "text/x-python; charset=utf-8",
}
"""Kinds of files by their endings, with their media types."""


def export(views: Views, kind: str, row: int = 0) -> bytes:
    """A run as a file.

    Args:
        kind: one of `KINDS`.
        row: the picture that a film shows and a PNG holds, where a run has several.

    Raises:
        KeyError: for another kind.
    """
    if isinstance(views, FlowViews):
        flow = views.flow
        make = {
            "png": lambda: flow_png(flow),
            "gif": lambda: flow_gif(views),
            "npz": lambda: to_npz(flow.recipe, flow_arrays(views)),
            "csv": lambda: flow_csv(views),
            "py": lambda: python_lines(flow.recipe).encode(),
        }
    elif isinstance(views, ComparisonViews):
        compared = views.result.recipe
        make = {
            "png": lambda: views.png(f"table-{views.version}.png"),
            "gif": lambda: race_gif(views),
            "npz": lambda: to_npz(compared, comparison_arrays(views)),
            "csv": lambda: comparison_csv(views),
            "py": lambda: python_lines(compared).encode(),
        }
    else:
        recipe, row = views.result.recipe, min(row, len(views.result.pictures) - 1)
        make = {
            "png": lambda: views.png(f"picture-{row}.png"),
            "gif": lambda: film_gif(views, row),
            "npz": lambda: to_npz(recipe, run_arrays(views)),
            "csv": lambda: run_csv(views),
            "py": lambda: python_lines(recipe).encode(),
        }
    return make[kind]()
