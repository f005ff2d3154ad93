import math

import pytest
import torch
from truth import every_schedule, gaussian, lopsided, spread

from playground.errors import RecipeError
from playground.fields import Prediction
from playground.plane.mixtures import ExactField, Mixture, uniform_from_normal, uniform_posterior
from playground.schedules import VP, Linear


def points(count=20, seed=0, dim=2):
    return 2 * torch.randn(count, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def covariances(mixture):
    return mixture.axes @ torch.diag_embed(mixture.variances) @ mixture.axes.mT


@pytest.mark.parametrize(("a", "s"), [(1.0, 0.0), (0.8, 0.6), (0.1, 3.0)])
def test_log_density_is_that_of_torch_distributions(a, s):
    mixture, x = spread(), points()
    full = a**2 * covariances(mixture) + s**2 * torch.eye(2)
    components = torch.distributions.MultivariateNormal(a * mixture.means, full)
    law = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(mixture.weights), components)
    torch.testing.assert_close(mixture.log_density(x, a, s), law.log_prob(x))


def test_log_density_of_noised_data_is_the_convolution():
    mixture, a, s = lopsided(), 0.7, 0.5
    x = torch.linspace(-3, 3, 11, dtype=torch.float64)
    grid = torch.linspace(-6, 6, 20001, dtype=torch.float64)
    prior = mixture.log_density(grid[:, None]).exp()
    kernel = torch.exp(-((x[:, None] - a * grid) ** 2) / (2 * s**2)) / (s * math.sqrt(2 * math.pi))
    expected = torch.trapezoid(prior * kernel, grid, dim=-1)
    torch.testing.assert_close(mixture.log_density(x[:, None], a, s).exp(), expected, rtol=1e-6, atol=1e-9)


def test_posterior_means_are_bayes_rule_by_brute_force():
    mixture, a, s = lopsided(), 0.7, 0.5
    x = torch.linspace(-3, 3, 11, dtype=torch.float64)
    grid = torch.linspace(-6, 6, 20001, dtype=torch.float64)
    joint = mixture.log_density(grid[:, None]).exp() * torch.exp(-((x[:, None] - a * grid) ** 2) / (2 * s**2))
    expected = torch.trapezoid(joint * grid, grid, dim=-1) / torch.trapezoid(joint, grid, dim=-1)
    one = torch.ones(11, dtype=torch.float64)
    x0, eps = mixture.posterior(x[:, None], a * one, s * one)
    torch.testing.assert_close(x0[:, 0], expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(eps[:, 0], (x - a * expected) / s, rtol=1e-6, atol=1e-8)


def test_posterior_mean_is_tweedies_formula():
    mixture, x = spread(), points().requires_grad_()
    a, s = torch.tensor(0.6, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64)
    score = torch.autograd.grad(mixture.log_density(x, a, s).sum(), x)[0]
    x0, eps = mixture.posterior(x.detach(), a.expand(len(x)), s.expand(len(x)))
    torch.testing.assert_close(x0, (x.detach() + s**2 * score) / a)
    torch.testing.assert_close(eps, -s * score)


def test_posterior_of_points_is_a_softmax_over_distances():
    data = points(6, seed=3)
    mixture = Mixture(data, torch.zeros(6, 2, 2))
    x, a, s = points(9), 0.9, 0.4
    logits = -((x[:, None] - a * data) ** 2).sum(-1) / (2 * s**2)
    expected = torch.softmax(logits, -1) @ data
    one = torch.ones(9, dtype=torch.float64)
    torch.testing.assert_close(mixture.posterior(x, a * one, s * one)[0], expected)


def test_line_shaped_covariance_is_exact():
    # All variance along one axis: x_0 = z (1, 1)/sqrt 2 with z ~ N(0, 2).
    mixture = Mixture(torch.zeros(1, 2), torch.ones(1, 2, 2))
    x, one = points(8), torch.ones(8, dtype=torch.float64)
    along = (x @ torch.ones(2, dtype=torch.float64))[:, None] / 2
    a, s = 0.6, 0.5
    expected = a * 2 / (a**2 * 2 + s**2) * along * torch.ones(1, 2)
    torch.testing.assert_close(mixture.posterior(x, a * one, s * one)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mixture", [spread(), Mixture(points(4), torch.zeros(4, 2, 2))], ids=["spread", "points"])
def test_finite_and_right_far_from_the_data(mixture, dtype):
    x = torch.tensor([[1e4, -1e4], [-1e5, 1e5]], dtype=dtype)
    a, s = torch.tensor([0.999, 0.5]), torch.tensor([0.03, 0.5])
    x0, eps = mixture.posterior(x, a, s)
    assert bool(torch.isfinite(x0).all())
    assert bool(torch.isfinite(mixture.log_density(x, a, s)).all())
    torch.testing.assert_close(a.to(x)[:, None] * x0 + s.to(x)[:, None] * eps, x, rtol=1e-4, atol=1e-3)


def test_weights_are_normalised():
    mixture = Mixture(torch.zeros(2, 1), torch.ones(2, 1, 1), torch.tensor([2.0, 6.0]))
    assert mixture.weights.tolist() == [0.25, 0.75]


def test_classes_add_up_to_the_whole():
    mixture, x = spread(), points()
    shares = [float(mixture.weights[mixture.labels == c].sum()) for c in (0, 1)]
    parts = [shares[c] * mixture.restricted(c).log_density(x).exp() for c in (0, 1)]
    torch.testing.assert_close(parts[0] + parts[1], mixture.log_density(x).exp())


def test_samples_have_the_moments_of_the_mixture():
    mixture, count = spread(), 200_000
    x = mixture.sample(count, torch.Generator().manual_seed(0))
    mean = mixture.weights @ mixture.means
    offset = mixture.means - mean
    covariance = (
        mixture.weights[:, None, None] * (covariances(mixture) + offset[:, :, None] * offset[:, None])
    ).sum(0)
    tolerance = 6 * float(covariance.max()) / math.sqrt(count)
    torch.testing.assert_close(x.mean(0), mean, rtol=0, atol=tolerance)
    torch.testing.assert_close(x.T.cov(), covariance, rtol=0, atol=3 * tolerance)


@pytest.mark.parametrize("path", every_schedule(), ids=lambda path: path.name)
def test_velocity_carries_the_density(path):
    """The continuity equation, d log p/dt + div u + u . grad log p = 0."""
    mixture, field = spread(), ExactField(spread(), path)
    t, h = torch.tensor([0.1305, 0.4205, 0.8605], dtype=torch.float64), 1e-6
    a, s = path.alpha(t)[:, None], path.sigma(t)[:, None]
    x = (a * points(3, seed=5) / 2 + s * points(3, seed=6) / 2).requires_grad_()

    def log_p(time):
        return mixture.log_density(x, path.alpha(time), path.sigma(time))

    in_time = ((log_p(t + h) - log_p(t - h)) / (2 * h)).detach()
    in_space = torch.autograd.grad(log_p(t).sum(), x)[0]
    u = field.predict(x, t, {}).velocity
    divergence = sum(torch.autograd.grad(u[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(2))
    carried = divergence + (u.detach() * in_space).sum(-1)
    torch.testing.assert_close(carried, -in_time, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["x0", "eps", "v", "velocity"])
def test_exact_field_says_the_same_in_every_kind(kind):
    path, x = VP(), points(5)
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    x0, eps = spread().posterior(x, path.alpha(t), path.sigma(t))
    p: Prediction = ExactField(spread(), path, kind).predict(x, t, {})
    assert p.kind == kind
    torch.testing.assert_close(p.x0, x0, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(p.eps, eps, rtol=1e-7, atol=1e-9)


def test_exact_field_answers_each_row_for_its_class():
    path, x, t = VP(), points(3), torch.full((3,), 0.4, dtype=torch.float64)
    field = ExactField(spread(), path)
    answer = field.predict(x, t, field.encode([None, 0, 1])).x0
    for row, mixture in enumerate((spread(), spread().restricted(0), spread().restricted(1))):
        expected = mixture.posterior(x[row : row + 1], path.alpha(t[:1]), path.sigma(t[:1]))[0]
        torch.testing.assert_close(answer[row : row + 1], expected)


def test_a_class_that_is_not_there_is_one_sentence():
    field, x = ExactField(spread(), VP()), points(2)
    with pytest.raises(RecipeError, match=r"^The distribution has no class 7\.$"):
        field.predict(x, torch.full((2,), 0.4, dtype=torch.float64), field.encode([0, 7]))


def test_exact_velocity_of_a_gaussian_at_both_ends_of_the_linear_path():
    # N(0, 1) on x_t = (1 - t) x_0 + t eps has velocity x (2t - 1)/((1 - t)^2 + t^2).
    field = ExactField(gaussian(), Linear())
    t = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    x = torch.full((3, 1), 2.0, dtype=torch.float64)
    torch.testing.assert_close(field.predict(x, t, {}).velocity[:, 0], 2 * (2 * t - 1) / ((1 - t) ** 2 + t**2))


def test_exact_velocity_of_points_at_clean_data_is_finite():
    data = torch.tensor([[1.0], [-1.0]])
    field = ExactField(Mixture(data, torch.zeros(2, 1, 1)), Linear())
    value = field.predict(data.double(), torch.zeros(2, dtype=torch.float64), {}).velocity
    torch.testing.assert_close(value, -data.double())  # E[eps | x] is 0 there, and x is the data


def test_exact_fields_differ_in_identity_with_target_path_and_kind():
    fields = [
        ExactField(spread(), VP()),
        ExactField(lopsided(), VP()),
        ExactField(spread(), Linear()),
        ExactField(spread(), VP(), "x0"),
    ]
    assert len({f.identity for f in fields}) == 4
    assert ExactField(spread(), VP()).identity == fields[0].identity


def _round_mixture():
    scales = torch.tensor([0.3, 0.1, 0.7], dtype=torch.float64)
    means = torch.tensor([[-1.0, 0.5], [1.2, -0.4], [0.3, 1.6]])
    return Mixture(means, scales[:, None, None] ** 2 * torch.eye(2), torch.tensor([0.5, 0.2, 0.3]), [0, 1, 1])


@pytest.mark.parametrize("mixture", [spread(), _round_mixture()], ids=["stretched", "round"])
@pytest.mark.parametrize(("a", "s"), [(1.0, 0.0), (0.7, 0.5), (0.0, 1.0), (1.0, 80.0)])
def test_one_time_for_all_rows_gives_the_same_posterior(mixture, a, s):
    x = torch.cat([points(), 1e4 * points(4, seed=1)])
    one = torch.ones(1, dtype=torch.float64)
    for shared, own in zip(
        mixture.posterior(x, a * one, s * one),
        mixture.posterior(x, a * one.expand(len(x)), s * one.expand(len(x))),
        strict=True,
    ):
        # Far away log-densities are 1e8 and larger, which leaves 1e-8 of the weights to rounding.
        torch.testing.assert_close(shared, own, rtol=1e-7, atol=1e-8)


def test_single_precision_is_enough_near_clean_data():
    mixture, x = _round_mixture(), points(200)
    a, s = torch.tensor([0.998], dtype=torch.float64), torch.tensor([0.002], dtype=torch.float64)
    for single, double in zip(mixture.posterior(x.float(), a, s), mixture.posterior(x, a, s), strict=True):
        torch.testing.assert_close(single.double(), double, rtol=0, atol=2e-4)


def test_blocks_give_the_same_answer(monkeypatch):
    mixture, x = spread(), points(50)
    a, s = torch.tensor([0.7], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    whole, density = mixture.posterior(x, a, s), mixture.log_density(x, 0.7, 0.5)
    monkeypatch.setattr("playground.plane.mixtures.BLOCK", 9)
    for w, b in zip(whole, mixture.posterior(x, a, s), strict=True):
        torch.testing.assert_close(w, b)
    torch.testing.assert_close(density, mixture.log_density(x, 0.7, 0.5))


@pytest.mark.parametrize("mixture", [spread(), _round_mixture(), lopsided()], ids=["stretched", "round", "line"])
@pytest.mark.parametrize(("a", "s"), [(1.0, 0.05), (0.7, 0.5), (0.0, 1.0), (1.0, 20.0)])
def test_divergences_are_those_of_autograd(mixture, a, s):
    x = (2 * points(9, dim=mixture.dim)).requires_grad_()
    a, s = (torch.tensor([v], dtype=torch.float64) for v in (a, s))
    closed = mixture.divergences(x.detach(), a, s)
    for part, value in zip(mixture.posterior(x, a, s), closed, strict=True):
        by_hand = sum(
            torch.autograd.grad(part[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(mixture.dim)
        )
        torch.testing.assert_close(value, by_hand, rtol=1e-8, atol=1e-8)


def test_blurring_is_noise_of_that_scale():
    mixture, x = spread(), points()
    torch.testing.assert_close(mixture.blurred(0.4).log_density(x), mixture.log_density(x, 1.0, 0.4))


# The uniform source


def _brute(mixture, x, a, s):
    """(p(x), E[x_0 | x], E[u | x]) for x = a x_0 + s u on the line, by adding up over u."""
    edge = math.sqrt(3)
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 100_000 * edge - edge
    weight = mixture.log_density(((x[:, None] - s * u) / a).reshape(-1, 1)).exp().reshape(len(x), -1) / a
    density = weight.mean(-1)
    mean_u = (weight * u).mean(-1) / density
    return density, (x - s * mean_u) / a, mean_u


@pytest.mark.parametrize(("a", "s"), [(0.9, 0.1), (0.5, 0.5), (0.1, 0.9), (1.0, 3.0), (1.0, 1e-5)])
def test_posterior_of_the_uniform_source_is_bayes_rule_by_brute_force(a, s):
    mixture = lopsided()
    x = torch.linspace(-2.5, 2.5, 13, dtype=torch.float64)
    density, x0, u = _brute(mixture, x, a, s)
    one = torch.ones(1, dtype=torch.float64)
    log_p, mean_x0, mean_u = uniform_posterior(mixture, x[:, None], a * one, s * one)
    seen = density > 1e-9
    torch.testing.assert_close(log_p.exp(), density, rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(mean_x0[seen, 0], x0[seen], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(mean_u[seen, 0], u[seen], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("a", "s"), [(1.0, 0.0), (0.999, 0.001), (0.5, 0.5), (0.001, 0.999), (0.0, 1.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_uniform_source_is_finite_and_adds_up_far_from_the_data(a, s, dtype):
    mixture = _round_mixture()
    x = torch.tensor([[0.3, -0.2], [50.0, -80.0], [-1e4, 2e4]], dtype=dtype)
    one = torch.ones(1, dtype=torch.float64)
    _, x0, u = uniform_posterior(mixture, x, a * one, s * one)
    assert bool(torch.isfinite(x0).all() and torch.isfinite(u).all())
    assert float(u.abs().max()) <= math.sqrt(3) + 1e-6
    if 0 < a < 1:  # at the ends one of the two has no influence on x
        torch.testing.assert_close(a * x0 + s * u, x, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("path", every_schedule()[:4], ids=lambda path: path.name)
def test_velocity_of_the_uniform_source_carries_its_density(path):
    """The continuity equation on the line, dp/dt + d(p u)/dx = 0."""
    mixture, field = lopsided(), ExactField(lopsided(), path, "x0", "uniform")
    for ratio in (0.3, 1.0, 3.0):
        t, h = float(path.t_at_ratio(ratio)), 1e-5
        size = float(path.alpha(t)) + float(path.sigma(t))
        x = size * torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None] / 2

        def flux(y, t=t):
            velocity = field.predict(y, torch.full((len(y),), t, dtype=torch.float64), {}).velocity[:, 0]
            return velocity * field.log_density(y, t).exp()

        in_time = (field.log_density(x, t + h * t).exp() - field.log_density(x, t - h * t).exp()) / (2 * h * t)
        in_space = (flux(x + h * size) - flux(x - h * size)) / (2 * h * size)
        torch.testing.assert_close(in_time, -in_space, rtol=1e-4, atol=1e-5 * float(in_time.abs().max() + 1))
    assert mixture.is_isotropic


def test_a_uniform_source_needs_round_components():
    with pytest.raises(RecipeError, match="round components"):
        ExactField(spread(), Linear(), source="uniform")


def test_normal_noise_becomes_uniform_quantile_by_quantile():
    z = torch.tensor([-10.0, 0.0, 10.0])
    assert torch.allclose(uniform_from_normal(z), math.sqrt(3) * torch.tensor([-1.0, 0.0, 1.0]))
