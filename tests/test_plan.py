from dataclasses import dataclass

import pytest
import torch
from truth import every_schedule

from playground.errors import RecipeError
from playground.fields import Count
from playground.guidance import CFG, Guidance
from playground.plan import Plan, Row
from playground.schedules import VP, Linear
from playground.solvers import DPMSolverPP2M

TIMES = (1.0, 0.75, 0.5, 0.25, 0.0)


def row(solver="ddim", w=4.0, times=TIMES, rule=CFG, **more):
    return Row(0, times, solver, rule(w), **more)


def lanes(*rows, path=None):
    return Plan(rows).lanes(path or VP())


@pytest.mark.parametrize(("solver", "evaluations"), [("ddim", 4), ("euler", 4), ("dpmpp_2m", 4), ("heun", 7)])
@pytest.mark.parametrize(("w", "branches"), [(4.0, 2), (1.0, 1), (0.0, 1)])
def test_cost_of_one_row(solver, evaluations, w, branches):
    plan = Plan((row(solver, w),))
    assert plan.cost(VP()) == Count(evaluations, evaluations * branches)


def test_heun_in_t_down_to_clean_data_costs_two_a_step():
    assert Plan((row("heun", 1.0, variable="t"),)).cost(Linear()) == Count(8, 8)


@pytest.mark.parametrize(("solver", "evaluations"), [("euler", 4), ("heun", 7)])
@pytest.mark.parametrize("path", [VP(), Linear()], ids=lambda path: path.name)
def test_cost_in_snr_down_to_clean_data(path, solver, evaluations):
    # α/σ is infinite at clean data: Heun does not ask there, not even on the linear path.
    assert Plan((row(solver, 1.0, variable="snr"),)).cost(path) == Count(evaluations, evaluations)


@dataclass(frozen=True)
class EveryOther(Guidance):
    """Guides in the steps 0, 2, 4, ..."""

    def branches(self, t, step):
        return ("cond",) if step % 2 else ("uncond", "cond")


@pytest.mark.parametrize(("solver", "expected"), [("ddim", (4, 6)), ("heun", (7, 11))])
def test_cost_of_a_rule_that_looks_at_the_step(solver, expected):
    # Heun asks twice in the steps 0, 1 and 2 and once in step 3: 4 + 2 + 4 + 1.
    assert Plan((row(solver, rule=EveryOther),)).cost(VP()) == Count(*expected)


def test_window_costs_a_second_branch_only_inside():
    plan = Plan((Row(0, TIMES, "ddim", CFG(4.0, low=0.5, high=0.75)),))
    assert plan.cost(VP()) == Count(4, 4 + 2)


def test_window_counts_both_stages_of_a_step_by_their_own_time():
    # Heun asks at 1, .75 | .75, .5 | .5, .25 | .25: the window holds .75 twice.
    plan = Plan((Row(0, TIMES, "heun", CFG(4.0, low=0.7, high=0.8)),))
    assert plan.cost(VP()) == Count(7, 7 + 2)


def test_rows_share_evaluations_and_add_up_forwards():
    plan = Plan(tuple(row(w=w) for w in (0.0, 1.0, 4.0)))
    # The first question is one and the same for all rows, one with and one without the condition.
    assert plan.cost(VP()) == Count(4, 2 + 3 * (1 + 1 + 2))


def test_longest_row_sets_the_number_of_evaluations():
    plan = Plan((row(w=1.0), row("heun", 1.0), row(w=1.0, times=(0.5, 0.0))))
    # The first two rows begin with the same question.
    assert plan.cost(VP()) == Count(7, 4 + 7 + 1 - 1)


def test_queries_are_per_step():
    assert row("heun").queries(VP()) == ((1.0, 0.75), (0.75, 0.5), (0.5, 0.25), (0.25,))


def test_rows_that_differ_in_scale_prompt_or_start_share_a_lane():
    later = (0.6, 0.5, 0.4, 0.2, 0.0)
    assert lanes(row(w=0.0), row(w=4.0, cond="a"), row(times=later)) == [[0, 1, 2]]


def test_rows_that_ask_differently_have_their_own_lane():
    different = [row(), row("heun"), row(times=(1.0, 0.5, 0.0)), row(rule=Guidance), row()]
    assert lanes(*different) == [[0, 4], [1], [2], [3]]


def test_heun_rows_that_stop_above_clean_data_ask_once_more():
    assert lanes(row("heun"), row("heun", times=(1.0, 0.8, 0.6, 0.4, 0.2))) == [[0], [1]]


@pytest.mark.parametrize("path", every_schedule(), ids=lambda path: path.name)
def test_lanes_hold_every_row_once(path):
    variables = {"ddim": None, "heun": "t", "dpmpp_2m": None}  # σ/α has no value where the linear path starts
    rows = [row(s, w, variable=v) for s, v in variables.items() for w in (0.0, 1.0, 4.0)]
    assert sorted(i for lane in Plan(tuple(rows)).lanes(path) for i in lane) == list(range(9))


def test_too_few_steps_for_a_solver_are_one_sentence(monkeypatch):
    monkeypatch.setattr(DPMSolverPP2M, "minimum_steps", 5)
    with pytest.raises(RecipeError, match=r"DPM-Solver\+\+\(2M\) needs at least 5 steps\."):
        Plan((row("dpmpp_2m"),))


def test_a_plan_without_rows_is_refused():
    with pytest.raises(RecipeError, match=r"^There is nothing to do: the plan has no rows\.$"):
        Plan(())


@pytest.mark.parametrize(
    "times", [(1.0, 0.5, 0.5, 0.0), (0.5, 0.8, 0.0), (0.0, 1.0), (1.0, 0.5, -0.1)], ids=lambda times: str(times)
)
def test_times_that_do_not_fall_are_refused(times):
    good = row()
    with pytest.raises(RecipeError, match=r"^The times of a run must fall, to 0 at the lowest\.$"):
        Plan((good, row(times=times)))


@pytest.mark.parametrize("times", [(1.0, float("nan"), 0.0), ()], ids=["nan", "none"])
def test_times_that_are_none_are_refused(times):
    try:
        Plan((row(times=times),))
    except IndexError:
        pytest.fail("not a sentence")
    except RecipeError:
        return
    pytest.fail("taken")


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("variable", [None, "sigma"])
def test_a_variable_that_is_infinite_at_the_start_is_refused(solver, variable):
    plan = Plan((row(solver, variable=variable),))
    for work in (plan.lanes, plan.cost, plan.rows[0].make_solver, plan.rows[0].queries):
        with pytest.raises(RecipeError) as caught:
            work(Linear())
        said = (
            "Sampling starts where σ/α is infinite: take the Karras grid, which starts below, or a solver that can "
            "be written in t."
        )
        assert str(caught.value) == said


@pytest.mark.parametrize("variable", ["t", "snr"])
def test_other_variables_may_start_at_pure_noise(variable):
    tau = row("euler", variable=variable).make_solver(Linear()).variable.tau(torch.tensor(1.0, dtype=torch.float64))
    assert float(tau) == {"t": 1.0, "snr": 0.0}[variable]


def test_a_row_that_starts_below_pure_noise_may_be_written_in_sigma():
    later = row("euler", times=(0.9, 0.5, 0.0), variable="sigma")
    assert Plan((later,)).cost(Linear()) == Count(2, 4)


@pytest.mark.parametrize(
    ("solver", "variable", "said"),
    [
        ("ddim", "sigma", "DDIM cannot be written in 'sigma'."),
        ("dpmpp_2m", "t", "DPM-Solver++(2M) cannot be written in 't'."),
        ("euler", "log", "Euler cannot be written in 'log'."),
        ("heun", "x" * 999, f"Heun cannot be written in {'x' * 20!r}."),
    ],
)
def test_a_variable_that_a_solver_is_not_written_in_is_refused(solver, variable, said):
    with pytest.raises(RecipeError) as caught:
        Plan((row(solver, variable=variable),)).cost(VP())
    assert str(caught.value) == said
