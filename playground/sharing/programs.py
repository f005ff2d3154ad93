"""A recipe as lines of Python that run it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playground.guidance import RULES
from playground.images.comparison import Comparison
from playground.images.examples import EXAMPLES
from playground.images.models import BUNDLED
from playground.images.prompt_to_prompt import PromptToPrompt
from playground.images.sdedit import SDEdit
from playground.plane.recipe import PlaneFlow
from playground.recipes import Recipe, TextToImage


def python_lines(recipe: Recipe) -> str:
    """A program that runs a recipe with the package alone. It leaves `result`, and prints or saves what came of it.

    A guide or a mask that somebody has painted is read from a file that the page saved: no line of text holds it.

    Raises:
        KeyError: for a kind of recipe that has no program.
    """
    return WRITERS[type(recipe)](recipe)


def call(recipe: Recipe) -> str:
    """The recipe as an expression: its class, with the fields that are not at their default."""
    fields = {n: getattr(recipe, n) for n, info in type(recipe).model_fields.items()}
    told = [f"{n}={v!r}" for n, v in fields.items() if v != type(recipe).model_fields[n].default]
    line = f"{type(recipe).__name__}({', '.join(told)})"
    if len(line) <= 90:
        return line
    return f"{type(recipe).__name__}(\n" + "".join(f"    {t},\n" for t in told) + ")"


def _load(name: str) -> str:
    """How a recipe's model is loaded. The page does not tell where it keeps one that is not the bundled one."""
    note = "" if name == BUNDLED else "  # its folder, file or hub id, as it was given to app.py"
    return f"load_model({name!r}){note}"


def _flow(recipe: PlaneFlow) -> str:
    return f"""from playground.plane import PlaneFlow, flow

recipe = {call(recipe)}
result = flow(recipe)
print(result.frames.shape, result.count)
"""


def _text_to_image(recipe: TextToImage) -> str:
    weak = bool(RULES[recipe.rule].weak)
    more = f"weak = {_load(recipe.weak_model)}\n" if weak else ""
    return f"""from playground import TextToImage, generate, load_model

model = {_load(recipe.model)}
{more}recipe = {call(recipe)}
result = generate(recipe, model{", weak=weak" if weak else ""})
for i, image in enumerate(result.images):
    image.save(f"picture-{{i}}.png")
print(result.count)
"""


def _sdedit(recipe: SDEdit) -> str:
    weak = bool(RULES[recipe.rule].weak)
    brought = [name for name in (recipe.guide, recipe.mask) if name and name not in EXAMPLES]
    lines = ["from playground import load_model"]
    if recipe.guide in EXAMPLES:
        lines.append("from playground.images.examples import EXAMPLES")
    lines.append("from playground.images.sdedit import SDEdit, edit")
    if brought:
        lines.append("from playground.sharing.records import load")
    lines += ["", f"model = {_load(recipe.model)}"]
    if weak:
        lines.append(f"weak = {_load(recipe.weak_model)}")
    lines.append(f"recipe = {call(recipe)}")
    if brought:
        lines.append(
            '_, _, brought = load("sdedit.png")  # this run\'s PNG or HTML file: what was painted is in it'
        )
    if recipe.guide in EXAMPLES:
        lines.append(f"guide = EXAMPLES[{recipe.guide!r}].picture(model.picture_size)")
    else:
        lines.append("guide = brought[recipe.guide]")
    mask = ", brought[recipe.mask]" if recipe.mask else ""
    lines.append(f"result = edit(recipe, model, guide{mask}{', weak=weak' if weak else ''})")
    lines += ["for i, image in enumerate(result.images):", '    image.save(f"picture-{i}.png")']
    lines.append("print(result.count, result.distances)")
    return "\n".join(lines) + "\n"


def _prompt_to_prompt(recipe: PromptToPrompt) -> str:
    return f"""from playground import load_model
from playground.images.prompt_to_prompt import PromptToPrompt, edit_prompt

model = {_load(recipe.model)}
recipe = {call(recipe)}
result = edit_prompt(recipe, model)
for i, image in enumerate(result.images):
    image.save(f"picture-{{i}}.png")
print(result.count)
"""


def _comparison(recipe: Comparison) -> str:
    return f"""from playground import load_model
from playground.images.comparison import Comparison, compare, converge, measure

model = {_load(recipe.model)}
recipe = {call(recipe)}
result = compare(recipe, model)
references = {{kind: converge(reference, model) for kind, reference in recipe.references().items()}}
table = measure(result, references)
for row in table:
    print(row.cell.solver, row.cell.evaluations, f"{{row.error:.2%}}")
"""


WRITERS: dict[type[Recipe], Callable[[Any], str]] = {
    TextToImage: _text_to_image,
    SDEdit: _sdedit,
    PromptToPrompt: _prompt_to_prompt,
    Comparison: _comparison,
    PlaneFlow: _flow,
}
