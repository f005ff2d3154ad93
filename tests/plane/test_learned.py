import pytest
import torch

from playground.plane import PlaneFlow, exact_field, flow, train
from playground.plane.learned import (
    EVERY,
    Trainings,
    batch,
    losses,
    training_key,
    training_times,
)
from playground.plane.metrics import sliced_wasserstein
from playground.schedules import CONTINUOUS, VP, Linear

SMALL = PlaneFlow(
    target="three", field="learned", width=16, depth=2, batch=64, train_steps=2 * EVERY, particles=100, steps=8
)


def last(recipe, start=None):
    *_, training = train(recipe, start)
    return training


def weights(training):
    return torch.cat([p.flatten() for p in training.field.network.parameters()])


@pytest.mark.parametrize("path", CONTINUOUS)
@pytest.mark.parametrize("loss", ["flow", "eps", "x0", "score"])
@pytest.mark.parametrize("source", ["gaussian", "uniform"])
def test_the_exact_field_is_the_minimiser_of_every_loss(path, loss, source):
    """Any change of the exact answer raises the loss by the square of the change."""
    if (loss, source) == ("score", "uniform"):
        return
    recipe = SMALL.but(path=path, loss=loss, source=source)
    field, schedule = exact_field(recipe), recipe.schedule()
    pairs = batch(recipe, recipe.data(), schedule, 40_000, torch.Generator().manual_seed(0))
    p = field.predict(pairs.x, pairs.t, {"label": pairs.labels})
    unit = torch.ones_like(p.value)
    size = torch.sqrt(schedule.alpha_dot(pairs.t) ** 2 + schedule.sigma_dot(pairs.t) ** 2).float()[:, None]
    answer = {"flow": lambda: p.velocity / size, "eps": lambda: p.eps, "x0": lambda: p.x0, "score": lambda: p.score}
    exact = losses(recipe, field, pairs)
    change = 0.3 * torch.tanh(pairs.x) + 0.1 * unit
    scale = schedule.sigma(pairs.t).float()[:, None] if loss == "score" else unit
    changed = losses(recipe, field, pairs, answer[loss]() + change / scale)
    gain, expected = (changed - exact).mean(), change.square().sum(-1).mean()
    # The mean of the cross term is 0; its sampling error is bounded by the spread of the loss.
    error = 2 * float((exact.sqrt() * change.norm(dim=-1)).std()) / 200
    assert float(gain - expected) == pytest.approx(0, abs=5 * error)


@pytest.mark.parametrize("path", CONTINUOUS)
def test_pairs_lie_on_their_path_with_the_exact_marginals(path):
    recipe = SMALL.but(path=path, target="pinwheel", dropout=0.5)
    schedule, mixture = recipe.schedule(), recipe.data()
    pairs = batch(recipe, mixture, schedule, 4000, torch.Generator().manual_seed(0))
    a, s = schedule.alpha(pairs.t).float()[:, None], schedule.sigma(pairs.t).float()[:, None]
    torch.testing.assert_close(pairs.x, a * pairs.x0 + s * pairs.noise)
    assert float((pairs.labels < 0).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert (
        float((mixture.classified(pairs.x0)[pairs.labels >= 0] == pairs.labels[pairs.labels >= 0]).float().mean())
        > 0.9
    )
    truth = mixture.sample(4000, torch.Generator().manual_seed(1))
    other = mixture.sample(4000, torch.Generator().manual_seed(2))
    assert sliced_wasserstein(pairs.x0, truth) < 2 * sliced_wasserstein(other, truth)


def test_times_are_spread_over_the_path_and_denser_at_data():
    for path in (Linear(), VP()):
        t = training_times(path, 10_000, torch.Generator().manual_seed(0))
        assert float(t.min()) >= path.t_min and float(t.max()) <= path.t_max
        # The mean of u^1.5 is 0.4: more of them close to the data.
        assert float(t.mean()) == pytest.approx(path.t_min + 0.4 * (path.t_max - path.t_min), abs=0.02)


def test_training_is_the_same_every_time_and_depends_on_its_seed():
    one, two = last(SMALL), last(SMALL)
    assert one.history == two.history and torch.equal(weights(one), weights(two))
    assert not torch.equal(weights(one), weights(last(SMALL.but(train_seed=1))))
    assert [s for s, _, _ in one.history] == [EVERY, 2 * EVERY]


@pytest.mark.parametrize("stop", [EVERY, EVERY + 7])
def test_going_on_is_the_same_as_never_having_stopped(stop):
    whole = last(SMALL)
    first = last(SMALL.but(train_steps=stop))
    assert first.step == stop
    on = last(SMALL, first)
    torch.testing.assert_close(weights(on), weights(whole), rtol=0, atol=1e-7)
    # And the report that was gone on from is as it was.
    assert first.step == stop and len(first.history) == -(-stop // EVERY)


def test_the_random_numbers_of_others_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    last(SMALL)
    assert torch.equal(torch.rand(3), expected)


def test_one_training_serves_all_that_only_sample_otherwise():
    kept = Trainings(limit=2)
    training = last(SMALL)
    kept.put(training)
    assert kept.get(SMALL.but(steps=99, solver="euler", seed=5)) is training
    assert kept.get(SMALL.but(train_steps=500)) is training
    assert kept.get(SMALL.but(train_steps=EVERY)) is None
    assert kept.get(SMALL.but(loss="eps")) is None
    assert training_key(SMALL) != training_key(SMALL.but(width=20))
    for seed in (1, 2):
        kept.put(last(SMALL.but(train_seed=seed, train_steps=1)))
    assert kept.get(SMALL) is None


@pytest.mark.parametrize("loss", ["flow", "eps", "x0", "score"])
@pytest.mark.parametrize("path", CONTINUOUS)
def test_flows_of_learned_fields_are_numbers_on_every_path(path, loss):
    for solver in ("heun", "dpmpp_2m"):
        result = flow(SMALL.but(path=path, loss=loss, solver=solver, grid="karras"))
        assert bool(torch.isfinite(result.frames).all()) and len(result.history) == 2


def test_a_hidden_class_is_another_answer_than_a_class():
    field = last(SMALL).field
    x, t = torch.zeros(2, 2), torch.full((2,), 0.5, dtype=torch.float64)
    answer = field.predict(x, t, field.encode([0, None])).velocity
    assert not torch.allclose(answer[0], answer[1])
    # A target without classes has none to tell.
    plain = last(SMALL.but(target="checkerboard")).field
    answer = plain.predict(x, t, plain.encode([None, None])).velocity
    assert plain.classes == [] and torch.equal(answer[0], answer[1])


def test_a_field_can_be_differentiated():
    field = last(SMALL).field
    x = torch.zeros(1, 2, requires_grad=True)
    field.predict(x, torch.full((1,), 0.5, dtype=torch.float64), field.encode([None])).velocity.sum().backward()
    assert x.grad is not None and float(x.grad.abs().max()) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "loss"), [("linear", "flow"), ("vp", "eps"), ("vp", "score"), ("linear", "x0"), ("cosine", "flow")]
)
def test_two_moons_are_learned(path, loss):
    """The default training makes samples that lie where data lie, and as many of them in every place."""
    recipe = PlaneFlow(field="learned", path=path, loss=loss, particles=5000, steps=50)
    training, data = last(recipe), recipe.data()
    assert 0.98 * training.floor < training.loss < 1.05 * training.floor
    result = flow(recipe, training.field)
    truth, other = (data.sample(n, torch.Generator().manual_seed(n)) for n in (20_000, 5000))
    assert sliced_wasserstein(result.x, truth) < 3 * sliced_wasserstein(other, truth)
    # Less probable than all but 1 % of the data: of exact draws that is one in a hundred.
    rare = data.log_density(truth).quantile(0.01)
    assert float((data.log_density(result.x) < rare).float().mean()) < 0.06
    assert float(data.log_density(result.x).mean()) > float(data.log_density(truth).mean()) - 0.35


def test_every_block_of_updates_sees_new_pairs(monkeypatch):
    seen = []

    def noted(*args):
        seen.append(batch(*args))
        return seen[-1]

    monkeypatch.setattr("playground.plane.learned.batch", noted)
    last(SMALL.but(train_steps=4 * EVERY))
    last(SMALL.but(train_steps=EVERY, train_seed=1))
    assert len({float(pairs.x0[0, 0]) for pairs in seen}) == len(seen) == 10


def test_learning_lowers_the_loss_towards_its_floor():
    training = last(SMALL.but(train_steps=12 * EVERY, batch=256))
    first, final = training.history[0], training.history[-1]
    assert final[1] - final[2] < 0.3 * (first[1] - first[2]) and final[1] > 0.95 * final[2]
