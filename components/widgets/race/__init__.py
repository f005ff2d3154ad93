"""Solvers against budgets: the pictures, and how they came about, evaluation by evaluation."""

from components.widgets.base import Widget


class Race(Widget):
    """`{"url": str | None, "frames": int, "tile": int, "budgets": [str], "solvers": [{"name": str, "title": str,
    "about": str}], "cells": [{"solver": int, "budget": int, "row": int | None, "evaluations": int, "error":
    float | None, "text": str}], "selected": int | None, "note": str, "alone": bool, "live": str, "step": int}`.

    `url` + "K.png" is one picture of all rows side by side, `tile` pixels each, after K evaluations: 1 to `frames`.
    They are fetched one after the other while the race is on show; playing and scrubbing then need no server. A new
    value with the same `url` brings new numbers for the same pictures. While there is no `url`, `live` is a strip
    of all rows after `step` evaluations, as a `data:` URL; its squares may be smaller than `tile`. Event `pick`:
    `{"row": int}`, unless the widget stands `alone` in a saved file.
    """
