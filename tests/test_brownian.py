"""One path of noise, whatever the steps."""

from __future__ import annotations

import itertools

import pytest
import torch

from playground.noise import brownian, brownian_noise

SHAPE = (4096,)


def test_a_path_begins_at_zero_and_belongs_to_its_seed():
    assert brownian(1, 0.0, SHAPE).abs().max() == 0
    assert torch.equal(brownian(1, 0.3, SHAPE), brownian(1, 0.3, SHAPE))
    assert not torch.equal(brownian(1, 0.3, SHAPE), brownian(2, 0.3, SHAPE))


@pytest.mark.parametrize(("s", "t"), [(0.0, 1.0), (0.2, 0.7), (0.5, 0.501), (0.3333, 0.3343), (0.999, 1.0)])
def test_increments_are_normal_with_the_variance_of_their_length(s, t):
    gap = (brownian(3, t, SHAPE) - brownian(3, s, SHAPE)) / (t - s) ** 0.5
    # The mean and variance of 4096 normals, within five deviations.
    assert abs(float(gap.mean())) < 5 / 64 and abs(float(gap.var()) - 1) < 5 * (2 / 4096) ** 0.5
    assert float(gap.abs().max()) < 6


def test_increments_that_do_not_overlap_are_independent():
    times = [0.05, 0.1, 0.3, 0.31, 0.8]
    gaps = [brownian_noise(5, t, s, SHAPE) for s, t in itertools.pairwise(times)]
    for a, b in itertools.combinations(gaps, 2):
        assert abs(float((a * b).mean())) < 5 / 64


def test_a_step_is_the_sum_of_its_halves():
    whole = brownian_noise(7, 0.6, 0.2, SHAPE).double() * 0.4**0.5
    halves = [brownian_noise(7, t, s, SHAPE).double() * (t - s) ** 0.5 for t, s in ((0.6, 0.35), (0.35, 0.2))]
    torch.testing.assert_close(whole, sum(halves), rtol=0, atol=1e-6)
