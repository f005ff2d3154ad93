"""A run as a film, as arrays, as a table and as Python: each holds what the run computed."""

from __future__ import annotations

import ast
import csv
import io
import json
from itertools import pairwise
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from PIL import Image

from playground.__main__ import render
from playground.errors import RecipeError
from playground.images.comparison import Comparison, measure
from playground.images.guides import content_name
from playground.images.models import load_model
from playground.images.prompt_to_prompt import PromptToPrompt
from playground.images.sdedit import SDEdit
from playground.plane import PlaneFlow, density
from playground.plane.targets import encode_mixture
from playground.plane.views import FlowViews
from playground.recipes import TextToImage
from playground.sharing.comparisons import ComparisonViews
from playground.sharing.edits import EditViews
from playground.sharing.exports import KINDS, export
from playground.sharing.programs import python_lines
from playground.sharing.prompts import PromptViews
from playground.sharing.records import from_file
from playground.sharing.views import RunViews

PICTURE = TextToImage(prompt="a red cat", steps=3, seed=4, w=3.0, low=0.4)
PAIR = PromptToPrompt(prompt="a red cat", edits=("a red dog",), steps=3)
STROKES = SDEdit(prompt="a red cat", t0=0.6, steps=4)
RACE = Comparison(prompt="a red cat", solvers=("ddim", "heun"), budgets=(3, 5))
CLOUD = PlaneFlow(target="three", label=1, w=2.0, particles=300, steps=5, solver="rk4")
LINE = PlaneFlow(target="pair", dimension=1, particles=100, steps=4)
RECIPES = [PICTURE, PAIR, STROKES, RACE, CLOUD, LINE]


@pytest.fixture
def views(backend):
    def of(recipe):
        result = backend.result(recipe)

        def on(make):
            return backend.call(make, "emoji")

        if isinstance(recipe, PlaneFlow):
            return FlowViews(result, backend.compute)
        if isinstance(recipe, Comparison):
            references = {kind: backend.result(one) for kind, one in recipe.references().items()}
            return ComparisonViews(result, measure(result, references), on)
        if isinstance(recipe, PromptToPrompt):
            return PromptViews(result, on, 5)
        return (
            EditViews(result, on, brought=backend.guides.get)
            if isinstance(recipe, SDEdit)
            else RunViews(result, on)
        )

    return of


def arrays(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content)) as file:  # without pickles
        return {name: file[name] for name in file.files}


def table(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: f"{r.tab}-{getattr(r, 'dimension', 2)}")
def test_a_film_has_a_frame_for_every_step_and_opens_again(views, recipe):
    content = export(views(recipe), "gif")
    assert from_file(content)[:2] == (recipe, [])
    with Image.open(io.BytesIO(content)) as film:
        frames = []
        for k in range(film.n_frames):
            film.seek(k)
            frames.append(np.array(film.convert("RGB")).astype(int))
    expected = {PICTURE: 3, PAIR: 3, RACE: 5, CLOUD: 40, LINE: 40}.get(recipe)
    if recipe == STROKES:
        expected = len(views(recipe).result.trace)
    assert len(frames) == expected
    assert all(np.abs(a - b).max() > 40 for a, b in pairwise(frames))


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        (PICTURE, ["picture-0", "film-0-1", "film-0-1-all", "noise-0-50", "latents-0"]),
        (PAIR, ["picture-1", "difference-1", "film-1-2"]),
        (STROKES, ["picture-0", "guide", "start-0", "film-0-1"]),
        (RACE, ["table-0", "race-2"]),
    ],
    ids=lambda r: getattr(r, "tab", ""),
)
def test_every_picture_of_a_run_opens_it_again(recipe, names, views):
    made = views(recipe)
    assert {name: from_file(made.png(name + ".png"))[:2] for name in names} == {n: (recipe, []) for n in names}


def test_a_guide_stays_with_its_run_when_the_store_has_dropped_it(backend):
    guide = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8))
    recipe = STROKES.but(guide=backend.guides.put(guide))
    kept = {recipe.guide: guide}
    views = EditViews(backend.result(recipe), lambda make: backend.call(make, "emoji"), brought=kept.get)
    kept.clear()
    for name in ("picture-0.png", "guide.png", "start-0.png"):
        _, _, attached = from_file(views.png(name))
        assert np.array_equal(np.array(attached[recipe.guide]), np.array(guide)), name


def test_a_film_shows_the_density_where_the_particles_end(views):
    """Of a target above and to the left of the middle: a map that stood upside down would be beside it."""
    target = encode_mixture([(-1.2, 1.0, 0.3, 0.3, 0, 1, 0)])
    off = PlaneFlow(target="mixture", mixture=target, particles=100, steps=6, frames=16)
    with Image.open(io.BytesIO(export(views(off), "gif"))) as film:
        film.seek(film.n_frames - 1)
        last = np.array(film.convert("RGB")).astype(int)
    size = last.shape[0]
    tint = (255 - last).sum(-1)[30:]  # without the line that tells the time
    y, x = ((tint * grid).sum() / tint.sum() for grid in np.mgrid[30:size, :size])
    assert x / size * 6 - 3 == pytest.approx(-1.2, abs=0.3) and 3 - y / size * 6 == pytest.approx(1.0, abs=0.3)


def test_there_is_no_film_of_a_run_without_steps(views):
    with pytest.raises(RecipeError, match="no step"):
        export(views(STROKES.but(t0=0.0)), "gif")


def test_arrays_of_several_seeds_say_whose_they_are(views):
    made = views(RACE.but(pictures=2, solvers=("ddim",)))
    found = arrays(export(made, "npz"))
    assert found["pictures"].shape[:2] == found["latents"].shape[:2] == (2, 2) and len(found["solver"]) == 2
    assert np.array_equal(
        found["latents"][1, 0], made.result.latents[2].numpy()
    )  # of seed 1: after the 2 of seed 0


def test_arrays_of_a_flow_are_the_run_itself(views):
    made = views(CLOUD)
    found, flow = arrays(export(made, "npz")), made.flow
    assert np.array_equal(found["frames"], flow.frames.numpy()) and found["frames"].shape[1:] == (300, 2)
    assert np.array_equal(found["times"], flow.times.numpy()) and np.array_equal(
        found["labels"], flow.labels.numpy()
    )
    assert np.array_equal(found["states"], flow.states.numpy())
    # The density is the class's, and integrates to 1 over the plane where nothing lies outside of the view.
    again = density(CLOUD, times=found["density_times"], label=1).values.numpy()
    assert np.array_equal(found["density"], again)
    cell = (2 * found["density_reach"][-1] / found["density"].shape[1]) ** 2
    assert found["density"][-1].sum() * cell == pytest.approx(1, abs=0.01)
    assert json.loads(str(found["recipe"]))["label"] == 1
    assert all(name in str(found["about"]) for name in found if name not in ("recipe", "about"))


def test_arrays_of_pictures_are_the_trace(views):
    made = views(PICTURE)
    found, result = arrays(export(made, "npz")), made.result
    assert np.array_equal(found["pictures"][0], np.array(result.images[0]))
    assert found["x"].shape == (3, 1, *result.latents.shape[1:])
    for name in ("x", "cond", "uncond", "guided", "eps_cond"):
        kept = torch.stack([getattr(record, name) for record in result.trace]).numpy()
        assert np.array_equal(found[name], kept, equal_nan=True), name
    # Guidance was off below t = 0.4: there u was not computed, and the file says so.
    assert np.isnan(found["uncond"][found["t"][:, 0] < 0.4]).all() and (found["t"] < 0.4).any()


def test_arrays_of_an_edit_have_its_guide_and_those_of_prompts_their_attention(views):
    found = arrays(export(views(STROKES), "npz"))
    assert found["guide"].shape == found["pictures"].shape[3:] + found["pictures"].shape[1:3]
    found = arrays(export(views(PAIR), "npz"))
    maps = [v for k, v in found.items() if k.startswith("attention_before")]
    assert maps and all(m.shape[:2] == (3, 2) and m.shape[3] == 5 and m.min() >= 0 for m in maps)
    found = arrays(export(views(RACE), "npz"))
    assert found["solver"].tolist() == ["ddim", "ddim", "heun", "heun"] and len(found["x_1"]) == 5


def test_the_table_of_a_run_is_its_charts(views):
    made = views(PICTURE)
    rows, norms = table(export(made, "csv")), made.result.norms()
    assert [float(r["t"]) for r in rows] == norms.t and [r["step"] for r in rows] == ["1", "2", "3"]
    assert [float(r["rms_eps_cond"]) for r in rows] == norms.cond
    assert [r["cosine"] == "" for r in rows] == [v != v for v in norms.cosine] and rows[-1]["cosine"] == ""


def test_the_table_of_a_flow_is_its_path(views):
    rows = table(export(views(CLOUD), "csv"))
    curve = {
        name: [(float(r["at"]), float(r["value"])) for r in rows if r["curve"] == name]
        for name in ("alpha", "sigma")
    }
    assert len(curve["alpha"]) > 100 and all(a == pytest.approx(1 - t) for t, a in curve["alpha"])
    assert all(s == pytest.approx(t) for t, s in curve["sigma"])
    steps = [float(r["value"]) for r in rows if r["curve"] == "step_size"]
    assert len(steps) == 5 and sum(steps) == pytest.approx(1, abs=1e-6)


def test_the_table_of_a_comparison_is_what_was_measured(views):
    made = views(RACE)
    rows = table(export(made, "csv"))
    assert [(r["solver"], int(r["evaluations"])) for r in rows] == [
        ("ddim", 3),
        ("ddim", 5),
        ("heun", 3),
        ("heun", 5),
    ]
    assert [float(r["error"]) for r in rows] == [m.error for m in made.table]
    assert {r["order"] for r in rows if r["solver"] == "heun"} == {"2"}


@pytest.fixture
def run_lines(backend, monkeypatch, tmp_path):
    """Runs a program in a folder of its own; `emoji` is the model of these tests."""

    def load(name):
        assert name == "emoji"
        return load_model(backend.models["emoji"], backend.device, name="emoji")

    def run(text: str) -> dict:
        ast.parse(text)
        monkeypatch.setattr("playground.load_model", load)
        monkeypatch.chdir(tmp_path)
        space: dict = {}
        exec(text, space)
        return space

    return run


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: f"{r.tab}-{getattr(r, 'dimension', 2)}")
def test_the_lines_of_python_make_what_the_page_shows(backend, run_lines, recipe):
    space, shown = run_lines(python_lines(recipe)), backend.result(recipe)
    assert space["recipe"] == recipe
    if isinstance(recipe, PlaneFlow):
        assert torch.equal(space["result"].frames, shown.frames)
    else:
        assert torch.equal(space["result"].pictures, shown.pictures)
    if isinstance(recipe, Comparison):
        references = {kind: backend.result(one) for kind, one in recipe.references().items()}
        assert [m.error for m in space["table"]] == [m.error for m in measure(shown, references)]


def test_lines_read_a_painted_guide_and_mask_from_the_saved_file(backend, views, run_lines, tmp_path):
    rng = np.random.default_rng(0)
    guide = Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8))
    mask = Image.fromarray((np.arange(256).reshape(16, 16) > 100).astype(np.uint8) * 255)
    recipe = STROKES.but(guide=backend.guides.put(guide), mask=backend.guides.put(mask))
    assert recipe.guide == content_name(guide)
    (tmp_path / "sdedit.png").write_bytes(export(views(recipe), "png"))
    space = run_lines(python_lines(recipe))
    assert torch.equal(space["result"].pictures, backend.result(recipe).pictures)


def test_prompts_in_lines_of_python_are_texts_and_nothing_else(run_lines):
    nasty = "\"); import os; os.abort()  #\n''' {0} \\ “x”"
    assert run_lines(python_lines(PICTURE.but(prompt=nasty, steps=1)))["recipe"].prompt == nasty


def test_the_command_writes_every_kind_of_file(backend, tmp_path):
    link = "?" + urlencode(PICTURE.to_query())
    for kind in KINDS:
        (file,) = render(link, tmp_path / f"out.{kind}", backend)
        assert file.stat().st_size > 0
    assert table((tmp_path / "out.csv").read_bytes()) and "TextToImage(" in (tmp_path / "out.py").read_text()
    (again,) = render(str(tmp_path / "out.gif"), tmp_path / "again.png", backend)
    assert np.array_equal(np.array(Image.open(again)), np.array(Image.open(tmp_path / "out.png")))
