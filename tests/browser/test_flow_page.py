"""The tab 2D flow, as its visitors use it."""

from __future__ import annotations

import csv
import json
import re
from urllib.parse import parse_qsl

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from visiting import until

from components.tabs.flow import GO_ON, PRESETS
from playground.plane import PlaneFlow
from playground.plane.metrics import path_curves
from playground.plane.packing import unpack
from playground.plane.targets import decode_mixture, decode_points, encode_mixture, encode_points
from playground.recipes import LINK_LIMIT

pytestmark = pytest.mark.browser

CROSS = encode_points([[0.1 * k, 0.1 * k * sign] for k in range(-15, 16) for sign in (-1, 1)])

COUNTERS = "window.__dp?.['flow-plane']"
ALL_PRESETS = [(group, name) for group, (_, members) in PRESETS.items() for name in members]


class Plane:
    """A page with the tab open."""

    def __init__(self, page: Page):
        self.page = page
        self.files: list[str] = []
        self.status = page.locator("#flow-status .prose")
        self.error = page.locator("#flow-error .prose")
        self.notes = page.locator("#flow-notes .prose")
        self.point = page.locator("#flow-point .prose")
        self.told = page.locator("#flow-link-notes .prose")
        self.canvas = page.locator("#flow-plane canvas.over")
        page.on("requestfinished", lambda r: self.files.append(r.url) if r.url.endswith("/flow.bin") else None)

    def control(self, name: str):
        return self.page.locator(f"#flow-{name}")

    def counted(self, what: str) -> int:
        return self.page.evaluate(f"{COUNTERS}?.{what} ?? 0")

    def wait_for_flow(self, more_than: int = 0) -> int:
        """Until a full run's particles are on show that came after so many others."""
        until(lambda: self.counted("flows") > more_than, "no new flow came")
        expect(self.page.locator("#flow-plane .live")).to_be_hidden()
        expect(self.status).to_contain_text("NFE")
        return self.counted("flows")

    def flow(self) -> tuple[dict, dict[str, np.ndarray]]:
        """Header and arrays of the newest flow."""
        return unpack(self.page.request.get(self.files[-1]).body())

    def link(self) -> dict[str, str]:
        """The address, with what is too long for it."""
        # Asked of the page itself: what playwright remembers of it is renewed only when something is asked.
        query = self.page.evaluate("history.state?.dpWhole ?? location.search")
        return dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True))

    def recipe(self) -> PlaneFlow:
        """What the address bar describes."""
        return PlaneFlow.from_query(self.link())[0]

    def choose(self, name: str, title: str) -> None:
        self.control(name).locator("input").first.click()
        self.page.get_by_role("option", name=title, exact=True).click()

    def unfold(self, title: str) -> None:
        self.page.get_by_role("button", name=title).click()

    def chip(self, title: str):
        return self.page.locator("#flow-plane .chips").get_by_role("button", name=re.compile(f"^{title}"))

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A point of the plane on the screen."""
        box = self.canvas.bounding_box()
        assert box is not None
        return box["x"] + (x / 3.2 + 1) / 2 * box["width"], box["y"] + (1 - y / 3.2) / 2 * box["height"]

    def drag(self, *points: tuple[float, float]) -> None:
        self.canvas.scroll_into_view_if_needed()
        mouse = self.page.mouse
        mouse.move(*self.at(*points[0]))
        mouse.down()
        for point in points[1:]:
            mouse.move(*self.at(*point), steps=6)
        mouse.up()


@pytest.fixture
def plane(visit):
    def open_tab(wait: bool = True, **settings) -> Plane:
        settings = {"tab": "flow", "particles": 300} | settings
        shown = Plane(visit(wait=False, **settings).page)
        shown.page.locator("#flow-plane").wait_for(state="visible")
        if wait:
            shown.wait_for_flow()
        return shown

    return open_tab


def test_the_tab_opens_with_a_flow_and_its_cost(plane):
    shown = plane(particles=2000)
    assert shown.counted("particles") == 2000 and shown.counted("frames") == 64
    expect(shown.status).to_contain_text("48 evaluations (NFE)")
    expect(shown.status).to_contain_text("as many exact draws")
    assert shown.error.inner_text().strip() == ""
    # Nothing stands there empty before it has something to show.
    for chart in ("error", "marginal", "loss"):
        expect(shown.page.locator(f"#flow-{chart}-chart")).to_be_hidden()
    assert len(shown.page.request.get(shown.files[-1]).body()) <= 1_000_000


def test_playing_and_scrubbing_ask_the_server_for_nothing(plane):
    shown = plane(particles=2000)
    until(lambda: shown.counted("loads") >= 3)  # particles, density, value against time
    shown.page.wait_for_load_state("load")
    before, draws, asked = shown.counted("loads"), shown.counted("draws"), []
    shown.page.on("request", lambda request: asked.append(request.url))
    shown.page.locator("#flow-plane .play").click()
    until(lambda: shown.counted("draws") > draws + 10)
    shown.page.locator("#flow-plane .play").click()
    shown.page.locator("#flow-plane .bar input").focus()
    for _ in range(10):
        shown.page.keyboard.press("ArrowLeft")
    strip = shown.page.locator("#flow-plane .strip")
    strip.scroll_into_view_if_needed()
    box = strip.bounding_box()
    for part in (0.2, 0.5, 0.8):
        shown.page.mouse.click(box["x"] + part * box["width"], box["y"] + box["height"] / 2)
    expect(shown.page.locator("#flow-plane .time")).to_contain_text("t = 0.2")
    assert shown.counted("loads") == before
    assert [url for url in asked if not url.endswith("heartbeat")] == []


def test_a_click_gives_the_exact_and_the_ode_likelihood(plane):
    shown = plane()
    x, y = shown.at(-0.6, 0.9)
    shown.page.locator("#flow-plane .bar input").focus()
    shown.page.keyboard.press("ArrowRight")
    shown.page.mouse.click(x, y)
    expect(shown.point).to_contain_text("in closed form")
    expect(shown.point).to_contain_text("Dormand-Prince 5(4), tolerance 1e-06")
    text = shown.point.inner_text().replace("−", "-")
    closed, ode = (float(v) for v in re.search(r"log p = (\S+) in closed form · (\S+) by the ODE", text).groups())
    back = float(re.search(r"to the noise and back: (\S+) away", text)[1])
    assert closed == pytest.approx(ode, abs=1e-4) and back < 1e-4
    # The closed form that it says is the one of the recipe at this point and time.
    px, py, t = (float(v) for v in re.search(r"x = \((\S+), (\S+)\), t = (\S+):", text).groups())
    path, recipe = PlaneFlow().schedule(), shown.recipe()
    expected = recipe.data().log_density(np_point(px, py), float(path.alpha(t)), float(path.sigma(t)))
    assert closed == pytest.approx(float(expected), abs=0.02)


def np_point(x: float, y: float):
    import torch

    return torch.tensor([[x, y]], dtype=torch.float64)


@pytest.mark.slow
def test_a_typed_word_becomes_the_data(plane):
    shown = plane(target="word", word="A")
    box = shown.control("word").locator("textarea, input").first

    def write(word: str) -> None:
        """Again, if the box had only just appeared and forgot it."""

        def taken() -> bool:
            box.press("Control+A")
            box.press_sequentially(word)
            shown.page.wait_for_timeout(1000)
            return shown.recipe().word == word

        until(taken)

    write("Hi")
    until(lambda: inside(shown, PlaneFlow(target="word", word="Hi")) > 0.9)
    write("日")
    expect(shown.error).to_contain_text("The font has no letter")
    write("ok")
    expect(shown.error).to_have_text("")


def inside(shown: Plane, recipe: PlaneFlow) -> float:
    """The share of the particles on show that end where a target's data lie (within its own 1 % quantile)."""
    import torch

    data = recipe.data()
    rare = data.log_density(data.sample(4000, torch.Generator().manual_seed(0))).quantile(0.01)
    ends = torch.from_numpy(shown.flow()[1]["frames"][-1].copy()).double()
    return float((data.log_density(ends) >= rare).double().mean())


@pytest.mark.slow
def test_drawn_points_become_the_data(plane):
    # Opened by a link, with nothing drawn yet.
    shown = plane(wait=False, target="points")
    expect(shown.notes).to_contain_text("Draw on the plane")
    expect(shown.page.locator("#flow-plane .hint")).to_be_visible()
    expect(shown.page.locator("#flow-plane .editor")).to_contain_text("Class of the stroke")
    flows = shown.counted("flows")
    shown.drag((-1.5, -1), (-1.5, 1.2), (1.0, 1.2))
    shown.wait_for_flow(flows)
    until(lambda: shown.recipe().points)
    points, labels = decode_points(shown.recipe().points)
    assert len(points) > 20 and set(labels) == {0}
    assert float(points[:, 0].min()) == pytest.approx(-1.5, abs=0.1)
    assert float(points[:, 1].max()) == pytest.approx(1.2, abs=0.1)
    # A second stroke of another class: now there are classes to choose from.
    flows = shown.counted("flows")
    shown.page.get_by_role("button", name="class 1").click()
    shown.drag((1.5, -1.5), (0, -1.5))
    shown.wait_for_flow(flows)
    until(lambda: set(decode_points(shown.recipe().points)[1]) == {0, 1})
    until(lambda: inside(shown, shown.recipe()) > 0.9)
    # A stroke that leaves the plane ends at its edge.
    flows, before = shown.counted("flows"), len(points)
    shown.drag((2.5, 2.5), (3.6, 2.5))
    shown.wait_for_flow(flows)
    until(lambda: len(decode_points(shown.recipe().points)[0]) > before)
    assert float(decode_points(shown.recipe().points)[0].abs().max()) <= 3.2
    expect(shown.error).to_have_text("")
    shown.choose("label", "class 1")
    until(lambda: shown.recipe().label == 1)
    # Cleared, the plane is empty, and can be drawn on again.
    shown.page.locator("#flow-plane .editor").get_by_role("button", name="Clear").click()
    expect(shown.page.locator("#flow-plane .hint")).to_be_visible()
    flows = shown.counted("flows")
    shown.drag((-1, 0), (1, 0))
    shown.wait_for_flow(flows)
    assert float(decode_points(shown.recipe().points)[0][:, 1].abs().max()) < 0.1


@pytest.mark.slow
def test_an_uploaded_picture_becomes_the_data_and_what_is_none_is_one_sentence(plane, tmp_path):
    image = Image.new("L", (120, 60), 255)
    image.paste(0, (0, 0, 30, 60))
    image.save(tmp_path / "left.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    (tmp_path / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'></svg>")
    Image.new("L", (20, 20), 255).save(tmp_path / "white.png")
    shown = plane(target="points", points=encode_points([[1, 1], [1.2, 1]]))
    flows = shown.counted("flows")
    chooser = shown.page.locator("input[type=file]:not(#dp-opener *)").first
    none = "not a picture that can be opened here"
    for name, sentence in (("broken.png", none), ("white.png", "no dark pixels"), ("drawing.svg", none)):
        chooser.set_input_files(tmp_path / name)
        expect(shown.error).to_contain_text(sentence)
    chooser.set_input_files(tmp_path / "left.png")
    shown.wait_for_flow(flows)
    until(lambda: len(decode_points(shown.recipe().points)[0]) > 300)
    points, _ = decode_points(shown.recipe().points)
    assert float(points[:, 0].max()) < -1
    until(lambda: inside(shown, shown.recipe()) > 0.9)
    expect(shown.error).to_have_text("")

    # So many points do not fit into a link, which says so; the page itself keeps them when it is loaded again.
    drawn, link = shown.recipe().points, shown.page.evaluate("location.search")
    assert len(drawn) > LINK_LIMIT >= len(link) and "left=points" in link
    expect(shown.page.locator("#flow-save")).to_contain_text("Too long for the link")
    shown.page.reload()
    until(lambda: shown.recipe().points == drawn)
    expect(shown.status).to_contain_text("NFE")
    other = plane(wait=False, **dict(parse_qsl(link[1:])))
    expect(other.page.locator("#flow-link-notes")).to_contain_text("too long for its points")


@pytest.mark.slow
def test_a_mixture_is_edited_on_the_plane(plane):
    text = encode_mixture([(-1, 0, 0.3, 0.3, 0.0, 1.0, 0), (1.5, 1, 0.2, 0.4, 0.5, 1.0, 1)])
    shown = plane(target="mixture", mixture=text)
    flows = shown.counted("flows")
    expect(shown.page.locator("#flow-plane .editor")).to_contain_text("Choose a Gaussian")

    def dragged() -> bool:
        """Again, if the page was still being put together when the hand came."""
        x, y = decode_mixture(shown.recipe().mixture)[0][:2]
        if y > -1.3:
            shown.drag((x, y), (-1, -1.5))
            shown.page.wait_for_timeout(1500)
        return y <= -1.3

    until(dragged)
    shown.wait_for_flow(flows)
    assert decode_mixture(shown.recipe().mixture)[1] == pytest.approx(decode_mixture(text)[1], abs=0.002)


@pytest.mark.slow
def test_gaussians_are_deleted_and_added(plane):
    text = encode_mixture([(-1, 0, 0.3, 0.3, 0.0, 1.0, 0), (1.5, 1, 0.2, 0.4, 0.5, 1.0, 1)])
    shown = plane(target="mixture", mixture=text)
    expect(shown.page.locator("#flow-plane .editor")).to_contain_text("Choose a Gaussian")
    shown.page.mouse.click(*shown.at(-1, 0))
    shown.page.get_by_role("button", name="Delete").click()
    until(lambda: len(decode_mixture(shown.recipe().mixture)) == 1)
    shown.page.get_by_role("button", name="+ Gaussian").click()
    until(lambda: len(decode_mixture(shown.recipe().mixture)) == 2)


@pytest.mark.slow
def test_what_is_impossible_says_why(plane):
    shown = plane(target="eight")
    expect(shown.control("eta").locator("input[type=range]")).to_be_disabled()
    expect(shown.control("eta")).to_contain_text("this solver draws no noise")
    expect(shown.control("w")).to_contain_text("choose a class first")
    expect(shown.chip("tilted density")).to_be_disabled()
    expect(shown.chip("error of the field")).to_have_attribute(
        "title", "The exact field has no error: train a field."
    )
    shown.unfold("More: path, source")
    shown.choose("source", "uniform")
    until(lambda: shown.recipe().source == "uniform")
    shown.control("solver").locator("input").first.click()
    refused = shown.page.get_by_role("option", name=re.compile("^✕ DDPM"))
    expect(refused).to_contain_text("draws noise by the score")
    assert shown.page.get_by_role("option", name=re.compile("LMS")).count() == 0
    refused.click()
    # It is turned back, with the reason; what was on show goes on.
    told = shown.page.locator("#flow-refusal .prose")
    expect(told).to_contain_text("draws noise by the score")
    expect(shown.control("solver").locator("input").first).to_have_value("Heun (order 2)")
    expect(shown.error).to_have_text("")
    assert shown.recipe().solver == "heun"
    shown.choose("solver", "Euler (order 1)")
    expect(told).to_have_text("")
    until(lambda: shown.recipe().solver == "euler")


@pytest.mark.slow
def test_a_class_opens_guidance_and_the_tilted_density(plane):
    shown = plane(target="three", label=0)
    flows = shown.counted("flows")
    expect(shown.control("w").locator("input[type=range]")).to_be_enabled()
    shown.control("w").locator("input[type=number]").first.fill("3")
    shown.control("w").locator("input[type=number]").first.press("Enter")
    shown.wait_for_flow(flows)
    expect(shown.status).to_contain_text("96 per particle with both branches")
    loads = shown.counted("loads")
    shown.chip("tilted density").click()
    until(lambda: shown.counted("loads") > loads)
    until(lambda: shown.recipe().w == 3)
    # The equation is that of the guided field, in both conventions.
    formula = shown.page.locator("#flow-formula")
    expect(formula).to_contain_text("Particles follow the guided field")
    expect(formula).not_to_contain_text("adds fresh noise")


@pytest.mark.slow
def test_a_learned_field_trains_stops_and_goes_on(plane):
    shown = plane(target="three", field="learned", width=16, depth=2, batch=256, train_steps=20_000, wait=False)
    shown.unfold("The learned field")
    shown.page.locator("#flow-train").click()
    expect(shown.status).to_contain_text("of the exact field")
    expect(shown.page.locator("#flow-loss-chart .js-plotly-plot")).to_be_visible()
    shown.page.locator("#flow-stop").click()
    expect(shown.status).to_contain_text("stopped")
    stopped = shown.status.inner_text()
    # It stays stopped, and goes on where it was when asked to.
    shown.page.locator("#flow-train").click()
    expect(shown.status).to_contain_text("of the exact field")
    went_on = int(re.search(r"update (\d+) of", shown.status.inner_text())[1])
    assert went_on > 25, stopped
    shown.page.locator("#flow-stop").click()
    expect(shown.status).to_contain_text("stopped")
    # Fewer updates are wanted now: a training of that length ends with the flow of its field.
    number = shown.control("train_steps").locator("input[type=number]").first
    number.fill("200")
    number.press("Enter")
    shown.wait_for_flow()
    expect(shown.status).to_contain_text(re.compile(r"trained with 200 updates in \d+\.\d s"))
    expect(shown.chip("error of the field")).to_be_enabled()
    loads = shown.counted("loads")
    shown.chip("error of the field").click()
    until(lambda: shown.counted("loads") > loads)
    expect(shown.page.locator("#flow-plane .scales")).to_contain_text("units per unit of t; computed at 9 times")
    # What has been learned goes on.
    flows = shown.counted("flows")
    shown.page.locator("#flow-train").click()
    shown.wait_for_flow(flows)
    expect(shown.status).to_contain_text(f"trained with {200 + GO_ON} updates")
    assert shown.recipe().train_steps == 200 + GO_ON


@pytest.mark.slow
@pytest.mark.parametrize(
    "target", [{"target": "three"}, {"target": "points", "points": CROSS}], ids=["named", "drawn"]
)
def test_a_link_with_a_long_training_waits_for_a_click(plane, target):
    shown = plane(**target, field="learned", width=128, train_steps=50_000, wait=False)
    expect(shown.notes).to_contain_text("learned in 50,000 updates")
    # So does a hand that asks for one.
    shown.control("seed").locator("input[type=number]").fill("9")
    shown.control("seed").locator("input[type=number]").press("Enter")
    until(lambda: shown.recipe().seed == 9)
    expect(shown.notes).to_contain_text("learned in 50,000 updates")
    assert shown.status.inner_text().strip() == ""
    shown.unfold("The learned field")
    shown.page.locator("#flow-train").click()
    expect(shown.status).to_contain_text("of the exact field")
    shown.page.locator("#flow-stop").click()
    expect(shown.status).to_contain_text("stopped")


@pytest.mark.slow
def test_on_the_line_the_views_are_drawn_against_time(plane):
    shown = plane(target="pair", dimension=1, field="learned", width=16, depth=2, batch=64, train_steps=100)

    def inked(canvas: str) -> str:
        there = f"document.querySelector('#flow-plane .strip canvas.{canvas}')"
        return shown.page.evaluate(f"{there}.hidden ? 'hidden' : {there}.toDataURL()")

    def stays(canvas: str) -> str:
        first = inked(canvas)
        shown.page.wait_for_timeout(300)
        return first if inked(canvas) == first else ""

    for title in ("trajectories", "exact density"):
        shown.chip(title).click()
    shown.chip("particles").click()
    # Drawn a moment after it was asked for: bare is what stays.
    empty = {canvas: until(lambda canvas=canvas: stays(canvas)) for canvas in ("paths", "ground")}
    for title, canvas in (
        ("field", "paths"),
        ("conditional paths", "paths"),
        ("forward noising", "paths"),
        ("warped grid", "paths"),
        ("error of the field", "ground"),
    ):
        until(lambda canvas=canvas: inked(canvas) == empty[canvas], "the last one is still there")
        shown.chip(title).click()
        until(lambda canvas=canvas: inked(canvas) != empty[canvas], f"{title} is not drawn")
        shown.chip(title).click()
    shown.chip("contours").dispatch_event("click")
    expect(shown.page.locator("#flow-plane .refused")).to_contain_text("a view of the plane")


@pytest.mark.slow
@pytest.mark.parametrize(("group", "name"), ALL_PRESETS, ids=[f"{g}: {n}" for g, n in ALL_PRESETS])
def test_every_preset_runs(plane, group, name):
    shown = plane()
    flows = shown.counted("flows")
    changes, look = PRESETS[group][1][name]
    before = [n for _, n in ALL_PRESETS[: ALL_PRESETS.index((group, name))]].count(name)
    shown.page.locator(".dp-explain").get_by_role("button", name=name, exact=True).and_(
        shown.page.locator(":visible")
    ).nth(before).click()
    shown.wait_for_flow(flows)
    until(lambda: all(getattr(shown.recipe(), k) == v for k, v in changes.items()))
    pressed = shown.page.locator("#flow-plane .chips button[aria-pressed=true]")
    wanted = [layer for layer in look["layers"] if not (shown.recipe().dimension == 1 and layer == "particles")]
    expect(pressed).to_have_count(len(wanted))
    expect(shown.error).to_have_text("")
    header, arrays = shown.flow()
    assert np.isfinite(arrays["frames"]).all() and header["evaluations"] > 0
    assert len(np.unique(arrays["frames"][-1, :, 0])) > 0.5 * arrays["frames"].shape[1]


@pytest.mark.slow
def test_the_comparison_shows_both_errors_for_the_chosen_solvers(plane):
    shown = plane(target="three")
    shown.page.locator("#flow-compare").click()
    expect(shown.page.locator("#flow-compare")).to_have_text("Compare solvers", timeout=240_000)
    left, right = (shown.page.locator(f"#flow-{what}-chart .legendtext") for what in ("error", "marginal"))
    expect(left.filter(has_text="Heun")).to_contain_text("(order 2)")
    expect(right.filter(has_text="ancestral")).to_have_count(1)
    expect(left.filter(has_text="ancestral")).to_have_count(0)
    of = shown.page.locator("#flow-costs-of")
    expect(of).not_to_contain_text("other settings")
    shown.choose("target", "two moons")
    expect(of).to_contain_text("of other settings: three overlapping classes, linear path")
    shown.choose("target", "three overlapping classes")
    expect(of).not_to_contain_text("other settings")


@pytest.mark.slow
def test_a_chart_saves_the_numbers_it_shows(plane):
    shown = plane(path="cosine", steps=4)
    chart = shown.page.locator("#flow-path-chart")
    with shown.page.expect_download() as saved:
        chart.get_by_role("button", name="numbers as CSV").click()
    assert saved.value.suggested_filename == "flow-path-chart.csv"
    with open(saved.value.path(), newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    curves = path_curves(shown.recipe())
    for name, values in (("α", curves.alpha), ("σ", curves.sigma)):
        points = [(float(line["x"]), float(line["y"])) for line in lines if line["curve"] == name]
        assert len(points) > 10
        np.testing.assert_allclose(points, list(zip(curves.t, values, strict=True)), rtol=1e-6)


@pytest.mark.slow
def test_a_link_restores_a_flow(plane):
    shown = plane(target="spirals", solver="dpmpp_2m", steps=12, path="vp", grid="karras", seed=3)
    assert shown.recipe() == PlaneFlow(
        target="spirals", solver="dpmpp_2m", steps=12, path="vp", grid="karras", seed=3, particles=300
    )
    expect(shown.status).to_contain_text("12 evaluations")
    first = shown.flow()[1]["frames"]
    again = plane(**shown.link())
    assert np.array_equal(again.flow()[1]["frames"], first)


def test_a_link_with_a_late_class_opens_and_presets_go_on_from_there(plane):
    shown = plane(target="eight", label=5, w=2)
    assert shown.recipe().label == 5 and shown.error.inner_text().strip() == ""
    expect(shown.control("label").locator("input").first).to_have_value("class 5")
    shown.page.reload()
    shown.wait_for_flow()
    assert shown.recipe().label == 5
    # A target without classes, and then a preset of another with them.
    shown = plane(target="checkerboard")
    flows = shown.counted("flows")
    shown.page.get_by_role("button", name="w = 4", exact=True).click()
    shown.wait_for_flow(flows)
    assert shown.recipe().label >= 0 and shown.error.inner_text().strip() == ""


def test_what_was_told_of_a_flow_goes_with_it(plane):
    shown = plane()
    shown.page.mouse.click(*shown.at(-0.6, 0.9))
    expect(shown.point).to_contain_text("log p =")
    flows = shown.counted("flows")
    shown.choose("target", "three overlapping classes")
    shown.wait_for_flow(flows)
    expect(shown.point).to_contain_text("Click a point of the plane")


@pytest.mark.slow
def test_a_link_that_cannot_be_is_told(plane):
    shown = plane(target="word", word="x" * 40, steps=-3, solver="diffusers:lms", particles="NaN")
    expect(shown.told).to_contain_text("solver")
    expect(shown.status).to_contain_text("2000 particles")
    broken = plane(wait=False, target="points", points="AAAA!")
    expect(broken.error).to_contain_text("cannot be read")


def tell_instead(shown: Plane, key: str, **told) -> None:
    """From now on, events of the canvas that carry `key` carry this, as a page might that is not ours."""

    def change(route):
        data = json.loads(route.request.post_data or "{}")
        if key in (data.get("event_data") or {}):
            data["event_data"] |= told
        route.continue_(post_data=json.dumps(data))

    shown.page.unroute("**/run/predict**")
    shown.page.route("**/run/predict**", change)


@pytest.mark.slow
def test_bad_events_of_the_canvas_are_one_sentence(plane):
    """NaN, places far outside, too many points, all of them equal, no numbers."""
    shown = plane(target="points", points=encode_points([[1, 1], [-1, 0.5], [0, 0]]))
    for points, sentence in (
        ([[None, 0, 0]], "finite"),
        ([[1e9, 0, 0]], "between"),
        ([[0, 0, 99]], "class"),
        ([["a", "b", 0]], "pairs of numbers"),
    ):
        tell_instead(shown, "points", points=points)
        shown.drag((0, 0), (0.3, 0.3))
        expect(shown.error).to_contain_text(sentence)
    # The many last: the plane is full of them then, and takes no further stroke.
    for points in ([[1.5, 1.5, 0]] * 50, [[0.01 * (k % 200), 0.5, 0] for k in range(100_000)]):
        flows = shown.counted("flows")
        tell_instead(shown, "points", points=points)
        shown.drag((0, 0), (0.3, 0.3))
        shown.wait_for_flow(flows)
        until(lambda points=points: abs(decode_points(shown.recipe().points)[0][0, 1] - points[0][1]) < 0.01)
        assert len(decode_points(shown.recipe().points)[0]) <= 1000
        until(lambda: inside(shown, shown.recipe()) > 0.9)
        expect(shown.error).to_have_text("")
    expect(shown.page.locator("#flow-plane .editor")).to_contain_text("no more are taken")


@pytest.mark.slow
def test_bad_points_and_components_are_one_sentence(plane):
    shown = plane(target="mixture", mixture=encode_mixture([(-1, 0, 0.3, 0.3, 0.0, 1.0, 0)]))
    tell_instead(shown, "components", components=[[0, 0, -1, 1, 0, 1, 0]])
    shown.drag((-1, 0), (-1, 0.2))
    expect(shown.error).to_contain_text("above 0")
    shown = plane()
    tell_instead(shown, "t", x="a", y=None)
    shown.canvas.click(position={"x": 100, "y": 100})
    expect(shown.point).to_contain_text("not a point of the plane")
    tell_instead(shown, "t", x=1e6, y=0)
    shown.canvas.click(position={"x": 120, "y": 100})
    expect(shown.point).to_contain_text("in closed form")


@pytest.mark.slow
def test_the_line_has_its_own_view(plane):
    shown = plane(target="pair", solver="euler", steps=4)
    expect(shown.page.locator("#flow-plane .board")).to_be_hidden()
    expect(shown.page.locator("#flow-plane .strip")).to_be_visible()
    _, arrays = shown.flow()
    assert arrays["frames"].shape[-1] == 1 and arrays["states"].shape[0] == 5
    strip = shown.page.locator("#flow-plane .strip")
    strip.scroll_into_view_if_needed()
    box = strip.bounding_box()
    shown.page.mouse.click(box["x"] + 0.6 * box["width"], box["y"] + 0.3 * box["height"])
    expect(shown.point).to_contain_text("in closed form")
    expect(shown.point).to_contain_text("t = 0.4")


@pytest.mark.slow
def test_five_thousand_particles_and_a_hundred_frames_play_and_scrub_without_the_server(plane):
    shown = plane(particles=5000, frames=100)
    assert (shown.counted("particles"), shown.counted("frames")) == (5000, 100)
    until(lambda: shown.counted("loads") >= 3)
    shown.page.wait_for_timeout(500)
    asked = []
    shown.page.on("request", lambda request: asked.append(request.url))
    loads, draws = shown.counted("loads"), shown.counted("draws")
    shown.page.locator("#flow-plane .bar input").focus()
    for _ in range(5):
        shown.page.keyboard.press("ArrowLeft")
    shown.page.locator("#flow-plane .play").click()
    until(lambda: shown.counted("draws") > draws + 20)
    assert shown.counted("loads") == loads and shown.counted("milliseconds") < 500
    assert [url for url in asked if not url.endswith("heartbeat")] == []
