"""Saved HTML files: opened by their path with the network denied, they play; and they carry the experiment."""

from __future__ import annotations

import io
import time
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from starlette.applications import Starlette
from starlette.testclient import TestClient

from components.media import Media
from components.page import TABS
from components.saving import FILES, left_out, routes, save_value
from components.standalone import LIMIT, film_sheet, fitted, made, options, settings
from playground.__main__ import render, views_of
from playground.backend import Backend
from playground.images.comparison import Comparison
from playground.images.prompt_to_prompt import PromptToPrompt
from playground.images.sdedit import SDEdit
from playground.plane import PlaneFlow
from playground.plane.targets import encode_points
from playground.recipes import TextToImage
from playground.sharing.records import from_file

NASTY = '</script><img src=x onerror="window.hacked=1"><script>window.hacked=1</script> <!-- &amp;'
SHEETS = {kind: part.sheet for kind, part in TABS}
FLOW = PlaneFlow(target="three", particles=400, steps=6)
FILM = TextToImage(prompt=f"a red cat {NASTY}", steps=4)
WORDS = PromptToPrompt(prompt="a red cat", edits=("a red dog",), steps=4)
RACE = Comparison(prompt="a red cat", solvers=("ddim", "heun"), budgets=(3, 5))
STROKES = SDEdit(prompt="a red cat", t0=0.6, steps=4)
LINE = PlaneFlow(target="pair", dimension=1, particles=100, steps=4)
STIRRED = PlaneFlow(target="three", path="cosine", solver="ancestral", particles=100, steps=4)  # no exact curves
EVERY = [FLOW, LINE, STIRRED, FILM, WORDS, RACE, STROKES]


def until(page: Page, condition: str) -> None:
    """Wait for something in a file: its policy lets nobody, this test included, run text as a script there."""
    deadline = time.monotonic() + 60
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        time.sleep(0.05)


@pytest.fixture
def saved(backend):
    """The HTML file of a recipe's run."""

    def save(recipe, **query: str) -> bytes:
        return made(SHEETS[type(recipe)](views_of(recipe, backend), backend, query))

    return save


@pytest.fixture
def opened(saved, browser, tmp_path):
    """`opened(recipe)`: its file in a browser without a network. Nothing is asked for but what is in the file."""
    contexts, asked, failures = [], [], []

    def show(recipe, after: str = "", dark: bool = False, width: int = 1000, **query: str):
        (tmp_path / "saved.html").write_bytes(saved(recipe, **query))
        scheme = "dark" if dark else "light"
        context = browser.new_context(
            offline=True, color_scheme=scheme, viewport={"width": width, "height": 900}, accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on("console", lambda message: failures.append(message.text) if message.type == "error" else None)
        page.goto(f"file://{tmp_path}/saved.html{after}")
        return page

    yield show
    for context in contexts:
        assert not context.pages[0].evaluate("window.hacked")
        context.close()
    outside = [url for url in asked if not url.startswith(("data:", f"file://{tmp_path}/saved.html", "blob:"))]
    assert outside == [] and failures == []


@pytest.mark.parametrize("recipe", EVERY, ids=lambda r: f"{r.tab}-{getattr(r, 'dimension', 2)}")
def test_a_file_carries_its_experiment_and_renders_it_again(saved, backend, recipe, tmp_path):
    content = saved(recipe)
    assert len(content) < LIMIT
    assert from_file(content) == (recipe, [], {})
    (tmp_path / "saved.html").write_bytes(content)
    (again, *_) = render(str(tmp_path / "saved.html"), tmp_path / "again.png", backend)
    assert from_file(again.read_bytes())[0] == recipe


def test_a_film_of_many_particles_is_made_to_fit_and_says_so(saved):
    large = PlaneFlow(target="three", label=0, particles=5000, frames=100, steps=4)
    content = saved(large)
    assert len(content) < LIMIT and "of the 5000 particles" in content.decode()
    assert from_file(content)[0] == large


@pytest.mark.parametrize(("edge", "large"), [(64, False), (1024, True)])
def test_a_guide_that_makes_a_file_large_is_named(backend, edge, large):
    guide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (edge, edge, 3), dtype=np.uint8))
    views = views_of(STROKES, backend)
    content = made(film_sheet(views, backend, 0, [], {"a" * 20: guide}))
    assert (len(content) > LIMIT) == large
    assert ("MB of the file are the guide" in content.decode()) == large


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_flow_plays_and_is_scrubbed_offline(opened, dark):
    page = opened(FLOW, dark=dark, look="plane=0.250,particles,arrows,tilted")
    time = page.locator(".time")
    expect(time).to_contain_text("t = 0.750")  # where its visitor had it
    expect(page.get_by_role("button", name="field", exact=True)).to_have_attribute("aria-pressed", "true")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 380) == dark
    until(page, "window.__dp['part-0'].particles === 400")
    before = page.locator(".board").screenshot()
    page.get_by_role("button", name="Play").click()
    until(page, "document.querySelector('.time').textContent.startsWith('t = 0.000')")
    assert page.locator(".board").screenshot() != before
    page.get_by_label("Time: from noise to data").fill("0.5")
    expect(time).to_contain_text("t = 0.500")
    # Every layer that the page has is in the file.
    for name in ("exact density", "conditional paths", "forward noising", "warped grid", "solver steps"):
        loads = page.evaluate("window.__dp['part-0'].loads")
        page.get_by_role("button", name=name, exact=True).click()
        until(page, f"window.__dp['part-0'].loads > {loads}")
    assert page.locator(".chips button[title='not available']").count() == 0
    # A click asks nobody: there is no cross where no answer can come.
    pixels = page.locator("canvas.over").screenshot()
    page.locator("canvas.over").click(position={"x": 5, "y": 5})
    page.mouse.move(0, 0)
    page.wait_for_timeout(200)
    assert page.locator("canvas.over").screenshot() == pixels
    page.locator("canvas.over").press("ArrowRight")
    page.wait_for_timeout(200)
    assert page.locator("canvas.over").screenshot() == pixels


@pytest.mark.browser
def test_a_filmstrip_is_scrubbed_offline_and_its_prompt_is_only_text(opened):
    page = opened(FILM)
    expect(page.locator("h1")).to_have_text(FILM.prompt)
    expect(page.locator("#part-1 .column")).to_have_count(4)
    page.get_by_label("Step", exact=True).fill("1")
    expect(page.locator("#part-1 .where")).to_contain_text("step 2")
    expect(page.locator("#part-1 .cell.hatched")).to_have_count(0)
    until(page, "window.__dp['part-1'].loads === 4 && window.__dp['part-1'].draws > 1")
    page.get_by_text("All settings").click()
    expect(page.locator("dl")).to_contain_text("guidance w")
    page.get_by_text("Open it in Diffusion Playground").click()
    query = dict(parse_qsl(page.locator("code").inner_text().removeprefix("?")))
    assert TextToImage.from_query(query) == (FILM, [])
    with page.expect_download() as download:
        page.locator("#part-0 a").click()
    assert from_file(Path(download.value.path()).read_bytes())[0] == FILM


@pytest.mark.browser
def test_attention_is_looked_at_word_by_word_offline(opened):
    page = opened(WORDS, width=390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    word = page.locator("#part-0 .word", has_text="cat").first
    word.hover()
    expect(page.locator("#part-0 .about")).to_contain_text("“cat”: strongest 0.")
    page.locator("#part-0 .mean").uncheck()
    page.locator("#part-0 .step").fill("3")
    expect(page.locator("#part-0 output")).to_have_text("3 of 4")
    expect(page.locator("#part-1 .stage img")).to_have_count(3)


@pytest.mark.browser
def test_every_layer_of_a_line_is_in_its_file(opened):
    page = opened(LINE)
    until(page, "window.__dp['part-0'].particles === 100")
    for name in ("field", "conditional paths", "forward noising", "warped grid", "solver steps"):
        loads = page.evaluate("window.__dp['part-0'].loads")
        page.get_by_role("button", name=name, exact=True).click()
        until(page, f"window.__dp['part-0'].loads > {loads}")
    expect(page.locator(".scales .failed")).to_have_count(0)


@pytest.mark.browser
def test_a_race_is_run_offline(opened):
    page = opened(RACE)
    cells = page.locator("#part-0 .cell")
    expect(cells).to_have_count(4)
    expect(cells.nth(1)).to_contain_text("5 NFE")
    page.get_by_label("Evaluations").fill("1")
    expect(cells.nth(1)).to_contain_text("1 of 5")
    page.get_by_role("button", name="Play").click()
    expect(cells.nth(1)).to_contain_text("5 NFE")
    assert page.evaluate("window.__dp['part-0'].loads") == 5
    assert page.locator("#part-0 button.cell").count() == 0  # nothing that looks as if it could be pressed


@pytest.mark.browser
def test_a_file_stands_in_the_frame_of_a_slide(saved, browser, tmp_path):
    (tmp_path / "flow.html").write_bytes(saved(FLOW))
    frame = '<iframe src="flow.html?bare&__theme=dark#plane=1.000,particles" sandbox="allow-scripts"></iframe>'
    (tmp_path / "slide.html").write_text(frame)
    context = browser.new_context(offline=True)
    page, failures = context.new_page(), []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto(f"file://{tmp_path}/slide.html")
    inside = page.frame_locator("iframe")
    expect(inside.locator(".time")).to_contain_text("t = 0.000")
    expect(inside.locator("header")).to_be_hidden()
    inside.get_by_label("Time: from noise to data").fill("0.5")
    expect(inside.locator(".time")).to_contain_text("t = 0.500")
    page.wait_for_timeout(500)  # the time is written into the frame's address, where that can be
    context.close()
    assert failures == []


def test_pictures_that_are_too_large_are_made_smaller_and_that_is_said():
    rng = np.random.default_rng(0)
    pictures = {}
    for k in range(3):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (256, 64, 3), np.uint8)).save(buffer, "PNG")
        pictures[str(k)] = buffer.getvalue()
    whole = sum(map(len, pictures.values()))
    assert fitted(pictures, whole, 64) == (pictures, 64, "")
    files, edge, note = fitted(pictures, 12_000, 64)
    assert (
        sum(map(len, files.values())) <= 12_000 and 8 <= edge < 64 and f"{edge} pixels wide instead of 64" in note
    )
    with Image.open(io.BytesIO(files["0"])) as picture:
        assert picture.size == (edge, 4 * edge)


def test_pictures_that_nearly_fit_keep_every_pixel():
    ramp = np.broadcast_to(np.arange(128, dtype=np.uint8)[None, :, None], (128, 128, 3)).copy()
    ramp += np.random.default_rng(0).integers(0, 8, ramp.shape, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "PNG", compress_level=1)
    files, edge, note = fitted({"a": buffer.getvalue()}, len(buffer.getvalue()) - 1, 128)
    assert (edge, note) == (128, "")
    assert np.array_equal(np.array(Image.open(io.BytesIO(files["a"])).convert("RGB")), ramp)


def test_long_attention_is_a_mean_over_neighbouring_steps(backend):
    from playground.images.prompt_to_prompt import attention_arrays
    from playground.plane.packing import unpack

    views = views_of(WORDS, backend)
    whole = attention_arrays(views.result, views.tokens)
    bytes_of_all = sum(2 * a.size for a in whole.values())
    content, maps, grids = views.packed(bytes_of_all // 2)
    assert grids == views.result.grids
    assert maps == 2 and len(content) < 0.6 * bytes_of_all + 2000
    for name, kept in unpack(content)[1].items():
        np.testing.assert_allclose(kept[0], whole[name][:2].mean(0), atol=1e-4)
        np.testing.assert_allclose(kept.mean(0), whole[name].mean(0), atol=1e-4)
    assert views.packed(10 * bytes_of_all)[1] == 4


def test_steps_that_did_not_ask_are_not_averaged_over(backend):
    from playground.images.prompt_to_prompt import attention_arrays
    from playground.plane.packing import unpack

    # In the window w = 0 asks u alone.
    views = views_of(WORDS.but(w=0.0, low=0.0, high=0.6), backend)
    asked = [bool(views.result.maps(k).before) for k in range(4)]
    assert asked == [True, True, False, False]
    whole = attention_arrays(views.result, views.tokens)
    content, maps, _ = views.packed(sum(2 * a.size for a in whole.values()) // 4)
    assert maps == 1
    for name, kept in unpack(content)[1].items():
        np.testing.assert_allclose(kept[0], whole[name][:2].mean(0), atol=1e-4)
    assert (
        "2 of 4 steps did not ask the prompt" in SHEETS[PromptToPrompt](views, backend, {}).parts[0].value["note"]
    )


def test_what_a_browser_sends_of_its_view_is_not_trusted():
    assert options({"row": "2", "look": "plane=0.5,particles,line-0"}) == {
        "row": 2,
        "at": 0.5,
        "layers": ["particles", "line-0"],
    }
    for nasty in ("plane=", "plane=1.2.3", "plane=.", "plane=0.5,<b>", "x" * 5000, "plane=NaN"):
        found = options({"row": "-1", "look": nasty})
        assert found == {"row": 0, "at": None, "layers": None}


def test_settings_name_all_that_plays_a_part():
    told = {name: (text, usual) for name, text, usual in settings(TextToImage(prompt="a cat", w=7, rule="rescale"))}
    assert told["prompt"] == ("a cat", False) and told["guidance w"] == ("7", False)
    assert told["seed"] == ("7", True) and "φ" in " ".join(told) and "η of APG" not in told


def test_what_a_link_does_not_carry_is_named():
    assert left_out(SDEdit()) == "" and left_out(TextToImage()) == ""
    assert "your guide." in left_out(SDEdit(guide="0123456789abcdef01234567"))
    both = left_out(SDEdit(guide="0123456789abcdef01234567", prompt="é" * 900))
    assert "your guide." in both and "prompt" in both
    assert "your guide and your mask" in left_out(SDEdit(guide="0" * 24, mask="1" * 24))
    points = np.random.default_rng(0).uniform(-3, 3, (1000, 2)).tolist()
    many = PlaneFlow(target="points", points=encode_points(points, [0] * 1000))
    assert "points" in left_out(many) and left_out(many.but(points="")) == ""


def test_files_are_made_when_they_are_fetched_and_never_shown_as_a_page(backend):
    media = Media()
    client = TestClient(Starlette(routes=routes(media, backend, SHEETS)))
    token = media.shelf("flow").add("ann", views_of(FLOW, backend))
    files = save_value(token, FLOW)["files"]
    assert [f["label"] for f in files] == [label for label, _, _ in FILES]
    for file in files:
        answer = client.get(f"/{file['url']}")
        assert answer.status_code == 200 and answer.content
        assert answer.headers["content-disposition"] == "attachment"
        assert answer.headers["x-content-type-options"] == "nosniff"
    for url in (f"save/{token}/exe", f"save/{token}/..%2fpng", "save/unknown/png"):
        answer = client.get(f"/{url}")
        assert answer.status_code == 404 and "Traceback" not in answer.text


def test_a_painted_guide_travels_in_the_file(saved, backend, folders, tmp_path):
    guide = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8))
    recipe = STROKES.but(guide=backend.guides.put(guide))
    (tmp_path / "saved.html").write_bytes(saved(recipe))
    expected = backend.result(recipe).images[0]
    elsewhere = Backend({"emoji": str(folders["sd1"])})
    try:
        (again,) = render(str(tmp_path / "saved.html"), tmp_path / "again.png", elsewhere)
    finally:
        elsewhere.close()
    assert np.array_equal(np.array(Image.open(again)), np.array(expected))
