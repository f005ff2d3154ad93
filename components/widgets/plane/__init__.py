"""Particles in the plane: their flow, what it flows through, and the value of one coordinate against time."""

from components.widgets.base import Widget


class Plane(Widget):
    """`{"url": str, "keys": {layer: str}, "reasons": {layer: str}, "dimension": 1 | 2, "classes": [str],
    "learned": bool, "live": bool, "remarks": {layer: str}, "show": {"id": str, "layers": [str], "at": float},
    "edit": null | "draw" | "mixture", "components": [[x, y, scale x, scale y, angle, weight, label]],
    "alone": bool}`.

    `url + layer + ".bin"` is a buffer made by `playground.plane.packing`; one is fetched when its layer is on
    show and its key has changed since, so that playing and scrubbing ask the server for nothing. A layer with a
    reason is greyed out, and the reason is what its chip says; one that the server refuses says its sentence
    below, where the scales of the maps on show stand with their remarks. `show` is applied when its id is new.
    Without a url and with "edit": "draw" the plane is empty and can be drawn on.

    Layers: flow (the particles, trajectories and solver states), density, arrows, noising, conditional, grid,
    tilted, errors, exact (curves under the solver's steps), line-0 and line-1 (the coordinate against time). Time
    runs over the flow's frames evenly; at sigma > 1 the view is zoomed out by sigma.

    Where it stands `alone`, in a saved file, a click asks nobody.

    Events: `point` `{"x", "y"}`, a point that was clicked; `drawn` `{"points": [[x, y, label]], "number": n}`;
    `shaped` `{"components": [...], "number": n}`, when a component has been shaped; the numbers count what was
    sent. While one is dragged, flows of it are fetched straight from `url + "live:" + JSON + ".bin"`. What is on
    show and the time are kept in the address (`#plane=...`), by the browser alone.
    """
