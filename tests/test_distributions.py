"""Distances of samples as distributions, against closed forms and against chance."""

from __future__ import annotations

import math

import pytest
import torch

from playground.distributions import chance_level, energy_coefficient, energy_distance, verdict


def normal(count, seed, shift=0.0, dim=1):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)).double() + shift


def test_the_energy_distance_of_two_normals_is_the_closed_form():
    # X - Y ~ N(d, 2), X - X' ~ N(0, 2); E|N(m, s^2)| = s sqrt(2/pi) exp(-m^2/2s^2) + m erf(m / (s sqrt 2)).
    def mean_abs(m):
        s = 2**0.5
        return s * math.sqrt(2 / math.pi) * math.exp(-(m**2) / (2 * s**2)) + m * math.erf(m / (s * 2**0.5))

    for d in (0.0, 0.7, 2.0):
        x, y = normal(3000, 0), normal(3000, 1, d)
        exact = 2 * mean_abs(d) - 2 * mean_abs(0)
        assert energy_distance(x, y) == pytest.approx(exact, abs=0.03)
        assert energy_coefficient(x, y) == pytest.approx(exact / (2 * mean_abs(d)), abs=0.02)


def test_the_coefficient_has_no_unit_and_is_one_for_two_points():
    x, y = normal(20, 0, dim=5), normal(30, 1, 1.0, dim=5)
    assert energy_coefficient(7 * x, 7 * y) == pytest.approx(energy_coefficient(x, y))
    assert energy_coefficient(x * 0, x * 0 + 1) == pytest.approx(1)
    assert energy_coefficient(x * 0, x * 0) == 0


def test_equal_laws_stay_below_chance_as_often_as_it_says_and_others_do_not():
    def beyond(shift):
        pairs = [(normal(16, 2 * i, dim=64), normal(16, 2 * i + 1, shift, dim=64)) for i in range(100)]
        return sum(energy_coefficient(x, y) > chance_level(x, y, permutations=100) for x, y in pairs)

    assert beyond(0.0) <= 12  # 5 of 100 are expected; 12 or more happen once in 200 times
    assert beyond(0.4) >= 90


def test_what_noise_does_is_said_only_beyond_chance():
    assert verdict(0.30, 0.10, 0.05) == "noise repairs"
    assert verdict(0.10, 0.30, 0.05) == "noise hurts"
    assert verdict(0.10, 0.12, 0.05) == "no difference to speak of"
