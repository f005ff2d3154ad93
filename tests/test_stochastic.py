"""Solvers that draw noise: the distribution of what they make, and where the noise comes from."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from truth import OURS, Toy, cdf, draws, fitted_order, gaussian, integrate, lopsided, scaled_linear_betas

from playground.fields import Field, Prediction
from playground.grids import karras, trailing
from playground.guidance import CFG, Guidance
from playground.noise import step_noise
from playground.plan import Plan, Row
from playground.plane.mixtures import ExactField
from playground.sampling import Stepped, run, sample
from playground.schedules import EDM, VP, Discrete, Linear
from playground.solvers import SOLVERS, EulerMaruyama

STOCHASTIC = [name for name, kind in OURS.items() if kind.stochastic]
TIMES = (0.95, 0.8, 0.55, 0.3, 0.1, 0.0)


class Lines(Field):
    """`width` independent lines side by side, each with the lopsided mixture: a row is as many samples."""

    kind = "x0"

    def __init__(self, schedule, width):
        super().__init__()
        self.schedule, self.shape = schedule, (width,)

    @property
    def identity(self):
        return "lines"

    def evaluate(self, x, t, condition):
        m, path = lopsided(), self.schedule
        a, s, x = path.alpha(t)[:, None, None], path.sigma(t)[:, None, None], x[..., None]
        variance = a**2 * m.variances[:, 0] + s**2
        offset = x - a * m.means[:, 0]
        g = torch.softmax(m.weights.log() - offset**2 / (2 * variance) - variance.log() / 2, -1)
        return (g * (m.means[:, 0] + a * m.variances[:, 0] / variance * offset)).sum(-1)


def distance(x, path, t):
    """Kolmogorov and Smirnov's: the largest gap between the samples' distribution function and that of p_t."""
    f = cdf(lopsided(), x.flatten().sort().values, float(path.alpha(t)), float(path.sigma(t)))
    i = torch.arange(1, len(f) + 1, dtype=torch.float64) / len(f)
    return float(torch.maximum((i - f).max(), (f - i + 1 / len(f)).max()))


SAMPLES = 16_000
CHANCE = math.sqrt(math.log(2 / 1e-4) / 2 / SAMPLES)
"""Samples of p_t itself lie further off than this once in 10,000 times (0.0176)."""


@cache
def distances(path, steps, name):
    """In the middle of a run and at its end; all samples in one run of the driver."""
    times = tuple(karras(path, steps).tolist())
    middle = min(range(len(times)), key=lambda i: abs(float(path.noise_ratio(times[i])) - 0.7))
    plan = Plan(tuple(Row(seed, times, name, Guidance()) for seed in range(8)))
    x = {
        event.step + 1: event.x
        for event in sample(plan, Lines(path, SAMPLES // 8), dtype=torch.float64)
        if isinstance(event, Stepped)
    }
    return distance(x[middle], path, times[middle]), distance(x[steps], path, 0.0)


def allowed(steps):
    """Chance, and the bias of a method of weak order 1."""
    return CHANCE + 2 / steps


@pytest.mark.parametrize("path", [VP(), EDM()], ids=lambda path: path.name)
@pytest.mark.parametrize("name", STOCHASTIC)
def test_samples_have_the_distribution_of_the_path_in_the_middle_and_at_the_end(name, path):
    fine = distances(path, 120, name)
    assert max(fine) < allowed(120)
    if path.name == "vp":
        # What is left at few steps is bias, which falls with their number.
        coarse = distances(path, 15, name)
        assert all(2 * f < c for f, c in zip(fine, coarse, strict=True))


class Louder:
    """A solver whose noise is scaled, as by a forgotten factor."""

    factor = 0.5**0.5

    def step(self, x, t, s, state, noise):
        return super().step(x, t, s, state, lambda draw: self.factor * noise(draw))


class WrongSign(EulerMaruyama):
    """The score's share of the reverse SDE with its sign turned."""

    def step(self, x, t, s, state, noise):
        running = super().step(x, t, s, state, noise)
        p = yield next(running)
        try:
            running.send(p.replaced("eps", p.eps * (1 - self.eta**2) / (1 + self.eta**2)))
        except StopIteration as stop:
            return stop.value


MISTAKES = {
    **{f"{name} with less noise": type("Quieter", (Louder, SOLVERS[name]), {}) for name in STOCHASTIC},
    "ancestral with more noise": type("Noisier", (Louder, SOLVERS["ancestral"]), {"factor": 2**0.5}),
    "euler_maruyama with the wrong sign": WrongSign,
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_forgotten_factor_or_a_wrong_sign_would_be_seen(monkeypatch, name):
    monkeypatch.setitem(SOLVERS, name, MISTAKES[name])
    assert max(distances(VP(), 120, name)) > 1.5 * allowed(120)


# Without noise.

X = 1.3 * torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]


def exact(path, kind="x0"):
    field = ExactField(lopsided(), path, kind)
    return lambda x, t: field.predict(x, t, {})


@pytest.mark.parametrize(("name", "plain"), [("ancestral", "ddim"), ("euler_maruyama", "euler"), ("churn", "heun")])
@pytest.mark.parametrize("path", [VP(), EDM(), Linear()], ids=lambda path: path.name)
def test_without_stochasticity_each_is_a_solver_of_the_flow(name, plain, path):
    ask = exact(path)
    # The default noise refuses to be drawn.
    ours = integrate(SOLVERS[name](path, None, 0.0), ask, X, TIMES)
    torch.testing.assert_close(ours, integrate(SOLVERS[plain](path), ask, X, TIMES), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in OURS if n not in STOCHASTIC])
def test_the_others_have_no_stochasticity(name):
    one, none = SOLVERS[name](VP(), None, 1.0), SOLVERS[name](VP(), None, 0.0)
    assert one.eta == none.eta == 0
    assert torch.equal(*(integrate(solver, exact(VP()), X, TIMES) for solver in (one, none)))


def test_a_row_draws_as_much_as_its_eta_says():
    ends = [run(Plan((Row(0, TIMES, "ancestral", CFG(1.0), eta=eta),)), Toy()).x for eta in (0.0, 0.5, 1.0)]
    ddim = run(Plan((Row(0, TIMES, "ddim", CFG(1.0)),)), Toy()).x
    torch.testing.assert_close(ends[0], ddim)
    assert all(float((end - ddim).abs().max()) > 1e-2 for end in ends[1:])


# Which noise.


def drawn(solver, times):
    """The (step, draw) that a solver asks for."""
    asked, z = [], draws(X.shape)

    def noise(step, draw):
        asked.append((step, draw))
        return z(step, draw)

    integrate(solver, exact(solver.schedule), X, times, noise)
    return asked


@pytest.mark.parametrize(
    ("name", "steps"), [("ancestral", [0, 1, 2, 3]), ("euler_maruyama", [0, 1, 2, 3]), ("churn", [0, 1, 2, 3, 4])]
)
def test_one_draw_a_step_and_none_that_is_not_used(name, steps):
    # Nothing is added on the step to clean data; churn adds before it removes.
    assert drawn(SOLVERS[name](VP()), TIMES) == [(step, 0) for step in steps]


@pytest.mark.parametrize("name", STOCHASTIC)
def test_what_a_step_draws_is_used_as_it_is(name):
    # Noise enters linearly where the field does not hear of it: a step's end moves with the draw.
    path, z = EDM(), draws(X.shape)
    ask = lambda x, t: Prediction("eps", torch.zeros_like(x), x, t, path)  # noqa: E731
    ends = [
        integrate(SOLVERS[name](path), ask, X, (0.4, 0.2), lambda step, draw, f=f: f * z(step, draw)) - X
        for f in (1.0, -2.0)
    ]
    torch.testing.assert_close(ends[1], -2 * ends[0])
    added = {"ancestral": 16 * (1 - 1 / 4) ** 0.5, "euler_maruyama": (2 * 32 * 16) ** 0.5, "churn": 32.0}[name]
    torch.testing.assert_close(ends[0], added * z(0, 0))


ROWS = tuple(
    Row(seed, TIMES, name, CFG(w), 0.5, eta=eta)
    for name in STOCHASTIC
    for seed, w, eta in [(3, 4.0, 1.0), (4, 1.0, 1.0), (3, 4.0, 0.4), (5, 2.0, 0.0)]
)


def test_noise_depends_on_the_row_alone():
    # The same rows in another batch, in another order and cut into small batches.
    together = run(Plan(ROWS), Toy()).x
    backward = run(Plan(ROWS[::-1]), Toy()).x.flip(0)
    field = Toy()
    field.batches.limit = 2
    cut = run(Plan(ROWS), field).x
    for i, row in enumerate(ROWS):
        alone = run(Plan((row,)), Toy()).x
        for x in (together, backward, cut):
            torch.testing.assert_close(x[i : i + 1], alone, rtol=0, atol=5e-6)


def test_a_row_makes_the_same_again_and_another_seed_something_else():
    for name in STOCHASTIC:
        row = Row(3, TIMES, name, CFG(1.0))
        first, again, other = (run(Plan((r,)), Toy()).x for r in (row, row, replace(row, seed=4)))
        assert torch.equal(first, again)
        assert float((first - other).abs().max()) > 1e-2


def test_rows_with_another_eta_have_their_own_lane():
    plan = Plan(tuple(Row(0, TIMES, "ancestral", CFG(1.0), eta=eta) for eta in (1.0, 0.5, 1.0)))
    assert plan.lanes(VP()) == [[0, 2], [1]]


def test_the_driver_draws_step_noise_of_the_seed():
    def noise(step, draw):
        return step_noise(8, step, draw, (3,))[None]

    row = Row(8, (0.8, 0.4), "ancestral", Guidance())
    end = run(Plan((row,)), Toy()).x
    x = torch.randn(3, generator=torch.Generator().manual_seed(8))[None] * float(VP().sigma(0.8))
    field = Toy()
    ours = integrate(
        SOLVERS["ancestral"](VP()), lambda x, t: field.predict(x, t, field.encode([None])), x, (0.8, 0.4), noise
    )
    torch.testing.assert_close(end, ours)


# Churn.


@pytest.mark.parametrize("eta", [0.1, 1.0])
@pytest.mark.parametrize("path", [VP(), EDM(), Linear(t_max=0.98)], ids=lambda path: path.name)
def test_churn_never_asks_above_the_noisiest_level(path, eta):
    asked, times = [], (path.t_max, 0.97 * path.t_max, 0.9, 0.4, 0.1, 0.0)
    answer = exact(path)

    def ask(x, t):
        asked.extend(t.tolist())
        return answer(x, t)

    solver = SOLVERS["churn"](path, None, eta)
    integrate(solver, ask, X, times, draws(X.shape))
    assert max(asked) <= path.t_max
    assert asked[0] == path.t_max
    # Below it, by the paper's factor.
    ratio = float(path.noise_ratio(0.1))
    assert float(path.noise_ratio(solver.times(0.1, 0.0)[0])) == pytest.approx(ratio * (1 + eta * (2**0.5 - 1)))


def test_churn_draws_nothing_at_the_noisiest_level():
    assert drawn(SOLVERS["churn"](VP()), (1.0, 0.5, 0.0)) == [(1, 0)]
    assert drawn(SOLVERS["churn"](VP(), None, 0.0), (1.0, 0.5, 0.0)) == []


# The order of the distribution. On Gaussian data a step is linear in x and in what it draws: its answers to a unit
# of each give the variance at the end exactly, without any draws.


def variance_error(solver, path, times, rest=()):
    """Relative error of the variance at the last time, from the exact one at the first; the grid goes on with the
    `rest`, where nobody looks."""
    variance = lambda t: float(path.sigma(t)) ** 2 + float(path.alpha(t)) ** 2 * 0.25  # noqa: E731
    units = len(times)  # x at the start, and one draw of each step
    x = torch.eye(units, dtype=torch.float64)[:, :1]

    def noise(step, draw):
        assert draw == 0
        return torch.eye(units, dtype=torch.float64)[:, step + 1 : step + 2]

    field = ExactField(gaussian(0.25), path, "eps")
    solver.prepare([*times, *rest])
    answers = integrate(solver, lambda x, t: field.predict(x, t, {}), x, times, noise)[:, 0]
    found = float(answers[0] ** 2 * variance(times[0]) + (answers[1:] ** 2).sum())
    return abs(found / variance(times[-1]) - 1)


NOISY = [name for name, s in SOLVERS.items() if s.stochastic and not s.needs_table]


@pytest.mark.parametrize("name", NOISY)
@pytest.mark.parametrize("path", [VP(), Linear()], ids=["vp", "linear"])
def test_with_noise_the_distribution_converges_with_the_order_told(name, path):
    counts, errors = (160, 320, 640, 1280), []
    for steps in counts:
        even = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        times = path.t_at_ratio(4 * (0.3 / 4) ** even).tolist()
        errors.append(variance_error(SOLVERS[name](path, None, 1.0), path, times))
    told = SOLVERS[name].order_with_noise
    wanted = SOLVERS[name].order if told is None else told
    assert fitted_order(counts, errors) == pytest.approx(wanted, abs=0.15)


@pytest.mark.parametrize(
    "name", [name for name, s in SOLVERS.items() if s.stochastic and s.needs_table and s.order > 1]
)
def test_with_noise_the_distribution_of_diffusers_schedulers_converges_with_the_order_told(name):
    table, counts, errors = Discrete.from_betas(scaled_linear_betas()), (20, 40, 80), []
    for steps in counts:
        levels = torch.logspace(math.log10(3), math.log10(0.3), steps + 1, dtype=torch.float64)
        times = table.t_at_ratio(levels).tolist()
        errors.append(variance_error(SOLVERS[name](table, None, 1.0), table, times, rest=[0.0]))
    assert fitted_order(counts, errors) == pytest.approx(SOLVERS[name].order, abs=0.15)


@pytest.mark.parametrize("name", ["diffusers:lcm", "diffusers:tcd"])
def test_those_of_distilled_models_do_not_come_closer(name):
    table = Discrete.from_betas(scaled_linear_betas())
    errors = []
    for steps in (10, 50, 200):
        times = trailing(table, steps).tolist()
        errors.append(variance_error(SOLVERS[name](table, None, 1.0), table, times))
    assert min(errors) > 0.2 and errors[-1] > 0.5 * errors[0]
    assert 0 in (SOLVERS[name].order, SOLVERS[name].order_with_noise)
