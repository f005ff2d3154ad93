"""The README's code runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import playground.guidance
import playground.solvers
from playground.grids import karras
from playground.guidance import Guidance
from playground.plan import Plan, Row
from playground.plane.mixtures import ExactField, Mixture
from playground.sampling import run
from playground.schedules import EDM

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
    monkeypatch.setitem(playground.solvers.SOLVERS, "midpoint", space["Midpoint"])
    means = torch.tensor([[1.0, -0.5], [-2.0, 0.7]])
    covariances = torch.stack([torch.eye(2) * 0.3, torch.eye(2)])
    field = ExactField(Mixture(means, covariances, torch.tensor([0.3, 0.7])), EDM(sigma_min=0.05, sigma_max=10))

    def end(steps: int) -> torch.Tensor:
        times = tuple(karras(field.schedule, steps).tolist()[:-1])
        rows = tuple(Row(seed, times, "midpoint", Guidance(), variable=variable) for seed in range(64))
        return run(Plan(rows), field, dtype=torch.float64).x

    exact = end(3000)
    errors = [float((end(n) - exact).norm()) for n in (160, 320)]
    order = torch.log2(torch.tensor(errors[0] / errors[1])).item()
    assert order == pytest.approx(space["Midpoint"].order, abs=0.15)


def test_the_guidance_rule_of_the_readme_keeps_the_contrast_of_c():
    space = dict(vars(playground.guidance))
    exec(BLOCKS[2], space)
    c, u = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    rules = [space["Rescaled"](w=7.0, phi=1.0)] * 2
    value, _ = space["Rescaled"].combine(c, u, playground.guidance.parameters(rules, c), None)
    assert torch.allclose(value.std((1, 2, 3)), c.std((1, 2, 3)), rtol=1e-5)
