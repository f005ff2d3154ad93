from dataclasses import dataclass, replace

import pytest
import torch
from truth import OURS, Toy, integrate

from playground.batches import Batches
from playground.errors import NonFiniteError, OutOfMemory
from playground.fields import Count, Prediction
from playground.guidance import CFG, Guidance
from playground.noise import step_noise
from playground.plan import Plan, Row
from playground.plane.mixtures import ExactField, Mixture
from playground.sampling import Control, Evaluated, Finished, Stepped, run, sample
from playground.schedules import EDM, VP, Linear
from playground.solvers import SOLVERS, Query, Solver

TIMES = (1.0, 0.8, 0.55, 0.3, 0.1, 0.0)
STEPS = len(TIMES) - 1
CLOSE = {"rtol": 0, "atol": 2e-6}


def row(
    w=4.0, seed=3, times=TIMES, solver="ddim", rule=CFG, cond=0.5, uncond=None, low=0.0, high=1.0, variable=None
):
    return Row(seed, times, solver, rule(w=w, low=low, high=high), cond, uncond, variable)


def start(seed, schedule, t, shape=(3,)):
    torch.manual_seed(seed)
    return torch.randn(shape)[None] * float(schedule.sigma(t))


def by_hand(r, field):
    """One row, without the driver: two calls and u + w (c - u)."""
    path = field.schedule

    def ask(x, t):
        def call(shift):
            return field.evaluate(x, t, field.encode([shift]))

        c = call(r.cond)
        if isinstance(r.guidance, CFG) and r.guidance.low - 1e-9 <= float(t) <= r.guidance.high + 1e-9:
            u = call(r.uncond)
            c = u + r.guidance.w * (c - u)
        return Prediction(field.kind, c, x, t, path)

    def noise(step, draw):
        return step_noise(r.seed, step, draw, (3,))[None]

    return integrate(r.make_solver(path), ask, start(r.seed, path, r.times[0]), r.times, noise)


@pytest.mark.parametrize("w", [-1.0, 0.0, 1.0, 4.0])
@pytest.mark.parametrize("solver", OURS)
@pytest.mark.parametrize("path", [VP(), EDM()], ids=lambda path: path.name)
def test_a_run_is_what_one_computes_by_hand(path, solver, w):
    r = row(w, solver=solver)
    torch.testing.assert_close(run(Plan((r,)), Toy(path)).x, by_hand(r, Toy(path)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("solver", OURS)
def test_a_run_with_a_window_is_what_one_computes_by_hand(solver):
    r = row(solver=solver, low=0.3, high=0.8)
    torch.testing.assert_close(run(Plan((r,)), Toy()).x, by_hand(r, Toy()), **CLOSE)


def test_no_rule_ignores_the_scale():
    r = row(7.0, rule=Guidance)
    torch.testing.assert_close(run(Plan((r,)), Toy()).x, by_hand(row(1.0), Toy()), **CLOSE)


MIXED = (
    row(0.0),
    row(1.0, seed=4),
    row(4.0, seed=5, cond=-0.2, uncond=0.3),
    row(4.0, solver="heun"),
    row(-1.0, solver="dpmpp_2m", times=(0.7, 0.4, 0.2, 0.0)),
    row(2.0, times=(0.6, 0.5, 0.4, 0.3, 0.2, 0.0)),
    row(3.0, low=0.2, high=0.6, seed=8),
    row(3.0, rule=Guidance),
    row(4.0, solver="heun", times=(0.9, 0.5, 0.05)),
    row(4.0, solver="euler", variable="t"),
)


def test_rows_of_one_plan_are_their_own_single_runs():
    together = run(Plan(MIXED), Toy()).x
    for i, r in enumerate(MIXED):
        torch.testing.assert_close(together[i : i + 1], by_hand(r, Toy()), **CLOSE)


def test_order_of_rows_does_not_matter():
    forward, backward = run(Plan(MIXED), Toy()).x, run(Plan(MIXED[::-1]), Toy()).x
    torch.testing.assert_close(backward.flip(0), forward, **CLOSE)


@pytest.mark.parametrize("limit", [None, 1, 2, 3])
def test_one_seed_is_one_picture_in_any_batch_layout(limit):
    rows = tuple(row(seed=s) for s in range(5))
    field = Toy()
    field.batches.limit = limit
    together = run(Plan(rows), field).x
    for i, r in enumerate(rows):
        torch.testing.assert_close(together[i : i + 1], run(Plan((r,)), Toy()).x, **CLOSE)


@pytest.mark.parametrize("times", [TIMES, (0.4, 0.2, 0.0)])
def test_sampling_starts_from_torchs_noise_at_the_first_times_level(times):
    field = Toy()
    run(Plan((row(1.0, seed=11, times=times),)), field)
    assert torch.equal(field.calls[0][0], start(11, field.schedule, times[0]))


def test_precision_is_the_callers():
    field = ExactField(Mixture(torch.zeros(1, 3), torch.eye(3)[None]), VP())
    finished = run(Plan((Row(0, TIMES, "ddim", CFG(1.0)),)), field, dtype=torch.float64)
    assert finished.x.dtype == torch.float64


# Counting.


@pytest.mark.parametrize("window", [(0.0, 1.0), (0.2, 0.6), (0.31, 0.33)])
@pytest.mark.parametrize("w", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("rule", [CFG, Guidance])
@pytest.mark.parametrize("solver", OURS)
def test_count_of_a_run_is_that_of_its_plan(solver, rule, w, window):
    field = Toy()
    plan = Plan((row(w, solver=solver, rule=rule, low=window[0], high=window[1]),))
    finished = run(plan, field)
    assert finished.count == plan.cost(field.schedule) == field.count
    assert finished.count.evaluations == len(field.calls)
    assert finished.count.sample_forwards == sum(len(x) for x, _, _ in field.calls)


@pytest.mark.parametrize("branches", [1, 2])
@pytest.mark.parametrize(
    ("solver", "variable", "path", "evaluations"),
    [
        ("ddim", None, VP(), STEPS),
        ("euler", "sigma", VP(), STEPS),
        ("dpmpp_2m", None, VP(), STEPS),
        ("heun", "sigma", VP(), 2 * STEPS - 1),
        ("heun", "t", VP(), 2 * STEPS - 1),
        ("heun", "t", Linear(), 2 * STEPS),
        ("euler", "snr", VP(), STEPS),
        ("heun", "snr", VP(), 2 * STEPS - 1),
        ("heun", "snr", Linear(), 2 * STEPS - 1),
        ("midpoint", "sigma", VP(), 2 * STEPS),
        ("midpoint", "t", Linear(), 2 * STEPS),
        ("midpoint", "snr", Linear(), 2 * STEPS),
        ("rk4", "t", Linear(), 4 * STEPS),
        ("rk4", "t", VP(), 4 * STEPS - 1),
        ("rk4", "sigma", VP(), 4 * STEPS - 1),
        ("rk4", "snr", Linear(), 4 * STEPS - 1),
        ("dpmpp_2s", None, VP(), 2 * STEPS - 1),
        ("dpmpp_2s", None, Linear(), 2 * STEPS - 2),  # nor has a step from zero SNR a middle in lambda
        ("dpmpp_3m", None, VP(), STEPS),
        ("unipc", None, VP(), STEPS),
        ("ancestral", None, VP(), STEPS),
        ("euler_maruyama", "sigma", VP(), STEPS),
        ("churn", "sigma", VP(), 2 * STEPS - 1),
    ],
)
def test_evaluations_follow_the_formulas(solver, variable, path, evaluations, branches):
    r = row({1: 1.0, 2: 4.0}[branches], solver=solver, variable=variable)
    field = Toy(path, "velocity")
    assert run(Plan((r,)), field).count == Count(evaluations, branches * evaluations)


def test_sweep_is_one_call_per_evaluation():
    scales = (0.0, 1.0, 2.0, 4.0)
    plan = Plan(tuple(row(w) for w in scales))
    assert run(plan, Toy()).count == Count(STEPS, 2 + (STEPS - 1) * (1 + 1 + 2 + 2)) == plan.cost(VP())


def test_mixed_plan_costs_what_it_says():
    assert run(Plan(MIXED), Toy()).count == Plan(MIXED).cost(VP())


def test_without_guidance_the_unconditional_branch_is_not_computed():
    field = Toy()
    run(Plan((row(1.0, cond=0.5, uncond=0.25),)), field)
    assert {float(v) for _, _, shift in field.calls for v in shift} == {0.5}


def test_at_scale_zero_the_conditional_branch_is_not_computed():
    field = Toy()
    run(Plan((row(0.0, cond=0.5, uncond=0.25),)), field)
    assert {float(v) for _, _, shift in field.calls for v in shift} == {0.25}


def test_outside_the_window_only_the_conditional_branch_is_computed():
    field = Toy()
    run(Plan((row(4.0, cond=0.5, uncond=0.25, low=0.3, high=0.8),)), field)
    heard = {float(t[0]): sorted(shift.tolist()) for _, t, shift in field.calls}
    assert heard == {1.0: [0.5], 0.8: [0.25, 0.5], 0.55: [0.25, 0.5], 0.3: [0.25, 0.5], 0.1: [0.5]}


def test_runs_that_take_turns_on_one_field_count_only_their_own():
    field, counts = Toy(), []
    runs = [sample(Plan(tuple(row(1.0, seed=i) for i in range(n))), field) for n in (1, 3)]
    for _ in range(2 * STEPS + 1):
        for events in runs:
            event = next(events)
            if isinstance(event, Finished):
                counts.append(event.count)
    assert counts == [Count(STEPS, STEPS), Count(STEPS, 3 * STEPS)]


# Events and stopping.


def test_events_come_one_evaluation_at_a_time():
    events = list(sample(Plan((row(solver="heun"),)), Toy()))
    stages = [(e.answers[0].step, e.answers[0].stage) for e in events if isinstance(e, Evaluated)]
    assert stages == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1), (4, 0)]
    assert [e.step for e in events if isinstance(e, Stepped)] == list(range(STEPS))
    assert isinstance(events[-1], Finished)
    assert torch.equal([e for e in events if isinstance(e, Stepped)][-1].x, events[-1].x)


@pytest.mark.parametrize("taken", [1, 2, 5])
def test_closing_a_run_stops_it_between_two_evaluations(taken):
    field = Toy()
    events = sample(Plan((row(solver="heun"),)), field)
    for _ in range(taken):
        while not isinstance(next(events), Evaluated):
            pass
    events.close()
    assert field.count.evaluations == taken
    assert list(events) == []


def test_nothing_is_computed_before_the_first_event_is_wanted():
    field = Toy()
    sample(Plan((row(),)), field)
    assert field.count.evaluations == 0


def test_branches_say_for_which_rows_they_were_computed():
    plan = Plan((row(0.0), row(1.0), row(4.0), row(4.0, high=0.5)))
    first = next(sample(plan, Toy())).answers[0]
    assert {name: index for name, (index, _) in first.branches.items()} == {"uncond": [0, 2], "cond": [1, 2, 3]}


def test_branches_hold_the_predictions_that_guidance_combines():
    field = Toy()
    plan = Plan((row(1.0), row(4.0, cond=0.7, uncond=-0.3)))
    answer = next(sample(plan, field)).answers[0]
    (_, u), (positions, c) = answer.branches["uncond"], answer.branches["cond"]
    torch.testing.assert_close(c.v[positions.index(1)] - u.v[0], torch.full((3,), 1.0))
    torch.testing.assert_close(answer.guided.v[1], u.v[0] + 4 * (c.v[1] - u.v[0]))
    assert torch.equal(answer.guided.v[0], c.v[0])


def test_x_is_in_the_order_of_the_plan_when_lanes_finish_at_different_times():
    finished = [e for e in sample(Plan(MIXED), Toy()) if isinstance(e, Stepped)]
    last = {i: e.x[k] for e in finished for k, i in enumerate(e.rows)}
    x = run(Plan(MIXED), Toy()).x
    for i in range(len(MIXED)):
        assert torch.equal(x[i], last[i])


# Controls.


class Notes(Control):
    def __init__(self):
        self.queries, self.steps = [], []

    def after_query(self, plan_rows, step, prediction):
        self.queries.append((tuple(plan_rows), step, prediction.t.tolist()))
        return prediction

    def after_step(self, plan_rows, step, x, s):
        self.steps.append((tuple(plan_rows), step, s.tolist()))
        return x


def test_controls_hear_of_every_question_and_every_step():
    notes = Notes()
    run(
        Plan((row(times=(1.0, 0.5, 0.0), solver="heun"), row(times=(0.8, 0.4, 0.0), solver="heun"))), Toy(), [notes]
    )
    both = (0, 1)
    assert notes.queries == [(both, 0, [1.0, 0.8]), (both, 0, [0.5, 0.4]), (both, 1, [0.5, 0.4])]
    assert notes.steps == [(both, 0, [0.5, 0.4]), (both, 1, [0.0, 0.0])]


def test_controls_are_told_plan_rows_when_lanes_differ():
    notes = Notes()
    plan = Plan((row(times=(1.0, 0.5, 0.0)), row(times=(0.6, 0.0)), row(times=(0.9, 0.3, 0.0))))
    run(plan, Toy(), [notes])
    assert notes.steps == [((0, 2), 0, [0.5, 0.3]), ((1,), 0, [0.0]), ((0, 2), 1, [0.0, 0.0])]


class Says(Control):
    """Replaces every prediction of some rows by "the data is here"."""

    def __init__(self, value, only):
        self.value, self.only = value, only

    def after_query(self, plan_rows, step, prediction):
        x0 = prediction.x0.clone()
        x0[[i for i, r in enumerate(plan_rows) if r in self.only]] = self.value
        return prediction.replaced("x0", x0)


def test_a_control_may_replace_what_the_solver_hears():
    x = run(Plan((row(), row())), Toy(), [Says(0.25, only={1})]).x
    torch.testing.assert_close(x[1], torch.full((3,), 0.25))
    torch.testing.assert_close(x[0], by_hand(row(), Toy())[0], **CLOSE)


def test_the_event_tells_what_the_solver_heard():
    first = next(sample(Plan((row(),)), Toy(), [Says(0.25, only={0})]))
    torch.testing.assert_close(first.answers[0].guided.x0, torch.full((1, 3), 0.25))


class Adds(Control):
    def __init__(self, value):
        self.value = value

    def after_step(self, plan_rows, step, x, s):
        return x + self.value if step == STEPS - 1 else x


class Doubles(Control):
    def after_step(self, plan_rows, step, x, s):
        return 2 * x if step == STEPS - 1 else x


class Moves(Control):
    """Adds a value to x after the third step."""

    def __init__(self, value):
        self.value = value

    def after_step(self, plan_rows, step, x, s):
        return x + self.value if step == 2 else x


@pytest.mark.parametrize("solver", ["ddim", "euler", "dpmpp_2m", "dpmpp_3m", "dpmpp_2s", "unipc"])
def test_what_a_control_has_moved_stays_moved(solver):
    """With the data always at one place, x_s - x_t sigma_s/sigma_t does not depend on x."""
    path, times = VP(), (1.0, 0.8, 0.6, 0.45, 0.3, 0.15)
    seen = {}
    for value in (0.0, 0.7):
        controls = [Says(0.3, [0]), Moves(value)]
        seen[value] = run(Plan((row(solver=solver, times=times),)), Toy(path), controls).x
    ratio = float(path.sigma(times[-1]) / path.sigma(times[3]))
    torch.testing.assert_close(seen[0.7] - seen[0.0], torch.full((1, 3), 0.7 * ratio), rtol=0, atol=1e-5)


@pytest.mark.parametrize("solver", ["dpmpp_2m", "dpmpp_3m", "dpmpp_2s", "unipc"])
@pytest.mark.parametrize(("first", "last"), [(1.0, 0.0), (1.0, 0.1), (0.95, 0.0)])
def test_a_row_is_what_it_is_alone_beside_one_with_an_infinite_step(solver, first, last):
    path, middle = Linear(), (0.8, 0.6, 0.4, 0.2)
    alone = row(solver=solver, times=(0.9, *middle, 0.1))
    both = Plan((row(solver=solver, times=(first, *middle, last)), alone))
    together = run(both, Toy(path, "velocity")).x[1]
    torch.testing.assert_close(together, run(Plan((alone,)), Toy(path, "velocity")).x[0], rtol=0, atol=1e-5)


def test_controls_act_in_the_given_order():
    plain = run(Plan((row(),)), Toy()).x
    torch.testing.assert_close(run(Plan((row(),)), Toy(), [Adds(1.0), Doubles()]).x, 2 * (plain + 1))
    torch.testing.assert_close(run(Plan((row(),)), Toy(), [Doubles(), Adds(1.0)]).x, 2 * plain + 1)


# What can go wrong.


class Breaks(Toy):
    def evaluate(self, x, t, condition):
        return super().evaluate(x, t, condition) + torch.where(t.to(x) < 0.5, float("nan"), 0.0)[:, None]


@pytest.mark.parametrize(("solver", "step"), [("ddim", 4), ("heun", 3)])
def test_numbers_that_are_no_longer_finite_stop_the_run_with_a_sentence(solver, step):
    # Times are 1, .8, .55, .3, .1: the fourth question is the first below one half; Heun asks there a step earlier.
    with pytest.raises(NonFiniteError, match=f"in step {step};") as caught:
        run(Plan((row(solver=solver),)), Breaks())
    assert str(caught.value).endswith(".")


class Crowded(Toy):
    def __init__(self, room):
        super().__init__()
        self.room, self.refused = room, 0

    def evaluate(self, x, t, condition):
        if len(x) > self.room:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().evaluate(x, t, condition)


@pytest.mark.parametrize(("room", "limit"), [(1, 1), (3, 2), (5, 5), (9, 5)])
def test_out_of_memory_changes_the_batches_and_not_the_result(room, limit):
    plan, field = Plan(tuple(row(seed=s) for s in range(5))), Crowded(room)
    finished = run(plan, field)
    torch.testing.assert_close(finished.x, run(plan, Toy()).x, **CLOSE)
    assert field.batches.limit == limit
    assert finished.count == plan.cost(field.schedule)  # questions, however they had to be split


def test_after_memory_ran_out_the_smaller_size_is_kept():
    field = Crowded(3)
    run(Plan(tuple(row(seed=s) for s in range(5))), field)
    refused = field.refused
    run(Plan(tuple(row(seed=s) for s in range(5))), field)
    assert field.refused == refused == 2  # 10 rows, then 5, then 2 fit


def test_a_single_row_that_does_not_fit_is_an_error():
    with pytest.raises(OutOfMemory):
        run(Plan((row(1.0),)), Crowded(0))


def test_every_field_has_its_own_batch_size():
    assert Toy().batches is not Toy().batches
    assert isinstance(Toy().batches, Batches)


# Rules and solvers with memory.


@dataclass(frozen=True)
class Momentum(Guidance):
    """u + w m with m = D + momentum * m_before."""

    momentum: float = 0.6

    def branches(self, t, step):
        return ("uncond", "cond") if self.inside(t) else ("cond",)

    def start(self, x):
        return {"m": torch.zeros_like(x)}

    @staticmethod
    def combine(c, u, p, state):
        m = c - u + p.momentum * state["m"]
        return u + p.w * m, {"m": m}


def test_memory_of_a_rule_survives_windows_that_differ_between_rows():
    windows = [(0.0, 1.0), (0.2, 0.6), (0.5, 1.0), (0.9, 0.95)]
    rows = tuple(row(2.0, rule=Momentum, seed=i, low=a, high=b) for i, (a, b) in enumerate(windows))
    together = run(Plan(rows), Toy()).x
    for i, r in enumerate(rows):
        torch.testing.assert_close(together[i : i + 1], run(Plan((r,)), Toy()).x, **CLOSE)


def test_memory_of_a_rule_is_what_one_computes_by_hand():
    # D is the same 0.5 at every question, so m runs through the partial sums of a geometric series.
    seen = []

    class Listens(Control):
        def after_query(self, plan_rows, step, prediction):
            seen.append(prediction.v - prediction.x / (1 + prediction.x**2) - prediction.t.float()[:, None] / 2)
            return prediction

    run(Plan((row(2.0, rule=Momentum),)), Toy(), [Listens()])
    m = 0.0
    for value in seen:
        m = 0.5 + 0.6 * m
        torch.testing.assert_close(value, torch.full((1, 3), 2 * m), rtol=0, atol=1e-5)


@dataclass(frozen=True)
class Average(Guidance):
    """The mean of every D it has seen."""

    def branches(self, t, step):
        return ("uncond", "cond") if self.inside(t) else ("cond",)

    def start(self, x):
        return {"d": torch.zeros_like(x), "seen": x.new_zeros(len(x), 1)}

    @staticmethod
    def combine(c, u, p, state):
        seen = state["seen"] + 1
        d = state["d"] + (c - u - state["d"]) / seen
        return u + p.w * d, {"d": d, "seen": seen}


@pytest.mark.parametrize("solver", ["ddim", "heun", "dpmpp_2m"])
def test_the_memory_of_a_row_starts_when_its_own_window_does(solver):
    # D is the same at every question, and so is its mean: the rule is CFG, unless rows mix up what they saw.
    windows = [(0.0, 1.0), (0.0, 0.6), (0.4, 0.9), (0.0, 0.2)]
    rows = [row(2.0, solver=solver, seed=i, low=a, high=b) for i, (a, b) in enumerate(windows)]
    together = run(Plan(tuple(replace(r, guidance=Average(2.0, *windows[i])) for i, r in enumerate(rows))), Toy()).x
    for i, r in enumerate(rows):
        torch.testing.assert_close(together[i : i + 1], by_hand(r, Toy()), **CLOSE)


@dataclass(frozen=True)
class Remembers(Guidance):
    """CFG that keeps the last D, and before the first one x itself or a copy of it."""

    copied: bool = True

    def branches(self, t, step):
        return ("uncond", "cond")

    def start(self, x):
        return {"d": x.clone() if self.copied else x}

    @staticmethod
    def combine(c, u, p, state):
        return u + p.w * (c - u), {"d": c - u}


@pytest.mark.parametrize(
    "copied",
    [
        True,
        False,
    ],
)
def test_what_a_rule_starts_from_does_not_touch_the_sample(copied):
    r = row(2.0, solver="dpmpp_2m")
    x = run(Plan((replace(r, guidance=Remembers(2.0, copied=copied)),)), Toy()).x
    torch.testing.assert_close(x, by_hand(r, Toy()), **CLOSE)


@dataclass(frozen=True)
class EveryOther(Guidance):
    """CFG in the steps 0, 2, 4, ..."""

    def branches(self, t, step):
        return ("cond",) if step % 2 else ("uncond", "cond")

    @staticmethod
    def combine(c, u, p, state):
        return u + p.w * (c - u), state


@pytest.mark.parametrize("solver", ["ddim", "heun"])
def test_a_rule_may_look_at_the_step(solver):
    field = Toy()
    plan = Plan((row(4.0, solver=solver, rule=EveryOther, cond=0.5, uncond=0.25),))
    heard = {}
    for event in sample(plan, field):
        if isinstance(event, Evaluated):
            (answer,) = event.answers
            heard.setdefault(answer.step, []).append(sorted(field.calls[-1][2].tolist()))
    both, one = [0.25, 0.5], [0.5]
    if solver == "ddim":
        assert heard == {0: [both], 1: [one], 2: [both], 3: [one], 4: [both]}
    else:
        assert heard == {0: [both] * 2, 1: [one] * 2, 2: [both] * 2, 3: [one] * 2, 4: [both]}
    assert field.count == plan.cost(field.schedule)


class Restless(Solver):
    """DDIM that adds two draws of noise."""

    name, title, source, order, stochastic = "restless", "Restless", "this test", 1, True

    def step(self, x, t, s, state, noise):
        yield Query(x, t)
        return torch.stack([noise(0), noise(1)]).sum(0), state


def test_noise_inside_steps_is_that_of_seed_step_and_draw(monkeypatch):
    monkeypatch.setitem(SOLVERS, "restless", Restless)
    rows = tuple(row(1.0, seed=s, solver="restless") for s in (5, 6))
    steps = [e.x for e in sample(Plan(rows), Toy()) if isinstance(e, Stepped)]
    for step, x in enumerate(steps):
        for i, seed in enumerate((5, 6)):
            expected = step_noise(seed, step, 0, (3,)) + step_noise(seed, step, 1, (3,))
            torch.testing.assert_close(x[i], expected)


def test_end_of_a_flow_has_the_distribution_of_the_data():
    target = Mixture(torch.tensor([[-1.0], [1.0]]), torch.full((2, 1, 1), 0.04), torch.tensor([0.25, 0.75]))
    times = tuple((torch.linspace(1, 0, 41, dtype=torch.float64) ** 1.5).tolist())
    rows = tuple(Row(s, times, "dpmpp_2m", CFG(1.0)) for s in range(2000))
    x = run(Plan(rows), ExactField(target, VP())).x[:, 0]
    assert float((x > 0).float().mean()) == pytest.approx(0.75, abs=0.03)
    assert float(x[x > 0].std()) == pytest.approx(0.2, abs=0.02)
