import pytest
import torch
from truth import gaussian, lopsided, spread, transported

from playground.errors import NonFiniteError, RecipeError
from playground.plane import PlaneFlow, exact_field, log_likelihood, reference, round_trip_error
from playground.plane.likelihood import divergence, divergence_by_autograd
from playground.plane.mixtures import ExactField
from playground.plane.point import ask_point
from playground.plane.reference import integrate
from playground.plane.reference import transported as by_ode
from playground.schedules import CONTINUOUS, EDM, VP, Linear


def test_the_reference_solves_an_equation_whose_solution_is_known():
    y = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    for t, s in ((0.0, 2.0), (2.0, 0.5)):
        value, asked = integrate(lambda at, v: -2 * at * v, y, t, s, 1e-10)
        torch.testing.assert_close(value, y * torch.exp(torch.tensor(t**2 - s**2).double()), rtol=1e-8, atol=0)
        assert asked < 1000
    assert integrate(lambda at, v: v, y, 1.0, 1.0) == (y, 0)


def test_an_equation_that_explodes_is_one_sentence():
    with pytest.raises(NonFiniteError, match=r"could not be found to this tolerance\.$"):
        integrate(lambda t, y: y**2, torch.ones(1, 1, dtype=torch.float64), 0.0, 2.0)


@pytest.mark.parametrize("path", [Linear(), VP(), EDM()], ids=lambda path: path.name)
def test_the_reference_keeps_quantiles_on_the_line(path):
    t, s = path.t_at_ratio(torch.tensor([5.0, 0.1])).tolist()
    x = float(path.sigma(t)) * torch.linspace(-2, 2, 9, dtype=torch.float64)
    field = ExactField(lopsided(), path, "x0")
    moved, _ = by_ode(field, x[:, None], t, s, 1e-10)
    torch.testing.assert_close(moved[:, 0], transported(lopsided(), path, x, t, s), rtol=0, atol=1e-7)


@pytest.mark.parametrize("path", CONTINUOUS)
@pytest.mark.parametrize("label", [-1, 1])
def test_divergence_in_closed_form_is_that_of_autograd(path, label):
    schedule = CONTINUOUS[path]()
    field = ExactField(spread(), schedule, "x0")
    x = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for ratio in (0.05, 0.5, 5.0):
        t = float(schedule.t_at_ratio(ratio))
        torch.testing.assert_close(
            divergence(field, x, t, label), divergence_by_autograd(field, x, t, label), rtol=1e-7, atol=1e-7
        )


@pytest.mark.parametrize("path", CONTINUOUS)
@pytest.mark.parametrize("target", ["three", pytest.param("moons", marks=pytest.mark.slow)])
def test_likelihood_by_the_ode_is_the_closed_form(path, target):
    recipe = PlaneFlow(target=target, path=path)
    field = exact_field(recipe)
    x = recipe.data().sample(10, torch.Generator().manual_seed(0))
    x = torch.cat([x, torch.tensor([[2.0, 2.0], [0.0, 0.0]], dtype=torch.float64)])
    found = log_likelihood(field, field, x)
    # Dormand-Prince, tolerance 1e-7, from t_min (at least 1e-4) to t_max.
    torch.testing.assert_close(found.ode, found.closed, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.closed, field.log_density(x, found.t))
    assert found.t == max(field.schedule.t_min, 1e-4 if path in ("linear", "cosine") else 0)
    assert found.end == field.schedule.t_max and found.evaluations > 50


def test_likelihood_of_a_class_and_on_the_line():
    recipe = PlaneFlow(target="unequal", dimension=1)
    field = exact_field(recipe)
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    found = log_likelihood(field, field, x, label=2)
    torch.testing.assert_close(found.ode, found.closed, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        found.closed, recipe.data().restricted(2).log_density(x, 1 - 1e-4, 1e-4), rtol=1e-6, atol=1e-8
    )


def test_the_flow_of_another_density_has_its_likelihood():
    # The field of N(0, 4 I) moves points of N(0, I) apart; what it says is its own density, pulled back from the
    # base density that was given.
    path = VP()
    wrong, exact = ExactField(gaussian(4.0, 2), path, "x0"), ExactField(gaussian(1.0, 2), path, "x0")
    x = torch.randn(5, 2, dtype=torch.float64)
    found = log_likelihood(wrong, exact, x)
    expected = gaussian(4.0, 2).log_density(x)
    torch.testing.assert_close(found.ode, expected, rtol=0, atol=2e-2)  # alpha(1) is 0.007, not 0
    assert float((found.closed - expected).abs().max()) > 0.1


@pytest.mark.parametrize("path", CONTINUOUS)
def test_forward_and_back_ends_where_it_began(path):
    recipe = PlaneFlow(target="three", path=path)
    field = exact_field(recipe)
    x = recipe.data().sample(20, torch.Generator().manual_seed(0))
    path = field.schedule
    start = max(path.t_min, 1e-3)
    assert float(round_trip_error(field, x, start, path.t_max).max()) < 1e-6


def test_a_uniform_source_has_no_likelihood_here():
    field = exact_field(PlaneFlow(source="uniform"))
    with pytest.raises(RecipeError, match="Gaussian source"):
        log_likelihood(field, field, torch.zeros(1, 2))


def test_a_point_of_a_class_goes_to_the_noise_and_back_by_the_flow_of_that_class(monkeypatch):
    asked = []
    follow = reference.transported
    monkeypatch.setattr(
        reference, "transported", lambda *args: asked.append(args[5] if len(args) > 5 else -1) or follow(*args)
    )
    recipe = PlaneFlow(target="three", label=2)
    answer = ask_point(recipe, None, (0.3, 0.2), 0.1)
    assert asked and set(asked) == {2} and answer.back < 1e-4
