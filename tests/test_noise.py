import torch

from playground.noise import start_noise, step_noise


def test_start_noise_is_what_torch_draws_after_manual_seed():
    torch.manual_seed(1234)
    assert torch.equal(start_noise(1234, (4, 8, 8)), torch.randn(4, 8, 8))


def test_start_noise_is_what_a_pipeline_draws_from_a_generator():
    from diffusers.utils.torch_utils import randn_tensor

    theirs = randn_tensor((1, 4, 8, 8), generator=torch.Generator().manual_seed(7))
    assert torch.equal(start_noise(7, (4, 8, 8)), theirs[0])


def test_noise_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    start_noise(3, (2,))
    step_noise(3, 0, 0, (2,))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_noise_inside_steps_differs_with_seed_step_and_draw():
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (11, 0, 0), (1, 10, 0)]
    drawn = [step_noise(*key, (5,)) for key in keys] + [start_noise(0, (5,)), start_noise(1, (5,))]
    assert len({tuple(d.tolist()) for d in drawn}) == len(drawn)


def test_noise_inside_steps_is_repeatable():
    assert torch.equal(step_noise(5, 3, 1, (4,)), step_noise(5, 3, 1, (4,)))


def test_noise_is_standard_normal_and_uncorrelated_between_steps():
    a, b = (step_noise(9, step, 0, (40_000,)) for step in (0, 1))
    assert abs(float(a.mean())) < 0.03
    assert abs(float(a.std()) - 1) < 0.02
    assert abs(float((a * b).mean())) < 0.03


def test_largest_seeds_are_taken():
    assert start_noise(2**31 - 1 + 8, (2,)).shape == (2,)
    assert step_noise(2**31 - 1 + 8, 99, 3, (2,)).shape == (2,)
