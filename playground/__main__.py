"""Experiments without the page.

python -m playground render LINK_OR_FILE -o OUT.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from playground.backend import Backend, choose_device
from playground.errors import PlaygroundError
from playground.images.comparison import Comparison, measure
from playground.images.models import model_list
from playground.images.sdedit import SDEdit
from playground.plane import PlaneFlow
from playground.recipes import Recipe, TextToImage
from playground.sharing.comparisons import ComparisonViews
from playground.sharing.edits import EditViews
from playground.sharing.planes import flow_png
from playground.sharing.records import load
from playground.sharing.views import RunViews


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m playground", description="Diffusion Playground without the page.")
    commands = p.add_subparsers(dest="command", required=True)
    render = commands.add_parser("render", help="run the experiment of a link or a PNG file, and save its pictures")
    render.add_argument("source", metavar="LINK_OR_FILE", help="the page's link, in quotes, or a picture it saved")
    render.add_argument("-o", "--output", metavar="OUT.png", type=Path, default=Path("out.png"))
    render.add_argument("--model", action="append", metavar="PATH_OR_ID", help="as for app.py; repeatable")
    render.add_argument("--device", default="auto", metavar="DEVICE", help="cpu, cuda, mps (default: the best)")
    render.add_argument("--dtype", default="auto", metavar="DTYPE", help="float32, float16, bfloat16")
    return p


def pictures(recipe: Recipe, backend: Backend) -> list[bytes]:
    """Run a recipe; its pictures as PNG files with their recipes inside.

    Raises:
        PlaygroundError: in one sentence, when it cannot be run.
    """
    result: Any = backend.result(recipe)
    if isinstance(recipe, PlaneFlow):
        return [flow_png(result)]
    if isinstance(recipe, Comparison):
        references = {kind: backend.result(one) for kind, one in recipe.references().items()}
        table = measure(result, references)
        return [ComparisonViews(result, table, lambda make: backend.call(make, recipe.model)).png("table-0.png")]
    assert isinstance(recipe, TextToImage)
    if isinstance(recipe, SDEdit):
        views: RunViews = EditViews(
            result, lambda make: backend.call(make, recipe.model), brought=backend.guides.get
        )
    else:
        views = RunViews(result, lambda make: backend.call(make, recipe.model))
    return [views.png(f"picture-{i}.png") for i in range(len(result.pictures))]


def render(source: str, output: Path, backend: Backend) -> list[Path]:
    """Run the experiment of a link or a file; returns the files written.

    One picture is written to `output`; of several each has its number in its name.
    """
    recipe, notes, brought = load(source)
    for picture in brought.values():
        backend.guides.put(picture)
    for note in notes:
        print(note, file=sys.stderr)
    files = pictures(recipe, backend)
    names = [output]
    if len(files) > 1:
        names = [output.with_stem(f"{output.stem}-{i + 1}") for i in range(len(files))]
    for name, content in zip(names, files, strict=True):
        name.write_bytes(content)
    return names


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        backend = Backend(model_list(args.model or []), choose_device(args.device, args.dtype))
    except PlaygroundError as problem:
        print(problem, file=sys.stderr)
        return 2
    try:
        for name in render(args.source, args.output, backend):
            print(name)
    except (PlaygroundError, OSError) as problem:
        print(problem, file=sys.stderr)
        return 2
    finally:
        backend.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
