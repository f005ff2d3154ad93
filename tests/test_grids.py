import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers import AysSchedules
from truth import every_schedule, scaled_linear_betas

from playground.errors import RecipeError
from playground.grids import (
    ALIGNED,
    GRIDS,
    TITLES,
    cosine,
    karras,
    leading,
    log_snr,
    make_grid,
    shifted,
    trailing,
    uniform,
)
from playground.schedules import EDM, VP, Cosine, Discrete, Linear

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
TABLE = Discrete.from_betas(scaled_linear_betas())
STEPS = (1, 2, 3, 7, 10, 20, 30, 50, 64, 100, 999, 1000)


ANY = [name for name in GRIDS if name not in ALIGNED]


@pytest.mark.parametrize(
    ("path", "name"),
    [(path, name) for path in every_schedule() for name in ANY] + [(TABLE, name) for name in ALIGNED],
    ids=lambda v: v if isinstance(v, str) else v.name,
)
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 20, 50, 100])
def test_every_grid_falls_from_t_max_at_most_to_zero(path, name, steps):
    times = make_grid(name, path, steps)
    assert times.dtype == torch.float64
    assert len(times) == steps + 1
    assert bool((times.diff() < 0).all())
    assert float(times[0]) <= path.t_max
    assert float(times[-1]) == 0
    assert float(times[-2]) >= path.t_min * (1 - 1e-9)


def test_uniform_steps_are_equal():
    assert uniform(Linear(), 4).tolist() == [1, 0.75, 0.5, 0.25, 0]


@pytest.mark.parametrize("steps", STEPS)
def test_trailing_is_that_of_diffusers(steps):
    scheduler = DDIMScheduler(**SD, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    assert TABLE.index(trailing(TABLE, steps)[:-1]).round(decimals=6).tolist() == scheduler.timesteps.tolist()


@pytest.mark.parametrize("steps", [s for s in STEPS if s < 1000])
def test_leading_is_that_of_diffusers_with_offset_one(steps):
    scheduler = DDIMScheduler(**SD, timestep_spacing="leading", steps_offset=1)
    scheduler.set_timesteps(steps)
    assert TABLE.index(leading(TABLE, steps)[:-1]).round(decimals=6).tolist() == scheduler.timesteps.tolist()


@pytest.mark.parametrize("steps", [2, 10, 50])
def test_karras_noise_levels_and_fractional_timesteps_are_those_of_diffusers(steps):
    scheduler = EulerDiscreteScheduler(**SD, timestep_spacing="linspace", use_karras_sigmas=True)
    scheduler.set_timesteps(steps)
    times = karras(TABLE, steps)
    np.testing.assert_allclose(TABLE.noise_ratio(times).numpy(), scheduler.sigmas.numpy(), rtol=2e-4)
    np.testing.assert_allclose(TABLE.index(times[:-1]).numpy(), scheduler.timesteps.numpy(), atol=0.05)


def test_karras_timesteps_of_multistep_in_diffusers_are_ours_rounded():
    # Its noise levels are the same, but its network is told the nearest whole table index.
    scheduler = DPMSolverMultistepScheduler(**SD, use_karras_sigmas=True, final_sigmas_type="zero")
    scheduler.set_timesteps(20)
    times = karras(TABLE, 20)
    np.testing.assert_allclose(TABLE.noise_ratio(times).numpy(), scheduler.sigmas.numpy(), rtol=2e-4)
    ours = TABLE.index(times[:-1])
    assert bool((ours != ours.round()).any())
    assert float((ours - scheduler.timesteps).abs().max()) <= 0.5 + 0.05


def test_karras_is_equation_5_of_the_paper():
    steps, path = 18, EDM()
    i = np.arange(steps)
    expected = (80 ** (1 / 7) + i / (steps - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(path.noise_ratio(karras(path, steps)[:-1]).numpy(), expected, rtol=1e-9)


def test_karras_starts_at_a_finite_noise_level_where_the_path_does_not():
    assert float(Linear().noise_ratio(karras(Linear(), 5)[0])) == pytest.approx(80)


@pytest.mark.parametrize("path", every_schedule(), ids=lambda path: path.name)
def test_log_snr_steps_are_equal(path):
    values = path.log_snr(log_snr(path, 9)[:-1])
    torch.testing.assert_close(values.diff(), torch.full((8,), float(values.diff().mean())).double())


@pytest.mark.parametrize("steps", [2, 10, 50])
def test_log_snr_noise_levels_and_timesteps_are_the_exponential_ones_of_diffusers(steps):
    scheduler = EulerDiscreteScheduler(**SD, timestep_spacing="linspace", use_exponential_sigmas=True)
    scheduler.set_timesteps(steps)
    times = log_snr(TABLE, steps)
    np.testing.assert_allclose(TABLE.noise_ratio(times).numpy(), scheduler.sigmas.numpy(), rtol=2e-4)
    np.testing.assert_allclose(TABLE.index(times[:-1]).numpy(), scheduler.timesteps.numpy(), atol=0.05)


@pytest.mark.parametrize("path", every_schedule(), ids=lambda path: path.name)
def test_cosine_turns_by_equal_angles(path):
    angle = torch.atan2(path.sigma(cosine(path, 9)), path.alpha(cosine(path, 9)))
    torch.testing.assert_close(angle[:-1].diff(), torch.full((8,), float(angle[:-1].diff().mean())).double())


def test_cosine_on_its_own_path_is_uniform():
    times = cosine(Cosine(t_min=0.1, t_max=0.9), 9)
    torch.testing.assert_close(times[:-1], torch.linspace(0.9, 0.1, 9, dtype=torch.float64))


@pytest.mark.parametrize("steps", [1, 5, 28])
def test_shifted_is_that_of_stable_diffusion_3(steps):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=uniform(Linear(), steps)[:-1].numpy())
    np.testing.assert_allclose(shifted(Linear(), steps), scheduler.sigmas, rtol=1e-6)


def test_shifted_multiplies_the_noise_ratio_of_the_straight_path():
    ratio = Linear().noise_ratio(shifted(Linear(), 9)[1:-1]) / Linear().noise_ratio(uniform(Linear(), 9)[1:-1])
    torch.testing.assert_close(ratio, torch.full((8,), 3.0, dtype=torch.float64))


@pytest.mark.parametrize(("name", "key"), [("ays_sd15", "StableDiffusion"), ("ays_sdxl", "StableDiffusionXL")])
def test_ten_aligned_steps_are_those_published(name, key):
    levels = TABLE.noise_ratio(make_grid(name, TABLE, 10))
    np.testing.assert_allclose(levels, AysSchedules[f"{key}Sigmas"], rtol=1e-4)
    # They were published as indices too, which are rounded.
    ours = TABLE.index(make_grid(name, TABLE, 10)[:-1])
    np.testing.assert_allclose(ours, AysSchedules[f"{key}Timesteps"], atol=1.0)


@pytest.mark.parametrize("name", ALIGNED)
def test_twenty_aligned_steps_hold_the_ten_and_their_geometric_means(name):
    ten, twenty = (TABLE.noise_ratio(make_grid(name, TABLE, n))[:-1] for n in (10, 20))
    torch.testing.assert_close(twenty[::2], ten)
    torch.testing.assert_close(twenty[1:-1:2], (ten[1:] * ten[:-1]).sqrt(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", ALIGNED)
@pytest.mark.parametrize(
    "path",
    [
        Linear(),
        VP(),
        EDM(),
        Discrete.from_betas(torch.linspace(1e-4, 0.02, 1000)),
        Discrete.from_betas(scaled_linear_betas()[:500]),
    ],
    ids=["linear", "vp", "edm", "another table", "half of the table"],
)
def test_aligned_steps_are_only_for_the_table_they_were_made_for(name, path):
    with pytest.raises(RecipeError) as caught:
        make_grid(name, path, 10)
    assert str(caught.value) == (
        "Align Your Steps was made for Stable Diffusion's noise levels; this path has others."
    )


@pytest.mark.parametrize("path", [Linear(), Cosine(), VP(), EDM()], ids=lambda path: path.name)
def test_trailing_without_a_table_is_uniform(path):
    assert torch.equal(trailing(path, 9), uniform(path, 9))


@pytest.mark.parametrize("name", ["trailing", "leading"])
def test_more_steps_than_levels_are_refused(name):
    table = Discrete.from_betas(torch.linspace(0.01, 0.3, 20))
    with pytest.raises(RecipeError) as caught:
        make_grid(name, table, 25)
    levels = {"trailing": 20, "leading": 19}[name]
    assert str(caught.value) == f"25 steps do not fit on this time grid, which has {levels} levels."


def test_more_steps_than_a_path_without_a_table_takes_is_told_truly():
    assert len(make_grid("leading", Linear(), 999)) == 1000
    with pytest.raises(RecipeError, match=r"^1001 steps do not fit on this time grid, which has 999 levels\.$"):
        make_grid("leading", Linear(), 1001)


def test_a_grid_that_refuses_n_steps_does_not_say_that_it_has_n_levels():
    with pytest.raises(RecipeError) as caught:
        make_grid("leading", Discrete.from_betas(torch.linspace(0.01, 0.3, 20)), 20)
    assert "20 levels" not in str(caught.value)


def test_every_grid_has_a_title():
    assert set(TITLES) == set(GRIDS)
