"""The README's code runs as it stands."""

from __future__ import annotations

import re
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


def test_the_five_lines_make_a_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(BLOCKS[0].replace("steps=20", "steps=2"), {})
    assert (tmp_path / "cat.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("variable", ["sigma", "t"])
def test_the_solver_of_the_readme_has_its_declared_order(monkeypatch, variable):
    space = dict(vars(playground.solvers))
    exec(BLOCKS[1], space)
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


def test_the_guidance_rule_of_the_readme_keeps_the_contrast_of_c():
    space = dict(vars(playground.guidance))
    exec(BLOCKS[2], space)
    c, u = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    rules = [space["Rescaled"](w=7.0, phi=1.0)] * 2
    value, _ = space["Rescaled"].combine(c, u, playground.guidance.parameters(rules, c), {})
    assert torch.allclose(value.std((1, 2, 3)), c.std((1, 2, 3)), rtol=1e-5)
