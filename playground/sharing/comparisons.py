"""The pictures of a comparison of solvers, by name, made when somebody looks at them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont

from playground.images.comparison import Compared, Measured
from playground.images.models import TextToImageModel, to_images
from playground.recipes import TextToImage, title
from playground.sharing.png import to_png
from playground.sharing.views import OnDevice, stacked
from playground.solvers import SOLVERS

TILE = 128
"""Pixels of a picture of the race; larger ones are made smaller."""


class ComparisonViews:
    """PNG files of a comparison: `png(name)` with

    picture-R.png   the picture of row R, with the recipe that makes it alone
    race-K.png      what all rows believed after K evaluations, side by side, TILE pixels each; a row that has
                    arrived shows its picture
    film-R-K.png    evaluation K of row R: x_t above x0
    table.png       all pictures, labelled, with all settings

    Args:
        result: the comparison.
        table: its cells' measurements, in the order of the rows.
        on_device: runs what needs the model.
    """

    def __init__(self, result: Compared, table: Sequence[Measured], on_device: OnDevice):
        self.result, self.table, self._on_device = result, list(table), on_device
        self._kept: dict[str, bytes] = {}
        self.tile = result.pictures.shape[-1]

    @property
    def nbytes(self) -> int:
        """Memory held, made pictures included."""
        return self.result.nbytes + sum(map(len, self._kept.values()))

    def png(self, name: str) -> bytes:
        """The file.

        Raises:
            KeyError: when there is no such picture.
        """
        if name not in self._kept:
            self._kept[name] = self._make(name)
        return self._kept[name]

    def _make(self, name: str) -> bytes:
        if name == "table.png":
            return to_png(labelled(self.result, self.table), self.result.recipe)
        match = re.fullmatch(r"(picture|film)-(\d{1,2})(?:-(\d{1,3}))?\.png|race-(\d{1,3})\.png", name)
        if match is None:
            raise KeyError(name)
        if match[4]:
            return self._race(int(match[4]))
        row, number = int(match[2]), int(match[3] or 0)
        if row >= len(self.result.seen):
            raise KeyError(name)
        if match[1] == "picture":
            return to_png(to_images(self.result.pictures[row : row + 1])[0], alone(self.result, row))
        seen = self.result.seen[row]
        if number >= len(seen.t):
            raise KeyError(name)

        def make(model: TextToImageModel) -> bytes:
            both = torch.stack([seen.x[number], seen.x0[number]]).float().to(model.device.where)
            return to_png(stacked(to_images(model.autoencoder.decode(both)), self.tile), compress=1)

        return self._on_device(make)

    def _race(self, evaluations: int) -> bytes:
        longest = max(len(s.t) for s in self.result.seen)
        if not 1 <= evaluations <= longest:
            raise KeyError(f"race-{evaluations}.png")
        running = [k for k, s in enumerate(self.result.seen) if evaluations < len(s.t)]

        def make(model: TextToImageModel) -> bytes:
            believed = {}
            if running:
                x0 = torch.stack([self.result.seen[k].x0[evaluations - 1] for k in running]).float()
                shown = to_images(model.autoencoder.decode(x0.to(model.device.where)))
                believed = dict(zip(running, shown, strict=True))
            ended = to_images(self.result.pictures)
            size = min(TILE, self.tile)
            sheet = Image.new("RGB", (size * len(self.result.seen), size))
            for k in range(len(self.result.seen)):
                sheet.paste(believed.get(k, ended[k]).resize((size, size)), (k * size, 0))
            return to_png(sheet, compress=1)

        return self._on_device(make)


def alone(result: Compared, row: int) -> TextToImage:
    """The recipe of one picture by itself. (A solver of the SDE then draws its own noise, not the path's.)"""
    cell = result.run_cells[row]
    fields = {name: getattr(result.recipe, name) for name in TextToImage.model_fields}
    return TextToImage(**fields).but(solver=cell.solver, steps=cell.steps)


def labelled(
    result: Compared,
    table: Sequence[Measured],
    pictures: Sequence[Image.Image] | None = None,
    said: Sequence[str] | None = None,
) -> Image.Image:
    """Pictures as a table of solvers and budgets, with all settings.

    Args:
        pictures: one for each row; by default the finished ones.
        said: what stands below each; by default its cost and error.
    """
    pictures = to_images(result.pictures) if pictures is None else pictures
    said = [cell_text(measured) for measured in table] if said is None else said
    solvers = list(dict.fromkeys(c.solver for c in result.cells))
    budgets = list(dict.fromkeys(c.budget for c in result.cells))
    font, small = ImageFont.load_default(15), ImageFont.load_default(12)
    left, top, size, foot = 190, 64, max(TILE, min(256, result.pictures.shape[-1])), 36
    recipe = result.recipe
    settings = [
        f"{title(type(recipe), name)} = {getattr(recipe, name)}"
        for name, info in type(recipe).model_fields.items()
        if getattr(recipe, name) != info.default and name not in ("prompt", "solvers", "budgets")
    ]
    basics = f"model {recipe.model}, w = {recipe.w:g}, seed {recipe.seed}, grid {recipe.grid}"
    told = "; ".join([basics, *settings])
    width = left + len(budgets) * (size + 12)
    image = Image.new("RGB", (width, top + len(solvers) * (size + foot) + 12), "white")
    draw = ImageDraw.Draw(image)
    draw.text((12, 8), _fitting(f"“{recipe.prompt}”", font, width - 24), fill="black", font=font)
    draw.text((12, 30), _fitting(told, small, width - 24), fill="#444444", font=small)
    rows = {(m.cell.solver, m.cell.budget): k for k, m in enumerate(table)}
    for i, solver in enumerate(solvers):
        y = top + i * (size + foot)
        kind = SOLVERS[solver]
        draw.text((12, y + size // 2 - 16), _fitting(kind.title, font, left - 20), fill="black", font=font)
        draw.text((12, y + size // 2 + 4), f"order {kind.order}", fill="#444444", font=small)
        for j, budget in enumerate(budgets):
            x = left + j * (size + 12)
            if (k := rows.get((solver, budget))) is None:
                draw.text((x + 8, y + size // 2), "not one step", fill="#444444", font=small)
                continue
            image.paste(pictures[k].resize((size, size)), (x, y))
            draw.text((x, y + size + 4), said[k], fill="#222222", font=small)
    return image


def cell_text(measured: Measured) -> str:
    """What a cell says below its picture."""
    cell = measured.cell
    error = f"{measured.error:.1%} off" if measured.error == measured.error else "no reference yet"
    if not measured.compares:
        error = "own noise"
    return f"{cell.evaluations} NFE · {measured.seconds:.2f} s · {error}"


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """As much of a text as fits into a width."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
