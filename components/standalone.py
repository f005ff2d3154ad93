"""An experiment as one HTML file: the page's own widgets with their data, and nothing that asks anybody.

The file opens by a double click, in an iframe or beside a lecture's slides, offline. It carries its recipe, so
that the playground opens it again. `?__theme=dark` or `light` after its name fixes the colours, which otherwise
follow the reader's system; `?bare` leaves the widgets alone on the page.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from components import theme
from components.media import Media, Pictures
from components.readouts import cost_line, film, said
from components.widgets import Filmstrip, Stage
from components.widgets.base import Widget, parts
from playground.backend import Backend
from playground.guidance import RULES
from playground.recipes import Recipe, rule_fields, title
from playground.sharing.html import carrier, inert
from playground.sharing.png import to_png
from playground.sharing.views import RunViews

LIMIT = 3_000_000
"""Bytes of a file at most: a course site, or a mail, takes that."""
ROOM = (LIMIT - 300_000) * 3 // 4
"""Bytes of pictures and arrays at most: in the file they stand in base64, beside scripts and styles."""

# How pictures that do not fit as they are are made smaller: edge divided by, quality of WebP (None: lossless).
WAYS: tuple[tuple[int, int | None], ...] = ((1, None), (1, 95), (1, 80), (2, 80), (4, 80), (8, 60))

POLICY = (
    "default-src 'none'; img-src data:; connect-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
"""What a browser lets the file do: nothing leaves it, whatever stands in it."""


@dataclass
class Part:
    """A widget of the page with its value."""

    heading: str
    widget: type[Widget]
    value: dict[str, Any]


@dataclass
class Sheet:
    """What goes into a file.

    Attributes:
        title: of the page.
        recipe: the experiment.
        said: sentences about the run: cost, distances, what was made smaller.
        parts: from top to bottom.
        files: what the widgets fetch, by the address that stands in their values.
        attached: pictures that the recipe names by their content.
    """

    title: str
    recipe: Recipe
    said: list[str]
    parts: list[Part]
    files: dict[str, bytes]
    attached: dict[str, Image.Image] = field(default_factory=dict)


def fitted(pictures: Mapping[str, bytes], room: int, tile: int) -> tuple[dict[str, bytes], int, str]:
    """Pictures as they are if they fit, else as WebP, smaller and coarser until they do.

    Args:
        pictures: PNG files made of square tiles.
        room: bytes for all of them together.
        tile: pixels of a tile's edge.

    Returns:
        The files, the edge of their tiles, and a sentence about what was done ("" if nothing).
    """
    whole = sum(map(len, pictures.values()))
    if whole <= room:
        return dict(pictures), tile, ""
    opened = {name: Image.open(io.BytesIO(content)) for name, content in pictures.items()}
    for divisor, quality in WAYS:
        if quality is None and whole > 2 * room:
            continue  # lossless WebP is a third smaller than PNG, not half
        edge = max(1, tile // divisor)
        made = {name: _webp(picture, edge / tile, quality) for name, picture in opened.items()}
        if sum(map(len, made.values())) <= room:
            break
    if quality is None:
        return made, edge, ""
    size = f", {edge} pixels wide instead of {tile}" if edge != tile else ""
    return (
        made,
        edge,
        f"To keep the file small its pictures are compressed (WebP{size}); PNG files are exact.",
    )


def _webp(picture: Image.Image, scale: float, quality: int | None) -> bytes:
    if scale != 1:
        size = (round(picture.width * scale), round(picture.height * scale))
        picture = picture.convert("RGBA" if "A" in picture.getbands() else "RGB")
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    how: dict[str, Any] = {"lossless": True, "exact": True} if quality is None else {"quality": quality}
    picture.save(buffer, "WEBP", **how)
    return buffer.getvalue()


def settings(recipe: Recipe) -> list[tuple[str, str, bool]]:
    """All settings but those of other guidance rules: name on the page, value, whether it is the default."""
    others = {f for rule in RULES if rule != getattr(recipe, "rule", "") for f in rule_fields(rule).values()}
    told = []
    for name, info in type(recipe).model_fields.items():
        if name in others:
            continue
        value = getattr(recipe, name)
        text = value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else _plain(value)
        usual = value == info.default
        if len(text) > 300:
            text = f"{text[:60]}… ({len(text)} characters)"
        if text or not usual:
            told.append((title(type(recipe), name), text or "none", usual))
    return told


def _plain(value: Any) -> str:
    return ", ".join(map(_plain, value)) if isinstance(value, tuple) else str(value)


def made(sheet: Sheet) -> bytes:
    """The file."""
    sections, scripts, styles = [], [], [_variables(), (Path(__file__).with_suffix(".css")).read_text("utf-8")]
    for i, part in enumerate(sheet.parts):
        source = parts(part.widget, None)
        heading = f"<h2>{html.escape(part.heading)}</h2>" if part.heading else ""
        sections.append(f'<section>{heading}<div id="part-{i}">{source["html_template"]}</div></section>')
        styles.append(f"#part-{i} {{\n{source['css_template']}\n}}")
        props = inert({"value": part.value, "counted_as": f"part-{i}"})
        scripts.append(
            f"((element, props, watch, trigger) => {{\n{source['js_on_load']}\n}})"
            f'(document.getElementById("part-{i}"), {props}, () => {{}}, () => {{}});'
        )
    urls = {name: _data_url(content) for name, content in sheet.files.items()}
    rows = "".join(
        f'<div class="{"usual" if usual else "own"}"><dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd></div>'
        for name, text, usual in settings(sheet.recipe)
    )
    said = "".join(f"<p>{html.escape(text)}</p>" for text in sheet.said if text)
    link, left = sheet.recipe.to_link()
    short = f" It is too long for one, and lacks {', '.join(left)}: this file has everything." if left else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="generator" content="Diffusion Playground">
<title>{html.escape(sheet.title)}</title>
<style>
{chr(10).join(styles)}
</style>
{carrier(sheet.recipe, sheet.attached)}
</head>
<body>
<script>{THEME}</script>
<header><h1>{html.escape(sheet.title)}</h1>{said}</header>
<main>{"".join(sections)}</main>
<footer>
<details><summary>All settings</summary><dl>{rows}</dl></details>
<details><summary>Open it in Diffusion Playground</summary>
<p>Drop this file on the playground’s page, or put this behind the page’s address:</p>
<p><code>{html.escape(link)}</code>{html.escape(short)}</p></details>
</footer>
<script>
window.__dpFiles = {inert(urls)};
{chr(10).join(scripts)}
</script>
</body>
</html>
""".encode()


THEME = """
const asked = new URLSearchParams(location.search), system = matchMedia('(prefers-color-scheme: dark)');
const dress = () => document.documentElement.classList.toggle('dark',
  asked.has('__theme') ? asked.get('__theme') === 'dark' : system.matches);
dress();
system.addEventListener('change', dress);
document.documentElement.classList.toggle('bare', asked.has('bare'));
"""


def _data_url(content: bytes) -> str:
    kind = "application/octet-stream"
    if content.startswith(b"\x89PNG"):
        kind = "image/png"
    elif content[8:12] == b"WEBP":
        kind = "image/webp"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@cache
def _variables() -> str:
    """The theme's variables, light and dark, of which the widgets or the file make use."""
    known: dict[str, dict[str, str]] = {":root": {}, ".dark": {}}
    for selector, block in re.findall(r"([^{}]+)\{([^{}]*)\}", theme.theme()._get_theme_css()):
        known[".dark" if ".dark" in selector else ":root"] |= dict(re.findall(r"(--[\w-]+):\s*([^;]*);", block))
    folder = Path(__file__).parent
    sheets = [*(folder / "widgets").rglob("*.css"), Path(__file__).with_suffix(".css")]
    wanted = {name for sheet in sheets for name in re.findall(r"var\((--[\w-]+)", sheet.read_text("utf-8"))}
    while True:
        used = [v for block in known.values() for name, v in block.items() if name in wanted]
        more = {name for value in used for name in re.findall(r"var\((--[\w-]+)", value)} - wanted
        if not more:
            break
        wanted |= more
    blocks = [
        f"{selector} {{ {' '.join(f'{n}: {v};' for n, v in block.items() if n in wanted)} }}"
        for selector, block in known.items()
    ]
    return "\n".join([*blocks, theme.palette()])


def film_sheet(
    views: RunViews,
    backend: Backend,
    row: int,
    above: list[Part],
    attached: Mapping[str, Image.Image] | None = None,
) -> Sheet:
    """A picture of a run with its filmstrip.

    Args:
        row: which picture.
        above: further widgets, shown between the two; their pictures are added to the files.
        attached: pictures that the recipe names, which the file has to carry as they are.
    """
    held = sum(len(to_png(p)) for p in (attached or {}).values())
    room = max(ROOM // 4, ROOM - held)
    result = views.result
    recipe, model = result.recipe, backend.model(result.recipe.model)
    row = min(row, len(result.pictures) - 1)
    single = recipe.singles()[row]
    picture = Media.url("run", f"picture-{row}.png")
    strip = film("run", result, model, row)
    stills = {picture, *(p["url"] for part in above for p in part.value.get("pictures", ()))}
    files, _, _ = fitted(views_files(views, stills), room // 4, result.pictures.shape[-1])
    frames = views_files(views, [column["url"] for column in strip["columns"]])
    frames, strip["tile"], note = fitted(frames, room - room // 4, strip["tile"])
    whole = held + sum(map(len, (files | frames).values()))
    large_note = "" if whole <= ROOM else f"{held / 0.75e6:.1f} MB of the file are the guide, carried as it is."
    large = {"pictures": [{"url": picture, "label": ""}], "live": False, "caption": f"seed {single.seed}"}
    many = len(result.pictures)
    cost = cost_line(result, model, False) + (f" · for all {many} pictures of the run" if many > 1 else "")
    return Sheet(
        recipe.prompt or "(no prompt)",
        single,
        [html.unescape(said(single)), cost, note, large_note],
        [Part("", Stage, large), *above, Part("Filmstrip: what every step believed", Filmstrip, strip)],
        files | frames,
        attached=dict(attached or {}),
    )


def options(query: Mapping[str, str]) -> dict[str, Any]:
    """What a visitor had on show, from a download's query: the picture's row, and time and layers of a plane."""
    row = query.get("row", "0")
    found = re.fullmatch(r"plane=([01](?:\.\d{1,6})?)((?:,[a-z0-9-]{1,20}){0,20})", query.get("look", ""))
    return {
        "row": int(row) if re.fullmatch(r"\d{1,2}", row) else 0,
        "at": min(1.0, float(found[1])) if found else None,
        "layers": [name for name in found[2].split(",") if name] if found else None,
    }


def views_files(views: Pictures, urls: Iterable[str]) -> dict[str, bytes]:
    """The PNG files of a run by the addresses that they have in a widget's value."""
    return {url: views.png(url.rsplit("/", 1)[1]) for url in urls}
