from dataclasses import dataclass

import pytest
import torch
from diffusers.guiders import ClassifierFreeGuidance
from truth import Toy

from playground.fields import Prediction
from playground.guidance import APG, CFG, RULES, Guidance, guided, parameters
from playground.schedules import VP

B = 4
C, U = torch.randn(2, B, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def answers(kind="eps", path=None):
    x, t = torch.ones_like(C), torch.linspace(0.2, 0.8, B, dtype=torch.float64)
    return {name: Prediction(kind, value, x, t, path or VP()) for name, value in (("cond", C), ("uncond", U))}


@pytest.mark.parametrize("w", [-1.0, 0.0, 0.5, 1.0, 4.0, 15.0])
def test_cfg_is_that_of_diffusers(w):
    expected = ClassifierFreeGuidance(guidance_scale=w).forward(C, U).pred if w != 1 else C
    result, _ = guided([CFG(w)] * B, answers(), {})
    torch.testing.assert_close(result.eps, expected)


def test_cfg_in_the_other_convention():
    s = 3.0
    result, _ = guided([CFG(w=s + 1)] * B, answers(), {})
    torch.testing.assert_close(result.eps, (1 + s) * C - s * U)


def test_every_row_has_its_own_scale():
    scales = [0.0, 1.0, 4.0, -1.0]
    result, _ = guided([CFG(w) for w in scales], answers(), {})
    for i, w in enumerate(scales):
        torch.testing.assert_close(result.eps[i], U[i] + w * (C[i] - U[i]))


@pytest.mark.parametrize("kind", ["x0", "eps", "v", "velocity"])
def test_cfg_means_the_same_in_every_kind(kind):
    a = answers("eps")
    expected, _ = guided([CFG(4.0)] * B, a, {})
    other = {name: p.replaced(kind, p.read(kind)) for name, p in a.items()}
    result, _ = guided([CFG(4.0)] * B, other, {})
    torch.testing.assert_close(result.eps, expected.eps)
    torch.testing.assert_close(result.x0, expected.x0)


def test_cfg_acts_on_the_raw_output():
    result, _ = guided([CFG(4.0)] * B, answers("v"), {})
    assert result.kind == "v"


@pytest.mark.parametrize(
    ("w", "expected"),
    [(4.0, ("uncond", "cond")), (-1.0, ("uncond", "cond")), (1.0, ("cond",)), (0.0, ("uncond",))],
)
def test_cfg_asks_only_for_the_branches_it_needs(w, expected):
    assert CFG(w).branches(0.5, 0) == expected


@pytest.mark.parametrize("rule", [CFG(4.0), CFG(1.0), CFG(0.0), Guidance(4.0)])
def test_these_rules_are_the_same_in_every_step(rule):
    assert len({rule.branches(0.5, step) for step in range(5)}) == 1


@pytest.mark.parametrize("rule", [r for r in RULES.values() if r is not APG])
def test_rules_without_memory_start_with_none_and_give_none_back(rule):
    assert rule(4.0).start(C) == {}
    assert guided([rule(4.0)] * B, answers(), {})[1] == {}


@dataclass(frozen=True)
class Sums(Guidance):
    """Adds up all it has seen of D."""

    def start(self, x):
        return {"sum": torch.zeros_like(x)}

    @staticmethod
    def combine(c, u, p, state):
        total = state["sum"] + c - u
        return u + p.w * total, {"sum": total}


def test_a_rule_is_handed_what_it_gave_back():
    rules, state = [Sums(2.0)] * B, Sums(2.0).start(C)
    for n in (1, 2, 3):
        result, state = guided(rules, answers(), state)
        torch.testing.assert_close(result.eps, U + 2 * n * (C - U))
        torch.testing.assert_close(state["sum"], n * (C - U))


@pytest.mark.parametrize("w", [-1.0, 0.0, 1.0, 4.0])
def test_outside_its_window_cfg_is_the_conditional_prediction(w):
    rule = CFG(w, low=0.3, high=0.7)
    assert rule.branches(0.29, 0) == ("cond",)
    assert rule.branches(0.71, 0) == ("cond",)


def test_both_ends_of_a_window_are_inside():
    rule = CFG(4.0, low=0.3, high=0.7)
    assert rule.inside(0.3)
    assert rule.inside(0.7)
    assert not rule.inside(0.3 - 1e-6)
    assert not rule.inside(0.7 + 1e-6)


def test_no_rule_is_the_conditional_prediction_whatever_w():
    for w in (0.0, 1.0, 7.0):
        assert Guidance(w).branches(0.5, 0) == ("cond",)


@dataclass(frozen=True)
class InData(Guidance):
    """A rule written in x0 with a parameter of its own."""

    share: float = 0.5
    space = "x0"

    def branches(self, t, step):
        return ("uncond", "cond")

    @staticmethod
    def combine(c, u, p, state):
        return p.share * c + (1 - p.share) * u, state


def test_a_rule_is_given_the_predictions_in_its_space():
    a = answers("eps")
    result, _ = guided([InData(share=0.25)] * B, a, {})
    assert result.kind == "x0"
    torch.testing.assert_close(result.x0, 0.25 * a["cond"].x0 + 0.75 * a["uncond"].x0)


def test_parameters_are_per_row_and_broadcast_in_the_precision_of_x():
    p = parameters([InData(w=float(i), share=i / 4) for i in range(B)], C.float())
    assert p.share.shape == (B, 1, 1)
    assert p.share.dtype == torch.float32
    assert p.share.flatten().tolist() == [0, 0.25, 0.5, 0.75]
    assert p.w.flatten().tolist() == [0, 1, 2, 3]


def test_rules_say_their_title_and_formula():
    assert all(rule.title and rule.formula for rule in RULES.values())
    assert len({rule.formula for rule in RULES.values()}) == len(RULES)


def test_guidance_can_be_differentiated_through():
    field, x = Toy(), torch.ones(1, 3, requires_grad=True)
    t = torch.tensor([0.5], dtype=torch.float64)
    both = {name: field.predict(x, t, field.encode([v])) for name, v in (("cond", 1.0), ("uncond", 0.0))}
    guided([CFG(3.0)], both, {})[0].x0.sum().backward()
    assert bool((x.grad != 0).all())
