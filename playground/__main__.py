"""Experiments without the page.

python -m playground render LINK_OR_FILE -o OUT.png     (or .gif, .npz, .csv, .py)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from playground.backend import Backend, choose_device
from playground.errors import PlaygroundError, RecipeError
from playground.images.comparison import Comparison, measure
from playground.images.models import model_list
from playground.images.prompt_to_prompt import PromptToPrompt
from playground.images.sdedit import SDEdit
from playground.plane import PlaneFlow
from playground.plane.views import FlowViews
from playground.recipes import Recipe, TextToImage
from playground.sharing.comparisons import ComparisonViews
from playground.sharing.edits import EditViews
from playground.sharing.exports import KINDS, Views, export
from playground.sharing.prompts import PromptViews, shown_tokens
from playground.sharing.records import load
from playground.sharing.views import RunViews


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m playground", description="Diffusion Playground without the page.")
    commands = p.add_subparsers(dest="command", required=True)
    render = commands.add_parser("render", help="run the experiment of a link or a saved file, and save it")
    render.add_argument(
        "source",
        metavar="LINK_OR_FILE",
        help="the page's link, in quotes, or a PNG, GIF or HTML file that it saved",
    )
    render.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=Path,
        default=Path("out.png"),
        help="where to; its ending chooses: .png pictures, .gif a film, .npz arrays, .csv curves, .py Python lines",
    )
    render.add_argument("--model", action="append", metavar="PATH_OR_ID", help="as for app.py; repeatable")
    render.add_argument("--device", default="auto", metavar="DEVICE", help="cpu, cuda, mps (default: the best)")
    render.add_argument("--dtype", default="auto", metavar="DTYPE", help="float32, float16, bfloat16")
    return p


def views_of(recipe: Recipe, backend: Backend) -> Views:
    """Run a recipe; what can be made of it.

    Raises:
        PlaygroundError: in one sentence, when it cannot be run.
    """
    if isinstance(recipe, Comparison) and recipe.field != "image":
        raise RecipeError("This comparison is one in the plane, which only the page draws: open the link there.")
    result: Any = backend.result(recipe)
    if isinstance(recipe, PlaneFlow):
        return FlowViews(result, backend.compute)
    assert isinstance(recipe, TextToImage)

    def on_device(make: Any) -> Any:
        return backend.call(make, recipe.model)

    if isinstance(recipe, Comparison):
        references = {kind: backend.result(one) for kind, one in recipe.references().items()}
        return ComparisonViews(result, measure(result, references), on_device)
    if isinstance(recipe, SDEdit):
        return EditViews(result, on_device, brought=backend.guides.get)
    if isinstance(recipe, PromptToPrompt):
        return PromptViews(result, on_device, shown_tokens(recipe, backend.model(recipe.model)))
    return RunViews(result, on_device)


def render(source: str, output: Path, backend: Backend) -> list[Path]:
    """Run the experiment of a link or a file; returns the files written.

    One picture is written to `output`; of several each has its number in its name. Other kinds are one file.

    Raises:
        PlaygroundError: in one sentence, for a kind of file that there is not, or what cannot be run.
    """
    kind = output.suffix.removeprefix(".").lower()
    if kind not in KINDS:
        raise RecipeError(f"The output's ending must be one of {', '.join('.' + k for k in KINDS)}.")
    recipe, notes, brought = load(source)
    for picture in brought.values():
        backend.guides.put(picture)
    for note in notes:
        print(note, file=sys.stderr)
    views = views_of(recipe, backend)
    many = isinstance(views, RunViews) and kind == "png"
    files = [export(views, kind, i) for i in range(len(views.result.pictures) if many else 1)]  # type: ignore[union-attr]
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
