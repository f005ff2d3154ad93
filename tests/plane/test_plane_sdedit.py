"""SDEdit in the plane: its two ends, its trade-off, and the exact flow as the truth of the way back."""

from __future__ import annotations

import pytest
import torch

from playground.errors import RecipeError
from playground.fields import Count
from playground.images.tradeoff import spearman
from playground.noise import start_noise
from playground.plane.flow import exact_field
from playground.plane.mixtures import ExactField, Mixture
from playground.plane.reference import transported
from playground.plane.sdedit import PARTS, STEPS, TARGET, edit_points, least_typical, strokes
from playground.schedules import CONTINUOUS

GUIDE, PARTED = strokes()
LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@pytest.fixture(scope="module")
def edits():
    return [edit_points(GUIDE, t0) for t0 in LEVELS]


def test_strokes_have_the_parts_of_the_data_but_not_its_shape():
    mixture = exact_field(TARGET).mixture
    shares = torch.stack([mixture.weights[mixture.labels == k].sum() for k in range(len(PARTS))])
    assert torch.allclose(PARTED.bincount() / len(GUIDE), shares.float(), atol=0.01)
    assert edit_points(GUIDE, 0.0).typical < 0.5


def test_at_zero_the_points_come_back(edits):
    assert torch.equal(edits[0].result, GUIDE) and torch.equal(edits[0].noised, GUIDE)
    assert edits[0].to_guide == 0 and edits[0].count == Count(0, 0)


def test_at_one_the_points_are_forgotten(edits):
    elsewhere = edit_points(torch.flip(3 * GUIDE + 1, (0,)), 1.0)
    assert torch.equal(elsewhere.result, edits[-1].result)
    assert torch.equal(edits[-1].noised.float(), start_noise(7, tuple(GUIDE.shape)))


def test_faithful_falls_and_realistic_rises(edits):
    distances, typical = [e.to_guide for e in edits], [e.typical for e in edits]
    assert distances == sorted(distances) and spearman(LEVELS, distances) == 1
    assert typical[0] < 0.5 and min(typical[3:]) > 0.95


def test_the_way_back_is_that_of_the_exact_flow(edits):
    field = exact_field(TARGET)
    for edit in edits[1:]:
        exact, _ = transported(field, edit.noised, edit.t0, 1e-4, 1e-6)
        assert float((exact - edit.result).norm(dim=-1).median()) < 0.005
        assert edit.count.evaluations == 2 * STEPS


def test_one_gaussian_by_hand():
    """x_0 ~ N(m, v): the flow keeps (x_t - a m) / sqrt(a^2 v + s^2)."""
    mean, v, t0 = torch.tensor([0.5, -1.0], dtype=torch.float64), 0.25, 0.6
    field = ExactField(Mixture(mean[None], v * torch.eye(2)[None]), CONTINUOUS["linear"]())
    guide = torch.tensor([[2.0, 0.0], [-1.0, 3.0]], dtype=torch.float64)
    made = edit_points(guide, t0, seed=3, field=field, steps=400)
    noised = (1 - t0) * guide + t0 * start_noise(3, (2, 2))
    expected = mean + (noised - (1 - t0) * mean) * (v / ((1 - t0) ** 2 * v + t0**2)) ** 0.5
    assert torch.allclose(made.noised, noised) and torch.allclose(made.result, expected, atol=1e-4)
    distance = (made.result - guide).norm(dim=1).square().mean().sqrt()
    assert made.to_guide == pytest.approx(float(distance))


def test_typical_points_are_those_that_draws_are_like():
    mixture = exact_field(TARGET).mixture
    draws = mixture.sample(5000, torch.Generator().manual_seed(1))
    share = (mixture.log_density(draws) >= least_typical(mixture)).double().mean()
    assert float(share) == pytest.approx(0.99, abs=0.005)


@pytest.mark.parametrize("t0", [-0.1, 1.1, float("nan")])
def test_other_levels_are_refused(t0):
    with pytest.raises(RecipeError, match="between 0 and 1"):
        edit_points(GUIDE, t0)
