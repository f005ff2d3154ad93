"""diffusers' schedulers as solvers: each the plain loop of diffusers, and a sentence for what it cannot do."""

from __future__ import annotations

import copy
from itertools import pairwise
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers import scheduling_lms_discrete
from truth import every_schedule, fitted_order, integrate, lopsided, scaled_linear_betas, silent, transported

from playground.errors import RecipeError
from playground.grids import karras, leading, make_grid, trailing
from playground.guidance import CFG
from playground.noise import start_noise, step_noise
from playground.plan import Plan, Row
from playground.plane.mixtures import ExactField, Mixture
from playground.recipes import TextToImage
from playground.sampling import run
from playground.schedulers import ADAPTED
from playground.schedules import Discrete, schedule_of_checkpoint
from playground.solvers import SOLVERS

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
TABLE = Discrete.from_betas(scaled_linear_betas())
SEEDS = (3, 8)
SHAPE = (3,)

TWO = Mixture(
    torch.tensor([[-1.0, 0.5, 0.2], [1.5, -0.4, 0.9]]), 0.2 * torch.eye(3).expand(2, 3, 3), torch.tensor([0.3, 0.7])
)


class Quadrature(SimpleNamespace):
    """What LMS of diffusers asks scipy for, by brute force."""

    @staticmethod
    def quad(function, a, b, **_):
        nodes, weights = np.polynomial.legendre.leggauss(12)
        a, b = float(a), float(b)
        points = (a + b) / 2 + (b - a) / 2 * nodes
        values = [float(function(torch.tensor(p, dtype=torch.float64))) for p in points]
        return ((b - a) / 2 * float(np.dot(weights, values)),)


# Our name: the scheduler, what it is made with, what its step is told, and whether its x is x/alpha.
PLAIN = {
    "diffusers:pndm": (diffusers.PNDMScheduler, {"skip_prk_steps": True, "set_alpha_to_one": True}, {}, False),
    "diffusers:deis": (diffusers.DEISMultistepScheduler, {}, {}, False),
    "diffusers:lms": (scheduling_lms_discrete.LMSDiscreteScheduler, {}, {}, True),
    "diffusers:kdpm2": (diffusers.KDPM2DiscreteScheduler, {}, {}, True),
    "diffusers:kdpm2_ancestral": (diffusers.KDPM2AncestralDiscreteScheduler, {}, {}, True),
    "diffusers:dpmpp_2m_sde": (
        diffusers.DPMSolverMultistepScheduler,
        {"algorithm_type": "sde-dpmsolver++", "final_sigmas_type": "zero"},
        {},
        False,
    ),
    "diffusers:dpmpp_3s": (
        diffusers.DPMSolverSinglestepScheduler,
        {"solver_order": 3, "lower_order_final": True, "final_sigmas_type": "zero"},
        {},
        False,
    ),
    "diffusers:sa": (diffusers.SASolverScheduler, {}, {}, False),
    "diffusers:lcm": (diffusers.LCMScheduler, {}, {}, False),
    "diffusers:tcd": (diffusers.TCDScheduler, {}, {"eta": 0.3}, False),
}
TYPES = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}


def field_of(kind, table=TABLE):
    return ExactField(TWO, table, kind)


def plain(monkeypatch, name, kind, steps, grid, config=SD):
    """The loop of diffusers' pipelines with a scheduler on its own grid; our noise where it draws."""
    scheduler_class, options, told, over_alpha = PLAIN[name]
    monkeypatch.setattr(scheduling_lms_discrete, "integrate", Quadrature, raising=False)
    options = {**config, **options, "prediction_type": TYPES[kind]}
    if "timesteps" in grid:
        scheduler = scheduler_class(**options)
        scheduler.set_timesteps(timesteps=grid["timesteps"])
    else:
        scheduler = scheduler_class(**options, **grid)
        scheduler.set_timesteps(steps)
    table = Discrete(scheduler.alphas_cumprod)
    field, place = field_of(kind, table), [0, 0]

    def drawn(shape, **_):
        place[1] += 1
        return torch.stack([step_noise(seed, place[0], place[1] - 1, SHAPE) for seed in SEEDS])

    monkeypatch.setattr(f"{scheduler_class.__module__}.randn_tensor", drawn, raising=False)
    start = torch.stack([start_noise(seed, SHAPE) for seed in SEEDS])
    t = (float(scheduler.timesteps[0]) + 1) / table.size
    x = start * (table.noise_ratio(t) if over_alpha else table.sigma(t)).float()
    # Two questions may belong to one step of ours.
    seen, evaluations = 0, 0
    for i, index in enumerate(scheduler.timesteps):
        given = scheduler.scale_model_input(x, index)
        at = torch.full((2,), (float(index) + 1) / table.size, dtype=torch.float64)
        out = field.predict(given, at, {}).read(kind)
        evaluations += 1
        x = scheduler.step(out, index, x, **told).prev_sample
        last = evaluations == len(scheduler.timesteps)
        half = getattr(scheduler, "sample", None) is not None and over_alpha and not last
        again = name == "diffusers:pndm" and steps > 1 and i == 0
        if not half and not again:
            seen += 1
            place[:] = [seen, 0]
    assert seen == steps
    return x, evaluations


def ours(name, kind, times, eta=1.0, table=TABLE):
    rows = tuple(Row(seed, tuple(times.tolist()), name, CFG(1.0), eta=eta) for seed in SEEDS)
    return run(Plan(rows), field_of(kind, table))


OWN_KINDS = [(name, kind) for name, solver in ADAPTED.items() for kind in solver.kinds]
TRAILING = {"timestep_spacing": "trailing"}
ETA = {"diffusers:tcd": 0.3}


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
@pytest.mark.parametrize(("name", "kind"), OWN_KINDS)
def test_on_the_trailing_grid_each_is_the_plain_loop_of_diffusers(monkeypatch, name, kind, steps):
    times = trailing(TABLE, steps)
    grid = TRAILING
    if name in ("diffusers:lcm", "diffusers:tcd"):  # which take their own subset of 50 levels
        grid = {"timesteps": TABLE.index(times[:-1]).round().long().tolist()}
    if name == "diffusers:dpmpp_3s":  # which has one spacing
        grid = {"timesteps": TABLE.index(times[:-1]).round().long().tolist()}
    finished = ours(name, kind, times, ETA.get(name, 1.0))
    expected, evaluations = plain(monkeypatch, name, kind, steps, grid)
    close(finished.x, expected)
    assert finished.count.evaluations == evaluations


# The grids of these round their times to whole entries, as their network is told; levels are not rounded.
@pytest.mark.parametrize("steps", [2, 5, 20])
@pytest.mark.parametrize("name", ["diffusers:lms", "diffusers:kdpm2", "diffusers:kdpm2_ancestral"])
def test_on_an_uneven_grid_each_is_the_plain_loop_of_diffusers(monkeypatch, name, steps):
    spaced = {"timestep_spacing": "linspace", "use_exponential_sigmas": True}
    finished = ours(name, "eps", make_grid("log_snr", TABLE, steps))
    expected, evaluations = plain(monkeypatch, name, "eps", steps, spaced)
    torch.testing.assert_close(finished.x, expected, rtol=2e-3, atol=2e-3)  # its log-levels are in float32
    assert finished.count.evaluations == evaluations


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 50])
def test_pndm_on_the_leading_grid_is_that_of_stable_diffusion(monkeypatch, steps):
    finished = ours("diffusers:pndm", "eps", leading(TABLE, steps))
    spaced = {"timestep_spacing": "leading", "steps_offset": 1}
    expected, evaluations = plain(monkeypatch, "diffusers:pndm", "eps", steps, spaced)
    close(finished.x, expected)
    assert finished.count.evaluations == evaluations == (steps + 1 if steps > 1 else 1)


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 50])
@pytest.mark.parametrize("name", ["diffusers:lcm", "diffusers:tcd"])
def test_distilled_models_own_levels_are_the_trailing_ones(monkeypatch, name, steps):
    # Where N divides 50 they choose the same levels by themselves; the others differ by rounding.
    if 50 % steps == 0:
        close(
            ours(name, "eps", trailing(TABLE, steps), ETA.get(name, 1.0)).x,
            plain(monkeypatch, name, "eps", steps, {})[0],
        )
    else:
        scheduler = PLAIN[name][0](**SD)
        scheduler.set_timesteps(steps)
        assert float((TABLE.index(trailing(TABLE, steps)[:-1]) - scheduler.timesteps).abs().max()) <= 20


@pytest.mark.parametrize(
    "name", ["diffusers:deis", "diffusers:dpmpp_3s", "diffusers:lms", "diffusers:dpmpp_2m_sde"]
)
def test_a_table_that_ends_in_pure_noise(name):
    table = schedule_of_checkpoint({**SD, "rescale_betas_zero_snr": True})
    finished = ours(name, "v", trailing(table, 20), table=table)
    assert bool(torch.isfinite(finished.x).all())
    assert float(finished.x.abs().max()) < 4


@pytest.mark.parametrize("name", [n for n, s in ADAPTED.items() if "x0" not in s.kinds])
@pytest.mark.parametrize("kind", ["x0", "velocity"])
def test_predictions_that_a_scheduler_does_not_take_are_converted(name, kind):
    times = leading(TABLE, 10)
    close(ours(name, kind, times).x, ours(name, "v", times).x)


# Evaluations.


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 50])
@pytest.mark.parametrize("name", ADAPTED)
def test_evaluations_are_those_of_the_plan(name, steps):
    plan = Plan((Row(0, tuple(leading(TABLE, steps).tolist()), name, CFG(1.0)),))
    expected = {"diffusers:pndm": steps + (steps > 1)}.get(name, 2 * steps - 1 if "kdpm2" in name else steps)
    assert run(plan, field_of("eps")).count.evaluations == plan.cost(TABLE).evaluations == expected


def test_the_asked_times_are_those_of_the_plan():
    for name in ADAPTED:
        row = Row(0, tuple(leading(TABLE, 5).tolist()), name, CFG(1.0))
        asked: list[float] = []
        field = field_of("eps")

        def ask(x, t, field=field, asked=asked):
            asked.append(float(t[0]))
            return field.predict(x, t, {})

        noise = lambda step, draw: step_noise(0, step, draw, SHAPE)[None]  # noqa: E731
        integrate(row.make_solver(TABLE), ask, start_noise(0, SHAPE)[None], row.times, noise)
        assert tuple(asked) == tuple(t for times in row.queries(TABLE) for t in times)


# Orders.


def error_of(name, grid, end, table=TABLE):
    """Root mean square error against the flow's exact map, after the step to grid[end]."""
    x = 1.3 * torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None] * table.sigma(grid[0])
    truth = transported(lopsided(), table, x[:, 0], grid[0], grid[end])
    field, solver, state = ExactField(lopsided(), table, "eps"), ADAPTED[name](table), None
    solver.prepare(grid)
    full = torch.ones(len(x), dtype=torch.float64)
    for t, s in list(pairwise(grid))[:end]:
        running = solver.step(x, t * full, s * full, state, silent)
        query = next(running)
        while True:
            try:
                query = running.send(field.predict(query.x, query.t, {}))
            except StopIteration as stop:
                x, state = stop.value
                break
    return float((x[:, 0] - truth).square().mean().sqrt())


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("diffusers:deis", (20, 40)),  # beyond that the float32 of its coefficients shows
        ("diffusers:lms", (60, 120, 240)),
        ("diffusers:kdpm2", (10, 20, 40)),
        ("diffusers:dpmpp_3s", (60, 120, 240)),  # whole steps of three
    ],
)
def test_order_is_the_one_declared(name, counts):
    levels = [torch.logspace(np.log10(3), np.log10(0.3), n + 1, dtype=torch.float64) for n in counts]
    errors = [error_of(name, [*TABLE.t_at_ratio(v).tolist(), 0.0], len(v) - 1) for v in levels]
    assert abs(fitted_order(counts, errors) - ADAPTED[name].order) < 0.15


def test_order_of_pndm_is_the_one_declared():
    counts = (20, 50, 100)
    errors = [error_of("diffusers:pndm", trailing(TABLE, n).tolist(), n * 4 // 5) for n in counts]
    assert abs(fitted_order(counts, errors) - ADAPTED["diffusers:pndm"].order) < 0.15


def test_coefficients_of_lms_are_integrals_of_lagranges_polynomials():
    solver = ADAPTED["diffusers:lms"](TABLE)
    solver.prepare(karras(TABLE, 8).tolist())
    scheduler = solver._made()
    sigmas = scheduler.sigmas.double().numpy()
    for t in (3, 5, 7):
        for order in (1, 2, 3, 4):
            for k in range(order):
                known = sigmas[t - order + 1 : t + 1][::-1]
                others = [s for j, s in enumerate(known) if j != k]
                p = np.poly1d(others, r=True) / np.prod([known[k] - s for s in others])
                expected = np.polyval(p.integ(), sigmas[t + 1]) - np.polyval(p.integ(), sigmas[t])
                assert scheduler.get_lms_coefficient(order, t, k) == pytest.approx(expected, rel=1e-9, abs=1e-12)


# Noise.


def test_noise_is_the_runs_own_and_the_global_generator_is_left_alone():
    for name in ADAPTED:
        torch.manual_seed(1)
        first = ours(name, "eps", leading(TABLE, 5)).x
        torch.manual_seed(2)
        before = torch.random.get_rng_state()
        assert torch.equal(ours(name, "eps", leading(TABLE, 5)).x, first)
        assert torch.equal(torch.random.get_rng_state(), before)


def test_noise_of_a_row_does_not_depend_on_the_others():
    for name in ADAPTED:
        times = tuple(leading(TABLE, 5).tolist())
        both = ours(name, "eps", leading(TABLE, 5)).x
        alone = run(Plan((Row(SEEDS[1], times, name, CFG(1.0)),)), field_of("eps")).x
        torch.testing.assert_close(both[1:], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ADAPTED)
def test_a_solver_is_stochastic_if_and_only_if_it_draws(name):
    drawn = []

    def noise(step, draw):
        drawn.append((step, draw))
        return torch.zeros(1, *SHAPE)

    row = Row(0, tuple(leading(TABLE, 5).tolist()), name, CFG(1.0))
    ask = lambda x, t: field_of("eps").predict(x, t, {})  # noqa: E731
    integrate(row.make_solver(TABLE), ask, start_noise(0, SHAPE)[None], row.times, noise)
    assert bool(drawn) == ADAPTED[name].stochastic
    assert len(set(drawn)) == len(drawn)


def test_tcd_without_eta_draws_nothing():
    row = Row(0, tuple(leading(TABLE, 5).tolist()), "diffusers:tcd", CFG(1.0), eta=0.0)
    ask = lambda x, t: field_of("eps").predict(x, t, {})  # noqa: E731
    integrate(row.make_solver(TABLE), ask, start_noise(0, SHAPE)[None], row.times, silent)


# State.


@pytest.mark.parametrize("name", ADAPTED)
def test_a_kept_state_can_be_gone_on_from_twice(name):
    grid = leading(TABLE, 6).tolist()
    field, solver = field_of("eps"), ADAPTED[name](TABLE)
    solver.prepare(grid)
    one = torch.ones(1, dtype=torch.float64)

    def go(x, state, first, last):
        for i in range(first, last):
            noise = lambda draw, i=i: step_noise(0, i, draw, SHAPE)[None]  # noqa: E731
            running = solver.step(x, grid[i] * one, grid[i + 1] * one, state, noise)
            query = next(running)
            while True:
                try:
                    query = running.send(field.predict(query.x, query.t, {}))
                except StopIteration as stop:
                    x, state = stop.value
                    break
        return x, state

    middle, state = go(start_noise(0, SHAPE)[None], None, 0, 3)
    kept = copy.deepcopy(state)
    first = go(middle, state, 3, 6)[0]
    assert torch.equal(go(middle, state, 3, 6)[0], first)
    assert torch.equal(go(middle, kept, 3, 6)[0], first)


def test_rows_on_different_grids_are_lanes_of_their_own():
    rows = tuple(
        Row(0, tuple(make_grid(grid, TABLE, 5).tolist()), name, CFG(1.0))
        for name in ("diffusers:deis", "diffusers:kdpm2_ancestral")
        for grid in ("trailing", "leading", "karras")
    )
    together = run(Plan(rows), field_of("eps")).x
    assert len(Plan(rows).lanes(TABLE)) == 6
    for i, row in enumerate(rows):
        alone = run(Plan((row,)), field_of("eps")).x
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-5, atol=1e-5)


# What they cannot do.


def is_a_sentence(text):
    return text.endswith(".") and text.count(". ") == 0 and "\n" not in text and text[0].isupper()


@pytest.mark.parametrize("path", [p for p in every_schedule() if not isinstance(p, Discrete)], ids=lambda p: p.name)
@pytest.mark.parametrize("name", ADAPTED)
def test_paths_without_a_table_are_refused(name, path):
    (row,) = TextToImage(solver=name, steps=5, grid="uniform").plan(path).rows
    with pytest.raises(RecipeError) as caught:
        row.make_solver(path)
    expected = f"needs a checkpoint's table of noise levels: the {path.name} path has none."
    assert str(caught.value) == f"{ADAPTED[name].title} {expected}"


@pytest.mark.parametrize(
    ("name", "grid", "steps", "said"),
    [
        ("diffusers:lcm", "karras", 5, "only at whole entries of the table: take the trailing or the leading grid"),
        (
            "diffusers:tcd",
            "log_snr",
            5,
            "only at whole entries of the table: take the trailing or the leading grid",
        ),
        (
            "diffusers:pndm",
            "karras",
            5,
            "only at whole entries of the table: take the trailing or the leading grid",
        ),
        ("diffusers:pndm", "trailing", 3, "walks evenly through the table: take the leading grid"),
    ],
)
def test_grids_that_cannot_be_walked_are_refused(name, grid, steps, said):
    (row,) = TextToImage(solver=name, steps=steps, grid=grid).plan(TABLE).rows
    with pytest.raises(RecipeError) as caught:
        row.make_solver(TABLE)
    assert said in str(caught.value)
    assert is_a_sentence(str(caught.value))


@pytest.mark.parametrize("name", [n for n, s in ADAPTED.items() if s.stochastic and not s.has_eta])
def test_an_amount_of_noise_that_cannot_be_had_is_refused(name):
    with pytest.raises(RecipeError, match=r"only η = 1 is possible\.$") as caught:
        ADAPTED[name](TABLE, None, 0.5)
    assert is_a_sentence(str(caught.value))


@pytest.mark.parametrize("name", [n for n, s in ADAPTED.items() if not s.stochastic])
def test_others_do_not_mind_the_stochasticity(name):
    assert ADAPTED[name](TABLE, None, 0.5).eta == 0


def misuse(change):
    solver = ADAPTED["diffusers:deis"](TABLE)
    solver.prepare(leading(TABLE, 5).tolist())
    t, s = (torch.full((2,), solver.grid[i], dtype=torch.float64) for i in (0, 1))
    x = torch.zeros(2, 3)
    return next(change(solver, x, t, s))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda v, x, t, s: v.step(x, t * torch.tensor([1.0, 0.9]), s, None, None),
            "all rows of a run along one grid",
        ),
        (lambda v, x, t, s: v.step(x, s, s * 0 + v.grid[2], None, None), "cannot start in the middle of its grid"),
        (lambda v, x, t, s: v.step(x, t * 0.99, s, None, None), "and not from other times"),
        (lambda v, x, t, s: v.step(x, t, s * 0.99, None, None), "and not to other times"),
    ],
)
def test_misuse_is_refused(change, said):
    with pytest.raises(RecipeError) as caught:
        misuse(change)
    assert said in str(caught.value)
    assert is_a_sentence(str(caught.value))


def test_a_run_that_stops_before_clean_data_is_refused():
    row = Row(0, (0.9, 0.5, 0.2), "diffusers:deis", CFG(1.0))
    with pytest.raises(RecipeError, match="runs down to clean data only"):
        row.make_solver(TABLE)


# Names.


def test_schedulers_are_solvers_that_recipes_and_links_can_name():
    assert ADAPTED.items() <= SOLVERS.items()
    for name, kind in ADAPTED.items():
        assert kind.name == name
        recipe = TextToImage(solver=name)
        again, notes = TextToImage.from_query(recipe.to_query())
        assert again == recipe
        assert notes == []


def test_every_scheduler_is_held_against_diffusers_here():
    assert PLAIN.keys() == ADAPTED.keys()
