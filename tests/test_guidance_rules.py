"""The rules beside CFG, against diffusers' guiders and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers.guiders import (
    AdaptiveProjectedGuidance,
    ClassifierFreeGuidance,
    ClassifierFreeZeroStarGuidance,
)
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from truth import Toy, every_schedule, spread

from playground.errors import RecipeError
from playground.fields import Count, Field, Prediction, rows
from playground.guidance import (
    APG,
    CFG,
    MAX_PARTS,
    RULES,
    Autoguidance,
    CFGPlusPlus,
    Composed,
    Guidance,
    Parameter,
    Rescale,
    ZeroStar,
    along,
    guided,
    parameters,
)
from playground.plan import Plan, Row
from playground.plane.mixtures import ExactField, Mixture
from playground.sampling import Control, Evaluated, Stepped, run, sample
from playground.schedules import VP, Linear
from playground.solvers import SOLVERS

B = 4
C, U = torch.randn(2, B, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TWO = [r for r in RULES.values() if r is not Guidance]
TIMES = (1.0, 0.8, 0.55, 0.3, 0.1, 0.0)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def combined(rules, c=C, u=U, state=None):
    state = rules[0].start(c) if state is None else state
    return rules[0].combine(c, u, parameters(rules, c), state)


# The formulas.


@pytest.mark.parametrize("phi", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("w", [-1.0, 0.0, 3.0, 12.0])
def test_rescale_is_that_of_diffusers(w, phi):
    expected = ClassifierFreeGuidance(guidance_scale=w, guidance_rescale=phi).forward(C, U).pred
    torch.testing.assert_close(combined([Rescale(w, phi=phi)] * B)[0], expected)


def test_full_rescale_has_the_contrast_of_c():
    value, _ = combined([Rescale(9.0, phi=1.0)] * B)
    torch.testing.assert_close(value.std((1, 2)), C.std((1, 2)))


@pytest.mark.parametrize("cap", [0.0, 2.0])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("w", [-1.0, 0.0, 3.0, 12.0])
def test_apg_is_that_of_diffusers(w, eta, cap):
    # Theirs starts from c with use_original_formulation, and its scale is then w - 1. A cap of 0 is none there too.
    guider = AdaptiveProjectedGuidance(
        guidance_scale=w - 1,
        adaptive_projected_guidance_rescale=cap,
        eta=eta,
        use_original_formulation=True,
    )
    expected = guider.forward(C, U).pred if w != 1 else C
    torch.testing.assert_close(combined([APG(w, eta=eta, cap=cap)] * B)[0], expected)


@pytest.mark.parametrize("momentum", [-0.5, 0.4])
def test_the_momentum_of_apg_is_that_of_diffusers(momentum):
    guider = AdaptiveProjectedGuidance(
        guidance_scale=4.0, adaptive_projected_guidance_rescale=2.0, eta=0.2, use_original_formulation=True
    )
    guider.momentum_buffer = MomentumBuffer(momentum)  # theirs makes it when it prepares a pipeline's inputs
    rules = [APG(5.0, eta=0.2, cap=2.0, momentum=momentum)] * B
    state = None
    for step in range(4):
        c, u = C + 0.3 * step, U * (1 + step)
        value, state = combined(rules, c, u, state)
        torch.testing.assert_close(value, guider.forward(c, u).pred)


@pytest.mark.parametrize("w", [-1.0, 0.0, 2.0, 15.0])
def test_apg_that_keeps_everything_is_cfg(w):
    value, _ = combined([APG(w, eta=1.0)] * B)
    torch.testing.assert_close(value, combined([CFG(w)] * B)[0], rtol=0, atol=1e-12)


def test_apg_moves_across_c_alone():
    value, _ = combined([APG(6.0, eta=0.0)] * B)
    torch.testing.assert_close(along(value - C, C), torch.zeros_like(C), rtol=0, atol=1e-12)


def test_the_cap_of_apg_bounds_the_move():
    w, cap = 6.0, 0.5
    value, _ = combined([APG(w, eta=1.0, cap=cap)] * B)
    torch.testing.assert_close((value - C).flatten(1).norm(dim=1), torch.full((B,), (w - 1) * cap).double())


def test_along_is_a_projection_and_survives_zero():
    part = along(U, C)
    torch.testing.assert_close(along(part, C), part)
    torch.testing.assert_close(((U - part) * C).sum((1, 2)), torch.zeros(B).double(), rtol=0, atol=1e-12)
    assert torch.equal(along(U, torch.zeros_like(C)), torch.zeros_like(C))


@pytest.mark.parametrize("w", [-1.0, 0.0, 3.0, 12.0])
def test_zero_star_is_that_of_diffusers(w):
    # Theirs works on whatever the model outputs, which is the velocity for the models it was made for.
    guider = ClassifierFreeZeroStarGuidance(guidance_scale=w, zero_init_steps=0)
    guider.set_state(step=3, num_inference_steps=10, timestep=torch.tensor(0.0))
    expected = guider.forward(C, U).pred
    torch.testing.assert_close(combined([ZeroStar(w)] * B)[0], expected, **CLOSE)


def test_zero_star_stands_still_as_diffusers_does():
    guider = ClassifierFreeZeroStarGuidance(guidance_scale=5.0, zero_init_steps=2)
    for step in range(4):
        guider.set_state(step=step, num_inference_steps=4, timestep=torch.tensor(0.0))
        still = bool((guider.forward(C, U).pred == 0).all())
        assert still == (ZeroStar(5.0, still=2).branches(0.9 - 0.2 * step, step) == ())
    # Unlike theirs, no guidance is no guidance: w = 1, and outside the window.
    assert ZeroStar(1.0, still=2).branches(0.9, 0) == ("cond",)
    assert ZeroStar(5.0, high=0.8, still=2).branches(0.9, 0) == ("cond",)


def test_zero_star_ignores_the_size_of_u():
    torch.testing.assert_close(combined([ZeroStar(5.0)] * B, C, 7 * U)[0], combined([ZeroStar(5.0)] * B)[0])


# No guidance, windows and rows: the same for every rule.


@pytest.mark.parametrize("rule", TWO)
def test_at_one_nothing_but_c_is_computed(rule):
    assert rule(1.0).branches(0.5, 0) == ("cond",)
    row = Row(3, TIMES, "ddim", rule(1.0), 0.5, None)
    field = Toy()
    assert torch.equal(run(Plan((row,)), field).x, run(Plan((Row(3, TIMES, "ddim", Guidance(), 0.5),)), Toy()).x)
    assert field.count == Count(5, 5)


@pytest.mark.parametrize("rule", [r for r in TWO if r is not CFGPlusPlus])
def test_the_formula_at_one_is_c(rule):
    torch.testing.assert_close(combined([rule(1.0)] * B)[0], C, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", TWO)
def test_every_rule_has_a_window(rule):
    made = rule(5.0, low=0.3, high=0.7)
    assert made.branches(0.29, 9) == made.branches(0.71, 9) == ("cond",)
    assert made.branches(0.3, 99) == made.branches(0.7, 99) == ("uncond", "cond")


class SinglePrecisionOnly(TorchDispatchMode):
    """Refuses float64 anywhere but on the CPU, as Apple's MPS does."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "cpu" and tensor.dtype == torch.float64:
                raise TypeError(f"{func} made a float64 tensor on {tensor.device}")
        return out


@pytest.mark.parametrize("rule", TWO)
def test_no_rule_brings_double_precision_to_the_device(rule):
    c = C.float().to("meta")
    with SinglePrecisionOnly():
        with pytest.raises(TypeError, match="made a float64 tensor"):
            torch.zeros(2, dtype=torch.float64).to("meta")
        out, _ = combined([rule(3.0)] * B, c, c.clone())
        assert rows(torch.zeros(B, dtype=torch.float64), c).dtype == torch.float32
    assert out.shape == c.shape and out.dtype == torch.float32


@pytest.mark.parametrize("rule", TWO)
def test_rows_of_a_batch_are_their_single_runs(rule):
    ranges = [{n: p.low + share * (p.high - p.low) for n, p in rule.parameters().items()} for share in (0.2, 0.6)]
    kinds = [
        rule(w, low, high, **own)
        for (w, low, high), own in zip(
            [(4.0, 0.0, 1.0), (2.0, 0.2, 0.9), (1.0, 0.0, 1.0), (-1.0, 0.5, 1.0)], ranges * 2, strict=True
        )
    ]
    plan = Plan(tuple(Row(i, TIMES, "ddim", k, 0.5, -0.2) for i, k in enumerate(kinds)))
    weak = Toy(kind="x0")
    together = run(plan, Toy(), weak=weak)
    assert together.count == plan.cost(VP())
    for i, row in enumerate(plan.rows):
        torch.testing.assert_close(together.x[i : i + 1], run(Plan((row,)), Toy(), weak=Toy(kind="x0")).x, **CLOSE)


@pytest.mark.parametrize("rule", TWO)
@pytest.mark.parametrize("after", [1, 3])
def test_a_run_goes_on_from_any_step(rule, after):
    own = {"momentum": -0.5, "eta": 0.3} if rule is APG else {}
    rows_ = tuple(Row(i, TIMES, "ddim", rule(3.0 + i, low=0.2 * i, **own), 0.5, -0.2) for i in range(2))
    if rule is ZeroStar:
        after += 1
    weak = Toy(kind="x0")
    events = list(sample(Plan(rows_), Toy(), weak=weak))
    snapshot = [e for e in events if isinstance(e, Stepped)][after - 1].snapshot
    again = run(Plan(rows_), Toy(), weak=weak, start=snapshot)
    assert torch.equal(again.x, events[-1].x)
    if rule is APG:
        assert bool((snapshot.guidance["d"][0] != 0).any())


@pytest.mark.parametrize("rule", [APG, ZeroStar, Rescale])
def test_points_of_a_cloud_are_guided_one_by_one(rule):
    cloud = torch.randn(2, B, 6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    path, t = VP(), torch.full((B,), 0.4, dtype=torch.float64)
    answers = {n: Prediction("x0", v, cloud[0], t, path) for n, v in zip(("cond", "uncond"), cloud, strict=True)}
    rules = [rule(float(w)) for w in (2, 3, 4, 5)]
    value, _ = guided(rules, answers, rules[0].start(cloud[0]), cloud=True)
    for i in range(6):
        point = {n: Prediction("x0", p.value[:, i], cloud[0][:, i], t, path) for n, p in answers.items()}
        expected, _ = guided(rules, point, rules[0].start(cloud[0][:, i]))
        torch.testing.assert_close(value.x0[:, i], expected.x0)


# CFG-Zero* in a run.


@pytest.mark.parametrize("solver", ["ddim", "euler", "dpmpp_2m"])
def test_still_steps_keep_x_and_ask_nothing_on_the_straight_path(solver):
    field = ExactField(spread(), Linear())
    row = Row(3, TIMES, solver, ZeroStar(3.0, still=2), 0, None, "t" if SOLVERS[solver].variables else None)
    x = [e.x for e in sample(Plan((row,)), field, dtype=torch.float64) if isinstance(e, Stepped)]
    torch.testing.assert_close(x[1], x[0], rtol=0, atol=1e-12)
    assert bool((x[2] != x[1]).any())
    assert field.count == Plan((row,)).cost(Linear()) == Count(3, 6)


@pytest.mark.parametrize("path", every_schedule(), ids=lambda path: path.name)
def test_a_still_step_is_a_velocity_of_zero_on_every_path(path):
    field = ExactField(spread(), path, "x0")
    times = tuple(torch.linspace(0.9 * path.t_max, 0.2 * path.t_max, 4).tolist())
    plan = Plan((Row(3, times, "ddim", ZeroStar(3.0, still=1), 0),))
    first = next(e for e in sample(plan, field, dtype=torch.float64) if isinstance(e, Evaluated))
    (answer,) = first.answers
    assert answer.branches == {}
    # Zero as seen through x0 and eps, too.
    again = answer.guided.replaced("x0", answer.guided.x0).velocity
    torch.testing.assert_close(again, torch.zeros_like(again), rtol=0, atol=1e-9)


def test_rows_that_stand_still_and_rows_that_move_share_a_lane():
    plan = Plan(tuple(Row(i, TIMES, "ddim", ZeroStar(3.0, still=i), 0.5) for i in range(3)))
    assert len(plan.lanes(VP())) == 1
    field = Toy()
    x = run(plan, field).x
    assert field.count == plan.cost(VP()) == Count(5, 10 + 8 + 6)
    for i, row in enumerate(plan.rows):
        torch.testing.assert_close(x[i : i + 1], run(Plan((row,)), Toy()).x, **CLOSE)


# CFG++ and its solvers.


@pytest.mark.parametrize("path", [VP(), Linear()], ids=lambda path: path.name)
def test_cfg_plus_plus_is_cfg_of_another_scale_in_every_ddim_step(path):
    field, scale = ExactField(spread(), path, "v"), 0.6
    for t, s in ((0.95, 0.7), (0.5, 0.4), (0.3, 0.0)):
        h = float(path.half_log_snr(s) - path.half_log_snr(t))
        w = CFGPlusPlus.equivalent(scale, h)
        assert w == pytest.approx(scale / (1 - math.exp(-h)))
        row = Row(3, (t, s), "ddim", CFGPlusPlus(4.0, scale=scale), 0)
        like = Row(3, (t, s), "ddim", CFG(w), 0)
        x, expected = (run(Plan((r,)), field, dtype=torch.float64).x for r in (row, like))
        torch.testing.assert_close(x, expected, rtol=1e-9, atol=1e-9)


def test_cfg_plus_plus_by_hand():
    path, field = VP(), Toy()
    seen: list[Evaluated] = []
    states = []
    for event in sample(Plan((Row(3, TIMES, "ddim", CFGPlusPlus(4.0, low=0.2, scale=0.8), 0.5, -0.2),)), field):
        if isinstance(event, Evaluated):
            seen.append(event)
        elif isinstance(event, Stepped):
            states.append(event.x)
    for i, event in enumerate(seen):
        t, s = TIMES[i], torch.tensor([TIMES[i + 1]], dtype=torch.float64)
        (answer,) = event.answers
        c = answer.branches["cond"][1]
        if t < 0.2:
            assert "uncond" not in answer.branches
            expected = rows(path.alpha(s), c.x) * c.x0 + rows(path.sigma(s), c.x) * c.eps
        else:
            u = answer.branches["uncond"][1]
            x0 = u.x0 + 0.8 * (c.x0 - u.x0)
            expected = rows(path.alpha(s), c.x) * x0 + rows(path.sigma(s), c.x) * u.eps
        torch.testing.assert_close(states[i], expected, **CLOSE)


def test_with_lambda_zero_cfg_plus_plus_is_unconditional_ddim():
    row = Row(3, TIMES, "ddim", CFGPlusPlus(4.0, scale=0.0), 0.5, -0.2)
    u = Row(3, TIMES, "ddim", CFG(0.0), 0.5, -0.2)
    torch.testing.assert_close(run(Plan((row,)), Toy()).x, run(Plan((u,)), Toy()).x, **CLOSE)


@pytest.mark.parametrize("solver", SOLVERS)
def test_cfg_plus_plus_is_refused_where_no_noise_is_put_back(solver):
    row = Row(3, TIMES, solver, CFGPlusPlus(4.0), 0.5)
    if solver in ("ddim", "ancestral"):
        assert bool(torch.isfinite(run(Plan((row,)), Toy()).x).all())
        return
    with pytest.raises(RecipeError) as caught:
        Plan((row,))
    assert str(caught.value) == (
        f"CFG++ needs a solver that puts noise back, and {SOLVERS[solver].title} does not: take DDIM or "
        "DDPM (ancestral), or another rule."
    )


def test_the_noise_put_back_survives_a_control():
    class Same(Control):
        def after_query(self, plan_rows, step, prediction):
            return prediction.replaced("x0", prediction.x0)

    plan = Plan((Row(3, TIMES, "ddim", CFGPlusPlus(4.0), 0.5),))
    torch.testing.assert_close(run(plan, Toy(), [Same()]).x, run(plan, Toy()).x, **CLOSE)


# Autoguidance and its weak field.


class Blurred(ExactField):
    """A weak model of the same classes: every component a little wider than it is."""

    def __init__(self, mixture: Mixture, schedule, kind):
        covariances = mixture.axes @ torch.diag_embed(mixture.variances + 0.2) @ mixture.axes.mT
        super().__init__(
            Mixture(mixture.means, covariances, mixture.weights, mixture.labels.tolist()), schedule, kind
        )


@pytest.mark.parametrize("w", [0.0, 2.0, 4.0])
@pytest.mark.parametrize("kind", ["x0", "velocity"])
def test_autoguidance_puts_the_weak_field_in_the_place_of_u(w, kind):
    path = VP()
    strong, weak = ExactField(spread(), path, "x0"), Blurred(spread(), path, kind)
    row = Row(5, TIMES[:-1], "ddim", Autoguidance(w), 1, 0)
    event = next(e for e in sample(Plan((row,)), strong, weak=weak, dtype=torch.float64))
    x = event.answers[0].guided.x
    t = torch.tensor([TIMES[0]], dtype=torch.float64)
    c, bad = (
        Prediction(f.kind, f.evaluate(x, t, {"label": torch.tensor([1])}), x, t, path) for f in (strong, weak)
    )
    torch.testing.assert_close(event.answers[0].guided.eps, bad.eps + w * (c.eps - bad.eps))


def test_autoguidance_counts_the_calls_of_both_fields():
    strong, weak = Toy(), Toy()
    plan = Plan(tuple(Row(i, TIMES, "ddim", Autoguidance(float(i)), 0.5) for i in range(3)))  # w = 0, 1, 2
    done = run(plan, strong, weak=weak)
    assert done.count == plan.cost(VP()) == Count(10, 4 * 5)
    assert strong.count == Count(5, 10)
    assert weak.count == Count(5, 10)


def test_autoguidance_by_itself_changes_nothing():
    row = Row(3, TIMES, "ddim", Autoguidance(7.0), 0.5)
    plain = Row(3, TIMES, "ddim", Guidance(), 0.5)
    torch.testing.assert_close(run(Plan((row,)), Toy(), weak=Toy()).x, run(Plan((plain,)), Toy()).x, **CLOSE)


def test_autoguidance_without_a_weak_field_is_refused():
    with pytest.raises(RecipeError) as caught:
        run(Plan((Row(3, TIMES, "ddim", Autoguidance(2.0), 0.5),)), Toy())
    assert str(caught.value) == "Autoguidance needs a weak model beside the one that is guided."
    run(Plan((Row(3, TIMES, "ddim", Autoguidance(1.0), 0.5),)), Toy())  # nobody asks it


@pytest.mark.parametrize("other", ["shape", "path"])
def test_a_weak_field_of_another_layout_is_refused(other):
    weak = Toy(Linear()) if other == "path" else Toy()
    weak.shape = (4,) if other == "shape" else weak.shape
    with pytest.raises(RecipeError) as caught:
        run(Plan((Row(3, TIMES, "ddim", Autoguidance(2.0), 0.5),)), Toy(), weak=weak)
    assert str(caught.value) == "The weak model has other latents or noise levels than the one that is guided."


# Composed conditions.


def by_parts(field: Field, x, t, parts, uncond):
    def ask(v):
        return field.evaluate(x, t, field.encode([v]))

    u = ask(uncond)
    return u, u + sum(a * (ask(v) - u) for v, a in parts)


@pytest.mark.parametrize("w", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("parts", [((0.5, 1.0), (0.3, 0.8)), ((0.5, 1.0), (-0.4, -0.6)), ((0.5, 0.3), (0.1, 0.7))])
def test_composed_conditions_are_the_sum_of_liu(parts, w):
    plan = Plan((Row(3, TIMES, "ddim", CFG(w), Composed(parts), -0.2),))
    field = Toy()
    x, t = None, torch.tensor([1.0], dtype=torch.float64)
    event = next(iter(sample(plan, field)))
    x = event.answers[0].guided.x
    u, c = by_parts(Toy(), x, t, parts, -0.2)
    # The paper's own form: u + sum of w a_i (c_i - u).
    _, expected = by_parts(Toy(), x, t, [(v, w * a) for v, a in parts], -0.2)
    torch.testing.assert_close(expected, u + w * (c - u))
    torch.testing.assert_close(event.answers[0].guided.v, expected, rtol=0, atol=2e-6)
    # u is asked once, and not at all where its weight is 0.
    lone = abs(sum(a for _, a in parts) - 1) < 1e-9
    forwards = {0.0: 1, 1.0: 2 if lone else 3, 3.0: 3}[w]
    assert field.count == Count(1, forwards)
    assert plan.cost(VP()) == Count(5, 5 * forwards)


@pytest.mark.parametrize("rule", TWO)
def test_every_rule_is_given_the_composed_c(rule):
    parts = ((0.5, 1.0), (0.3, 0.8))
    kinds = [rule(3.0), rule(2.0, low=0.5)]
    composed = Plan(tuple(Row(3, TIMES, "ddim", k, Composed(parts), -0.2) for k in kinds))
    # In the toy field the condition is added to the answer, so a sum of conditions is one of their number.
    plain = Plan(tuple(Row(3, TIMES, "ddim", k, -0.2 + 0.7 + 0.8 * 0.5, -0.2) for k in kinds))
    x, expected = (run(p, Toy(), weak=Toy(kind="x0")) for p in (composed, plain))
    torch.testing.assert_close(x.x, expected.x, **CLOSE)
    assert x.count == composed.cost(VP())


def test_composed_and_plain_rows_share_a_lane():
    conditions = [0.5, Composed(((0.5, 1.0), (0.3, 1.0))), Composed(((0.5, 2.0), (0.3, -1.0), (0.1, 0.5)))]
    plan = Plan(tuple(Row(i, TIMES, "heun", CFG(3.0), c, -0.2) for i, c in enumerate(conditions)))
    assert len(plan.lanes(VP())) == 1
    done = run(plan, Toy())
    assert done.count == plan.cost(VP()) == Count(9, 9 * (2 + 3 + 4))
    for i, row in enumerate(plan.rows):
        torch.testing.assert_close(done.x[i : i + 1], run(Plan((row,)), Toy()).x, **CLOSE)


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a cat AND a beach :0.8", (("a cat", 1.0), ("a beach", 0.8))),
        ("a cat:2 AND NOT a beach", (("a cat", 2.0), ("a beach", -1.0))),
        ("NOT snow :0.5 AND a cat", (("snow", -0.5), ("a cat", 1.0))),
        ("a cat AND a beach : -0.5", (("a cat", 1.0), ("a beach", -0.5))),
        ("a cat AND 10:30 :.5", (("a cat", 1.0), ("10:30", 0.5))),
        ("a\nAND\nb", (("a", 1.0), ("b", 1.0))),
        ("a :2 AND ", (("a", 2.0),)),
    ],
)
def test_a_prompt_is_read_in_parts(prompt, parts):
    assert Composed.read(prompt) == Composed(parts)


@pytest.mark.parametrize("prompt", ["", "a cat and a dog", "a cat :0.8", "NOT a cat", "SAND ANDY", "a,AND b"])
def test_a_prompt_without_and_is_itself(prompt):
    assert Composed.read(prompt) == prompt


@pytest.mark.parametrize(("prompt", "text"), [("a cat AND ", "a cat"), ("AND", ""), (" AND a AND AND ", "a")])
def test_empty_parts_are_left_out(prompt, text):
    assert Composed.read(prompt) == text


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a AND b :99", "The weight of a part of the prompt must lie between -10 and 10."),
        (" AND ".join("abcdef"), f"The prompt has too many parts joined by AND: at most {MAX_PARTS} are taken."),
    ],
)
def test_a_prompt_that_cannot_be_composed_is_refused(prompt, said):
    with pytest.raises(RecipeError) as caught:
        Composed.read(prompt)
    assert str(caught.value) == said


# What the rules declare.


@pytest.mark.parametrize("rule", RULES.values())
def test_parameters_say_what_they_are_and_may_be(rule):
    for name, p in rule.parameters().items():
        assert isinstance(p, Parameter)
        assert p.low <= p.default <= p.high
        assert p.title and len(p.help) > 10
        assert getattr(rule(), name) == p.default
        assert (p.high - p.low) / p.step == pytest.approx(round((p.high - p.low) / p.step))


def test_every_rule_says_what_it_does():
    assert all(rule.about.endswith(".") for rule in RULES.values())
