import json

import numpy as np
import pytest
import torch
from truth import spread

from playground.errors import RecipeError
from playground.fields import Count
from playground.guidance import RULES
from playground.noise import start_noise
from playground.plane import PlaneFlow, arrows, exact_field, flow, impossible
from playground.plane.flow import SIGHT, Cloud, between, run, weak_field
from playground.plane.metrics import sliced_wasserstein
from playground.plane.mixtures import ExactField
from playground.plane.packing import unpack
from playground.plane.paths import noising_paths
from playground.plane.recipe import SAMPLERS
from playground.plane.reference import transported
from playground.plane.targets import encode_mixture, encode_points
from playground.plane.views import FlowViews
from playground.recipes import RECIPES, recipe_from_query
from playground.sampling import Evaluated
from playground.schedules import CONTINUOUS, VP
from playground.solvers import SOLVERS, InSigma, InTime

FINE = PlaneFlow(target="three", particles=2000, solver="heun", steps=100)


def test_a_cloud_answers_as_its_points_do():
    points, t = ExactField(spread(), VP()), torch.tensor([0.3, 0.7], dtype=torch.float64)
    cloud = Cloud(points, 5)
    x = torch.randn(2, 5, 2)
    answer = cloud.predict(x, t, cloud.encode([1, None])).x0
    for i, label in enumerate([1, None]):
        alone = points.predict(x[i], t[i].expand(5), points.encode([label] * 5)).x0
        torch.testing.assert_close(answer[i], alone)
    assert cloud.count == Count(1, 2)


def test_particles_start_from_the_seeds_noise_and_end_on_the_target():
    result = flow(FINE)
    torch.testing.assert_close(result.frames[0], start_noise(7, (2000, 2)))
    truth = FINE.data().sample(2000, torch.Generator().manual_seed(0))
    other = FINE.data().sample(2000, torch.Generator().manual_seed(1))
    assert sliced_wasserstein(result.x, truth) < 1.5 * sliced_wasserstein(other, truth)
    assert result.times[0] == result.solver_times[0] == 1 and result.times[-1] == 0


@pytest.mark.parametrize("path", CONTINUOUS)
@pytest.mark.parametrize("target", ["moons", "pinwheel", "pair"])
def test_every_path_ends_on_the_target(path, target):
    recipe = PlaneFlow(target=target, dimension=1 if target == "pair" else 2, path=path, particles=1000)
    recipe = recipe.but(solver="dpmpp_2m", grid="karras", steps=60)
    truth = recipe.data().sample(1000, torch.Generator().manual_seed(0))
    other = recipe.data().sample(1000, torch.Generator().manual_seed(1))
    assert sliced_wasserstein(flow(recipe).x, truth) < 2 * sliced_wasserstein(other, truth) + 0.02


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_solver_is_counted_as_the_plan_says(name):
    if SOLVERS[name].minimum_steps > 5:
        pytest.skip("takes more steps")
    recipe = PlaneFlow(target="eight", particles=100, steps=5, solver=name, path="vp", grid="karras")
    try:
        result = flow(recipe)
    except RecipeError as error:
        assert str(error).endswith(".")
        return
    assert result.count == recipe.plan(recipe.schedule()).cost(recipe.schedule())
    assert result.states.shape == (6, 100, 2)


def test_what_needs_a_checkpoints_table_is_not_offered():
    missing = {name for name, solver in SOLVERS.items() if solver.needs_table}
    assert missing and missing.isdisjoint(SAMPLERS) and set(SAMPLERS) | missing == set(SOLVERS)
    assert not any(choice.startswith(("solver/diffusers", "grid/ays")) for choice in impossible(PlaneFlow()))
    recipe, notes = PlaneFlow.from_query({"solver": min(missing), "grid": "ays_sdxl"})
    assert recipe == PlaneFlow() and len(notes) == 2


def test_a_particle_that_leaves_the_plane_costs_the_others_no_precision():
    result = flow(PlaneFlow(particles=100, steps=4))
    result.frames[10, 3] = 1e6
    _, arrays = unpack(result.to_bytes())
    torch.testing.assert_close(torch.from_numpy(arrays["frames"])[-1], result.x, rtol=0, atol=1e-3)
    assert float(arrays["frames"].max()) == pytest.approx(SIGHT, rel=1e-3)


def test_the_default_flow_is_at_most_a_megabyte():
    for path in ("linear", "edm"):
        assert len(flow(PlaneFlow(path=path)).to_bytes()) <= 1_000_000


def test_a_hundred_frames_of_five_thousand_particles_are_possible_and_more_are_thinned():
    assert flow(PlaneFlow(particles=5000, steps=2, frames=100)).frames.shape == (100, 5000, 2)
    most = flow(PlaneFlow(particles=10_000, steps=2, frames=100))
    assert len(most.frames) == 50 and len(most.to_bytes()) < 2.1e6


def test_guidance_doubles_sample_forwards_inside_its_window():
    recipe = PlaneFlow(target="three", label=1, w=3, particles=100, steps=10, solver="euler")
    assert flow(recipe).count == Count(10, 20)
    assert flow(recipe.but(low=0.55)).count == Count(10, 15)
    assert flow(recipe.but(w=1)).count == Count(10, 10)


def test_guided_particles_go_towards_their_class_and_beyond():
    recipe = PlaneFlow(target="three", label=0, particles=1000, steps=40)
    mean = recipe.data().means[0].float()
    means = [flow(recipe.but(w=w)).x.mean(0) @ mean / mean.norm() for w in (0, 1, 4)]
    assert means[0] == pytest.approx(0, abs=0.1) and means[1] == pytest.approx(1, abs=0.1) and means[2] > 1.3


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_of_guidance_runs_or_says_why_not(rule):
    recipe = PlaneFlow(target="three", label=0, w=2, rule=rule, solver="ddim", particles=100)
    try:
        assert bool(torch.isfinite(flow(recipe).x).all())
    except RecipeError as error:
        assert f"rule/{rule}" in impossible(recipe.but(rule="cfg")), error


def test_autoguidance_goes_away_from_the_blurred_target():
    recipe = PlaneFlow(target="eight", label=0, rule="auto", particles=500, solver="euler", steps=20)
    assert flow(recipe.but(w=2)).count == Count(40, 40)  # one call of each field per step
    centre = recipe.data().means[0].float()
    spreads = [float((flow(recipe.but(w=w)).x - centre).norm(dim=-1).mean()) for w in (0, 1, 2)]
    assert spreads[0] > spreads[1] > spreads[2]
    # Without a class it sharpens the whole target.
    assert flow(recipe.but(label=-1, w=2)).count == Count(40, 40)


def test_frames_lie_on_the_polygon_of_the_solver():
    recipe = PlaneFlow(solver="euler", steps=4, particles=100)
    result = flow(recipe)
    assert result.frames.shape == (64, 100, 2)
    states, t = result.states[:, :100], result.solver_times
    for frame, at in zip(result.frames, result.times, strict=True):
        i = min(int((t >= at).sum()) - 1, 3)
        share = float((at - t[i]) / (t[i + 1] - t[i]))
        torch.testing.assert_close(frame, (1 - share) * states[i] + share * states[i + 1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("variable", [InTime, InSigma])
def test_between_meets_the_states_and_is_straight_in_its_variable(variable):
    path = VP()
    v = variable(path)
    times = torch.tensor([0.9, 0.5, 0.2, 0.0], dtype=torch.float64)
    states = torch.randn(4, 7, 2, dtype=torch.float64)
    torch.testing.assert_close(between(v, times, states, times), states)
    y = between(v, times, states, torch.tensor([0.7], dtype=torch.float64))[0] / float(v.scale(torch.tensor(0.7)))
    share = float((v.tau(torch.tensor(0.7)) - v.tau(times[0])) / (v.tau(times[1]) - v.tau(times[0])))
    ends = [s / float(v.scale(t)) for s, t in zip(states, times, strict=True)]
    torch.testing.assert_close(y, (1 - share) * ends[0] + share * ends[1], rtol=1e-6, atol=1e-6)


def test_a_flow_can_be_closed_between_two_evaluations():
    running = run(PlaneFlow(steps=200))
    assert isinstance(next(running), Evaluated)
    running.close()


def test_bytes_hold_the_flow():
    result = flow(PlaneFlow())
    buffer = result.to_bytes()
    assert len(buffer) < 2**20
    header, arrays = unpack(buffer)
    assert arrays["frames"].shape == (64, 2000, 2) and arrays["states"].shape == (25, 200, 2)
    assert abs(arrays["frames"] - result.frames.numpy()).max() < 2e-4
    assert arrays["labels"].tolist() == result.labels.tolist() and set(result.labels.tolist()) == {0, 1}
    assert header["evaluations"] == result.count.evaluations == 48


def test_an_exploding_path_stays_in_view():
    result = flow(PlaneFlow(path="edm", grid="karras"))
    assert float(result.frames[0].abs().max()) > 100 and float(result.zoom[0]) == pytest.approx(80, rel=1e-3)
    header, arrays = unpack(result.to_bytes())
    assert abs(arrays["frames"]).max() < 6
    assert header["zoom"][-1] == 1


def test_labels_are_those_of_the_nearest_component():
    recipe = PlaneFlow(target="eight", particles=400)
    result = flow(recipe)
    nearest = torch.cdist(result.x.double(), recipe.data().means).argmin(-1)
    assert torch.equal(result.labels, recipe.data().labels[nearest])


def test_drawn_points_and_edited_mixtures_are_reached():
    points = flow(PlaneFlow(target="points", points=encode_points([[1, 1], [-1, 2]], [0, 1]), particles=500))
    # Heun's last step goes to t = 0, where it may ask.
    assert float(torch.cdist(points.x, torch.tensor([[1.0, 1], [-1, 2]])).min(-1).values.max()) < 0.5
    text = encode_mixture([(2, 0, 0.1, 0.1, 0, 1, 0)])
    assert torch.allclose(
        flow(PlaneFlow(target="mixture", mixture=text)).x.mean(0), torch.tensor([2.0, 0]), atol=0.05
    )


@pytest.mark.parametrize("path", CONTINUOUS)
@pytest.mark.parametrize("points", ["one", "equal", "many", "corners"])
def test_flows_of_any_points_end_on_them(path, points):
    x = {
        "one": torch.tensor([[0.7, -1.2]]),
        "equal": torch.full((300, 2), 1.5),
        "many": 2 * torch.rand(100_000, 2, generator=torch.Generator().manual_seed(0)) - 1,
        "corners": torch.tensor([[4.0, 4.0], [-4.0, -4.0]]),
    }[points]
    recipe = PlaneFlow(target="points", points=encode_points(x), path=path, grid="karras", particles=100)
    end = flow(recipe).x
    assert bool(torch.isfinite(end).all())
    data = recipe.data()
    rare = data.log_density(data.sample(4000, torch.Generator().manual_seed(0))).quantile(0.001)
    assert float((data.log_density(end) >= rare - 1).float().mean()) > 0.95


def test_the_uniform_source_is_uniform_and_ends_on_the_target():
    recipe = PlaneFlow(source="uniform", target="three", steps=40)
    result = flow(recipe)
    edge = 3**0.5
    assert float(result.frames[0].abs().max()) <= edge + 1e-6
    at = torch.linspace(-edge, edge, 9)
    shares = (result.frames[0][:, :1] < at).float().mean(0)
    torch.testing.assert_close(shares, torch.linspace(0, 1, 9), rtol=0, atol=0.04)
    truth = recipe.data().sample(2000, torch.Generator().manual_seed(0))
    other = recipe.data().sample(2000, torch.Generator().manual_seed(1))
    assert sliced_wasserstein(result.x, truth) < 1.5 * sliced_wasserstein(other, truth)


def test_the_solver_in_the_plane_converges_to_the_exact_flow():
    result = flow(FINE)
    field = exact_field(FINE)
    exact, _ = transported(field, result.frames[0][:50].double(), 1.0, 0.0, 1e-9)
    assert float((result.x[:50] - exact).norm(dim=-1).median()) < 2e-3


# The recipe


def test_a_recipe_travels_in_a_link():
    recipe = PlaneFlow(target="points", points=encode_points(torch.rand(50, 2)), w=3, label=0, path="vp")
    assert RECIPES["flow"] is PlaneFlow
    assert recipe_from_query(recipe.to_query()) == (recipe, [])
    assert PlaneFlow().to_query() == {"tab": "flow", "v": "1"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"target": "points"}, "draw at least one"),
        ({"target": "word", "word": " "}, "Type a word"),
        ({"target": "pair", "dimension": 2}, "on the line"),
        ({"dimension": 1}, "in the plane"),
        ({"source": "uniform", "target": "pinwheel"}, "round components"),
        ({"source": "uniform", "solver": "ancestral"}, "by the score"),
        ({"source": "uniform", "field": "learned", "loss": "score"}, "Gaussian source"),
        ({"target": "checkerboard", "label": 0}, "no classes"),
        ({"label": 5}, "no class 5"),
        ({"solver": "ddim", "variable": "t"}, "cannot be written"),
        ({"solver": "euler_maruyama"}, "infinite"),
        ({"target": "points", "points": "!"}, "cannot be read"),
    ],
)
def test_what_cannot_be_run_is_one_sentence(changes, sentence):
    with pytest.raises(RecipeError, match=sentence) as error:
        flow(PlaneFlow(**changes))
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_impossible_choices_are_those_that_fail():
    recipe = PlaneFlow(target="three", source="uniform")
    found = impossible(recipe)
    assert found["target/pinwheel"].startswith("A uniform source")
    assert "by the score" in found["solver/ancestral"]
    assert "solver/heun" not in found and "path/vp" not in found
    assert "no class 5" in found["label/5"] and "label/1" not in found
    assert "source/gaussian" not in found


def test_an_impossible_recipe_still_knows_its_choices():
    found = impossible(PlaneFlow(target="points"))
    assert "target/moons" not in found and "path/vp" not in found
    assert "solver/ddim" not in found


def test_a_shaped_mixture_is_flown_at_once_and_not_kept():
    start = encode_mixture([(-1, 0, 0.3, 0.3, 0.0, 1.0, 0), (1.5, 1, 0.2, 0.4, 0.5, 1.0, 1)])
    made = flow(PlaneFlow(target="mixture", mixture=start, steps=6))
    views = FlowViews(made, lambda make: make())
    before = views.nbytes
    rows = [[-1, -1.5, 0.3, 0.3, 0.0, 1.0, 0], [1.5, 1, 0.2, 0.4, 0.5, 1.0, 1]]
    _, arrays = unpack(views.binary(f"live:{json.dumps(rows)}.bin"))
    assert arrays["frames"].shape[1:] == (1000, 2) and views.nbytes == before
    wanted = flow(made.recipe.but(mixture=encode_mixture([tuple(r) for r in rows]), particles=1000), frames=32)
    assert abs(arrays["frames"][-1] - wanted.frames[-1].numpy()).max() < 1e-3
    for bad in ("", "3", "[[1]]", '[["a"]]', "[" * 5000, "[[1,2,3,4,5,6,7,8]]"):
        with pytest.raises((KeyError, RecipeError)):
            views.binary(f"live:{bad}.bin")
    other = FlowViews(flow(PlaneFlow(steps=3, particles=100)), lambda make: make())
    with pytest.raises(KeyError):
        other.binary(f"live:{json.dumps(rows)}.bin")


@pytest.mark.parametrize("path", CONTINUOUS)
def test_a_rule_in_x0_may_be_asked_where_no_noise_is_left(path):
    recipe = PlaneFlow(target="three", label=0, rule="apg", w=2.0, path=path, particles=100)
    assert bool(torch.isfinite(flow(recipe).frames).all())


def test_the_field_of_a_uniform_source_is_shown_where_its_particles_can_be():
    recipe = PlaneFlow(source="uniform", target="three", steps=3, particles=100)
    header, found = unpack(FlowViews(flow(recipe), lambda make: make()).binary("arrows.bin"))
    there, velocity, exact = found["there"], found["arrows"], exact_field(recipe)
    assert 0.2 < there[0].mean() < 0.4  # at t = 1 a square of half width sqrt 3 in a view of 3.2
    assert not velocity[there == 0].any()
    assert np.abs(velocity).max() < 50  # and no extrapolation, on whose scale all else would be nothing
    for k in (0, len(header["times"]) // 2):
        expected = arrows(exact, [header["times"][k]]).values.numpy()[0]
        inside = there[k].astype(bool)
        np.testing.assert_allclose(
            velocity[k][inside], expected[inside], atol=0.01 * np.abs(expected[inside]).max()
        )
    for t, mask in zip(header["times"], there, strict=True):
        x = float(exact.schedule.alpha(t)) * recipe.data().sample(300, torch.Generator().manual_seed(0)).numpy()
        x = x + float(exact.schedule.sigma(t)) * np.random.default_rng(0).uniform(-(3**0.5), 3**0.5, x.shape)
        cell = np.floor((x / 3.2 + 1) / 2 * 24).astype(int)
        seen = ((cell >= 0) & (cell < 24)).all(1)
        assert mask[cell[seen, 1], cell[seen, 0]].mean() > 0.8  # a cell on the edge may have its middle outside


def test_the_arrows_of_a_rule_for_few_solvers_are_shown():
    recipe = PlaneFlow(
        target="three", label=0, w=2.0, rule="cfgpp", solver="ddim", path="cosine", particles=100, steps=4
    )
    assert unpack(FlowViews(flow(recipe), lambda make: make()).binary("arrows.bin"))[1]["arrows"].any()


def test_noising_and_conditional_paths_are_of_the_chosen_class():
    recipe = PlaneFlow(target="eight", label=3, particles=100, steps=3)
    own = recipe.data().restricted(3)
    at_data = noising_paths(recipe, torch.tensor([0.0]), 200).values[0].double()
    assert float(torch.cdist(at_data, own.means).min(1).values.max()) < 1
    header, _ = unpack(FlowViews(flow(recipe), lambda make: make()).binary("conditional.bin"))
    assert float(torch.cdist(torch.tensor([header["point"]]).double(), own.means).min()) < 1e-3


@pytest.mark.parametrize("label", [-1, 1])
def test_the_pages_arrows_are_guided_as_the_run_was(label):
    recipe = PlaneFlow(target="three", label=label, rule="auto", w=2.0, blur=0.4, steps=3, particles=100)
    header, arrays = unpack(FlowViews(flow(recipe), lambda make: make()).binary("arrows.bin"))
    exact, weak = (
        arrows(field, header["times"], label=label).values.numpy()
        for field in (exact_field(recipe), weak_field(recipe))
    )
    np.testing.assert_allclose(arrays["arrows"], weak + 2 * (exact - weak), atol=2e-3 * np.abs(exact).max())
