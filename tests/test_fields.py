import math

import pytest
import torch
from truth import Toy, every_schedule, spread

from playground.fields import Count, Prediction, rows
from playground.plane.mixtures import ExactField
from playground.schedules import Cosine, Linear

KINDS = ("x0", "eps", "v", "velocity")
SCHEDULES = pytest.mark.parametrize("path", every_schedule(), ids=lambda path: path.name)


def one_of_everything(path):
    """x, t and the four quantities of a known pair (x0, eps), by their definitions."""
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 7, 3, generator=generator, dtype=torch.float64)
    t = torch.linspace(path.t_min + 0.05, path.t_max - 0.05, 7, dtype=torch.float64)
    a, s, a_dot, s_dot = (getattr(path, name)(t)[:, None] for name in ("alpha", "sigma", "alpha_dot", "sigma_dot"))
    known = {"x0": x0, "eps": eps, "v": a * eps - s * x0, "velocity": a_dot * x0 + s_dot * eps, "score": -eps / s}
    return a * x0 + s * eps, t, known


@SCHEDULES
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_tells_every_other(path, kind):
    x, t, known = one_of_everything(path)
    prediction = Prediction(kind, known[kind], x, t, path)
    for name, value in known.items():
        torch.testing.assert_close(getattr(prediction, name), value, rtol=1e-8, atol=1e-8)


@SCHEDULES
@pytest.mark.parametrize("kind", KINDS)
def test_reading_the_own_kind_changes_nothing(path, kind):
    x, t, known = one_of_everything(path)
    assert Prediction(kind, known[kind], x, t, path).read(kind) is known[kind]


def test_v_is_the_velocity_only_up_to_the_clock_of_the_cosine_path():
    x, t, known = one_of_everything(Cosine())
    torch.testing.assert_close(known["velocity"], math.pi / 2 * known["v"])
    x, t, known = one_of_everything(Linear())
    prediction = Prediction("v", known["v"], x, t, Linear())
    assert float((prediction.velocity - prediction.v).abs().max()) > 0.1


@SCHEDULES
def test_score_of_the_exact_field_is_the_gradient_of_the_log_density(path):
    mixture = spread()
    t = torch.linspace(path.t_min + 0.02, path.t_max, 9, dtype=torch.float64)
    a, s = path.alpha(t), path.sigma(t)
    x = a[:, None] * mixture.sample(9, torch.Generator().manual_seed(1)) + s[:, None]
    x.requires_grad_()
    expected = torch.autograd.grad(mixture.log_density(x, a, s).sum(), x)[0]
    field = ExactField(mixture, path)
    torch.testing.assert_close(field.predict(x.detach(), t, {}).score, expected, rtol=1e-6, atol=1e-7)


def test_flow_model_is_finite_at_pure_noise():
    x, velocity = torch.tensor([[2.0]]), torch.tensor([[0.5]])
    p = Prediction("velocity", velocity, x, torch.tensor([1.0], dtype=torch.float64), Linear())
    assert p.x0.item() == 1.5
    assert p.eps.item() == 2.0
    assert p.score.item() == -2.0


def test_flow_model_is_finite_at_clean_data():
    x, velocity = torch.tensor([[2.0]]), torch.tensor([[0.5]])
    p = Prediction("velocity", velocity, x, torch.tensor([0.0], dtype=torch.float64), Linear())
    assert p.x0.item() == 2.0
    assert p.eps.item() == 2.5


@pytest.mark.parametrize(("t", "x0", "eps"), [(0.0, 2.0, 0.5), (1.0, -0.5, 2.0)])
def test_v_is_readable_at_both_ends(t, x0, eps):
    p = Prediction("v", torch.tensor([[0.5]]), torch.tensor([[2.0]]), torch.tensor([t]), Cosine(t_max=1.0))
    assert p.x0.item() == pytest.approx(x0, abs=1e-6)
    assert p.eps.item() == pytest.approx(eps, abs=1e-6)


@pytest.mark.parametrize("path", [p for p in every_schedule() if p.name != "linear"], ids=lambda path: path.name)
@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_finite_where_a_field_may_be_asked(path, kind):
    t = torch.tensor([path.t_min or 1e-3, path.t_max], dtype=torch.float64)
    x, value = torch.ones(2, 3, dtype=torch.float64), torch.full((2, 3), 0.3, dtype=torch.float64)
    p = Prediction(kind, value, x, t, path)
    for name in (*KINDS, "score"):
        assert bool(torch.isfinite(getattr(p, name)).all()), name


def test_precision_of_x_is_kept():
    for dtype in (torch.float32, torch.float64):
        x = torch.ones(2, 3, dtype=dtype)
        p = Prediction("velocity", x, x, torch.tensor([0.2, 0.4], dtype=torch.float64), Linear())
        assert {p.x0.dtype, p.eps.dtype, p.v.dtype, p.score.dtype} == {dtype}


def test_take_and_joined_are_inverse():
    x, t, known = one_of_everything(Linear())
    p = Prediction("eps", known["eps"], x, t, Linear())
    again = Prediction.joined([p.take(slice(0, 3)), p.take(torch.tensor([3, 4])), p.take(torch.tensor([5, 6]))])
    assert torch.equal(again.value, p.value)
    assert torch.equal(again.x, p.x)
    assert torch.equal(again.t, p.t)


def test_replaced_keeps_the_place_and_drops_what_was_read():
    x, t, known = one_of_everything(Linear())
    p = Prediction("eps", known["eps"], x, t, Linear())
    assert torch.isfinite(p.x0).all()
    q = p.replaced("x0", torch.zeros_like(x))
    assert torch.equal(q.x0, torch.zeros_like(x))
    torch.testing.assert_close(q.eps, x / t[:, None])


def test_rows_broadcasts_one_number_per_row():
    like = torch.zeros(2, 3, 4)
    assert rows(torch.tensor([1.0, 2.0], dtype=torch.float64), like).shape == (2, 1, 1)
    assert rows(torch.tensor([1.0, 2.0], dtype=torch.float64), like).dtype == torch.float32
    assert rows(3.0, like).shape == ()


def test_a_field_counts_calls_and_rows():
    field = Toy()
    for size in (2, 5):
        field.predict(torch.zeros(size, 3), torch.full((size,), 0.5), field.encode([None] * size))
    assert field.count == Count(evaluations=2, sample_forwards=7)


def test_predictions_can_be_differentiated_through():
    field = Toy()
    x = torch.ones(1, 3, requires_grad=True)
    field.predict(x, torch.tensor([0.5], dtype=torch.float64), field.encode([None])).x0.sum().backward()
    assert bool((x.grad != 0).all())
