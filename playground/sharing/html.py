"""The part of an HTML file that carries its experiment: data that a browser shows nowhere and runs nowhere."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from PIL import Image

from playground.recipes import Recipe
from playground.sharing.png import ATTACHED, CHUNK, record_of, to_png

CARRIED = re.compile(r'<script type="application/json" id="(' + CHUNK + r'(?:/\w{1,64})?)">([^<]*)</script>')
"""`inert` leaves no "<" in it: what is read stops at the next one, however many openings a file has."""


def inert(value: Any) -> str:
    """A value as JSON that stays data inside a script element, whatever texts are in it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def carrier(recipe: Recipe, attached: Mapping[str, Image.Image] | None = None) -> str:
    """HTML that holds a recipe and, as PNG in base64, the pictures that it names by their content."""
    held: dict[str, Any] = {CHUNK: record_of(recipe)}
    held |= {ATTACHED + name: base64.b64encode(to_png(p)).decode() for name, p in (attached or {}).items()}
    return "\n".join(
        f'<script type="application/json" id="{name}">{inert(value)}</script>' for name, value in held.items()
    )


def carried(content: bytes) -> dict[str, Any]:
    """What `carrier` has put into an HTML file, by name; empty for any other file."""
    found = {}
    for name, text in CARRIED.findall(content.decode("utf-8", "replace")):
        try:
            found[name] = json.loads(text)
        except (ValueError, RecursionError):
            continue
    return found
