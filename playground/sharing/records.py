"""An experiment from what carries it: a link, or a file that the page saved (PNG, GIF or HTML)."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from PIL import Image, UnidentifiedImageError

from playground.errors import PlaygroundError, RecipeError

# Imported for their places in RECIPES.
from playground.images import comparison, prompt_to_prompt, sdedit  # noqa: F401
from playground.images.guides import content_name
from playground.plane import recipe as _plane  # noqa: F401
from playground.recipes import Recipe, recipe_from_query
from playground.sharing.html import carried
from playground.sharing.png import ATTACHED, CHUNK
from playground.uploads import open_picture

MOST_CHARACTERS = 100_000
"""Of a link or a record: a recipe with all its points and words is a tenth of it."""
MOST_PIXELS = 2048 * 2048
"""Of a picture in a file: guides and masks have the size of what a model draws."""


def from_link(link: str) -> tuple[Recipe, list[str]]:
    """The recipe of a link of the page, or of its query alone, and a sentence for each value that was changed.

    Raises:
        RecipeError: for a text that is not a link with settings.
    """
    if len(link) > MOST_CHARACTERS:
        raise RecipeError("The link is too long to be one of the playground's.")
    try:
        query = dict(parse_qsl(urlsplit(link.strip()).query or link.strip().lstrip("?"), keep_blank_values=True))
    except ValueError:
        query = {}
    if "tab" not in query:
        raise RecipeError("That is not a link of the playground: it names no tab.")
    return recipe_from_query(query)


def from_record(record: Mapping[str, Any]) -> tuple[Recipe, list[str]]:
    """The recipe of a record as it stands in a file (tab, version and fields), read as leniently as a link."""
    query = {str(k): v if isinstance(v, str) else json.dumps(v) for k, v in record.items()}
    return recipe_from_query(query)


Carried = tuple[Recipe, list[str], dict[str, Image.Image]]
"""A recipe, a sentence for each value that was changed, and the pictures that it names, by name."""

NOTHING = "The file carries no experiment of the playground; some programs remove it when they save a picture."


def from_png(content: bytes) -> Carried:
    """The experiment that a PNG file of the playground carries, or a GIF, whose comment is the record.

    Raises:
        RecipeError: for another kind of file, or one without a recipe.
    """
    try:
        with Image.open(io.BytesIO(content), formats=["PNG", "GIF"]) as picture:
            # Those in front of the pixels, as `to_png` writes them; nothing is unpacked for them.
            texts = {str(k): str(v) for k, v in picture.info.items() if isinstance(v, str)}
            small = picture.width * picture.height <= MOST_PIXELS and not getattr(picture, "is_animated", False)
            if CHUNK not in texts and small:
                # Other programs put them behind the pixels.
                texts |= getattr(picture, "text", {})
            comment = picture.info.get("comment", b"")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise RecipeError("The file is not a picture that the playground saved.") from None
    if comment and CHUNK not in texts:
        texts[CHUNK] = comment.decode("utf-8", "replace") if isinstance(comment, bytes) else str(comment)
    try:
        record = json.loads(texts.get(CHUNK, "")[:MOST_CHARACTERS])
    except (ValueError, RecursionError):
        record = None
    return _carried(record, texts)


def from_html(content: bytes) -> Carried:
    """The experiment that an HTML file of the playground carries.

    Raises:
        RecipeError: for one without a recipe.
    """
    return _from_held(carried(content))


def _from_held(held: dict[str, Any]) -> Carried:
    record = held.get(CHUNK)
    if len(json.dumps(record)) > MOST_CHARACTERS:
        record = None
    return _carried(record, {name: value for name, value in held.items() if isinstance(value, str)})


def from_file(content: bytes) -> Carried:
    """The experiment of a file that the page has saved, whichever kind it is.

    Raises:
        RecipeError: in one sentence, for any other file.
    """
    if content.startswith((b"\x89PNG", b"GIF8")):
        return from_png(content)
    held = carried(content)
    if held:
        return _from_held(held)
    if content.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise RecipeError(NOTHING)
    raise RecipeError("The playground opens PNG, GIF and HTML files that it has saved; this is none of them.")


def _carried(record: Any, texts: Mapping[str, str]) -> Carried:
    if not isinstance(record, dict):
        raise RecipeError(NOTHING)
    recipe, notes = from_record(record)
    attached = {k.removeprefix(ATTACHED): v for k, v in texts.items() if k.startswith(ATTACHED)}
    named = set(recipe.to_query().values())
    return recipe, notes, _pictures({k: v for k, v in attached.items() if k in named}, notes)


def _pictures(attached: Mapping[str, str], notes: list[str]) -> dict[str, Image.Image]:
    """Those that are what their names say."""
    found = {}
    for name, text in attached.items():
        try:
            picture, _ = open_picture(base64.b64decode(text, validate=True), MOST_PIXELS)
            for kind in (picture, picture.convert("L")):
                if content_name(kind) == name:
                    found[name] = kind
        except (PlaygroundError, ValueError):
            pass
        if name not in found:
            notes.append("A picture in the file is not the one that its recipe means and was left out.")
    return found


def load(link_or_file: str) -> Carried:
    """The experiment of a link, or of a PNG, GIF or HTML file that the page has saved.

    Raises:
        RecipeError: in one sentence, when neither gives one.
    """
    if "?" in link_or_file or link_or_file.startswith("tab="):
        return *from_link(link_or_file), {}
    try:
        content = Path(link_or_file).read_bytes()
    except (OSError, ValueError):
        raise RecipeError(f"{link_or_file[:80]!r} is neither a link nor a file.") from None
    return from_file(content)
