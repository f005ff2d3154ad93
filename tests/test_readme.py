"""The README's code runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from truth import fitted_order, lopsided, transported

import playground.guidance
import playground.solvers
from playground.guidance import Guidance
from playground.noise import start_noise
from playground.plan import Plan, Row
from playground.plane.mixtures import ExactField
from playground.sampling import run
from playground.schedules import VP

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)


def block(text: str) -> str:
    """The one block with this text in it."""
    (found,) = (b for b in BLOCKS if text in b)
    return found


def test_the_five_lines_make_a_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(block("TextToImage(").replace("steps=20", "steps=2"), {})
    assert (tmp_path / "cat.png").read_bytes().startswith(b"\x89PNG")


def test_the_lines_of_prompt_to_prompt_make_two_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    exec(block("PromptToPrompt(").replace("cross=0.8", "cross=0.8, steps=3"), space)
    assert (tmp_path / "dog.png").read_bytes().startswith(b"\x89PNG")
    assert len(space["result"].pictures) == 2


@pytest.mark.slow
def test_the_lines_of_the_comparison_print_an_error_for_every_cell(capsys):
    exec(block("Comparison("), {})
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 6 and all(re.fullmatch(r"[a-z0-9_]+ \d+ [\d.]+% ± [\d.]+%", line) for line in told)


def test_the_lines_of_sdedit_make_a_picture_of_strokes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    exec(block("SDEdit(").replace("t0=0.5", "t0=0.5, steps=4"), space)
    assert (tmp_path / "castle.png").read_bytes().startswith(b"\x89PNG")
    assert space["result"].count.evaluations == 2 and float(space["result"].distances) > 0


def test_the_lines_about_the_plane_give_arrays_of_these_shapes():
    space = {}
    exec(block("playground.plane import"), space)
    assert space["particles"].shape == (64, 2000, 2) and space["result"].states.shape == (17, 200, 2)
    assert space["p_t"].shape == (64, 96, 96) and space["velocity"].shape == (64, 24, 24, 2)
    torch.testing.assert_close(space["log_p"].ode, space["log_p"].closed, rtol=0, atol=1e-4)


@pytest.mark.parametrize("variable", ["sigma", "t"])
def test_the_solver_of_the_readme_has_its_declared_order(monkeypatch, variable):
    space = dict(vars(playground.solvers))
    exec(block("class Ralston"), space)
    monkeypatch.setitem(playground.solvers.SOLVERS, "ralston", space["Ralston"])
    path, seeds, steps = VP(), range(64), (40, 80, 160)
    field = ExactField(lopsided(), path, "x0")
    start, end = path.t_at_ratio(torch.tensor([4.0, 0.3])).tolist()
    noise = torch.stack([start_noise(seed, (1,)) for seed in seeds]).double()
    exact = transported(lopsided(), path, noise[:, 0] * path.sigma(start), start, end)

    def error(count: int) -> float:
        times = tuple(torch.linspace(start, end, count + 1, dtype=torch.float64).tolist())
        rows = tuple(Row(seed, times, "ralston", Guidance(), variable=variable) for seed in seeds)
        return float((run(Plan(rows), field, dtype=torch.float64).x[:, 0] - exact).norm())

    order = fitted_order(steps, [error(count) for count in steps])
    assert order == pytest.approx(space["Ralston"].order, abs=0.15)


def test_the_guidance_rule_of_the_readme_is_no_longer_than_it_says():
    space = dict(vars(playground.guidance))
    exec(block("class Shortened"), space)
    kind = space["Shortened"]
    c, u = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    for w, longest in ((9.0, 1.0), (9.0, 2.0), (-1.0, 0.5)):
        rules = [kind(w=w, longest=longest)] * 2
        value, _ = kind.combine(c, u, playground.guidance.parameters(rules, c), {})
        ratio = value.flatten(1).norm(dim=1) / c.flatten(1).norm(dim=1)
        torch.testing.assert_close(ratio, torch.full((2,), longest))
    # Short ones are left as they are, and the rule is off at 1.
    value, _ = kind.combine(c, u, playground.guidance.parameters([kind(w=2.0, longest=99.0)] * 2, c), {})
    torch.testing.assert_close(value, u + 2 * (c - u))
    assert kind(1.0).branches(0.5, 0) == ("cond",)
    assert kind.parameters()["longest"].high == 3.0


def test_a_rule_of_the_readme_becomes_a_setting_of_recipes_by_its_registration_alone():
    program = (
        "import playground.guidance as g\n"
        f"exec({block('class Shortened')!r}, vars(g))\n"
        "g.RULES['shortened'] = g.Shortened\n"
        "import importlib, playground.recipes\n"
        "TextToImage = importlib.reload(playground.recipes).TextToImage\n"  # as if it had been there from the start
        "from playground.schedules import VP\n"
        "recipe, notes = TextToImage.from_query({'rule': 'shortened', 'shortened_longest': '2'})\n"
        "assert notes == [] and recipe.plan(VP()).rows[0].guidance == g.Shortened(4.0, longest=2.0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=README.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
