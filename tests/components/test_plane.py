"""The canvas of the plane, against buffers made by hand."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from fastapi import FastAPI, Response
from playwright.sync_api import Page, expect

from components.theme import css, theme
from components.widgets import Plane
from playground.plane.packing import pack, unpack


def ring(frames: int = 24, particles: int = 500) -> dict[str, bytes]:
    """Particles that fall from a Gaussian onto a circle, and what belongs to them."""
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(particles, 2)).astype(np.float32)
    angle = np.arctan2(noise[:, 1], noise[:, 0])
    data = 1.8 * np.stack([np.cos(angle), np.sin(angle)], -1)
    t = np.linspace(1, 0, frames)
    path = t[:, None, None] * noise + (1 - t[:, None, None]) * data
    steps = np.linspace(1, 0, 7)
    states = steps[:, None, None] * noise[:20] + (1 - steps[:, None, None]) * data[:20]
    cells = (np.arange(48) + 0.5) / 24 * 3.2 - 3.2
    x, y = np.meshgrid(cells, cells)
    radius = np.hypot(x, y)
    width = 0.15 + t[::4, None, None]
    density = np.exp(-0.5 * ((radius - 1.8 * (1 - t[::4, None, None])) / width) ** 2)
    line = np.exp(-0.5 * (cells / 1.2) ** 2)[None].repeat(len(t[::4]), 0)
    arrows = np.stack([x, y], -1)[None, ::4, ::4].repeat(2, 0)
    zoom = [1.0] * frames
    labels = (angle > 0).astype(np.int16)
    times: list[float] = t.tolist()
    return {
        "flow": pack(
            {"frames": path, "states": states, "labels": labels},
            times=times,
            zoom=zoom,
            solver_times=steps.tolist(),
        ),
        "density": pack({"density": (255 * density).astype(np.uint8)}, times=times[::4], maxima=[0.5] * 6),
        "tilted": pack({"tilted": (255 * density[-1:]).astype(np.uint8)}, times=[0.0], maxima=[0.25]),
        "line-0": pack({"line": (255 * line).astype(np.uint8)}, times=times[::4], maxima=[0.4] * 6),
        "line-1": pack({"line": (255 * line).astype(np.uint8)}, times=times[::4], maxima=[0.4] * 6),
        "arrows": pack({"arrows": arrows.astype(np.float32)}, times=[1.0, 0.0], zoom=[1.0, 1.0]),
        "errors": pack({"errors": (255 * density).astype(np.uint8)}, times=times[::4], maximum=0.125),
        "grid": pack({"grid": path[:, :25].reshape(frames, 5, 5, 2)}, times=times),
        "exact": pack({"exact": path[:, :8]}, times=times),
        "noising": pack({"noising": path[:, :30]}, times=times),
        "conditional": pack({"conditional": path[:, :30]}, times=times, point=[1.8, 0.0]),
    }


def on_the_line(frames: int = 24) -> bytes:
    """Eleven particles that stand still at -2.5, -2, ..., 2.5."""
    places = np.linspace(-2.5, 2.5, 11, dtype=np.float32)[None, :, None].repeat(frames, 0)
    times: list[float] = np.linspace(1, 0, frames).tolist()
    labels = np.zeros(11, dtype=np.int16)
    return pack(
        {"frames": places, "states": places[:3], "labels": labels},
        times=times,
        zoom=[1.0] * frames,
        solver_times=[1.0, 0.5, 0.0],
    )


def value(name: str = "ring", **more: Any) -> dict[str, Any]:
    show = {"id": "first", "layers": ["particles", "density", "trajectories"], "at": 0.5}
    return {"url": f"/arrays/{name}/", "keys": {}, "dimension": 2, "show": show} | more


@pytest.fixture(scope="module")
def site(serve: Any) -> Iterator[SimpleNamespace]:
    """A page with the widget. `site.value` is what it shows; `site.fetched` counts requests by name."""
    site = SimpleNamespace(value=value(), fetched=Counter(), events=[], files=ring(), refused={})
    web = FastAPI()

    @web.get("/arrays/{run}/{name}.bin")
    def arrays(run: str, name: str) -> Response:
        site.fetched[f"{run}/{name}"] += 1
        if name in site.refused:
            return Response(site.refused[name], 503)
        if name == "flow" and run.startswith("line"):
            return Response(on_the_line(), media_type="application/octet-stream")
        time.sleep(0.5 if run.startswith("slow") else 0)
        return Response(site.files[name], media_type="application/octet-stream")

    with gr.Blocks() as page:
        update = gr.Button("Update", elem_id="update")
        plane = Plane(elem_id="plane")
        gr.on([page.load, update.click], lambda: site.value, outputs=plane, show_progress="hidden")

        def record(event: gr.EventData) -> None:
            site.events.append(dict(event._data))

        for event in (plane.point, plane.drawn, plane.shaped):
            event(record, trigger_mode="multiple")
    with serve(gr.mount_gradio_app(web, page, path="/", theme=theme(), css=css())) as site.url:
        yield site


@pytest.fixture
def open_page(site: SimpleNamespace, browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 760, "height": 1100})
    failures: list[str] = []
    site.fetched.clear()
    site.events.clear()
    site.refused.clear()

    def open_with(shown: dict[str, Any] | None = None, hash_: str = "", flows: bool = True) -> Page:
        site.value = shown or value()
        page = context.new_page()
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(site.url + hash_)
        ready = "window.__dp.plane.particles > 0 && " if flows else ""
        page.wait_for_function(f"window.__dp?.plane && {ready} window.__dp.plane.draws > 0")
        return page

    yield open_with
    context.close()
    assert failures == []


def counted(page: Page, what: str) -> int:
    return page.evaluate(f"window.__dp.plane.{what}")


def until(condition: Any, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


# Without a browser


def test_what_is_packed_is_unpacked() -> None:
    floats = np.random.default_rng(1).normal(size=(3, 4, 2)).astype(np.float32)
    small = np.arange(7, dtype=np.uint8)
    header, arrays = unpack(pack({"floats": floats, "small": small}, times=[1.0, 0.5], name="ü"))
    assert header["times"] == [1.0, 0.5] and header["name"] == "ü"
    assert np.abs(arrays["floats"] - floats).max() <= np.abs(floats).max() / 32767
    assert (arrays["small"] == small).all()


def test_not_a_number_does_not_reach_the_header() -> None:
    with pytest.raises(ValueError):
        pack({}, times=[math.nan])
    assert unpack(pack({"x": np.array([math.nan, 2.0])}))[1]["x"].tolist() == pytest.approx([0, 2], abs=1e-3)


# In a browser


@pytest.mark.browser
def test_playing_and_scrubbing_ask_the_server_for_nothing(site: SimpleNamespace, open_page: Any) -> None:
    page = open_page()
    expect(page.locator("#plane .time")).to_contain_text("t = 0.500 (diffusion)")
    until(lambda: site.fetched["ring/density"] == 1 and site.fetched["ring/line-0"] == 1)
    loads, draws, asked = counted(page, "loads"), counted(page, "draws"), []
    page.on("request", lambda request: asked.append(request.url))
    page.locator("#plane .play").click()
    expect(page.locator("#plane .play")).to_have_attribute("aria-label", "Pause")
    until(lambda: counted(page, "draws") > draws + 10)
    slider = page.locator("#plane .bar input")
    slider.focus()
    for key in ("ArrowLeft", "ArrowLeft", "ArrowRight"):
        page.keyboard.press(key)
    expect(page.locator("#plane .play")).to_have_attribute("aria-label", "Play")
    assert counted(page, "loads") == loads and asked == []


@pytest.mark.browser
def test_nothing_moves_before_play(open_page: Any) -> None:
    page = open_page()
    page.wait_for_timeout(700)
    draws = counted(page, "draws")
    page.wait_for_timeout(500)
    assert counted(page, "draws") == draws


@pytest.mark.browser
def test_a_layer_is_fetched_when_it_is_switched_on(site: SimpleNamespace, open_page: Any) -> None:
    page = open_page()
    assert site.fetched["ring/arrows"] == 0
    chip = page.locator("#plane .chips button", has_text="field").first
    chip.click()
    until(lambda: site.fetched["ring/arrows"] == 1)
    chip.click()
    chip.click()
    page.wait_for_timeout(200)
    assert site.fetched["ring/arrows"] == 1


@pytest.mark.browser
def test_an_unchanged_key_is_not_fetched_again(site: SimpleNamespace, open_page: Any) -> None:
    page = open_page(value(keys={"density": "d", "line-0": "l"}))
    until(lambda: site.fetched["ring/density"] == 1)
    site.value = value("other", keys={"density": "d", "line-0": "l"})
    page.locator("#update").click()
    until(lambda: site.fetched["other/flow"] == 1)
    page.wait_for_timeout(200)
    assert site.fetched["other/density"] == site.fetched["other/line-0"] == 0


@pytest.mark.browser
def test_a_click_asks_for_its_point_and_the_keyboard_does_too(site: SimpleNamespace, open_page: Any) -> None:
    page = open_page()
    board = page.locator("#plane canvas.over")
    box = board.bounding_box()
    board.click(position={"x": 0.75 * box["width"], "y": 0.5 * box["height"]})
    until(lambda: len(site.events) == 1)
    assert site.events[0]["x"] == pytest.approx(1.6, abs=0.03)
    assert site.events[0]["y"] == pytest.approx(0, abs=0.03)
    assert site.events[0]["t"] == pytest.approx(0.5, abs=1e-6)
    board.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    until(lambda: len(site.events) == 2)
    assert site.events[1]["y"] == pytest.approx(site.events[0]["y"] + 0.1)


@pytest.mark.browser
def test_time_and_layers_are_kept_in_the_address(open_page: Any) -> None:
    page = open_page()
    page.locator("#plane .chips button", has_text="solver steps").click()
    page.locator("#plane .bar input").press("ArrowRight")
    page.wait_for_function("location.hash.includes('solver')")
    kept = page.evaluate("location.hash")
    again = open_page(hash_=kept)
    assert again.locator("#plane .time").inner_text() == page.locator("#plane .time").inner_text()
    expect(again.locator("#plane .chips button", has_text="solver steps")).to_have_attribute("aria-pressed", "true")


@pytest.mark.browser
def test_a_layer_with_a_reason_is_greyed_out(open_page: Any) -> None:
    page = open_page(value(reasons={"tilted": "There is no class to tilt towards."}))
    chip = page.locator("#plane .chips button", has_text="tilted density")
    expect(chip).to_be_disabled()
    assert "no class" in (chip.get_attribute("title") or "")
    # Nobody's finger sees a title: whoever asks for the layer is told in words, until another can be shown.
    told = page.locator("#plane .refused")
    expect(told).to_be_hidden()
    chip.focus()
    page.keyboard.press("Enter")
    expect(told).to_have_text("There is no class to tilt towards.")
    expect(chip).to_have_attribute("aria-pressed", "false")
    page.locator("#plane .chips button", has_text="solver steps").click()
    expect(told).to_be_hidden()


@pytest.mark.browser
def test_a_mixture_is_shaped_by_its_handles(site: SimpleNamespace, open_page: Any) -> None:
    components = [[0.0, 0.0, 0.4, 0.2, 0.0, 1.0, 0]]
    page = open_page(value(edit="mixture", components=components))
    board = page.locator("#plane canvas.over")
    box = board.bounding_box()
    unit = box["width"] / 6.4
    centre = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*centre)
    page.mouse.down()
    page.mouse.move(centre[0] + unit, centre[1] - unit, steps=4)
    page.mouse.up()
    until(lambda: site.events and "components" in site.events[-1])
    assert site.events[-1]["components"][0][:2] == pytest.approx([1, 1], abs=0.02)
    page.mouse.move(centre[0] + 1.8 * unit, centre[1] - unit)  # the first axis ends at two standard deviations
    page.mouse.down()
    page.mouse.move(centre[0] + unit, centre[1] - 2.6 * unit, steps=6)
    page.mouse.up()
    until(lambda: abs(site.events[-1]["components"][0][2] - 0.8) < 0.03)
    assert site.events[-1]["components"][0][4] == pytest.approx(math.pi / 2, abs=0.03)


@pytest.mark.browser
def test_a_mixture_is_shaped_with_the_keyboard(site: SimpleNamespace, open_page: Any) -> None:
    components = [[0.0, 0.0, 0.4, 0.2, 0.0, 1.0, 0], [1.0, 1.0, 0.4, 0.2, 0.0, 1.0, 1]]
    page = open_page(value(edit="mixture", components=components))
    board = page.locator("#plane canvas.over")
    expect(board).to_have_attribute("aria-label", re.compile("Enter chooses the next Gaussian"))
    page.mouse.move(5, 5)
    board.focus()
    page.keyboard.press("ArrowRight")  # nothing is chosen yet
    for key in ("Enter", "Enter", "ArrowRight", "Shift+ArrowDown", "+", "r"):
        page.keyboard.press(key)
    until(lambda: len(site.events) == 4)
    # Calls that are on their way at once arrive in any order: each has its number.
    first, second = max(site.events, key=lambda event: event["number"])["components"]
    assert first == components[0]
    assert second == pytest.approx([1.1, 0.99, 0.44, 0.22, 0.1, 1.0, 1], abs=1e-3)
    page.get_by_role("button", name="Delete").click()
    until(lambda: len(site.events[-1]["components"]) == 1)


@pytest.mark.browser
def test_what_is_of_the_last_shape_is_not_drawn_over_the_moving_one(site: SimpleNamespace, open_page: Any) -> None:
    site.files = ring()
    components = [[0.0, 0.0, 0.4, 0.2, 0.0, 1.0, 0]]
    show = {"id": "shape", "layers": ["particles", "solver", "arrows"], "at": 0.5}
    page = open_page(value(edit="mixture", components=components, show=show))
    page.wait_for_function("document.querySelector('#plane .scales').textContent.includes('exact solution')")
    box = page.locator("#plane canvas.over").bounding_box()
    centre = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*centre)
    page.mouse.down()
    page.mouse.up()  # chosen, and not moved: all stays, and nobody is told
    page.wait_for_timeout(200)
    assert "exact solution" in scales(page) and site.events == []
    page.mouse.down()
    page.mouse.move(centre[0] + 40, centre[1], steps=3)
    page.mouse.up()
    until(lambda: len(site.events) == 1)
    until(lambda: "exact solution" not in scales(page) and "arrows" not in scales(page))
    site.value = value("shaped", edit="mixture", components=site.events[0]["components"], show=show)
    page.locator("#update").click()
    until(lambda: "exact solution" in scales(page) and "arrows" in scales(page))


@pytest.mark.browser
def test_only_the_first_button_draws(site: SimpleNamespace, open_page: Any) -> None:
    page = open_page(value(edit="draw", components=[]))
    page.locator("#plane canvas.over").click(button="right", position={"x": 100, "y": 100})
    page.wait_for_timeout(200)
    assert site.events == []
    page.locator("#plane canvas.over").click(position={"x": 100, "y": 100})
    until(lambda: len(site.events) == 1)


@pytest.mark.browser
def test_arrays_of_the_line_are_not_drawn_on_the_plane(site: SimpleNamespace, open_page: Any) -> None:
    show = {"id": "line", "layers": ["particles", "errors", "arrows"], "at": 0.5}
    site.files = ring() | {
        "errors": pack({"errors": np.full((2, 48), 9, np.uint8)}, times=[1.0, 0.0], maximum=0.5),
        "arrows": pack({"arrows": np.ones((2, 12, 1), np.float32)}, times=[1.0, 0.0], zoom=[1.0, 1.0]),
    }
    page = open_page(value("line", dimension=1, show=show))
    until(lambda: "exact| of dx/dt" in scales(page))
    assert page.evaluate("getComputedStyle(document.querySelector('#plane .strip')).touchAction") == "pan-y"
    site.files = ring()
    site.value = value("slow", show=show)
    page.locator("#update").click()
    until(lambda: site.fetched["slow/errors"] == 1)
    drawn = counted(page, "draws")
    page.locator("#plane .bar input").press("ArrowRight")
    until(lambda: counted(page, "draws") > drawn)  # and no error on the page, see `open_page`
    until(lambda: "arrows are" in scales(page))


@pytest.mark.browser
def test_a_cross_goes_with_the_flow_that_was_asked(site: SimpleNamespace, open_page: Any) -> None:
    page = open_page()
    board = page.locator("#plane canvas.over")
    without = pixels(page, "over")
    board.click(position={"x": 150, "y": 150})
    until(lambda: len(site.events) == 1 and pixels(page, "over") > without)
    page.mouse.move(5, 5)
    site.value = value("another")
    page.locator("#update").click()
    until(lambda: pixels(page, "over") == without)


@pytest.mark.browser
def test_a_stroke_becomes_points(site: SimpleNamespace, open_page: Any) -> None:
    page = open_page(value(edit="draw", components=[]))
    box = page.locator("#plane canvas.over").bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.5 * box["height"], steps=8)
    page.mouse.up()
    until(lambda: len(site.events) == 1)
    points = np.array(site.events[0]["points"])
    assert 40 < len(points) < 70
    assert points[:, 0].min() == pytest.approx(-1.6, abs=0.05) and points[:, 0].max() == pytest.approx(1.6, abs=0.1)
    assert np.abs(points[:, 1]).max() < 0.05 and set(points[:, 2]) == {0}


def scales(page: Page) -> str:
    return page.locator("#plane .scales").inner_text()


@pytest.mark.browser
def test_every_map_has_its_scale(open_page: Any) -> None:
    page = open_page(value(remarks={"arrows": "A remark on the arrows."}))
    until(lambda: "computed at 6 times, blended between them" in scales(page))
    # The densities themselves are mixed between two frames, in their own unit, and not their roots.
    frames = unpack(ring()["density"])[1]["density"].astype(float)
    place = 0.5 * 23 / 4
    low, share = int(place), place % 1
    roots = frames[low : low + 2] / 255
    mixed = 0.5 * ((1 - share) * roots[0] ** 2 + share * roots[1] ** 2)
    zero, top = scales(page).splitlines()[:2]
    assert zero == "0" and float(top) == pytest.approx(mixed.max(), rel=0.01)
    page.locator("#plane .chips button", has_text="exact density").click()
    until(lambda: "per unit of area" not in scales(page))
    for chip, said in (
        ("contours", "2, 10, 20, 40, 60 and 85 % of its highest value"),
        ("tilted", "at t = 0 it is the tilted density"),
        ("field", "A remark on the arrows."),
        ("error of the field", "0.125"),
        ("solver steps", "the exact solution from the same starts"),
    ):
        page.locator("#plane .chips button", has_text=chip).first.click()
        until(lambda said=said: said in scales(page))


def pixels(page: Page, canvas: str) -> int:
    """How many pixels of a canvas have been drawn on."""
    script = """canvas => {
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        let count = 0;
        for (let i = 3; i < data.length; i += 4) count += data[i] > 0;
        return count;
    }"""
    return page.locator(f"#plane canvas.{canvas}").evaluate(script)


@pytest.mark.browser
@pytest.mark.parametrize(
    ("layer", "canvas"),
    [("forward noising", "over"), ("conditional paths", "over"), ("warped grid", "under"), ("field", "under")],
)
def test_paths_and_grids_are_drawn_when_they_are_switched_on(open_page: Any, layer: str, canvas: str) -> None:
    page = open_page(value(show={"id": "bare", "layers": ["particles"], "at": 0.5}))
    page.wait_for_timeout(200)
    before = pixels(page, canvas)
    page.locator("#plane .chips button", has_text=layer).first.click()
    until(lambda: pixels(page, canvas) > before + 500)
    page.locator("#plane .chips button", has_text=layer).first.click()
    until(lambda: pixels(page, canvas) == before)


@pytest.mark.browser
def test_the_exact_curves_lie_under_the_solvers_steps(site: SimpleNamespace, open_page: Any) -> None:
    page = open_page(value(show={"id": "bare", "layers": ["solver"], "at": 1.0}))
    until(lambda: site.fetched["ring/exact"] == 1)
    until(lambda: "exact solution" in scales(page))
    # Where there is none the reason is said, and nobody is asked for it.
    show = {"id": "bare", "layers": ["solver"], "at": 1.0}
    site.value = value("other", reasons={"exact": "There is no single exact curve."}, show=show)
    page.locator("#update").click()
    until(lambda: "There is no single exact curve." in scales(page))
    assert site.fetched["other/exact"] == 0


@pytest.mark.browser
def test_a_layer_that_is_refused_says_why_and_can_be_asked_for_again(site: SimpleNamespace, open_page: Any) -> None:
    page = open_page()
    site.refused["arrows"] = "Too many pictures are waiting."
    chip = page.locator("#plane .chips button", has_text="field").first
    chip.click()
    until(lambda: "field: Too many pictures are waiting." in scales(page))
    expect(chip).to_have_attribute("title", "Too many pictures are waiting.")
    site.refused.clear()
    chip.click()
    until(lambda: "Too many" not in scales(page))
    chip.click()
    until(lambda: "arrows are" in scales(page))
    assert site.fetched["ring/arrows"] == 2


@pytest.mark.browser
def test_a_mouse_over_a_particle_shows_its_way(open_page: Any) -> None:
    page = open_page(value(show={"id": "bare", "layers": ["particles"], "at": 1.0}))
    page.wait_for_timeout(200)
    board = page.locator("#plane canvas.over")
    board.scroll_into_view_if_needed()
    box, before = board.bounding_box(), pixels(page, "over")
    x = box["x"] + (1.8 / 3.2 + 1) / 2 * box["width"]  # all particles end on a circle of this radius
    page.mouse.move(x, box["y"] + box["height"] / 2)
    until(lambda: pixels(page, "over") > before + 100)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    until(lambda: pixels(page, "over") == before)


@pytest.mark.browser
def test_a_film_stops_at_its_end_or_starts_again(open_page: Any) -> None:
    page = open_page(value(show={"id": "late", "layers": ["particles"], "at": 0.9}))
    play, slider = page.locator("#plane .play"), page.locator("#plane .bar input")
    play.click()
    expect(play).to_have_attribute("aria-label", "Play", timeout=15_000)
    assert float(slider.input_value()) == 1
    page.locator("#plane .loop").click()
    play.click()  # from the start again
    slider.evaluate("s => { s.value = 0.97; s.dispatchEvent(new Event('input', { bubbles: true })); }")
    play.click()
    until(lambda: 0.01 < float(slider.input_value()) < 0.5)
    expect(play).to_have_attribute("aria-label", "Pause")


@pytest.mark.browser
def test_an_empty_plane_can_be_drawn_on_and_stays_until_the_flow_comes(
    site: SimpleNamespace, open_page: Any
) -> None:
    page = open_page({"edit": "draw", "components": [], "keys": {}}, flows=False)
    expect(page.locator("#plane .hint")).to_be_visible()
    expect(page.locator("#plane .bar")).to_be_hidden()
    box = page.locator("#plane canvas.over").bounding_box()
    for n in (1, 2):
        page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.25 * n * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.25 * n * box["height"], steps=5)
        page.mouse.up()
        until(lambda n=n: len(site.events) == n)
    expect(page.locator("#plane .hint")).to_be_hidden()
    first, second = (event["points"] for event in site.events)
    assert second[: len(first)] == first and len(second) > len(first)
    # A flow of the first stroke alone must not take the second away.
    site.value = value(edit="draw", components=first)
    page.locator("#update").click()
    page.wait_for_function("window.__dp.plane.particles > 0")
    expect(page.locator("#plane .editor")).to_contain_text(f"{len(second)} points")
    expect(page.locator("#plane .bar")).to_be_visible()
    page.get_by_role("button", name="Clear").click()
    until(lambda: site.events[-1]["points"] == [])
    site.value = {"edit": "draw", "components": [], "keys": {}}
    page.locator("#update").click()
    expect(page.locator("#plane .hint")).to_be_visible()
    assert pixels(page, "dots") == 0


@pytest.mark.browser
def test_on_the_line_a_click_asks_and_a_drag_scrubs(site: SimpleNamespace, open_page: Any) -> None:
    show = {"id": "line", "layers": ["trajectories"], "at": 0.5}
    page = open_page(value("line", dimension=1, show=show))
    strip = page.locator("#plane .strip")
    strip.scroll_into_view_if_needed()
    box = strip.bounding_box()
    x, y = box["x"] + 0.25 * box["width"], box["y"] + (1 - 1.5 / 3.2) / 2 * box["height"]
    page.mouse.click(x, y)
    until(lambda: len(site.events) == 1)
    assert site.events[0]["x"] == pytest.approx(1.5, abs=0.03) and site.events[0]["y"] == 0
    assert site.events[0]["t"] == pytest.approx(0.75, abs=0.01)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 0.5 * box["width"], y, steps=4)
    page.mouse.up()
    expect(page.locator("#plane .time")).to_contain_text("t = 0.25")
    assert len(site.events) == 1
    # The curve under the mouse is drawn through the whole of time.
    page.mouse.move(x, box["y"] + (1 - 1.75 / 3.2) / 2 * box["height"])
    page.wait_for_timeout(300)
    before = pixels(page, "cursor")
    page.mouse.move(x, box["y"] + (1 - 2.0 / 3.2) / 2 * box["height"])
    until(lambda: pixels(page, "cursor") > before + 200)
    page.mouse.move(x, box["y"] + (1 - 1.75 / 3.2) / 2 * box["height"])
    until(lambda: pixels(page, "cursor") == before)
    strip.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    until(lambda: len(site.events) == 2)
    assert site.events[1]["x"] == pytest.approx(1.6, abs=0.03)


@pytest.mark.browser
def test_the_line_has_its_trajectories_its_density_and_its_tilt(site: SimpleNamespace, open_page: Any) -> None:
    page = open_page(value("line", dimension=1, show={"id": "line", "layers": [], "at": 0.5}))
    page.wait_for_timeout(200)
    before = pixels(page, "paths")
    expect(page.locator("#plane canvas.ground")).to_be_hidden()
    page.locator("#plane .chips button", has_text="trajectories").click()
    until(lambda: pixels(page, "paths") > before + 200)
    page.locator("#plane .chips button", has_text="exact density").click()
    expect(page.locator("#plane canvas.ground")).to_be_visible()
    site.files["tilted"] = pack(
        {"tilted": np.linspace(0, 255, 48)[None].astype(np.uint8)}, times=[0.0], maxima=[0.25]
    )
    drawn = pixels(page, "paths")
    page.locator("#plane .chips button", has_text="tilted density").click()
    until(lambda: pixels(page, "paths") > drawn + 200)
