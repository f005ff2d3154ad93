"""The widgets in a real browser, fed with pictures whose speed the test decides and whose fetches it counts."""

from __future__ import annotations

import io
import os
import time
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported: it would call home
os.environ["GRADIO_RUN_HISTORY"] = "False"

import gradio as gr
from fastapi import FastAPI, Response
from PIL import Image
from playwright.sync_api import Page, expect

from components.theme import PALETTE, PALETTE_DARK, SOLVER_COLOURS, css, theme
from components.widgets import Filmstrip, Noising, Stage, Sweep, Tokens, Words

WIDGETS = {"stage": Stage, "sweep": Sweep, "tokens": Tokens, "words": Words, "noising": Noising, "film": Filmstrip}
NASTY = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
EMPTY: dict[str, Any] = dict.fromkeys(WIDGETS)


def film(name: str, steps: int = 40, computed: tuple[bool, bool] = (True, True)) -> dict[str, Any]:
    rows = [("x_t", "noise"), ("guided", "guided")]
    return {
        "tile": 32,
        "rows": [{"name": text, "key": key, "help": ""} for text, key in rows],
        "columns": [
            {
                "step": k,
                "t": 1 - k / steps,
                "level": "",
                "url": f"/media/{name}-{k}.png",
                "computed": list(computed),
            }
            for k in range(steps)
        ],
        "note": "",
    }


def sweep(selected: float | None = None) -> dict[str, Any]:
    tiles = [{"value": w, "label": f"w = {w}", "url": f"/media/sweep-{w}.png"} for w in (0, 1, 4)]
    tiles.append({"value": 15, "label": "w = 15", "url": None})
    return {"axis": "guidance w", "tiles": tiles, "selected": selected, "caption": ""}


def stage(name: str, live: bool = False) -> dict[str, Any]:
    return {"pictures": [{"url": f"/media/{name}.png", "label": name}], "live": live, "caption": ""}


def make_site() -> SimpleNamespace:
    """A server for the page and its pictures. What a picture's name starts with decides how fast it is."""
    site = SimpleNamespace(values=EMPTY, fetched=Counter(), events=[])
    web = FastAPI()

    @web.get("/media/{name}.png")
    def picture(name: str) -> Response:
        site.fetched[name] += 1
        time.sleep(1.0 if name.startswith("slow") else 0.0)
        png = io.BytesIO()
        Image.new("RGB", (32, 64), "teal").save(png, "PNG")
        return Response(png.getvalue(), media_type="image/png", headers={"Cache-Control": "max-age=3600"})

    def record(event: gr.EventData) -> None:
        site.events.append(dict(event._data))

    with gr.Blocks() as page:
        update = gr.Button("Update", elem_id="update")
        widgets = {name: kind(elem_id=name) for name, kind in WIDGETS.items() if name != "film"}
        gr.HTML("<div style='height: 2000px'></div>")
        widgets["film"] = Filmstrip(elem_id="film")
        outputs = [widgets[name] for name in WIDGETS]
        gr.on(
            [page.load, update.click],
            lambda: [site.values[name] for name in WIDGETS],
            outputs=outputs,
            show_progress="hidden",
            trigger_mode="multiple",
        )
        for event in (widgets["sweep"].pick, widgets["words"].example, widgets["words"].word):
            event(record, trigger_mode="multiple")

    site.web = gr.mount_gradio_app(web, page, path="/", theme=theme(), css=css())
    return site


@pytest.fixture(scope="module")
def site(serve: Any) -> Iterator[SimpleNamespace]:
    site = make_site()
    with serve(site.web) as site.url:
        yield site


@pytest.fixture
def open_page(site: SimpleNamespace, browser: Any) -> Iterator[Any]:
    """`open_page(stage=..., sweep=...)` opens the page with these values, in a context of its own."""
    context = browser.new_context(viewport={"width": 1000, "height": 700})
    site.fetched.clear()
    site.events.clear()

    def open_with(**values: Any) -> Page:
        site.values = EMPTY | values
        page = context.new_page()
        page.goto(site.url)
        page.wait_for_selector("#film .film", state="attached")
        return page

    yield open_with
    context.close()


def update(site: SimpleNamespace, page: Page, **values: Any) -> None:
    site.values = EMPTY | values
    page.locator("#update").click()


def until(condition: Any, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def source(page: Page) -> str:
    return page.locator("#stage .picture img").get_attribute("src") or ""


# Without a browser


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("name", PALETTE)
def test_a_colour_is_seen_on_light_and_on_dark(name: str) -> None:
    assert min(contrast(PALETTE[name], page) for page in ("#ffffff", "#f8fafc", "#0f172a")) >= 3
    assert contrast(PALETTE_DARK[name], "#0f172a") >= 4.5


def test_the_style_sheet_carries_the_palette_and_asks_nothing_of_the_network() -> None:
    sheet = css()
    assert all(f"--{name}: {colour};" in sheet for name, colour in PALETTE.items())
    assert all(f"--solver-{name.replace('_', '-')}:" in sheet for name in SOLVER_COLOURS)
    assert len(set(SOLVER_COLOURS.values())) == len(SOLVER_COLOURS)
    assert "url(http" not in sheet + theme()._get_theme_css().replace("'", "").replace('"', "")
    assert theme()._stylesheets == []


@pytest.mark.parametrize("kind", WIDGETS.values())
def test_templates_are_static(kind: type[gr.HTML]) -> None:
    """Gradio evaluates both as JavaScript template strings and as Handlebars: neither may find anything."""
    widget = kind()
    for template in (widget.html_template, widget.css_template):
        assert not any(mark in template for mark in ("${", "{{", "`", "\\"))
    assert widget.api_info()["type"] == "object"


# In a browser


@pytest.mark.browser
def test_a_stale_picture_is_dropped(site: SimpleNamespace, open_page: Any) -> None:
    page = open_page(stage=stage("first"))
    expect(page.locator("#stage .label")).to_have_text("first")
    update(site, page, stage=stage("slow", live=True))
    expect(page.locator("#stage .live")).to_be_visible()
    until(lambda: site.fetched["slow"] == 1)
    assert source(page) == "/media/first.png"  # until the next one is decoded
    update(site, page, stage=stage("newest"))
    expect(page.locator("#stage .label")).to_have_text("newest")
    page.wait_for_function("window.__dp.stage.dropped === 1")
    assert source(page) == "/media/newest.png"
    expect(page.locator("#stage .live")).to_be_hidden()


@pytest.mark.browser
def test_previews_move_nothing_and_a_picture_can_be_enlarged_and_saved(
    site: SimpleNamespace, open_page: Any
) -> None:
    page = open_page(stage=stage("one"))
    picture = page.locator("#stage .picture")
    expect(picture.locator("img")).to_be_visible()
    before = picture.bounding_box()
    update(site, page, stage=stage("two", live=True))
    expect(page.locator("#stage .label")).to_have_text("two")
    assert picture.bounding_box() == before
    expect(page.locator("#stage a")).to_be_hidden()  # a preview is no experiment's end
    update(site, page, stage=stage("two"))
    expect(page.locator("#stage .live")).to_be_hidden()
    assert picture.bounding_box() == before
    with page.expect_download() as download:
        page.locator("#stage a").click()
    assert download.value.suggested_filename == "two.png"
    picture.press("Enter")
    expect(page.locator("#stage dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#stage dialog")).to_be_hidden()


@pytest.mark.browser
def test_text_stays_text(open_page: Any) -> None:
    column = film("film", 2)
    column["rows"][0]["name"] = column["note"] = NASTY
    row = sweep()
    row["tiles"][0]["label"] = row["caption"] = NASTY
    page = open_page(
        stage={"pictures": [{"url": "/media/x.png", "label": NASTY}], "live": False, "caption": NASTY},
        tokens={"tokens": [{"text": NASTY, "kind": "unknown", "id": 3}], "note": NASTY},
        words={"examples": [NASTY], "groups": [{"name": NASTY, "words": [NASTY]}]},
        sweep=row,
        film=column,
    )
    expect(page.locator("#tokens .text")).to_have_text(NASTY)
    expect(page.locator("#words .examples button")).to_have_text(NASTY)
    expect(page.locator("#stage .label")).to_have_text(NASTY)
    expect(page.locator("#sweep .caption")).to_have_text(NASTY)
    expect(page.locator("#film .name").first).to_have_text(NASTY)
    assert page.locator("img[src=x]").count() == 0
    assert page.evaluate("window.hacked") is None


@pytest.mark.browser
def test_the_filmstrip_fetches_what_is_looked_at(site: SimpleNamespace, open_page: Any) -> None:
    page = open_page(film=film("film"))
    expect(page.locator("#film .column")).to_have_count(40)
    page.wait_for_timeout(300)
    assert site.fetched.total() == 0  # it is below the fold
    page.locator("#film .rows").scroll_into_view_if_needed()
    until(lambda: site.fetched["film-39"] == 1)
    page.locator("#film .strip").scroll_into_view_if_needed()
    until(lambda: site.fetched["film-30"] == 1)
    page.wait_for_timeout(300)
    assert site.fetched.total() < 25 and site.fetched["film-5"] == 0
    assert page.evaluate("window.__dp.film.loads") == site.fetched.total()
    page.locator("#film .strip").evaluate("strip => { strip.scrollLeft = 0; }")
    until(lambda: site.fetched["film-0"] == 1)
    assert max(site.fetched.values()) == 1


@pytest.mark.browser
def test_the_filmstrip_answers_the_keyboard_and_plays_when_asked(site: SimpleNamespace, open_page: Any) -> None:
    page = open_page(film=film("played", 4, computed=(True, False)))
    slider, where = page.locator("#film input"), page.locator("#film .where")
    expect(where).to_have_text("step 3 · t = 0.250")
    for key, text in [("Home", "step 0 · t = 1.000"), ("ArrowRight", "step 1 · t = 0.750"), ("End", "step 3")]:
        slider.press(key)
        expect(where).to_contain_text(text)
    hatched = page.locator("#film .cell.hatched")
    expect(hatched).to_have_count(1)
    assert "Not computed" in (hatched.get_attribute("title") or "")

    button = page.locator("#film .bar button")
    button.click()
    expect(button).to_have_attribute("aria-label", "Pause")
    expect(where).to_contain_text("step 3")
    expect(button).to_have_attribute("aria-label", "Play")  # it stops at the end
    assert max(site.fetched.values()) == 1  # and fetched nothing twice


@pytest.mark.browser
def test_a_new_film_gives_up_the_old_ones_fetches(site: SimpleNamespace, open_page: Any) -> None:
    page = open_page(film=film("slow"))
    page.locator("#film .strip").scroll_into_view_if_needed()
    until(lambda: site.fetched.total() == 2)  # never more at once
    page.wait_for_timeout(200)
    assert site.fetched.total() == 2
    site.values = EMPTY | {"film": film("next")}
    page.locator("#update").dispatch_event("click")
    until(lambda: site.fetched["next-39"] == 1, 3)
    until(lambda: site.fetched["next-35"] == 1, 3)
    assert sum(n for name, n in site.fetched.items() if name.startswith("slow")) == 2


@pytest.mark.browser
def test_picking_a_tile_reaches_python_and_keeps_the_focus(site: SimpleNamespace, open_page: Any) -> None:
    page = open_page(sweep=sweep())
    tiles = page.locator("#sweep .tile")
    expect(tiles).to_have_count(4)
    tiles.nth(1).click()
    until(lambda: site.events == [{"value": 1}])
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    until(lambda: site.events == [{"value": 1}, {"value": 4}])
    site.values = EMPTY | {"sweep": sweep(selected=4)}
    page.locator("#update").dispatch_event("click")
    expect(tiles.nth(2)).to_have_attribute("aria-pressed", "true")
    expect(tiles.nth(2)).to_be_focused()
    boxes = [tiles.nth(i).bounding_box() for i in (0, 3)]  # the last has no picture
    assert boxes[0]["height"] == boxes[1]["height"]


@pytest.mark.browser
def test_words_can_be_found_and_clicked(site: SimpleNamespace, open_page: Any) -> None:
    groups = [{"name": "colours", "words": ["red", "green"]}, {"name": "things", "words": ["tree", "heart"]}]
    page = open_page(words={"examples": ["a red heart"], "groups": groups})
    page.locator("#words .examples button").click()
    until(lambda: site.events == [{"text": "a red heart"}])
    page.locator("#words summary").press("Enter")
    page.locator("#words input").press_sequentially("EE")
    visible = page.locator("#words .words button:visible")
    expect(visible).to_have_text(["green", "tree"])
    visible.nth(1).press("Enter")
    until(lambda: site.events[-1] == {"text": "tree"})
    page.locator("#words input").fill("zebra")
    expect(page.locator("#words .none")).to_be_visible()


@pytest.mark.browser
def test_tokens_name_the_unknown_and_count_the_padding(open_page: Any) -> None:
    words = [("<start>", "special", 0), ("a", "word", 7), ("zebra", "unknown", 3)]
    tokens = [{"text": text, "kind": kind, "id": number} for text, kind, number in words]
    padding = [{"text": "", "kind": "padding", "id": 2}] * 9
    page = open_page(tokens={"tokens": tokens + padding, "note": "12 tokens"})
    chips = page.locator("#tokens .chip")
    expect(chips).to_have_text(["<start>", "a", "zebraunknown", "9 × padding"])
    chips.nth(2).focus()
    expect(page.locator("#tokens .about")).to_have_text("zebra: id 3, position 2, unknown")
    chips.nth(2).blur()
    expect(page.locator("#tokens .about")).to_have_text("12 tokens")


@pytest.mark.browser
def test_noising_shows_the_time_that_is_asked_for(site: SimpleNamespace, open_page: Any) -> None:
    value = {
        "url": "/media/noising-",
        "frames": 3,
        "times": [0.0, 0.5, 1.0],
        "alpha": [1.0, 0.6, 0.0],
        "sigma": [0.0, 0.8, 1.0],
        "log_snr": [None, -0.575, None],
        "note": "",
    }
    page = open_page(noising=value)
    slider = page.locator("#noising input")
    expect(page.locator("#noising dd")).to_have_text(["0.000", "1.000", "∞", "1.000", "0.000"])
    slider.press("ArrowRight")
    expect(page.locator("#noising dd")).to_have_text(["0.500", "0.500", "−0.575", "0.600", "0.800"])
    expect(page.locator("#noising img")).to_have_attribute("src", "/media/noising-1.png")
    assert site.fetched["noising-2"] == 0
    slider.press("End")
    expect(page.locator("#noising .snr")).to_have_text("−∞")
