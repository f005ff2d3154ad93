import math

import pytest
import torch

from playground.errors import RecipeError
from playground.orders import fitted_slope
from playground.plane import (
    PlaneFlow,
    conditional_paths,
    exact_field,
    exact_paths,
    flow,
    noising_paths,
    warped_grid,
)
from playground.plane.metrics import (
    CHART_RATIOS,
    chance_distance,
    chart_times,
    errors_against_nfe,
    path_curves,
    sliced_wasserstein,
)
from playground.plane.packing import unpack
from playground.plane.targets import encode_mixture
from playground.plane.views import reasons
from playground.schedules import CONTINUOUS
from playground.solvers import SOLVERS

LOPSIDED = PlaneFlow(
    target="mixture",
    mixture=encode_mixture([(-1.0, 0.5, 0.6, 0.4, 0.5, 0.5, 0), (1.2, -0.4, 0.3, 0.5, 0, 0.2, 1)]),
)
"""No symmetry, so that no error cancels."""


def normal(count, seed=0, dim=2):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_sliced_wasserstein_of_a_shift_is_known():
    x = normal(500)
    assert sliced_wasserstein(x, x) == 0
    # Over all directions the mean square of <shift, direction> is |shift|^2/2 in the plane.
    assert sliced_wasserstein(x, x + torch.tensor([3.0, 4.0]), 2000) == pytest.approx(5 / math.sqrt(2), rel=0.05)
    line = normal(500, dim=1)
    assert sliced_wasserstein(line, line + 2) == pytest.approx(2, rel=1e-5)
    assert sliced_wasserstein(line, 3 * normal(40_000, 1, 1)) == pytest.approx(2, rel=0.1)


def test_equal_laws_stay_below_chance_as_often_as_it_says():
    truth = normal(4000)
    level = chance_distance(lambda k: normal(200, 1 + k), truth)
    beyond = sum(sliced_wasserstein(normal(200, 1000 + k), truth) > level for k in range(100))
    assert beyond <= 15  # 5 are expected; the level itself is known from 40 clouds
    assert sliced_wasserstein(normal(200, 5) + 1, truth) > 2 * level


def test_fitted_slope_reads_a_power_law_and_leaves_rounding_out():
    nfe = [4, 8, 16, 32, 64]
    assert fitted_slope(nfe, [5 * n**-3.0 for n in nfe]) == pytest.approx(3)
    assert fitted_slope(nfe, [1e-6, 1e-8, 1e-10, 1e-13, 3e-13]) == pytest.approx(math.log(1e4) / math.log(4))
    assert math.isnan(fitted_slope([4], [1.0]))


@pytest.mark.parametrize("path", CONTINUOUS)
def test_chart_times_stay_inside_the_path(path):
    schedule = CONTINUOUS[path]()
    times = torch.tensor(chart_times(schedule, 7), dtype=torch.float64)
    ratios = schedule.noise_ratio(times)
    assert len(times) == 8 and bool((times.diff() < 0).all())
    assert float(ratios[0]) == pytest.approx(CHART_RATIOS[0]) and float(ratios[-1]) == pytest.approx(
        CHART_RATIOS[1]
    )


@pytest.mark.parametrize("path", ["linear", pytest.param("vp", marks=pytest.mark.slow)])
def test_slopes_are_the_declared_orders(path):
    solvers = [
        name for name, kind in SOLVERS.items() if not kind.stochastic and kind.__module__ == "playground.solvers"
    ]
    table = list(errors_against_nfe(LOPSIDED.but(path=path), solvers, (32, 64, 128, 256), particles=60))
    for name in solvers:
        mine = [row for row in table if row.solver == name]
        slope = fitted_slope([row.evaluations for row in mine], [row.error for row in mine])
        assert slope == pytest.approx(SOLVERS[name].order, abs=0.15), name


def test_rows_are_counted_and_come_cheap_ones_first():
    table = list(errors_against_nfe(LOPSIDED, ["rk4", "euler"], (16, 8), particles=50))
    assert [(r.solver, r.steps, r.evaluations) for r in table] == [
        *[("rk4", 2, 8), ("euler", 8, 8)],
        *[("rk4", 4, 16), ("euler", 16, 16)],
    ]


def test_stochastic_solvers_have_a_marginal_error_and_no_path_error():
    recipe = LOPSIDED.but(path="vp")
    names = ["ancestral", "euler_maruyama", "churn"]
    table = list(errors_against_nfe(recipe, names, (8, 128), particles=1000))
    assert all(math.isnan(row.error) for row in table)
    for name in names:
        few, many = (row for row in table if row.solver == name)
        assert many.marginal < 2 * many.floor + 0.03, name
        assert few.marginal > 1.5 * many.marginal or few.marginal < 2 * few.floor, name
    still = list(errors_against_nfe(recipe.but(eta=0), ["ancestral"], (64,), particles=50))
    assert still[0].error < 0.1


@pytest.mark.parametrize("path", CONTINUOUS)
@pytest.mark.parametrize("solver", ["heun", "euler_maruyama", "ancestral"])
def test_marginals_on_the_way_are_those_of_the_path(path, solver):
    """Two samples at an intermediate time: the particles', and data with noise. ODE and reverse SDE alike."""
    recipe = LOPSIDED.but(path=path, solver=solver, grid="karras", steps=60, particles=200)
    result = flow(recipe)
    schedule, states = recipe.schedule(), result.states
    particles = len(states[0])
    for i in (30, 50):
        t = float(result.solver_times[i])
        x0 = recipe.data().sample(8000, torch.Generator().manual_seed(0))
        truth = float(schedule.alpha(t)) * x0 + float(schedule.sigma(t)) * normal(8000, 1).double()
        draws = [truth[k * particles : (k + 1) * particles] for k in range(20)]
        highest = max(sliced_wasserstein(d, truth) for d in draws)
        assert sliced_wasserstein(states[i], truth) < 1.3 * highest


@pytest.mark.parametrize("sign", [1, -1], ids=["forward", "reverse"])
@pytest.mark.parametrize("path", ["linear", "vp"])
def test_sdes_in_both_directions_have_the_marginals_of_the_path(path, sign):
    """dx = [u + sign g^2/2 score] dt + g dW by Euler-Maruyama: sign +1 from data to noise, -1 back (dt < 0)."""
    recipe = LOPSIDED.but(path=path)
    field, schedule, g, count, steps = exact_field(recipe), recipe.schedule(), 0.8, 2000, 400

    def exact(t, count, seed):
        x0 = recipe.data().sample(count, torch.Generator().manual_seed(seed))
        return float(schedule.alpha(t)) * x0 + float(schedule.sigma(t)) * normal(count, seed + 50).double()

    low, high = schedule.t_at_ratio(torch.tensor([0.25, 4.0], dtype=torch.float64)).tolist()
    start, end = (low, high) if sign > 0 else (high, low)
    x, h = exact(start, count, 1), (end - start) / steps
    for k in range(steps):
        p = field.predict(x, torch.full((count,), start + k * h, dtype=torch.float64), {})
        x = x + h * (p.velocity + sign * g**2 / 2 * p.score) + g * abs(h) ** 0.5 * normal(count, 1000 + k).double()
    truth, other = exact(end, 20_000, 2), exact(end, count, 3)
    assert sliced_wasserstein(x, truth) < 2 * sliced_wasserstein(other, truth) + 0.01
    assert sliced_wasserstein(exact(start, count, 4), truth) > 5 * sliced_wasserstein(other, truth)


@pytest.mark.parametrize("path", CONTINUOUS)
def test_forward_noising_has_the_marginals_of_the_path(path):
    recipe = LOPSIDED.but(path=path)
    schedule = recipe.schedule()
    times = torch.tensor([schedule.t_max, float(schedule.t_at_ratio(1.0)), 0.0], dtype=torch.float64)
    film = noising_paths(recipe, times, 2000)
    assert film.values.shape == (3, 2000, 2)
    for x, t in zip(film.values, times.tolist(), strict=True):
        a, s = float(schedule.alpha(t)), float(schedule.sigma(t))
        data = recipe.data().sample(2000, torch.Generator().manual_seed(99))
        other = a * data + s * normal(2000, 98).double()
        truth = a * recipe.data().sample(20_000, torch.Generator().manual_seed(5)) + s * normal(20_000, 6).double()
        assert sliced_wasserstein(x, truth) < 2.5 * sliced_wasserstein(other, truth)
    # The same data point and noise all the way.
    path_of_one = film.values[:, 0].double()
    x0, eps = path_of_one[2], (path_of_one[0] - float(schedule.alpha(times[0])) * path_of_one[2])
    eps = eps / float(schedule.sigma(times[0]))
    middle = float(schedule.alpha(times[1])) * x0 + float(schedule.sigma(times[1])) * eps
    torch.testing.assert_close(path_of_one[1], middle, rtol=1e-3, atol=1e-3)


def test_conditional_paths_all_end_at_their_point():
    film = conditional_paths(PlaneFlow(), (1.0, -2.0), torch.tensor([1.0, 0.5, 0.0]), 30)
    point = torch.tensor([1.0, -2.0])
    torch.testing.assert_close(film.values[2], point.expand(30, 2))
    torch.testing.assert_close(film.values[1], (point + film.values[0]) / 2)
    header, arrays = unpack(film.to_bytes())
    assert header["point"] == [1.0, -2.0] and arrays["conditional"].shape == (3, 30, 2)


def test_a_warped_grid_starts_regular_and_follows_the_flow():
    recipe = PlaneFlow(target="three", steps=40)
    film = warped_grid(recipe, size=5)
    assert film.values.shape[1:] == (5, 5, 2)
    assert film.values[0, 0, 0].tolist() == pytest.approx([-2.4, -2.4]) and film.values[0, 2, 2].tolist() == [0, 0]
    assert film.values[0, 0, 1, 0] > film.values[0, 0, 0, 0] and film.values[0, 1, 0, 1] > film.values[0, 0, 0, 1]
    times = film.times
    exact = exact_paths(recipe, times, 4)
    ours = flow(recipe)
    torch.testing.assert_close(exact.values[-1], ours.frames[-1, :4], rtol=0, atol=0.01)
    torch.testing.assert_close(exact.values[32], ours.frames[32, :4], rtol=0, atol=0.01)
    line = warped_grid(PlaneFlow(target="pair", dimension=1), size=7)
    # On the line the flow keeps the order.
    assert line.values.shape[1:] == (7, 1) and bool((line.values.diff(dim=1) > 0).all())


@pytest.mark.parametrize("path", CONTINUOUS)
def test_curves_of_the_path(path):
    recipe = PlaneFlow(path=path, steps=10, grid="karras")
    curves, schedule = path_curves(recipe), recipe.schedule()
    assert len(curves.t) == len(curves.alpha) == len(curves.sigma) == len(curves.log_snr) == 200
    i = 100
    ratio = 2 * math.log(curves.alpha[i] / curves.sigma[i])
    assert curves.log_snr[i] == pytest.approx(ratio, rel=1e-6)
    assert sum(curves.step) == pytest.approx(curves.grid[0]) and len(curves.step) == 10
    assert exact_field(recipe).schedule.identity == schedule.identity


@pytest.mark.parametrize(
    "changes",
    [
        {"label": 0, "w": 3.0},
        {"label": 0, "w": 3.0, "low": 0.2, "high": 0.7},
        {"label": 1, "w": 0.0},
        {"label": 0, "w": 2.5, "rule": "apg", "apg_eta": 0.5},
        {"rule": "auto", "w": 2.0},
        pytest.param({"label": 2, "rule": "auto", "w": 2.0, "path": "vp"}, marks=pytest.mark.slow),
        pytest.param(
            {"label": 0, "w": 2.0, "rule": "zero_star", "zero_star_still": 10, "solver": "euler"},
            marks=pytest.mark.slow,
        ),
    ],
    ids=str,
)
def test_exact_paths_are_those_of_the_field_that_particles_follow(changes):
    """Any solver of order 2 with many steps comes to them, guidance and its window included."""
    recipe = PlaneFlow(**{"target": "three", "solver": "heun", "steps": 200, "particles": 100} | changes)
    ours = flow(recipe)
    exact = exact_paths(recipe, ours.times, 6)
    # A rule that switches while the solver takes a step costs it an error of first order there.
    torch.testing.assert_close(exact.values, ours.frames[:, :6], rtol=0, atol=0.02)
    unguided = exact_paths(recipe.but(w=1.0), ours.times, 6)
    assert float((unguided.values - exact.values).abs().max()) > 0.1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"solver": "ancestral"}, "draws noise"),
        ({"label": 0, "w": 2.0, "rule": "cfgpp", "solver": "ddim"}, "no field"),
        ({"label": 0, "w": 2.0, "rule": "apg", "apg_momentum": 0.3}, "momentum"),
    ],
)
def test_where_no_curve_is_exact_it_is_said(changes, sentence):
    recipe = PlaneFlow(target="three", **changes)
    with pytest.raises(RecipeError, match=sentence):
        exact_paths(recipe, torch.tensor([0.5]), 2)
    assert sentence in reasons(recipe)["exact"]
    assert "exact" not in reasons(recipe.but(solver="ddim", w=1.0))
