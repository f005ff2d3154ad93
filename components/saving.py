"""The row "Save" of every tab: a finished run as a file, made when somebody asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from components.media import Media
from components.standalone import Sheet, made, options
from playground.backend import Backend
from playground.errors import PlaygroundError
from playground.images.examples import EXAMPLES
from playground.images.sdedit import SDEdit
from playground.plane.views import FlowViews
from playground.recipes import Recipe
from playground.sharing.comparisons import ComparisonViews
from playground.sharing.exports import KINDS, export
from playground.sharing.views import RunViews

FILES = (
    ("PNG", "png", "the picture, with its experiment inside: drop it on the page to open it"),
    ("HTML", "html", "one page that plays offline in any browser, for slides and course sites; opens here again"),
    ("GIF", "gif", "a film, with its experiment inside"),
    ("NPZ", "npz", "the arrays, for numpy.load"),
    ("CSV", "csv", "the charts’ numbers as a table"),
    ("Python", "py", "lines that run it again without the page"),
)
"""Label, ending and help of every kind of file."""

MakeSheet = Callable[[Any, Backend, Mapping[str, str]], Sheet]


def save_value(token: str, recipe: Recipe, row: int = 0) -> dict[str, Any]:
    """The value of the row "Save" for a run.

    Args:
        token: of the run among the media.
        recipe: of the run.
        row: the picture that a film shows.
    """
    of_row = f"?row={row}" if row else ""
    files = [
        {"label": label, "url": f"save/{token}/{kind}{of_row}", "name": f"{recipe.tab}.{kind}", "help": text}
        for label, kind, text in FILES
    ]
    return {"files": files, "note": left_out(recipe)}


def left_out(recipe: Recipe) -> str:
    """What the link in the address bar does not carry, and which files do; "" where it carries everything."""
    told = []
    if isinstance(recipe, SDEdit):
        brought = [what for what in ("guide", "mask") if getattr(recipe, what) not in ("", *EXAMPLES)]
        if brought:
            told.append(f"The link does not carry {' and '.join(f'your {what}' for what in brought)}.")
    if left := recipe.to_link()[1]:
        told.append(f"Too long for the link: {', '.join(left)}.")
    return " ".join([*told, "Send the PNG or the HTML file, which carry everything."]) if told else ""


def routes(media: Media, backend: Backend, sheets: Mapping[type[Recipe], MakeSheet]) -> list[Route]:
    """Where the files are fetched.

    Args:
        media: where the runs are.
        backend: who decodes what a film shows.
        sheets: by the kind of a recipe, what makes its HTML file.
    """

    def serve(request: Request) -> Response:
        views, kind = media.get(request.path_params["token"]), request.path_params["kind"]
        if not isinstance(views, RunViews | ComparisonViews | FlowViews):
            return Response("This run is no longer kept: run it once more.", 404)
        try:
            if kind == "html":
                recipe = views.flow.recipe if isinstance(views, FlowViews) else views.result.recipe
                content = made(sheets[type(recipe)](views, backend, request.query_params))
            else:
                content = export(views, kind, options(request.query_params)["row"])
        except KeyError:
            return Response("There is no such kind of file.", 404)
        except (PlaygroundError, TimeoutError) as problem:
            return Response(str(problem) or "That took too long: try again.", 503)
        headers = {
            "Cache-Control": "private, no-store",
            "X-Content-Type-Options": "nosniff",
            # Always a file, never a page of this server.
            "Content-Disposition": "attachment",
        }
        return Response(content, media_type=KINDS.get(kind, "text/html; charset=utf-8"), headers=headers)

    return [Route("/save/{token}/{kind}", serve)]
