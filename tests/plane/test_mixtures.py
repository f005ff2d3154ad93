import math

import pytest
import torch
from truth import every_schedule, gaussian, lopsided, spread

from playground.errors import RecipeError
from playground.fields import Prediction
from playground.plane.mixtures import ExactField, Mixture
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
