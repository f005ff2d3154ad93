"""Runs as GIF films that carry their recipe: particles on their way, what every step believed, the race."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from playground.errors import RecipeError
from playground.guidance import RULES
from playground.plane.density import BOX
from playground.plane.packing import unpack
from playground.plane.views import FlowViews
from playground.recipes import Recipe
from playground.sharing.comparisons import TILE, ComparisonViews, cell_text, labelled
from playground.sharing.planes import CLASSES, line_picture, shade
from playground.sharing.png import record_of
from playground.sharing.prompts import PromptViews
from playground.sharing.views import RunViews

HOLD = 2000
"""Milliseconds that the last frame stays."""
FRAMES = 40
"""Of a flow."""
FILM = ("x_t", "x0 without prompt", "x0 with prompt", "x0 guided")
WEAK_FILM = ("x_t", "x0 of the weak model", *FILM[2:])


def to_gif(frames: Sequence[Image.Image], milliseconds: int, recipe: Recipe) -> bytes:
    """A film that starts again after its end has been on show for `HOLD`, with the recipe as its comment."""
    buffer = io.BytesIO()
    lengths = [milliseconds] * (len(frames) - 1) + [HOLD]
    record = json.dumps(record_of(recipe)).encode()
    first, *others = (frame.convert("RGB") for frame in frames)
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=lengths, loop=0, comment=record)
    return buffer.getvalue()


def flow_gif(views: FlowViews, size: int = 420) -> bytes:
    """The particles over the exact density, from noise to data; on the line, their paths growing with time."""
    flow, recipe = views.flow, views.flow.recipe
    chosen = np.linspace(0, len(flow.times) - 1, min(FRAMES, len(flow.times))).round().astype(int).tolist()
    if recipe.dimension == 1:
        frames = [line_picture(flow, size, until=k + 1) for k in chosen]
    else:
        header, arrays = unpack(views.binary("density.bin"))
        frames = []
        for k in chosen:
            t = float(flow.times[k])
            nearest = int(np.abs(np.array(header["times"]) - t).argmin())
            frames.append(_cloud(views, k, shade((arrays["density"][nearest][::-1] / 255.0) ** 2, size)))
    for k, frame in zip(chosen, frames, strict=True):
        t = float(flow.times[k])
        ImageDraw.Draw(frame).text((8, 6), f"t = {t:.2f}", fill="black", font=ImageFont.load_default(14))
    return to_gif(frames, 4000 // len(frames), recipe)


def _cloud(views: FlowViews, k: int, picture: Image.Image) -> Image.Image:
    """The particles of a frame drawn on a picture of the plane."""
    flow, size = views.flow, picture.width
    draw = ImageDraw.Draw(picture, "RGBA")
    places = (flow.frames[k] / float(flow.zoom[k])).tolist()
    for (x, y), label in zip(places, flow.labels.tolist(), strict=True):
        if abs(x) < BOX and abs(y) < BOX:
            u, v = (x / BOX + 1) / 2 * size, (1 - y / BOX) / 2 * size
            draw.ellipse((u - 1.4, v - 1.4, u + 1.4, v + 1.4), fill=(*CLASSES[label % len(CLASSES)], 170))
    return picture


def film_gif(views: RunViews, row: int = 0) -> bytes:
    """What every step of a picture's run believed; of prompt-to-prompt, what it believed of every prompt."""
    result = views.result
    side = min(views.tile, 256)
    frames = []
    for step, record in enumerate(result.trace):
        t = record.t[row]
        if t.isnan():  # other rows have more steps
            break
        if isinstance(views, PromptViews):
            tiles = [_tiles(views, r, step)[3] for r in range(len(result.pictures))]
            names = views.result.recipe.prompts()
        else:
            tiles = _tiles(views, row, step)
            names = list(WEAK_FILM if RULES[result.recipe.rule].weak else FILM)
        said = f"step {step + 1} of {len(result.trace)}, t = {float(t):.3f}"
        frames.append(_sheet([tile.resize((side, side)) for tile in tiles], names, said))
    if not frames:
        raise RecipeError("This run took no step (t₀ = 0): there is no film of it.")
    return to_gif(frames, max(80, min(400, 4000 // len(frames))), views.single(row))


def _tiles(views: RunViews, row: int, step: int) -> list[Image.Image]:
    with Image.open(io.BytesIO(views.png(f"film-{row}-{step}.png"))) as film:
        whole = film.convert("RGBA")
    paper = Image.new("RGBA", whole.size, "#e2e8f0")  # where a branch was not computed
    whole = Image.alpha_composite(paper, whole)
    edge = whole.width
    return [whole.crop((0, y, edge, y + edge)) for y in range(0, whole.height, edge)]


def _sheet(tiles: Sequence[Image.Image], names: Sequence[str], said: str) -> Image.Image:
    """Tiles side by side, their names below, a line above."""
    side, gap, font = tiles[0].width, 8, ImageFont.load_default(12)
    sheet = Image.new("RGB", ((side + gap) * len(tiles) + gap, side + 52), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, 5), said, fill="black", font=font)
    for i, (tile, name) in enumerate(zip(tiles, names, strict=True)):
        x = gap + i * (side + gap)
        sheet.paste(tile, (x, 26))
        while name and font.getlength(name) > side:
            name = name[:-1]
        draw.text((x, side + 31), name, fill="#333333", font=font)
    return sheet


def race_gif(views: ComparisonViews) -> bytes:
    """The table of solvers and budgets after every evaluation."""
    result = views.result
    longest = max(len(s.t) for s in result.seen)
    frames = []
    for k in range(1, longest + 1):
        with Image.open(io.BytesIO(views.png(f"race-{k}.png"))) as sheet:
            edge = min(TILE, views.tile)
            pictures = [sheet.crop((i * edge, 0, (i + 1) * edge, edge)) for i in range(len(result.seen))]
        said = [
            cell_text(m) if k >= m.cell.evaluations else f"{k} of {m.cell.evaluations} NFE" for m in views.table
        ]
        frames.append(labelled(result, views.table, pictures, said))
    return to_gif(frames, max(80, 5000 // len(frames)), result.recipe)
