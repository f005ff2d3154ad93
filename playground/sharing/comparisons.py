"""The pictures of a comparison of solvers, by name, made when somebody looks at them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import torch
from PIL import Image, ImageDraw, ImageFont

from playground.images.cohorts import Cohort, Drawn
from playground.images.comparison import Compared, Comparison, Measured, compares, percent
from playground.images.models import TextToImageModel, to_images
from playground.recipes import TextToImage, title
from playground.sharing.png import to_png
from playground.sharing.views import OnDevice, stacked
from playground.solvers import SOLVERS

TILE = 128
"""Pixels of a picture of the race; larger ones are made smaller."""
BASICS = ("model", "w", "seed", "pictures", "grid")
"""Settings that a labelled table names whatever they are."""


class ComparisonViews:
    """PNG files of a comparison, with the recipe that makes them inside: `png(name)` with

    picture-R.png   the picture of row R, whose recipe makes it alone
    race-K.png      what all rows believed after K evaluations, side by side, TILE pixels each; a row that has
                    arrived shows its picture
    film-R-K.png    evaluation K of row R: x_t above x0
    table-N.png     all pictures, labelled, with all settings; N is that of `version`

    Args:
        result: the comparison.
        table: its cells' measurements, in the order of the rows; `remeasured` exchanges them.
        on_device: runs what needs the model.

    Attributes:
        version: how often the table was exchanged. A browser keeps what it has fetched under a name.
    """

    def __init__(self, result: Compared, table: Sequence[Measured], on_device: OnDevice):
        self.result, self.table, self._on_device = result, list(table), on_device
        self._kept: dict[str, bytes] = {}
        self.version = 0
        self.tile = result.pictures.shape[-1]

    @property
    def nbytes(self) -> int:
        """Memory held, made pictures included."""
        return self.result.nbytes + sum(map(len, list(self._kept.values())))

    def remeasured(self, table: Sequence[Measured]) -> None:
        """The same pictures with new measurements."""
        if list(table) != self.table:
            self.table = list(table)
            self.version += 1

    def png(self, name: str) -> bytes:
        """The file.

        Raises:
            KeyError: when there is no such picture.
        """
        if name not in self._kept:
            self._kept[name] = self._make(name)
        return self._kept[name]

    def _make(self, name: str) -> bytes:
        if name == f"table-{self.version}.png":
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
            film = stacked(to_images(model.autoencoder.decode(both)), self.tile)
            return to_png(film, alone(self.result, row), compress=1)

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
            return to_png(sheet, self.result.recipe, compress=1)

        return self._on_device(make)


class NoiseViews:
    """What noise does, on three fields: curves, and pictures of the third.

    noise-K-B.png are the first pictures of the image model at the K-th amount of noise and budget B, side by side.

    Args:
        curves: by field, by budget: (eta, distance).
        levels: by field, what 95% of samples of the right distribution stay below.
        cohorts: the pictures, by place of the amount and budget.
    """

    SHOWN = 4

    def __init__(
        self,
        curves: dict[str, dict[int, list[tuple[float, float]]]],
        levels: dict[str, float],
        cohorts: dict[tuple[int, int], Drawn],
    ):
        self.curves, self.levels = curves, levels
        self.recipes = {key: first_of(drawn.recipe, self.SHOWN) for key, drawn in cohorts.items()}
        # Copies: a part of a tensor would keep the whole.
        self.sheets = {key: drawn.pictures[: self.SHOWN].clone() for key, drawn in cohorts.items()}

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return sum(p.nbytes for p in self.sheets.values())

    def png(self, name: str) -> bytes:
        """The file.

        Raises:
            KeyError: when there is no such picture.
        """
        match = re.fullmatch(r"noise-(\d{1,2})-(\d{1,3})\.png", name)
        if match is None:
            raise KeyError(name)
        key = int(match[1]), int(match[2])
        pictures = to_images(self.sheets[key])
        size = min(TILE, pictures[0].width)
        sheet = Image.new("RGB", (size * len(pictures), size))
        for k, picture in enumerate(pictures):
            sheet.paste(picture.resize((size, size)), (k * size, 0))
        return to_png(sheet, self.recipes[key], compress=1)


def first_of(recipe: Cohort, count: int) -> TextToImage:
    """Text to image that makes the first pictures of a cohort of one prompt."""
    return TextToImage.make(**{n: getattr(recipe, n) for n in TextToImage.model_fields} | {"pictures": count})


def single(result: Compared, row: int) -> Comparison:
    """The comparison that consists of one cell, for one seed."""
    cell = result.run_cells[row]
    return result.recipe.but(solvers=(cell.solver,), budgets=(cell.steps,), equal="steps", pictures=1)


def alone(result: Compared, row: int) -> TextToImage:
    """The recipe that makes one cell's picture again: of text to image, or, for a solver of the SDE, whose noise
    comes from the Brownian path that only comparisons know, a comparison of this cell."""
    cell = result.run_cells[row]
    if compares(cell.solver, result.recipe.eta) == "sde":
        return single(result, row)
    fields = {name: getattr(result.recipe, name) for name in TextToImage.model_fields}
    return TextToImage(**fields).but(solver=cell.solver, steps=cell.steps, pictures=1)


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
    left, size, foot = 190, max(TILE, min(256, result.pictures.shape[-1])), 72
    recipe = result.recipe
    settings = [
        f"{title(type(recipe), name)} = {getattr(recipe, name)}"
        for name, info in type(recipe).model_fields.items()
        if getattr(recipe, name) != info.default and name not in ("prompt", "solvers", "budgets", *BASICS)
    ]
    last = recipe.seed + recipe.pictures - 1
    seeds = (
        f"seed {recipe.seed}" if recipe.pictures == 1 else f"seeds {recipe.seed} to {last} (pictures: the first)"
    )
    basics = f"model {recipe.model}; w = {recipe.w:g}; {seeds}; grid {recipe.grid}"
    floors = {m.compares: m.floor for m in table if m.known}
    known = [f"reference of the {kind.upper()} to {100 * floor:.2g}%" for kind, floor in floors.items()]
    width = left + len(budgets) * (size + 12)
    prompt = wrapped(f"“{recipe.prompt}”", font, width - 24)
    told = wrapped("; ".join([basics, *settings, *known]), small, width - 24)
    top = 8 + 20 * len(prompt) + 16 * len(told) + 30
    image = Image.new("RGB", (width, top + len(solvers) * (size + foot) + 12), "white")
    draw = ImageDraw.Draw(image)
    for i, line in enumerate(prompt):
        draw.text((12, 8 + 20 * i), line, fill="black", font=font)
    for i, line in enumerate(told):
        draw.text((12, 8 + 20 * len(prompt) + 2 + 16 * i), line, fill="#444444", font=small)
    unit = "step" if recipe.equal == "steps" else "evaluation"
    for j, budget in enumerate(budgets):
        head = f"{budget} {unit}{'' if budget == 1 else 's'}"
        draw.text((left + j * (size + 12), top - 20), head, fill="black", font=small)
    rows = {(m.cell.solver, m.cell.budget): k for k, m in enumerate(table)}
    for i, solver in enumerate(solvers):
        y = top + i * (size + foot)
        kind = SOLVERS[solver]
        lines = wrapped(kind.title, font, left - 20)
        for n, line in enumerate(lines):
            draw.text((12, y + size // 2 - 16 + 18 * n), line, fill="black", font=font)
        below = y + size // 2 - 14 + 18 * len(lines)
        draw.text((12, below), kind.told_order(), fill="#444444", font=small)
        for j, budget in enumerate(budgets):
            x = left + j * (size + 12)
            if (k := rows.get((solver, budget))) is None:
                draw.text((x + 8, y + size // 2), "not one step", fill="#444444", font=small)
                continue
            image.paste(pictures[k].resize((size, size)), (x, y))
            for n, line in enumerate(wrapped(said[k], small, size)):
                draw.text((x, y + size + 3 + 15 * n), line, fill="#222222", font=small)
    return image


def cell_text(measured: Measured) -> str:
    """What a cell says below its picture."""
    cell = measured.cell
    shared = measured.alone != measured.alone
    parts = [f"{cell.evaluations} NFE", f"{measured.time:.2f} s {'of the batch' if shared else 'alone'}"]
    if not measured.compares:
        parts.append("own noise")
    else:
        parts.append(f"{percent(measured)} off" if measured.known else "no reference yet")
    if measured.perceptual == measured.perceptual:
        parts.append(f"perceptual {measured.perceptual:.2g}")
    return " · ".join(parts)


def wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """A text in lines of at most this many pixels; words that are longer than a line are cut."""
    lines, line = [], ""
    for word in text.split():
        for piece in _cut(word, font, width):
            longer = f"{line} {piece}".strip()
            if line and font.getlength(longer) > width:
                lines.append(line)
                line = piece
            else:
                line = longer
    return [*lines, line]


def _cut(word: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> Iterator[str]:
    while font.getlength(word) > width and len(word) > 1:
        fits = max(1, sum(font.getlength(word[: n + 1]) <= width for n in range(len(word))))
        yield word[:fits]
        word = word[fits:]
    yield word
