"""The tabs for programs: a recipe's fields in, a JSON answer out, a refusal as one sentence."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import gradio as gr
import numpy as np

from components.media import Pictures
from playground.errors import PlaygroundError
from playground.recipes import Recipe


def api_slot(recipe: type[Recipe]) -> str:
    """Where a call of a program runs: a place of its own, so that several of one program do not stop each other."""
    return f"{recipe.tab}/api/{secrets.token_hex(4)}"


@contextmanager
def refusals(recipe: Any) -> Iterator[None]:
    """What is wrong with a program's request, or goes wrong with it, reaches the program as one sentence.

    Args:
        recipe: the fields, as they came.
    """
    if not isinstance(recipe, dict):
        raise gr.Error("The recipe must be an object of settings.", print_exception=False)
    try:
        yield
    except PlaygroundError as problem:
        raise gr.Error(str(problem), print_exception=False) from None


def pictures_answer(recipe: Recipe, result: Any, views: Pictures) -> dict[str, Any]:
    """The pictures of a run as base64 PNG, what they cost, and the link that makes them again."""
    files = [views.png(f"picture-{i}.png") for i in range(len(result.pictures))]
    return {"pictures": [base64.b64encode(f).decode() for f in files], **run_answer(recipe, result)}


def array(values: np.ndarray) -> dict[str, Any]:
    """An array for a program: `np.frombuffer(base64.b64decode(a["data"]), a["dtype"]).reshape(a["shape"])`."""
    data = base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
    return {"shape": list(values.shape), "dtype": values.dtype.str, "data": data}


def run_answer(recipe: Recipe, result: Any) -> dict[str, Any]:
    """What a run cost, and the link that makes it again, whole: no program cuts it."""
    return {
        "evaluations": result.count.evaluations,
        "sample_forwards": result.count.sample_forwards,
        "seconds": result.seconds,
        "link": "?" + urlencode(recipe.to_query()),
    }
