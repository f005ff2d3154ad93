import math

import pytest
import torch
from diffusers import DDPMScheduler, EulerDiscreteScheduler
from truth import every_schedule, scaled_linear_betas

from playground.schedules import CONTINUOUS, EDM, VP, Cosine, Discrete, Linear, schedule_of_checkpoint

SCHEDULES = pytest.mark.parametrize("path", every_schedule(), ids=lambda path: path.name)


def inner_times(path, count=301):
    """Times where every path is smooth, off the corners of a discrete table."""
    return torch.linspace(path.t_min + 1.3e-4, path.t_max - 2.7e-4, count, dtype=torch.float64)


@SCHEDULES
def test_derivatives_are_those_of_small_differences(path):
    t, h = inner_times(path), 1e-6
    for value, derivative in ((path.alpha, path.alpha_dot), (path.sigma, path.sigma_dot)):
        expected = (value(t + h) - value(t - h)) / (2 * h)
        torch.testing.assert_close(derivative(t), expected, rtol=1e-5, atol=1e-7)


def by_autograd(value, t):
    t = t.clone().requires_grad_()
    y = value(t)
    return torch.autograd.grad(y.sum(), t)[0] if y.requires_grad else torch.zeros_like(t)


@SCHEDULES
def test_derivatives_are_those_of_autograd(path):
    t = inner_times(path)
    for value, derivative in ((path.alpha, path.alpha_dot), (path.sigma, path.sigma_dot)):
        torch.testing.assert_close(derivative(t), by_autograd(value, t), rtol=1e-9, atol=1e-10)


def test_derivatives_below_a_table_are_those_of_autograd_and_of_small_differences():
    path, h = Discrete.from_betas(scaled_linear_betas()), 1e-9
    t = path.t_min * torch.tensor([0.01, 0.3, 0.99], dtype=torch.float64)
    for value, derivative in ((path.alpha, path.alpha_dot), (path.sigma, path.sigma_dot)):
        torch.testing.assert_close(derivative(t), by_autograd(value, t), rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(derivative(t), (value(t + h) - value(t - h)) / (2 * h), rtol=1e-4, atol=1e-5)


def test_gradients_through_a_table_are_finite_everywhere():
    for path in (Discrete.from_betas(scaled_linear_betas()), Discrete(torch.tensor([0.9, 0.5, 0.0]))):
        t = torch.tensor([0.0, path.t_min / 2, path.t_min, 0.4, 1.0], dtype=torch.float64)
        for value in (path.alpha, path.sigma):
            assert bool(torch.isfinite(by_autograd(value, t)).all())


@SCHEDULES
def test_t_at_inverts_the_log_snr(path):
    t = inner_times(path)
    torch.testing.assert_close(path.t_at(path.half_log_snr(t)), t, rtol=0, atol=1e-10)


@SCHEDULES
def test_t_at_ratio_inverts_the_noise_ratio(path):
    t = inner_times(path)
    torch.testing.assert_close(path.t_at_ratio(path.noise_ratio(t)), t, rtol=0, atol=1e-10)


@SCHEDULES
def test_t_at_takes_a_number(path):
    assert float(path.t_at(float(path.half_log_snr(0.5)))) == pytest.approx(0.5)


@SCHEDULES
def test_log_snr_falls_everywhere(path):
    t = torch.linspace(path.t_min, path.t_max, 2003, dtype=torch.float64)
    assert bool((path.log_snr(t).diff() < 0).all())


@SCHEDULES
def test_log_snr_is_that_of_alpha_and_sigma(path):
    t = inner_times(path)
    torch.testing.assert_close(
        path.log_snr(t), torch.log(path.alpha(t) ** 2 / path.sigma(t) ** 2), rtol=1e-9, atol=1e-9
    )


@SCHEDULES
def test_time_zero_is_clean_data(path):
    assert float(path.alpha(0.0)) == 1
    assert float(path.sigma(0.0)) == 0


@SCHEDULES
def test_coefficients_are_float64_in_the_shape_of_t(path):
    t = torch.full((2, 3), 0.5)
    for value in (path.alpha, path.sigma, path.alpha_dot, path.sigma_dot, path.half_log_snr):
        assert value(t).shape == (2, 3)
        assert value(t).dtype == torch.float64


@pytest.mark.parametrize("path", [p for p in every_schedule() if p.name in {"vp", "cosine", "discrete"}])
def test_variance_preserving_paths_keep_the_unit_circle(path):
    t = torch.linspace(0, path.t_max, 500, dtype=torch.float64)
    torch.testing.assert_close(path.alpha(t) ** 2 + path.sigma(t) ** 2, torch.ones_like(t), rtol=0, atol=1e-12)


def test_linear_is_the_straight_line_between_data_and_noise():
    assert float(Linear().alpha(0.3)) == pytest.approx(0.7)
    assert float(Linear().sigma(0.3)) == pytest.approx(0.3)


def test_cosine_crosses_equal_parts_at_one_half():
    assert float(Cosine().log_snr(0.5)) == pytest.approx(0, abs=1e-12)


def test_vp_solves_its_own_differential_equation():
    # alpha = exp(-1/2 integral of beta), by the trapezium rule, which is exact for a linear beta.
    path = VP()
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    integral = torch.cumulative_trapezoid(path.beta(t), t)
    torch.testing.assert_close(path.alpha(t[1:]), torch.exp(-integral / 2))


def test_edm_keeps_the_data_and_reaches_sigma_max():
    path = EDM(sigma_max=80.0)
    assert float(path.alpha(1.0)) == 1
    assert float(path.noise_ratio(1.0)) == 80
    assert float(path.sigma(path.t_min)) == pytest.approx(0.002)


def test_only_the_linear_path_reaches_pure_noise():
    assert [p.name for p in every_schedule() if p.ends_in_pure_noise] == ["linear"]


@SCHEDULES
def test_clamp_moves_times_to_where_a_field_may_be_asked(path):
    clamped = path.clamp(torch.tensor([-1.0, 0.5, 2.0]))
    assert clamped.tolist() == [path.t_min, 0.5, path.t_max]


def test_identities_differ_where_the_paths_do():
    paths = [*every_schedule(), Linear(t_min=1e-3), VP(beta_max=10.0), EDM(sigma_max=40.0)]
    paths.append(Discrete.from_betas(torch.linspace(1e-4, 0.02, 1000)))
    assert len({p.identity for p in paths}) == len(paths)
    assert VP().identity == VP().identity


def test_continuous_paths_are_listed_by_name():
    assert {name: kind.name for name, kind in CONTINUOUS.items()} == {
        n: n for n in ("linear", "cosine", "vp", "edm")
    }


# Discrete tables, against diffusers.

CONFIGS = {
    "sd1": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "ddpm": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "short": {"beta_schedule": "linear", "beta_start": 1e-3, "beta_end": 0.2, "num_train_timesteps": 100},
    "trained": {"trained_betas": torch.linspace(0.01, 0.3, 20).tolist(), "num_train_timesteps": 20},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
}


def table_of(path):
    return path.alpha(torch.arange(1, path.size + 1, dtype=torch.float64) / path.size) ** 2


@pytest.mark.parametrize("name", ["sd1", "ddpm", "short", "trained"])
def test_table_is_that_of_diffusers(name):
    expected = DDPMScheduler(**CONFIGS[name]).alphas_cumprod
    torch.testing.assert_close(
        table_of(schedule_of_checkpoint(CONFIGS[name])), expected.double(), rtol=2e-5, atol=0
    )


def test_cosine_table_is_that_of_diffusers():
    expected = DDPMScheduler(**CONFIGS["cosine"]).alphas_cumprod.double()
    ours = table_of(schedule_of_checkpoint(CONFIGS["cosine"]))
    torch.testing.assert_close(ours[:-1], expected[:-1], rtol=1e-4, atol=0)
    # In float32 theirs has few digits left in its last entry.
    torch.testing.assert_close(ours[-1], expected[-1], rtol=1e-2, atol=0)
    assert float(ours[-1]) < 2.0**-24


@pytest.mark.parametrize(
    ("table", "last"),
    [
        ([0.9, 0.5, 0.0], 2.0**-24),
        ([0.5, 1e-9, 0.0], 5e-10),
        ([0.9, 0.5, 1e-12], 1e-12),
        ([0.9, 1e-10, 1e-11], 1e-11),
    ],
)
def test_only_an_exact_zero_at_the_end_of_a_table_is_replaced(table, last):
    given = torch.tensor(table, dtype=torch.float64)
    path = Discrete(given)
    torch.testing.assert_close(table_of(path)[:-1], given[:-1], rtol=1e-9, atol=0)
    assert float(table_of(path)[-1]) == pytest.approx(last, rel=1e-9, abs=0)
    assert given.tolist() == table  # the caller's own is left as it was
    t = torch.linspace(path.t_min, 1, 50, dtype=torch.float64)
    assert bool((path.half_log_snr(t).diff() < 0).all())
    assert bool(torch.isfinite(path.noise_ratio(t)).all())


def test_zero_terminal_snr_table_is_that_of_diffusers():
    config = {**CONFIGS["sd1"], "rescale_betas_zero_snr": True}
    ours = table_of(schedule_of_checkpoint(config))
    theirs = DDPMScheduler(**config).alphas_cumprod.double()
    torch.testing.assert_close(ours[:-1], theirs[:-1], rtol=1e-3, atol=1e-9)
    # diffusers' Euler scheduler keeps the last entry finite at the same value.
    assert float(ours[-1]) == pytest.approx(float(EulerDiscreteScheduler(**config).alphas_cumprod[-1]), rel=1e-6)


def test_noise_level_to_timestep_interpolates_as_k_diffusion_does():
    scheduler = EulerDiscreteScheduler(**CONFIGS["sd1"])
    log_sigmas = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt().log().numpy()
    path = schedule_of_checkpoint(CONFIGS["sd1"])
    for sigma in (0.03, 0.1, 0.7, 1.9, 6.0, 14.0):
        expected = float(scheduler._sigma_to_t(torch.tensor(sigma).numpy(), log_sigmas))
        assert float(path.index(path.t_at_ratio(sigma))) == pytest.approx(expected, abs=0.01)


def test_table_entries_stand_at_their_index():
    path = Discrete.from_betas(scaled_linear_betas())
    t = torch.tensor([1, 500, 1000]) / torch.tensor(1000.0, dtype=torch.float64)
    torch.testing.assert_close(path.index(t), torch.tensor([0.0, 499.0, 999.0], dtype=torch.float64))


def test_log_snr_between_two_entries_is_their_mean_half_way():
    path = Discrete.from_betas(scaled_linear_betas())
    ends = path.half_log_snr(torch.tensor([0.400, 0.401], dtype=torch.float64))
    assert float(path.half_log_snr(0.4005)) == pytest.approx(float(ends.mean()), rel=1e-12)


def test_below_the_table_the_noise_falls_linearly():
    path = Discrete.from_betas(scaled_linear_betas())
    assert float(path.sigma(path.t_min / 2)) == pytest.approx(float(path.sigma(path.t_min)) / 2, rel=1e-9)
    t = torch.tensor([2e-4, 7e-4], dtype=torch.float64)
    torch.testing.assert_close(path.t_at(path.half_log_snr(t)), t)


NO_TABLES = [[0.9], [0.5, 0.6], [0.5, 0.5], [[0.9, 0.5]], [0.9, 0.0, 0.0], [], [0.9, math.nan], [math.nan, 0.5]]
OUTSIDE = [[1.0, 0.5], [1.2, 0.5], [0.9, -0.1], [math.inf, 0.5], [0.5, -math.inf]]


@pytest.mark.parametrize("table", NO_TABLES + OUTSIDE, ids=str)
def test_a_table_that_does_not_fall_between_one_and_zero_is_refused(table):
    with pytest.raises(
        ValueError, match=r"^alphas_cumprod must be a table that falls strictly, between 1 and 0\.$"
    ):
        Discrete(torch.tensor(table))


def test_stable_diffusion_1_config():
    config = {"_class_name": "PNDMScheduler", **CONFIGS["sd1"], "prediction_type": "epsilon"}
    path = schedule_of_checkpoint(config)
    assert isinstance(path, Discrete)
    assert path.size == 1000
    # The largest sigma of Stable Diffusion is known as 14.6146 in k-diffusion.
    assert float(path.noise_ratio(1.0)) == pytest.approx(14.6146, abs=1e-3)


def test_stable_diffusion_2_config_has_the_same_path():
    config = {"_class_name": "DDIMScheduler", **CONFIGS["sd1"], "prediction_type": "v_prediction"}
    assert schedule_of_checkpoint(config).identity == schedule_of_checkpoint(CONFIGS["sd1"]).identity


@pytest.mark.parametrize(
    "config",
    [
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
        {"_class_name": "DPMSolverMultistepScheduler", "prediction_type": "flow_prediction"},
    ],
)
def test_flow_matching_config_is_the_linear_path(config):
    path = schedule_of_checkpoint(config)
    assert isinstance(path, Linear)
    assert path.t_min == pytest.approx(1e-3)


def test_unknown_beta_schedule_is_named():
    with pytest.raises(ValueError, match="'sigmoid'"):
        schedule_of_checkpoint({"beta_schedule": "sigmoid"})


def test_vp_inverse_does_not_cancel_near_data():
    path = VP()
    t = torch.logspace(-9, -3, 20, dtype=torch.float64)
    torch.testing.assert_close(path.t_at(path.half_log_snr(t)), t, rtol=1e-9, atol=0)


def test_half_log_snr_is_infinite_at_clean_data():
    for path in every_schedule():
        assert float(path.half_log_snr(0.0)) == math.inf
