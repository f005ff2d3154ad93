import pytest
import torch
from truth import lopsided, spread

from playground.errors import RecipeError
from playground.guidance import CFG
from playground.plane import PlaneFlow, arrows, density, error_map, exact_field, marginal, tilted_density
from playground.plane.arrows import asked
from playground.plane.density import BOX, cells, grid_points, tilted_log_density
from playground.plane.flow import weak_field
from playground.plane.mixtures import ExactField
from playground.plane.packing import unpack
from playground.schedules import CONTINUOUS, EDM, VP


@pytest.mark.parametrize("path", CONTINUOUS)
@pytest.mark.parametrize("target", ["moons", "pinwheel", "pair"])
def test_densities_are_the_mixtures_means_over_cells(path, target):
    recipe = PlaneFlow(target=target, dimension=1 if target == "pair" else 2, path=path)
    schedule, mixture = recipe.schedule(), recipe.data()
    times = [schedule.t_max, float(schedule.t_at_ratio(0.7)), schedule.t_min]
    result = density(recipe, None, times, size=20)
    parts = 15 if mixture.is_isotropic or mixture.dim == 1 else 1
    for frame, t, z in zip(result.values, times, result.zoom.tolist(), strict=True):
        fine = grid_points(BOX, 20 * parts) if mixture.dim == 2 else cells(BOX, 20 * parts)[:, None]
        values = mixture.log_density(z * fine, float(schedule.alpha(t)), float(schedule.sigma(t))).exp()
        if mixture.dim == 2:
            exact = values.reshape(20, parts, 20, parts).mean((1, 3))
        else:
            exact = values.reshape(20, parts).mean(1)
        torch.testing.assert_close(frame, exact.float(), rtol=5e-3, atol=1e-3 * float(exact.max()))


@pytest.mark.parametrize("source", ["gaussian", "uniform"])
@pytest.mark.parametrize("target", ["word", "checkerboard"])
def test_kernels_narrower_than_cells_lose_nothing(target, source):
    recipe = PlaneFlow(target=target, bandwidth=0.01, source=source)
    for frame in density(recipe, None, [0.3, 0.003, 0.0], box=6, size=180).values:
        assert float(frame.sum()) * (12 / 180) ** 2 == pytest.approx(1, abs=1e-3)


def test_rows_run_from_the_lowest_y_and_columns_from_the_lowest_x():
    recipe = PlaneFlow(target="mixture", mixture=_one_at(1.0, 2.0))
    frame = density(recipe, size=64).values[0]
    row, column = divmod(int(frame.argmax()), 64)
    assert cells(BOX, 64)[row] == pytest.approx(2, abs=0.1) and cells(BOX, 64)[column] == pytest.approx(1, abs=0.1)


def _one_at(x, y):
    from playground.plane.targets import encode_mixture

    return encode_mixture([(x, y, 0.3, 0.3, 0, 1, 0)])


@pytest.mark.parametrize("source", ["gaussian", "uniform"])
@pytest.mark.parametrize("axis", [0, 1])
def test_the_marginal_of_a_coordinate_is_the_density_added_up(source, axis):
    recipe = PlaneFlow(target="three", source=source)
    times = [0.9, 0.4, 0.0]
    plane = density(recipe, None, times, box=6, size=240).values
    line = marginal(recipe, None, times, axis, box=6, size=240).values
    added = plane.sum(1 if axis == 0 else 2) * (12 / 240)
    torch.testing.assert_close(line, added, rtol=1e-3, atol=1e-4)


def test_a_class_has_its_own_density():
    recipe = PlaneFlow(target="three")
    whole, parts = density(recipe), [density(recipe, label=c).values for c in range(3)]
    torch.testing.assert_close(whole.values, sum(parts) / 3)


def test_bytes_hold_the_density():
    result = density(PlaneFlow(path="edm"), None, [1.0, 0.0])
    header, arrays = unpack(result.to_bytes())
    peak = torch.tensor(header["maxima"])[:, None, None]
    back = (torch.tensor(arrays["density"]).float() / 255) ** 2 * peak
    assert float((back - result.values).abs().max() / peak.max()) < 0.005
    assert header["zoom"][0] == pytest.approx(80, rel=1e-3) and header["box"] == BOX


def test_a_density_needs_a_path():
    with pytest.raises(RecipeError, match="needs a path"):
        density(spread())


# The tilted density


@pytest.mark.parametrize("w", [0.0, 1.0, 3.0])
def test_the_tilted_density_is_bayes_rule_to_the_power_w(w):
    mixture = lopsided()
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None]
    p, joint = mixture.log_density(x).exp(), 0.7 * mixture.restricted(1).log_density(x).exp()
    tilted = p * (joint / p) ** w
    expected = tilted / torch.trapezoid(tilted, x[:, 0])
    ours = tilted_density(mixture, 1, w, box=8, size=4000).values[0].double()
    at = cells(8, 4000)
    torch.testing.assert_close(ours, _at(x[:, 0], expected, at), rtol=1e-3, atol=1e-5)


def _at(x, y, at):
    i = torch.searchsorted(x, at).clamp(1, len(x) - 1)
    share = (at - x[i - 1]) / (x[i] - x[i - 1])
    return torch.lerp(y[i - 1], y[i], share)


def test_the_tilted_density_in_the_plane_is_normalised():
    result = tilted_density(PlaneFlow(target="three"), 0, 4.0, box=5, size=100)
    assert float(result.values.sum()) * (10 / 100) ** 2 == pytest.approx(1, rel=1e-5)
    assert result.name == "tilted"


def test_guidance_follows_the_gradient_of_the_tilted_density_at_each_time():
    mixture, path, t, w = spread(), VP(), 0.4, 3.0
    x = torch.randn(6, 2, dtype=torch.float64).requires_grad_()
    log = tilted_log_density(mixture, 1, w, x, float(path.alpha(t)), float(path.sigma(t)))
    expected = torch.autograd.grad(log.sum(), x)[0]
    guided = asked(ExactField(mixture, path, "x0"), x.detach(), t, 1, CFG(w=w))
    torch.testing.assert_close(guided.score, expected, rtol=1e-6, atol=1e-8)


def test_a_tilt_to_a_class_that_is_not_there():
    with pytest.raises(RecipeError, match="no class 9"):
        tilted_density(spread(), 9, 2.0)


# The field on a grid


@pytest.mark.parametrize("target", ["moons", "pair"])
def test_arrows_are_the_velocity_at_the_middles_of_cells(target):
    recipe = PlaneFlow(target=target, dimension=1 if target == "pair" else 2)
    field = exact_field(recipe)
    result = arrows(field, [0.5], size=8)
    points = grid_points(BOX, 8) if recipe.dimension == 2 else cells(BOX, 8)[:, None]
    t = torch.full((len(points),), 0.5, dtype=torch.float64)
    expected = field.predict(points, t, {}).velocity
    torch.testing.assert_close(result.values.reshape(expected.shape).double(), expected, rtol=1e-4, atol=1e-5)


def test_arrows_of_an_exploding_path_are_scaled_with_the_view():
    field = ExactField(spread(), EDM(), "velocity")
    result = arrows(field, [1.0, 0.01])
    _, unpacked = unpack(result.to_bytes())
    assert result.values.shape == (2, 24, 24, 2)
    # Seen from far away the data are a point, and dx/dt = x/t.
    expected = grid_points(BOX, 24).reshape(24, 24, 2)
    assert abs(unpacked["arrows"][0] - expected.numpy()).max() < 0.1


def test_arrows_of_autoguidance_go_away_from_the_weak_field():
    recipe = PlaneFlow(target="eight", rule="auto", w=2.0)
    strong, weak = exact_field(recipe), weak_field(recipe)
    rule = recipe.plan(recipe.schedule()).rows[0].guidance
    x = torch.randn(5, 2)
    guided = asked(strong, x, 0.4, -1, rule, weak).velocity
    s, v = asked(strong, x, 0.4).velocity, asked(weak, x, 0.4).velocity
    torch.testing.assert_close(guided, v + 2 * (s - v))


def test_the_error_map_is_the_distance_of_two_fields():
    field = ExactField(spread(), VP(), "x0")
    other = ExactField(spread().blurred(0.3), VP(), "x0")
    assert float(error_map(field, field, 0.3).values.abs().max()) == 0
    result = error_map(other, field, 0.3, size=10)
    x = grid_points(BOX, 10).float()
    expected = (asked(other, x, 0.3).velocity - asked(field, x, 0.3).velocity).norm(dim=-1)
    torch.testing.assert_close(result.values.flatten(), expected)
    assert result.name == "errors"
