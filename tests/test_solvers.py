import math
from functools import partial

import pytest
import torch
from truth import OURS, draws, every_schedule, fitted_order, gaussian, integrate, lopsided, transported

from playground.errors import RecipeError
from playground.fields import Prediction
from playground.plane.mixtures import ExactField, Mixture
from playground.schedules import EDM, VP, Linear
from playground.solvers import DDIM, RK4, SOLVERS, VARIABLES, DPMSolverPP2M, Euler, Heun, Midpoint

# Every solver in every variable it is written in.
WRITTEN = [(name, v) for name, kind in OURS.items() for v in kind.variables or (None,)]
ONE = torch.ones(1, 1, dtype=torch.float64)


def exact(mixture, path, kind="velocity"):
    field = ExactField(mixture, path, kind)
    return lambda x, t: field.predict(x, t, {})


def grid(start, end, steps):
    return torch.linspace(start, end, steps + 1, dtype=torch.float64)


# N(0, 1) on the straight path, from 1 at t = 1; the exact end is 1.


@pytest.mark.parametrize(("steps", "end"), [(1, 0), (2, 1 / 2), (4, 18 / 25)])
def test_euler_in_t_on_one_gaussian(steps, end):
    x = integrate(Euler(Linear(), "t"), exact(gaussian(), Linear()), ONE, grid(1, 0, steps))
    assert float(x) == pytest.approx(end, abs=1e-12)


@pytest.mark.parametrize(("steps", "end"), [(1, 1 / 2), (2, 15 / 16)])
def test_heun_in_t_on_one_gaussian(steps, end):
    x = integrate(Heun(Linear(), "t"), exact(gaussian(), Linear()), ONE, grid(1, 0, steps))
    assert float(x) == pytest.approx(end, abs=1e-12)


def test_euler_in_sigma_on_one_gaussian():
    # dy/dsigma = sigma y/(1 + sigma^2): one step from sigma to 0 multiplies by 1/(1 + sigma^2).
    path = EDM()
    start = float(path.t_at_ratio(2.0))
    x = integrate(Euler(path, "sigma"), exact(gaussian(), path), ONE, [start, 0.0])
    assert float(x) == pytest.approx(1 / 5, abs=1e-12)


def test_heun_in_snr_on_one_gaussian():
    # N(0, 1) in EDM from sigma 1 to 1/2: y = x/sigma and dy/dtau = x0 = y tau/(1 + tau^2), tau from 1 to 2.
    # Slopes 1/2 and (1 + 1/2) 2/5 = 3/5, so y = 1 + 11/20 and x = y/2.
    path = EDM()
    times = [float(path.t_at_ratio(v)) for v in (1.0, 0.5)]
    x = integrate(Heun(path, "snr"), exact(gaussian(), path), ONE, times)
    assert float(x) == pytest.approx(31 / 40, abs=1e-12)


@pytest.mark.parametrize("solver", [Euler, Heun])
def test_in_snr_a_flow_may_start_at_pure_noise(solver):
    path = Linear()
    x = integrate(solver(path, "snr"), exact(lopsided(), path), X, [1.0, 0.6, 0.3])
    assert bool(torch.isfinite(x).all())


def test_heun_in_sigma_on_one_gaussian():
    # From 2 to 1: slopes 2/5 and (1 - 2/5) 1/2 = 3/10, so y = 1 - (2/5 + 3/10)/2.
    path = EDM()
    times = [float(path.t_at_ratio(v)) for v in (2.0, 1.0)]
    x = integrate(Heun(path, "sigma"), exact(gaussian(), path), ONE, times)
    assert float(x) == pytest.approx(1 - 0.35, abs=1e-12)


def test_second_2m_step_is_the_formula_of_the_paper():
    # N(0, 1) at alpha = 1 and sigma = 4, 2, 1: equal steps h = log 2 and x0 = x/(1 + sigma^2).
    path = EDM()
    times = [float(path.t_at_ratio(v)) for v in (4.0, 2.0, 1.0)]
    first = 0.5 * 1 + 0.5 * (1 / 17)
    m0, m1 = 1 / 17, first / 5
    expected = 0.5 * first + 0.5 * (m1 + (m1 - m0) / 2)
    x = integrate(DPMSolverPP2M(path), exact(gaussian(), path), ONE, times)
    assert float(x) == pytest.approx(expected, abs=1e-12)


def test_midpoint_in_t_on_one_gaussian():
    # dx/dt = x (2t - 1)/(1 - 2t + 2t^2): half of the way, at t = 1/2, nothing moves.
    x = integrate(Midpoint(Linear(), "t"), exact(gaussian(), Linear()), ONE, [1.0, 0.0])
    assert float(x) == pytest.approx(1, abs=1e-12)


# N(0, 1) in EDM, where x = y: dy/dsigma = y sigma/(1 + sigma^2) and x0 = y/(1 + sigma^2).


def in_edm(name, variable, ratios, noise=None, eta=1.0):
    path = EDM()
    times = [float(path.t_at_ratio(v)) if v else 0.0 for v in ratios]
    given = () if noise is None else (lambda step, draw: torch.full_like(ONE, noise[step, draw]),)
    return float(integrate(SOLVERS[name](path, variable, eta), exact(gaussian(), path), ONE, times, *given))


def drift(y, sigma):
    return y * sigma / (1 + sigma**2)


def test_midpoint_in_sigma_on_one_gaussian():
    # Slope 2/5 at 2, so 4/5 at 3/2, where the slope is 4/5 (3/2)/(13/4) = 24/65.
    assert in_edm("midpoint", "sigma", (2.0, 1.0)) == pytest.approx(1 - 24 / 65, abs=1e-12)


def test_midpoint_in_snr_on_one_gaussian():
    # tau = 1/sigma from 1 to 2 and y = x tau, dy/dtau = y tau/(1 + tau^2): 1/2 at 1, so 5/4 at 3/2, where the
    # slope is 5/4 (3/2)/(13/4) = 15/26.
    assert in_edm("midpoint", "snr", (1.0, 0.5)) == pytest.approx((1 + 15 / 26) / 2, abs=1e-12)


def test_rk4_in_sigma_on_one_gaussian():
    k1 = drift(1.0, 2.0)
    k2 = drift(1 - k1 / 2, 1.5)
    k3 = drift(1 - k2 / 2, 1.5)
    k4 = drift(1 - k3, 1.0)
    expected = 1 - (k1 + 2 * k2 + 2 * k3 + k4) / 6
    assert in_edm("rk4", "sigma", (2.0, 1.0)) == pytest.approx(expected, abs=1e-12)
    assert expected == pytest.approx((2 / 5) ** 0.5, abs=1e-3)  # the exact flow


def test_the_last_step_of_rk4_is_that_of_ralston():
    # At sigma = 0 the noise has no value: slopes at 1, 1/2 and 1/4 of the way, weighted 2 : 3 : 4.
    k1 = drift(1.0, 1.0)
    k2 = drift(1 - k1 / 2, 0.5)
    k3 = drift(1 - 3 / 4 * k2, 0.25)
    expected = 1 - (2 * k1 + 3 * k2 + 4 * k3) / 9
    assert in_edm("rk4", "sigma", (1.0, 0.0)) == pytest.approx(expected, abs=1e-12)
    assert expected == pytest.approx(0.5**0.5, abs=2e-2)


def test_2s_on_one_gaussian():
    # The middle of 4 and 1 in log sigma is 2: x0 = 1/17 there gives u = 1/2 + 1/34 = 9/17 and x0(u) = 9/85.
    assert in_edm("dpmpp_2s", None, (4.0, 1.0)) == pytest.approx(1 / 4 + 3 / 4 * 9 / 85, abs=1e-12)


def test_third_3m_step_is_the_parabola_through_three_answers():
    # x_s = sigma_s (x/sigma + int_sigma_s^sigma x0/s^2 ds) for x0 a polynomial in lambda = -log sigma; here
    # with sigma 8, 4, 2, 1. The method keeps the integrals of 1, of the slope and of half of the curvature.
    log2 = math.log(2)
    m0 = 1 / 65
    x1 = 0.5 + 0.5 * m0
    m1 = x1 / 17
    x2 = 0.5 * x1 + 0.5 * (m1 + (m1 - m0) / 2)
    m2 = x2 / 5
    d1, d2 = (m2 - m1) + ((m2 - m1) - (m1 - m0)) / 2, ((m2 - m1) - (m1 - m0)) / 2
    # In diffusers' weights: -phi, phi/h + 1 and (phi + h)/h^2 - 1/2 with phi = exp(-log 2) - 1 = -1/2.
    expected = 0.5 * x2 + 0.5 * m2 + (1 - 0.5 / log2) * d1 - ((log2 - 0.5) / log2**2 - 0.5) * d2
    assert in_edm("dpmpp_3m", None, (8.0, 4.0, 2.0, 1.0)) == pytest.approx(expected, abs=1e-12)


def test_two_unipc_steps_on_one_gaussian():
    # sigma 4, 2, 1. Predicted like DDIM, then corrected by the mean of both answers (UniC-1: rho = 1/2).
    m0 = 1 / 17
    predicted = 0.5 + 0.5 * m0
    m1 = predicted / 5
    corrected = 0.5 + 0.5 * (m0 + m1) / 2
    expected = 0.5 * corrected + 0.5 * (m1 + (m1 - m0) / 2)
    assert in_edm("unipc", None, (4.0, 2.0, 1.0)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ancestral_on_one_gaussian(eta):
    # From 2 to 1: n = eta 1/2 sqrt(4 - 1); x0 = 1/5 and eps = 2/5.
    n = eta * 3**0.5 / 2
    expected = 1 / 5 + (1 - n**2) ** 0.5 * 2 / 5 + n * 0.7
    assert in_edm("ancestral", None, (2.0, 1.0), {(0, 0): 0.7}, eta) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_euler_maruyama_on_one_gaussian(eta):
    # From 2 to 1 with eps = 2/5: the score's share once more per eta^2, and noise of variance 2 r dr = 4.
    expected = 1 - (1 + eta**2) * 2 / 5 + eta * 2 * 0.7
    assert in_edm("euler_maruyama", None, (2.0, 1.0), {(0, 0): 0.7}, eta) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_churn_on_one_gaussian(eta):
    # Karras et al. 2022, Alg. 2, with gamma = eta (sqrt(2) - 1), from 2 to 1 and to 0.
    y = 1.0
    for step, (sigma, after) in enumerate([(2.0, 1.0), (1.0, 0.0)]):
        raised = sigma * (1 + eta * (2**0.5 - 1))
        y += (raised**2 - sigma**2) ** 0.5 * (0.7, -0.4)[step]
        d = drift(y, raised)
        d = (d + drift(y + (after - raised) * d, after)) / 2 if after else d
        y += (after - raised) * d
    given = {(0, 0): 0.7, (1, 0): -0.4}
    assert in_edm("churn", None, (2.0, 1.0, 0.0), given, eta) == pytest.approx(y, abs=1e-12)


# Identities between solvers.

X = 1.3 * torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]


def test_euler_in_t_on_the_straight_path_is_ddim():
    path, times = Linear(), grid(1, 0, 7)
    ask = exact(lopsided(), path)
    ours, ddim = integrate(Euler(path, "t"), ask, X, times), integrate(DDIM(path), ask, X, times)
    torch.testing.assert_close(ours, ddim, rtol=0, atol=1e-12)


@pytest.mark.parametrize("path", every_schedule(), ids=lambda path: path.name)
def test_euler_in_sigma_is_ddim_on_every_path(path):
    times = [*grid(0.98, 0.1, 7).tolist(), 0.0]
    ask = exact(lopsided(), path)
    x = X * path.sigma(times[0])
    ours, ddim = integrate(Euler(path, "sigma"), ask, x, times), integrate(DDIM(path), ask, x, times)
    torch.testing.assert_close(ours, ddim, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("end", [0.1, 0.0])
@pytest.mark.parametrize("path", every_schedule(), ids=lambda path: path.name)
def test_euler_in_snr_is_ddim_on_every_path(path, end):
    times = [*grid(0.98, 0.2, 7).tolist(), end]
    ask, x = exact(lopsided(), path), X * path.sigma(times[0])
    ours, ddim = integrate(Euler(path, "snr"), ask, x, times), integrate(DDIM(path), ask, x, times)
    torch.testing.assert_close(ours, ddim, rtol=1e-9, atol=1e-10)


def test_euler_in_t_on_a_curved_path_is_not_ddim():
    path, times = VP(), grid(1, 0.1, 7)
    ask = exact(lopsided(), path)
    ours, ddim = integrate(Euler(path, "t"), ask, X, times), integrate(DDIM(path), ask, X, times)
    assert float((ours - ddim).abs().max()) > 1e-2


@pytest.mark.parametrize("path", every_schedule(), ids=lambda path: path.name)
def test_first_2m_step_is_ddim(path):
    ask, x = exact(lopsided(), path), X * path.sigma(0.9)
    ours, ddim = integrate(DPMSolverPP2M(path), ask, x, [0.9, 0.4]), integrate(DDIM(path), ask, x, [0.9, 0.4])
    torch.testing.assert_close(ours, ddim, rtol=1e-9, atol=1e-10)


def test_2m_step_to_clean_data_lands_on_x0():
    path, ask = VP(), exact(lopsided(), VP())
    before = integrate(DPMSolverPP2M(path), ask, X, [1.0, 0.5, 0.2])
    after = integrate(DPMSolverPP2M(path), ask, X, [1.0, 0.5, 0.2, 0.0])
    torch.testing.assert_close(after, ask(before, torch.full((9,), 0.2, dtype=torch.float64)).x0)


@pytest.mark.parametrize("name", ["dpmpp_2s", "dpmpp_3m", "ancestral"])
def test_a_step_to_clean_data_lands_on_x0(name):
    path, ask, z = VP(), exact(lopsided(), VP()), draws(X.shape)
    before = integrate(SOLVERS[name](path), ask, X, [1.0, 0.5, 0.2], z)
    after = integrate(SOLVERS[name](path), ask, X, [1.0, 0.5, 0.2, 0.0], z)
    torch.testing.assert_close(after, ask(before, torch.full((9,), 0.2, dtype=torch.float64)).x0)


@pytest.mark.parametrize("end", [0.1, 0.0])
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize(("name", "variable"), [(n, v) for n, v in WRITTEN if v != "sigma"])
def test_from_pure_noise_every_solver_is_finite(name, variable, steps, end):
    path = Linear()
    solver = SOLVERS[name](path, variable)
    x = integrate(solver, exact(lopsided(), path), X, grid(1, end, steps), draws(X.shape))
    assert bool(torch.isfinite(x).all())


@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_2s", "dpmpp_3m", "unipc", "ancestral"])
def test_the_first_step_from_pure_noise_is_that_of_ddim(name):
    # Nothing is left of the data at t = 1, so x0 is their mean; fresh noise is all the noise there is.
    path, ask = Linear(), exact(lopsided(), Linear())
    x = integrate(SOLVERS[name](path, None, 0.0), ask, X, [1.0, 0.5])
    torch.testing.assert_close(x, 0.5 * X + 0.5 * (0.3 * -1.0 + 0.7 * 1.5), rtol=0, atol=1e-7)


def test_ancestral_from_pure_noise_forgets_it():
    path, z = Linear(), draws(X.shape)
    x = integrate(SOLVERS["ancestral"](path), exact(lopsided(), path), X, [1.0, 0.5], z)
    torch.testing.assert_close(x, 0.5 * z(0, 0) + 0.5 * (0.3 * -1.0 + 0.7 * 1.5), rtol=0, atol=1e-7)


@pytest.mark.parametrize(("name", "variable"), [(n, v) for n, v in WRITTEN if v != "t"])
def test_a_point_is_reached_exactly_from_anywhere(name, variable):
    # All data at 0.75: x0 never changes, so a solver that lands on x0 ends there.
    path = VP()
    ask = exact(Mixture(torch.tensor([[0.75]]), torch.zeros(1, 1, 1)), path)
    x = integrate(SOLVERS[name](path, variable), ask, X, [1.0, 0.6, 0.3, 0.0], draws(X.shape))
    torch.testing.assert_close(x, torch.full_like(x, 0.75), rtol=0, atol=1e-9)


# Orders, against the flow's exact map: on the line it keeps quantiles.

STEPS = (40, 80, 160)


def lopsided_by_hand(path):
    """The posterior mean of `lopsided`, written out for the line (quick, for many small steps)."""
    m = lopsided()
    means, variances, weights = m.means[:, 0], m.variances[:, 0], m.weights

    def ask(x, t):
        a, s = path.alpha(t)[:, None], path.sigma(t)[:, None]
        variance = a**2 * variances + s**2
        offset = x - a * means
        g = torch.softmax(weights.log() - offset**2 / (2 * variance) - variance.log() / 2, -1)
        x0 = (g * (means + a * variances / variance * offset)).sum(-1, keepdim=True)
        return Prediction("x0", x0, x, t, path)

    return ask


@pytest.mark.parametrize("path", [VP(), Linear(), EDM()], ids=lambda path: path.name)
@pytest.mark.parametrize(("name", "variable"), WRITTEN)
def test_error_falls_with_the_declared_order(name, variable, path):
    # In float64: times rounded to float32 would hide RK4's error, which is below 1e-9.
    start, end = path.t_at_ratio(torch.tensor([4.0, 0.3], dtype=torch.float64)).tolist()
    x = X * path.alpha(start) * 4
    truth = transported(lopsided(), path, x[:, 0], start, end)
    # Three answers back, the start is felt for longer; RK4 is down to rounding sooner.
    counts = {"dpmpp_3m": (80, 160, 320), "rk4": (20, 40, 80)}.get(name, STEPS)
    errors = []
    for steps in counts:
        even = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        # Equal steps in t, or in the log-SNR.
        times = start + even * (end - start) if variable == "t" else path.t_at_ratio(4 * (0.3 / 4) ** even)
        # eta = 0 makes an ODE solver of every stochastic one.
        y = integrate(SOLVERS[name](path, variable, 0.0), lopsided_by_hand(path), x, times)
        errors.append(float((y[:, 0] - truth).square().mean().sqrt()))
    assert errors[-1] < 0.05
    assert abs(fitted_order(counts, errors) - SOLVERS[name].order) < 0.15


@pytest.mark.parametrize("variable", ["sigma", "t"])
def test_rk4_keeps_its_order_down_to_clean_data(variable):
    # Its last step is Ralston's, of order 3: one such step in N costs nothing.
    path = EDM()
    start = float(path.t_at_ratio(4.0))
    truth, errors = transported(lopsided(), path, 4 * X[:, 0], start, 0.0), []
    for steps in STEPS:
        times = torch.linspace(start, 0, steps + 1, dtype=torch.float64)
        y = integrate(RK4(path, variable), lopsided_by_hand(path), 4 * X, times)
        errors.append(float((y[:, 0] - truth).square().mean().sqrt()))
    assert fitted_order(STEPS, errors) > 3.7


RATIO_ONLY = [(n, v) for n, v in WRITTEN if v != "t"]
"""Solvers that know of the path only its sigma/alpha."""


@pytest.mark.parametrize("end", [0.3, 0.0])
@pytest.mark.parametrize(("name", "variable"), RATIO_ONLY)
def test_one_flow_on_three_paths_ends_at_one_place(name, variable, end):
    # At equal noise ratios, with x rescaled to equal x/alpha, these solvers walk the same polygon, and the
    # stochastic ones add the same noise.
    ends, ratio = [], torch.linspace(3**0.5, 0.3**0.5, 13, dtype=torch.float64) ** 2
    for path in (VP(), Linear(), EDM()):
        times = path.t_at_ratio(ratio).tolist() + [0.0] * (end == 0)
        x = X * path.alpha(times[0])
        x = integrate(SOLVERS[name](path, variable), exact(lopsided(), path), x, times, draws(X.shape))
        ends.append(x / path.alpha(times[-1]))
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=1e-8)
    torch.testing.assert_close(ends[2], ends[0], rtol=0, atol=1e-8)


@pytest.mark.parametrize("path", every_schedule(), ids=lambda path: path.name)
@pytest.mark.parametrize("name", VARIABLES)
def test_the_time_between_two_times_is_that_of_the_variable(name, path):
    variable = VARIABLES[name](path)
    t, s = torch.tensor([0.9, 0.7], dtype=torch.float64), torch.tensor([0.6, 0.05], dtype=torch.float64)
    torch.testing.assert_close(variable.t_at(variable.tau(t)), t)
    for fraction in (0.0, 0.25, 0.5, 1.0):
        expected = (1 - fraction) * variable.tau(t) + fraction * variable.tau(s)
        torch.testing.assert_close(variable.tau(variable.between(t, s, fraction)), expected)


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize("path", every_schedule(), ids=lambda path: path.name)
def test_between_a_time_and_clean_data_there_is_a_time(name, path):
    variable = VARIABLES[name](path)
    t, s = torch.tensor([0.4], dtype=torch.float64), torch.tensor([0.0], dtype=torch.float64)
    half = float(variable.between(t, s, 0.5))
    assert 0 < half < float(variable.between(t, s, 0.25)) < 0.4


# What a step asks.


@pytest.mark.parametrize("path", every_schedule(), ids=lambda path: path.name)
@pytest.mark.parametrize(("name", "variable"), WRITTEN)
@pytest.mark.parametrize("s", [0.0, 0.4])
def test_times_are_those_a_step_asks_at(path, name, variable, s):
    solver, asked = SOLVERS[name](path, variable), []
    field = exact(lopsided(), path)

    def ask(x, t):
        asked.append(float(t[0]))
        return field(x, t)

    integrate(solver, ask, X, [0.7, s], draws(X.shape))
    assert tuple(asked) == solver.times(0.7, s)
    if s > 0:
        assert len(asked) == solver.evaluations


def test_heun_saves_its_last_evaluation_only_where_the_slope_has_no_value():
    assert Heun(VP(), "sigma").times(0.1, 0.0) == (0.1,)
    assert Heun(VP(), "t").times(0.1, 0.0) == (0.1,)
    assert Heun(Linear(), "sigma").times(0.1, 0.0) == (0.1,)
    assert Heun(Linear(), "t").times(0.1, 0.0) == (0.1, 0.0)
    assert Heun(VP(), "snr").times(0.1, 0.0) == (0.1,)
    assert Heun(Linear(), "snr").times(0.1, 0.0) == (0.1,)
    assert Heun(Linear(t_min=1e-3), "t").times(0.1, 0.0) == (0.1,)


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize("path", every_schedule(), ids=lambda path: path.name)
def test_slope_of_each_variable_is_the_derivative_along_the_flow(name, path):
    # Follow x(t) for one data point with one noise: y = x/scale must satisfy dy/dtau = slope.
    variable, h = VARIABLES[name](path), 1e-6
    t = torch.tensor([0.3105, 0.6205], dtype=torch.float64)
    x0, eps = torch.tensor([[0.4], [-1.1]]).double(), torch.tensor([[1.2], [0.5]]).double()

    def y(time):
        x = path.alpha(time)[:, None] * x0 + path.sigma(time)[:, None] * eps
        return x / variable.scale(time)[:, None]

    slope = variable.slope(Prediction("x0", x0, y(t) * variable.scale(t)[:, None], t, path))
    expected = (y(t + h) - y(t - h)) / (variable.tau(t + h) - variable.tau(t - h))[:, None]
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-6)


def test_rows_may_stand_at_different_times():
    path = VP()
    ask, x = exact(lopsided(), path), X[:2]
    t, s = torch.tensor([0.9, 0.5], dtype=torch.float64), torch.tensor([0.6, 0.1], dtype=torch.float64)
    z = draws(x.shape)
    for name in OURS:
        running = SOLVERS[name](path).step(x, t, s, None, partial(z, 0))
        query = next(running)
        try:
            while True:
                query = running.send(ask(query.x, query.t))
        except StopIteration as stop:
            together = stop.value[0]
        for i in range(2):
            own = [float(t[i]), float(s[i])]
            alone = integrate(SOLVERS[name](path), ask, x[i : i + 1], own, lambda *at, i=i: z(*at)[i : i + 1])
            torch.testing.assert_close(together[i : i + 1], alone)


@pytest.mark.parametrize("name", OURS)
def test_a_solver_is_written_only_in_its_own_variables(name):
    kind = SOLVERS[name]
    for variable in VARIABLES:
        if variable in kind.variables:
            assert kind(VP(), variable).variable.name == variable
        else:
            with pytest.raises(RecipeError) as caught:
                kind(VP(), variable)
            assert str(caught.value) == f"{kind.title} cannot be written in {variable!r}."
    if kind.variables:
        assert kind(VP()).variable.name == kind.variables[0]


@pytest.mark.parametrize("solver", [Euler, Heun, Midpoint, RK4])
def test_the_plain_rules_are_written_in_every_variable(solver):
    assert set(solver.variables) == set(VARIABLES) == {"t", "sigma", "snr"}


def test_solvers_are_listed_by_name():
    assert all(SOLVERS[name].name == name for name in SOLVERS)
