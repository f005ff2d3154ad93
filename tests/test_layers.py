import ast
from pathlib import Path

import pytest

import playground

ROOT = Path(playground.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))


def imported(file):
    """Every module name that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield ("." * node.level) + (node.module or "")


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_the_engine_does_not_know_of_a_page(file):
    roots = {name.split(".")[0] for name in imported(file)}
    assert not roots & {"gradio", "gradio_client", "plotly", "components", "app"}


@pytest.mark.parametrize(
    ("below", "above"),
    [
        ("schedules.py", ("fields", "solvers", "guidance", "plan", "sampling", "recipes", "plane", "images")),
        ("fields.py", ("solvers", "guidance", "plan", "sampling", "recipes", "plane", "images")),
        ("solvers.py", ("guidance", "plan", "sampling", "recipes", "plane", "images")),
        ("guidance.py", ("solvers", "plan", "sampling", "recipes", "plane", "images")),
        ("sampling.py", ("recipes", "plane", "images", "backend", "sharing")),
        ("plane", ("images", "backend", "sharing")),
        ("images", ("plane", "backend", "sharing")),
    ],
)
def test_arrows_point_one_way(below, above):
    files = [f for f in MODULES if below in f.relative_to(ROOT).parts]
    assert files
    for file in files:
        known = {name.split(".")[1] for name in imported(file) if name.startswith("playground.")}
        assert not known & set(above), file
