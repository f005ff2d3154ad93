"""The tab SDEdit as its visitors use it."""

from __future__ import annotations

import base64
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from serving import ask
from visiting import Tab, until, wait_up_to

from components.tabs.sdedit import strength_in
from playground.images.examples import EXAMPLES
from playground.images.guides import prepare
from playground.images.models import ASSETS, BUNDLED, load_model
from playground.images.sdedit import SDEdit, level
from playground.images.strengths import level_of
from playground.images.tradeoff import LEVELS, has_verifier
from playground.images.verifier import Labels, Verifier
from playground.schedules import Schedule

pytestmark = pytest.mark.browser

RED = (214, 40, 40)
SIZE = (128, 128)
BEACH = np.asarray(EXAMPLES["beach"].picture(SIZE))


@pytest.fixture(scope="module")
def schedule() -> Schedule:
    return load_model().denoiser.schedule


class EditTab(Tab):
    """A page with the tab open."""

    kind = SDEdit

    def __init__(self, page: Page):
        super().__init__(page)
        self.picture = page.locator("#sdedit-stage .picture img")
        self.status = page.locator("#sdedit-status .prose")
        self.told = page.locator("#sdedit-link-notes .prose")
        self.error = page.locator("#sdedit-error .prose")
        self.notes = page.locator("#sdedit-notes .prose")
        self.refused = page.locator("#sdedit-refused .prose")
        self.guide_notes = page.locator("#sdedit-guide-notes .prose")
        self.levels = page.locator("#sdedit-level .prose")
        self.paint = page.locator("#sdedit-paint")
        self.stages = page.locator("#sdedit-compare .stage")
        self.prompt = self.control("prompt").locator("textarea")

    def control(self, name: str) -> Locator:
        return self.page.locator(f"#sdedit-{name}")

    def pixels(self, name: str = "picture-0.png") -> np.ndarray:
        """A picture of the run on show, [H, W, 3]."""
        token = self.wait_for_result().split("/")[1]
        return np.asarray(Image.open(io.BytesIO(self.png(f"media/{token}/{name}"))).convert("RGB"))

    def guide(self) -> np.ndarray:
        return self.pixels("guide.png")

    def board(self) -> np.ndarray:
        """What is painted, [H, W, 3]."""
        url = self.paint.locator(".view").evaluate("canvas => canvas.toDataURL()")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"))

    def wait_for_guide(self, *others: str) -> np.ndarray:
        """Until the run on show started from what is on the board, and from none of these guides."""

        def arrived() -> bool:
            self.page.wait_for_timeout(200)  # looking costs the server something, too
            return self.recipe()["guide"] not in others and np.array_equal(self.guide(), self.board())

        until(arrived, "no picture of the new guide came")
        return self.guide()

    def name(self) -> str:
        """The guide's name."""
        return self.link().get("guide", "beach")

    # What a visitor does

    def tool(self, name: str, width: int = 12) -> None:
        self.paint.get_by_role("button", name=name, exact=True).click()
        self.paint.locator(".width").fill(str(width))

    def stroke(self, *points: tuple[float, float]) -> None:
        """Draw through points, as parts of the board's sides."""
        view = self.paint.locator(".view")
        view.scroll_into_view_if_needed()
        box = view.bounding_box()
        at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        self.page.mouse.move(*at[0])
        self.page.mouse.down()
        for x, y in at[1:]:
            self.page.mouse.move(x, y, steps=8)
        self.page.mouse.up()

    def bring(self, data: bytes, name: str = "picture.png", use: str = "guide") -> None:
        kind = {"svg": "image/svg+xml", "jpg": "image/jpeg"}.get(name[-3:], "image/" + name[-3:])
        file = {"name": name, "mimeType": kind, "buffer": data}
        self.paint.locator(f".{use}-file").set_input_files(file)


@pytest.fixture
def edit(visit) -> Callable[..., EditTab]:
    """`edit(steps=4, ...)`: the page opened by a link to this tab, with a picture on show."""

    def open_tab(wait: bool = True, **query: Any) -> EditTab:
        tab = EditTab(visit(wait=False, **({"tab": "sdedit", "steps": 4} | query)).page)
        if wait:
            tab.wait_for_result()
        return tab

    return open_tab


def file(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def gradient(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    channels = [255 * x / max(width - 1, 1), 255 * y / max(height - 1, 1), np.full_like(x, 90)]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


# Opening


def test_the_tab_opens_with_a_guide_and_what_became_of_it(edit):
    tab = edit(steps=20)
    assert tab.recipe()["guide"] == "beach" and tab.cost() == (12, 24)
    assert np.array_equal(tab.guide(), BEACH)
    expect(tab.stages).to_have_count(3)
    expect(tab.stages.locator("img")).to_have_count(3)
    expect(tab.page.locator("#sdedit-examples .tile[aria-pressed=true]")).to_contain_text("beach")
    expect(tab.page.locator("#sdedit-compare .caption")).to_contain_text("distance to the guide")
    expect(tab.page.locator("#sdedit-curve")).to_be_hidden()
    expect(tab.error).to_have_text("")
    board, result = tab.paint.locator(".board").bounding_box(), tab.picture.bounding_box()
    assert abs(board["y"] - result["y"]) < 4 and abs(board["width"] - result["width"]) < 8


# Painting


def test_a_stroke_changes_the_guide_and_the_result(edit):
    tab = edit()
    before = tab.pixels()
    tab.tool("Brush", 20)
    tab.stroke((0.2, 0.2), (0.8, 0.2))
    guide = tab.wait_for_guide("beach")
    assert tuple(guide[26, 64]) == RED and tuple(guide[26, 40]) == RED
    assert np.array_equal(guide[50:], BEACH[50:])
    after = tab.pixels().astype(float)
    assert np.abs(after - before)[16:36, 30:98].mean() > 10
    expect(tab.page.locator("#sdedit-examples .tile[aria-pressed=true]")).to_have_count(0)


@pytest.mark.slow
def test_eraser_undo_and_clear(edit):
    tab = edit(steps=2)
    undo = tab.paint.get_by_role("button", name="Undo")
    tab.paint.get_by_role("button", name="grass", exact=True).click()
    tab.tool("Brush", 10)
    tab.stroke((0.2, 0.2), (0.8, 0.2))
    painted = tab.wait_for_guide("beach")
    assert tuple(painted[26, 64]) == (88, 166, 74)
    first = tab.name()
    tab.tool("Eraser", 30)
    tab.stroke((0.1, 0.2), (0.95, 0.2))
    # Erasing gives back what was under the strokes, to the last bit.
    assert np.array_equal(tab.wait_for_guide("beach", first), BEACH)
    erased = tab.name()
    undo.click()
    assert np.array_equal(tab.wait_for_guide(erased), painted)
    undo.click()
    assert np.array_equal(tab.wait_for_guide(first), BEACH)
    expect(undo).to_be_disabled()
    tab.paint.get_by_role("button", name="Clear", exact=True).click()
    assert (tab.wait_for_guide(erased) == 255).all()
    expect(tab.guide_notes).to_contain_text("blank")


@pytest.mark.slow
def test_a_plain_background_in_any_colour_and_strokes_on_it(edit):
    tab = edit(steps=2)
    tab.paint.locator("input[type=color]").fill("#123456")
    tab.paint.get_by_role("button", name="Plain background").click()
    assert (tab.wait_for_guide("beach") == (0x12, 0x34, 0x56)).all()
    expect(tab.guide_notes).to_contain_text("The guide is blank")
    plain = tab.name()
    tab.paint.get_by_role("button", name="yellow", exact=True).click()
    tab.stroke((0.5, 0.5), (0.6, 0.5))
    guide = tab.wait_for_guide("beach", plain)
    assert tuple(guide[64, 68]) == (250, 220, 80) and tuple(guide[5, 5]) == (0x12, 0x34, 0x56)
    expect(tab.guide_notes).to_have_text("")


@pytest.mark.slow
def test_outside_the_mask_the_result_is_the_guide(edit):
    tab = edit(t0=0.9)
    tab.tool("Mask", 30)
    tab.stroke((0.2, 0.5), (0.8, 0.5))
    until(lambda: tab.recipe()["mask"] and tab.recipe()["mask"] == tab.link().get("mask"))
    expect(tab.paint.locator(".hint")).to_be_visible()
    expect(tab.page.locator("#sdedit-compare .caption")).to_contain_text("in the masked part")
    made, guide = tab.pixels(), tab.guide()
    assert np.array_equal(guide, BEACH)
    assert np.array_equal(made[:46], guide[:46]) and np.array_equal(made[82:], guide[82:])
    assert np.abs(made.astype(float) - guide)[56:72, 30:98].mean() > 5
    tab.tool("Unmask", 48)
    tab.stroke((0.0, 0.45), (1.0, 0.45))
    tab.stroke((0.0, 0.6), (1.0, 0.6))
    until(lambda: tab.recipe()["mask"] == "" and "mask" not in tab.link())
    assert not np.array_equal(tab.pixels()[:46], guide[:46])


@pytest.mark.slow
def test_a_mask_over_everything_is_said_and_can_be_cleared(edit):
    tab = edit(steps=2)
    tab.tool("Mask", 48)
    for y in (0.1, 0.4, 0.7, 0.95):
        tab.stroke((0.0, y), (1.0, y))
    expect(tab.guide_notes).to_contain_text("The mask covers everything")
    tab.paint.get_by_role("button", name="Clear the mask").click()
    until(lambda: tab.recipe()["mask"] == "")
    expect(tab.guide_notes).to_have_text("")


# Pictures that are brought


@pytest.mark.slow
def test_an_upload_is_cut_and_scaled_and_it_is_told(edit):
    tab = edit(steps=2)
    picture = gradient(300, 200)
    tab.bring(file(picture))
    expect(tab.told).to_contain_text("300 × 200 cut to its middle 200 × 200 and scaled to 128 × 128")
    guide = tab.wait_for_guide("beach")
    assert np.array_equal(guide, np.asarray(prepare(picture, SIZE)[0]))


@pytest.mark.slow
def test_a_second_picture_is_laid_on_the_first_and_its_edge_marked(edit):
    tab = edit(steps=2)
    tab.bring(file(Image.new("RGB", (60, 60), (0, 0, 255))), use="patch")
    expect(tab.paint.locator(".said")).to_contain_text("Drag the second picture")
    tab.paint.locator(".scale").fill("25")
    tab.stroke((0.5, 0.5), (0.75, 0.25))  # drags it
    tab.paint.get_by_role("button", name="Place it").click()
    guide = tab.wait_for_guide("beach")
    until(lambda: tab.recipe()["mask"] != "")
    assert tuple(guide[32, 96]) == (0, 0, 255) and tuple(guide[64, 64]) == tuple(BEACH[64, 64])
    changed = (guide != BEACH).any(-1)
    assert changed[16:49, 80:113].sum() == changed.sum() > 600
    made = tab.pixels()
    assert np.array_equal(made[60:], guide[60:]) and np.array_equal(made[:, :60], guide[:, :60])
    assert not np.array_equal(made[16:49, 80:113], guide[16:49, 80:113])


@pytest.mark.slow
def test_the_last_picture_of_text_to_image_becomes_the_guide(visit):
    plain = visit(steps=3, prompt="a castle at sunset", seed=11)
    theirs = np.asarray(Image.open(io.BytesIO(plain.png())))
    plain.page.locator("#t2i-sweep-run").click()  # a sweep is not the picture that is meant
    expect(plain.page.locator("#t2i-sweep .caption")).to_contain_text("a castle at sunset")
    plain.page.get_by_role("tab", name="SDEdit").click()
    tab = EditTab(plain.page)
    tab.page.get_by_role("button", name="Take my last picture").click()
    expect(tab.prompt).to_have_value("a castle at sunset")
    guide = tab.wait_for_guide("beach")
    assert np.array_equal(guide, theirs)
    assert tab.recipe()["prompt"] == "a castle at sunset"


@pytest.mark.slow
def test_the_camera_takes_a_picture(server, browser):
    flags = [
        "--no-sandbox",
        "--disable-gpu",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
    ]
    filming = browser.browser_type.launch(executable_path="/usr/bin/chromium", args=flags)
    try:
        page = filming.new_page(viewport={"width": 1400, "height": 900})
        page.goto(server.url + "?" + urlencode({"tab": "sdedit", "steps": 2}))
        tab = EditTab(page)
        tab.wait_for_result()
        tab.paint.get_by_role("button", name="Camera").click()
        expect(tab.paint.locator("video")).to_be_visible()
        tab.paint.get_by_role("button", name="Take the picture").click()
        guide = tab.wait_for_guide("beach")
        expect(tab.paint.locator(".said")).to_contain_text("cut to its middle")
        expect(tab.paint.locator("video")).to_be_hidden()
        # Chromium's test picture: not a plain one, and not the example.
        assert guide.std() > 10 and np.abs(guide.astype(float) - BEACH).mean() > 20
    finally:
        filming.close()


@pytest.mark.slow
def test_without_a_camera_it_is_said(edit):
    tab = edit(steps=2)
    tab.paint.get_by_role("button", name="Camera").click()
    expect(tab.paint.locator(".said")).to_contain_text("There is no camera here")


# The noise level


@pytest.mark.slow
@pytest.mark.parametrize("t0", [0.3, 0.85])
def test_what_the_slider_shows_is_what_runs(edit, schedule, t0):
    tab = edit(steps=10)
    tab.set("t0", t0)
    tab.wait_for_recipe(t0=t0)
    at = level(SDEdit(steps=10, t0=t0), schedule)
    for word in (
        f"t = {at.t0:.3f}",
        f"timestep {round(t0 * 1000) - 1} of 1000",
        f"α = {at.alpha:.3f}",
        f"σ = {at.sigma:.3f}",
        "SNR = α²/σ² = " + f"{at.snr:.3g}",
        f"k = {at.runs} of 10 steps",
        f"NFE = {at.evaluations}",
    ):
        expect(tab.levels).to_contain_text(word)
    until(lambda: tab.cost() == (at.evaluations, 2 * at.evaluations))
    expect(tab.page.locator("#sdedit-plane .caption")).to_contain_text(f"t₀ = {t0:g}:")


@pytest.mark.slow
def test_dragging_the_level_shows_pictures_on_the_way(edit):
    tab = edit(steps=20)
    tab.slider("t0").scroll_into_view_if_needed()
    track = tab.slider("t0").bounding_box()
    mouse, y = tab.page.mouse, track["y"] + track["height"] / 2
    mouse.move(track["x"] + 0.6 * track["width"], y)
    mouse.down()
    for k in range(1, 400):
        mouse.move(track["x"] + (0.6 + 0.002 * (k % 100)) * track["width"], y)
        if (tab.picture.first.get_attribute("src") or "").startswith("data:"):
            break
    else:
        raise AssertionError("nothing moved with the hand")
    mouse.move(track["x"] + 0.3 * track["width"], y)
    last = float(tab.number("t0").first.input_value())
    mouse.up()
    assert tab.wait_for_recipe(t0=last)["steps"] == 20 and 0.2 < last < 0.4


@pytest.mark.slow
def test_at_zero_the_guide_comes_back_through_the_autoencoder(edit):
    tab = edit(t0=0)
    expect(tab.levels).to_contain_text("The guide comes back through the autoencoder")
    assert tab.cost() == (0, 0)
    near = np.abs(tab.pixels().astype(float) - BEACH)
    assert 0 < near.mean() < 8
    expect(tab.page.locator("#sdedit-plane .caption")).to_contain_text("distance to the guide 0.00")


@pytest.mark.slow
def test_at_one_it_is_the_picture_of_text_to_image(edit, visit):
    tab = edit(t0=1, seed=5)
    expect(tab.levels).to_contain_text("From here it is text to image")
    plain = visit(steps=4, seed=5, prompt=EXAMPLES["beach"].prompt)
    assert np.array_equal(tab.pixels(), np.asarray(Image.open(io.BytesIO(plain.png()))))


@pytest.mark.slow
def test_strengths_of_other_programs(edit, schedule):
    tab = edit(steps=20)
    tab.page.get_by_role("button", name="Strength in other programs").click()
    told = tab.page.locator("#sdedit-elsewhere .prose")
    expect(told).to_contain_text("diffusers: strength 0.62 with 20 steps runs 12 of them from t = 0.600")
    expect(told).to_contain_text("AUTOMATIC1111: strength 0.57 with 20 steps runs 12 of them from t = 0.600")
    expect(told).to_contain_text("ComfyUI: denoise 0.6 with 20 steps runs 20 of them from the nearest point")
    expect(told).to_contain_text("ComfyUI with denoise 0.59 and 12 steps runs just what diffusers does")
    number = tab.page.locator("#sdedit-strength input")
    expect(number).to_have_value("0.62")
    now = SDEdit(steps=20)
    for program, strength in (("ComfyUI", 0.5), ("AUTOMATIC1111", 0.3), ("diffusers", 0.58)):
        tab.page.locator("#sdedit-program").get_by_text(program, exact=True).click()
        expect(number).to_have_value(f"{strength_in(program, now, schedule):g}")  # the same level in its words
        number.fill(str(strength))
        number.press("Enter")
        t0 = level_of(program, strength, 20, "trailing", schedule)
        made = until(lambda t0=t0: abs(tab.recipe()["t0"] - t0) < 1e-6 and tab.recipe(), f"{program} {strength}")
        assert made["steps"] == 20
        expect(number).to_have_value(str(strength))
        now = now.but(t0=t0)
    tab.set("t0", 0.27)
    expect(number).to_have_value("0.28")
    expect(told).to_contain_text(
        "diffusers: strength 0.28 with 20 steps runs 5 of them from the nearest point, t = 0.250"
    )
    number.fill("1.5")
    number.press("Enter")
    expect(tab.page.locator("#sdedit-unlike")).to_contain_text("A strength lies between 0 and 1.")
    number.fill("0.58")
    number.press("Enter")
    expect(tab.page.locator("#sdedit-unlike")).to_be_hidden()


# Strip, measurement, plane


@pytest.mark.slow
def test_a_strip_of_eight_levels_and_two_seeds_gives_level_and_seed(edit):
    tab = edit(steps=4, seed=30)
    tab.page.get_by_role("button", name="Run the strip").click()
    rows = [tab.page.locator(f"#sdedit-strip-{i}") for i in range(2)]
    for i, row in enumerate(rows):
        expect(row.locator(".tile img")).to_have_count(8)
        expect(row.locator(".caption")).to_contain_text(f"seed {30 + i}")
    expect(rows[1].locator(".caption")).to_contain_text("for all 16")
    labels = rows[0].locator(".label").all_inner_texts()
    distances = [float(label.split("·")[1]) for label in labels]
    assert [label.split(" ")[0] for label in labels] == ["0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9"]
    assert distances[0] < distances[-1]
    tile = rows[1].locator(".tile").nth(6)
    shown = Image.open(io.BytesIO(tab.png(tile.locator("img").get_attribute("src"))))
    tile.click()
    tab.wait_for_recipe(t0=0.8, seed=31)
    # The mark is where the settings are, in the row of their seed.
    expect(rows[1].locator(".tile[aria-pressed=true]")).to_have_text(re.compile("^0.8"))
    expect(rows[0].locator(".tile[aria-pressed=true]")).to_have_count(0)
    tab.set("t0", 0.3)
    expect(rows[1].locator(".tile[aria-pressed=true]")).to_have_text(re.compile("^0.3"))
    expect(rows[1].locator(".caption")).to_contain_text("4 steps, seed 31")
    tab.set("t0", 0.8)
    tab.wait_for_recipe(t0=0.8, seed=31)
    assert np.abs(tab.pixels().astype(float) - np.asarray(shown)).max() <= 2


def measure(tab: EditTab) -> str:
    """Press the button of the measurement; what is said of it."""
    wait_up_to(400)  # 128 pictures
    tab.page.get_by_role("button", name="Measure eight").click()
    measured = tab.page.locator("#sdedit-measured .prose")
    until(lambda: tab.page.wait_for_timeout(500) or "Spearman" in measured.inner_text(), "no measurement came")
    expect(tab.page.get_by_role("button", name="Measure eight")).to_be_enabled()
    return measured.inner_text()


def drawn(tab: EditTab, chart: str, what: str, series: int = 0) -> list[float]:
    """Numbers of a chart on show."""
    figure = tab.page.locator(f"#{chart} .js-plotly-plot")
    expect(figure).to_be_visible()
    # Plotly has them as a list, or as a typed array that knows where it came from.
    return figure.evaluate(f"e => {{ const v = e.data[{series}].{what}; return Array.from(v._inputArray ?? v); }}")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_trade_off_is_measured(edit):
    tab = edit(steps=3)
    said = measure(tab)
    # With three steps; that it is 0.9 at least with twenty is tested without a page.
    assert float(re.search(r"distance: ([\d.]+), 16 seeds", said)[1]) > 0.7
    assert np.allclose(drawn(tab, "sdedit-curve", "x"), LEVELS)
    distances = drawn(tab, "sdedit-curve", "y")
    assert distances[0] < distances[2] < distances[-1]
    # Whether the bundled model brings its verifier or not.
    judged = has_verifier(BUNDLED)
    assert judged != ("Perceptual distance and realism are not measured" in said)
    expect(tab.page.locator("#sdedit-faithful")).to_be_visible(visible=judged)


@pytest.mark.slow
def test_stop_ends_the_whole_measurement(edit):
    tab = edit(steps=50, solver="heun")
    tab.page.get_by_role("button", name="Measure eight").click()
    running = tab.page.get_by_role("button", name=re.compile("^seeds 1 to 8: step [1-9]"))
    expect(running).to_be_visible()
    tab.page.locator("#sdedit-stop").click()
    expect(tab.page.locator("#sdedit-error")).to_contain_text("The measurement was stopped.")
    expect(tab.page.get_by_role("button", name="Measure eight")).to_be_enabled()
    expect(tab.page.locator("#sdedit-curve")).to_be_hidden()


@pytest.mark.slow
def test_with_a_verifier_beside_the_model_it_judges(visit, tmp_path):
    from serving import Server

    folder = tmp_path / "seeing"
    folder.mkdir()
    for part in (ASSETS / "emoji").iterdir():
        if part.name != "verifier":
            (folder / part.name).symlink_to(part)
    torch.manual_seed(0)
    names = dict.fromkeys(("nouns", "colours", "relations", "backgrounds", "styles"), ("a", "b"))
    Verifier(Labels(**names, counts=(1, 2)), (8, 8, 16, 16), 12).save(folder / "verifier")
    other = Server(tmp_path / "log.txt", "--model", str(folder))
    try:
        tab = EditTab(visit(at=other.url, wait=False, tab="sdedit", steps=2, model="seeing").page)
        tab.wait_for_result()
        said = measure(tab)
        assert "Fréchet distance to 16 text-to-image pictures" in said
        perceptual = drawn(tab, "sdedit-curve", "y", 1)
        assert len(perceptual) == 8 and perceptual[0] == min(perceptual) > 0
        realism = drawn(tab, "sdedit-faithful", "y")
        # At t0 = 1 the pictures are drawn as those without a guide are, from other seeds.
        assert realism[-1] < realism[0] and drawn(tab, "sdedit-faithful", "x", 1) == perceptual
        tab.page.close()
    finally:
        other.close()


@pytest.mark.slow
def test_the_plane_follows_the_level(edit):
    tab = edit(steps=2)
    caption = tab.page.locator("#sdedit-plane .caption")
    seen = []
    for t0 in (0.1, 0.4, 0.8):
        tab.set("t0", t0)
        expect(caption).to_contain_text(f"t₀ = {t0:g}:")
        seen.append(float(re.search(r"guide ([\d.]+)", caption.inner_text())[1]))
    assert seen == sorted(seen) and seen[0] < 0.5 < 1.5 < seen[2]
    panels = tab.page.locator("#sdedit-plane canvas")
    expect(panels).to_have_count(3)
    # Something is drawn on each of them.
    inked = """c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data
        .filter((value, i) => i % 4 === 3 && value > 0).length"""
    panels.first.scroll_into_view_if_needed()
    assert all(panel.evaluate(inked) > 1000 for panel in panels.all())


# Presets, examples and views


@pytest.mark.slow
@pytest.mark.parametrize("kind", range(3), ids=["strokes", "stroke edit", "compositing"])
def test_presets_do_what_they_say(edit, kind):
    tab = edit(steps=3)
    buttons = tab.page.locator("#sdedit-presets button")
    expect(buttons).to_have_count(9)
    for i, t0 in enumerate((0.4, 0.6, 0.8)):
        buttons.nth(3 * kind + i).click()
        if kind == 0:
            tab.wait_for_recipe(t0=t0, guide="castle", mask="", prompt=EXAMPLES["castle"].prompt)
            continue
        made = until(lambda t0=t0: (r := tab.recipe())["t0"] == t0 and r["mask"] and r, f"preset {t0} did nothing")
        assert made["guide"] not in EXAMPLES
        picture, guide = tab.pixels(), tab.guide()
        kept = (picture == guide).all(-1).mean()
        assert 0.3 < kept < 0.98
    expect(tab.error).to_have_text("")


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in EXAMPLES if n != "beach"])
def test_example_guides(edit, name):
    tab = edit(steps=2)
    tab.page.locator("#sdedit-examples .tile").nth(list(EXAMPLES).index(name)).click()
    assert tab.wait_for_recipe(guide=name)["prompt"] == EXAMPLES[name].prompt
    assert np.array_equal(tab.guide(), np.asarray(EXAMPLES[name].picture(SIZE)))


@pytest.mark.slow
def test_before_and_after(edit):
    tab = edit()
    edge = tab.page.locator("#sdedit-compare input[type=range]")
    frame = tab.page.locator("#sdedit-compare .frame")
    edge.focus()
    edge.press("Home")
    expect(frame).to_have_attribute("style", re.compile(r"--at:\s*0%"))
    edge.press("End")
    expect(frame).to_have_attribute("style", re.compile(r"--at:\s*100%"))
    expect(frame.locator(".left")).to_have_text("guide")
    tab.stages.nth(1).click()
    expect(frame.locator(".left")).to_have_text("start at t₀ = 0.6")
    expect(frame.locator(".right")).to_have_text("result")
    expect(frame.locator(".before img")).to_have_attribute("src", re.compile("start-0.png"))


@pytest.mark.slow
def test_the_filmstrip_has_a_column_for_each_step_that_ran(edit):
    tab = edit(steps=10, t0=0.5)
    film = tab.page.locator("#sdedit-film")
    film.scroll_into_view_if_needed()
    expect(film.locator(".column")).to_have_count(5)
    expect(film.locator(".where")).to_contain_text("step 5")


@pytest.mark.slow
def test_several_pictures_can_be_looked_at_one_by_one(edit):
    tab = edit(steps=2, pictures=2)
    expect(tab.picture).to_have_count(2)
    caption = tab.page.locator("#sdedit-compare .caption")
    first = caption.inner_text()
    number = tab.page.locator("#sdedit-look input[type=number]")
    number.fill("2")
    number.press("Enter")
    expect(caption).not_to_have_text(first)
    expect(tab.stages.nth(2).locator("img")).to_have_attribute("src", re.compile("picture-1.png"))


@pytest.mark.slow
def test_repeats_cost_as_often(edit):
    tab = edit(steps=5, t0=0.6, repeats=3)
    assert tab.cost() == (9, 18)
    expect(tab.levels).to_contain_text("k = 3 of 5 steps are run, K = 3 times · NFE = 9")
    expect(tab.stages.nth(1)).to_contain_text("start at t₀ = 0.6, pass 3 of 3")
    expect(tab.page.locator("#sdedit-film .where")).to_contain_text("pass 3 of 3")


# Guides that cannot be used, and those that nearly cannot


def exif_turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return file(gradient(120, 60), "JPEG", exif=exif)


def animation() -> bytes:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("orange", "blue")]
    return file(frames[0], "GIF", save_all=True, append_images=frames[1:])


def huge_png() -> bytes:
    """A header that claims 20,000 x 20,000 pixels, and nothing behind it."""
    whole = bytearray(file(Image.new("RGB", (8, 8))))
    whole[16:24] = (20_000).to_bytes(4, "big") * 2
    whole[29:33] = zlib.crc32(bytes(whole[12:29])).to_bytes(4, "big")
    return bytes(whole)


def see_through() -> Image.Image:
    picture = gradient(64, 64).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize((64, 64)))
    return picture


USABLE: dict[str, tuple[bytes, str]] = {
    "one.png": (file(Image.new("RGB", (1, 1), "red")), "so much larger that it is blurred"),
    "cmyk.jpg": (file(gradient(64, 64).convert("CMYK"), "JPEG"), "CMYK colours were turned into RGB"),
    "deep.png": (
        file(Image.fromarray(np.linspace(0, 65535, 128 * 128).reshape(128, 128).astype(np.uint16))),
        "16 bits per pixel were reduced to 8",
    ),
    "film.gif": (animation(), "Only the first frame"),
    "clear.png": (file(see_through()), "Transparent parts are shown on white"),
    "turned.jpg": (exif_turned(), "turned upright"),
    "wide.png": (file(gradient(500, 20)), "cut to its middle 20 × 20"),
}
UNUSABLE: dict[str, tuple[bytes, str]] = {
    "huge.png": (huge_png(), "40 million are the most"),
    "broken.png": (file(gradient(200, 200))[:300], "not a picture that can be opened here"),
    "torn.jpg": (file(gradient(200, 200), "JPEG")[:-400], "not a picture that can be opened here"),
    "drawing.svg": (
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>window.hacked=1</script></svg>',
        "not a picture",
    ),
    "text.png": (b"no picture at all", "not a picture that can be opened here"),
    "empty.png": (b"", "not a picture that can be opened here"),
}


@pytest.mark.slow
def test_unusual_files_are_used_and_it_is_said_what_was_done(edit):
    tab = edit(steps=2)
    names = ["beach"]
    for name, (data, sentence) in USABLE.items():
        tab.bring(data, name)
        expect(tab.told).to_contain_text(sentence)
        tab.wait_for_guide(*names)
        expect(tab.refused).to_have_text("")
        names.append(tab.name())
    expect(tab.guide_notes).to_have_text("")
    assert len(set(names)) == len(USABLE) + 1


@pytest.mark.slow
def test_unusable_files_are_one_sentence_and_the_guide_stays(edit):
    tab = edit(steps=2)
    for name, (data, sentence) in UNUSABLE.items():
        tab.bring(data, name)
        expect(tab.refused).to_contain_text(sentence)
        expect(tab.refused.locator("p")).to_have_count(1)
        assert tab.name() == "beach" and np.array_equal(tab.board(), BEACH)
        tab.bring(file(gradient(128, 128)))  # the page stays usable
        tab.wait_for_guide("beach")
        expect(tab.refused).to_have_text("")
        tab.page.locator("#sdedit-examples .tile").first.click()
        tab.wait_for_recipe(guide="beach")
    assert tab.page.evaluate("window.hacked") is None


@pytest.mark.slow
def test_the_same_files_through_the_api(server):
    recipe = {"steps": 1, "prompt": "a cat", "t0": 0.3}
    for data, sentence in USABLE.values():
        answer = sdedit(server, recipe, base64.b64encode(data).decode())
        assert sentence in answer["told"], sentence
        made = Image.open(io.BytesIO(base64.b64decode(answer["pictures"][0])))
        assert made.size == SIZE
    for data, sentence in UNUSABLE.values():
        if data:  # "" is how a program says that the recipe names an example
            assert sentence in sdedit(server, recipe, base64.b64encode(data).decode())
    assert sdedit(server, recipe, "not base64!") == "The picture did not arrive whole; try again."


@pytest.mark.slow
def test_no_guide_and_bad_masks_through_the_api(server):
    recipe = {"steps": 1, "t0": 0.3}
    assert sdedit(server, recipe | {"guide": ""}).startswith("There is no guide yet")
    assert sdedit(server, recipe | {"guide": "0123"}).startswith("This guide is not on this installation")
    for mask, sentence in (
        (Image.new("L", (3, 3), 255), "they must agree"),
        (Image.new("L", SIZE, 0), "nothing is marked"),
    ):
        assert sentence in sdedit(server, recipe, mask=base64.b64encode(file(mask)).decode())
    everything = base64.b64encode(file(Image.new("L", SIZE, 255))).decode()
    masked, plain = sdedit(server, recipe, mask=everything), sdedit(server, recipe)
    pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(one["pictures"][0])))) for one in (masked, plain)]
    assert np.array_equal(*pixels) and masked["distances"] == plain["distances"]
    blank = base64.b64encode(file(Image.new("RGB", SIZE, "blue"))).decode()
    assert sdedit(server, recipe, blank)["distances"][0] > 0


def sdedit(server, recipe: dict[str, Any], guide: str = "", mask: str = "") -> Any:
    """What a program gets: the answer, or the sentence that refuses."""
    path = "/gradio_api/call/sdedit"
    body = json.dumps({"data": [recipe, guide, mask]})
    _, text = ask(server, "POST", path, body, **{"Content-Type": "application/json"})
    answer = ask(server, "GET", f"{path}/{json.loads(text)['event_id']}")[1]
    said = json.loads(answer.split("data: ")[-1])
    return said["error"] if "event: error" in answer else said[0]


# Links


@pytest.mark.slow
def test_a_link_with_an_example_restores_everything(edit):
    first = edit(guide="rocket", t0=0.45, seed=3, w=5, repeats=2, steps=3, prompt="a rocket in space")
    expect(first.page.locator("#sdedit-examples .tile[aria-pressed=true]")).to_contain_text("rocket")
    again = edit(**first.link())
    assert again.recipe() == first.recipe()
    assert np.array_equal(again.pixels(), first.pixels())


@pytest.mark.slow
def test_a_link_opens_the_same_guide_and_mask_where_they_are_known(edit):
    first = edit(steps=3)
    first.tool("Mask", 30)
    first.stroke((0.2, 0.5), (0.8, 0.5))
    until(lambda: first.recipe()["mask"] and first.recipe()["mask"] == first.link().get("mask"))
    again = edit(**first.link())
    assert again.recipe() == first.recipe() and np.array_equal(again.pixels(), first.pixels())
    expect(again.paint.locator(".hint")).to_be_visible()


@pytest.mark.slow
def test_a_link_whose_guide_is_elsewhere_says_so(edit):
    tab = edit(wait=False, guide="0123456789abcdef01234567", t0=0.35, prompt="a cat")
    expect(tab.told).to_contain_text("The link's guide is not on this installation")
    expect(tab.told).to_contain_text("No link carries a picture, but the PNG and HTML files of the run do")
    expect(tab.error).to_contain_text("There is no guide yet")
    expect(tab.prompt).to_have_value("a cat")
    expect(tab.number("t0").first).to_have_value("0.35")
    tab.page.locator("#sdedit-examples .tile").first.click()
    tab.wait_for_recipe(guide="beach", t0=0.35)
    expect(tab.error).to_have_text("")


@pytest.mark.slow
def test_a_link_whose_mask_is_elsewhere_says_so(edit):
    tab = edit(mask="0123456789abcdef01234567")
    expect(tab.told).to_contain_text("The link's mask is not on this installation")
    assert tab.recipe()["mask"] == ""


# Small screens


@pytest.fixture
def phone(server, browser) -> Iterator[EditTab]:
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, device_scale_factor=2
    )
    page = context.new_page()
    page.goto(server.url + "?" + urlencode({"tab": "sdedit", "steps": 2}))
    tab = EditTab(page)
    tab.wait_for_result()
    yield tab
    context.close()


@pytest.mark.slow
def test_a_finger_paints_on_a_phone(phone):
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
    view = phone.paint.locator(".view")
    view.scroll_into_view_if_needed()
    box = view.bounding_box()
    assert box["width"] > 280 and phone.picture.bounding_box()["width"] > 280
    assert box["y"] < phone.prompt.bounding_box()["y"]
    scrolled = phone.page.evaluate("scrollY")
    fingers = phone.page.context.new_cdp_session(phone.page)

    def touch(kind: str, *at: tuple[float, float]) -> None:
        points = [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in at]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (0.5, 0.1))
    for k in range(1, 11):
        touch("touchMove", (0.5, 0.1 + 0.05 * k))
    touch("touchEnd")
    guide = phone.wait_for_guide("beach")
    assert np.abs(guide[[38, 60], 64].astype(int) - RED).max() <= 2
    assert phone.page.evaluate("scrollY") == scrolled


@pytest.mark.slow
def test_a_second_finger_does_not_draw(phone):
    view = phone.paint.locator(".view")
    view.scroll_into_view_if_needed()
    box = view.bounding_box()
    fingers = phone.page.context.new_cdp_session(phone.page)

    def touch(kind: str, *at: tuple[float, float]) -> None:
        points = [
            {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"], "id": i}
            for i, (x, y) in enumerate(at)
        ]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (0.2, 0.2))
    touch("touchStart", (0.2, 0.2), (0.8, 0.8))
    for k in range(1, 6):
        touch("touchMove", (0.2 + 0.06 * k, 0.2), (0.8 - 0.06 * k, 0.8))
    touch("touchEnd")
    guide = phone.wait_for_guide("beach").astype(int)
    assert np.abs(guide[25, [30, 60]] - RED).max() <= 2
    plain = np.asarray(EXAMPLES["beach"].picture((128, 128))).astype(int)
    assert np.abs(guide[45:] - plain[45:]).max() <= 2


@pytest.mark.slow
def test_a_link_with_a_grid_that_the_model_lacks_keeps_its_settings(edit):
    tab = edit(wait=False, grid="ays_sd15", prompt="a castle at sunset")
    expect(tab.error).to_contain_text("Align Your Steps")
    expect(tab.prompt).to_have_value("a castle at sunset")
    until(lambda: tab.paint.locator("canvas.view").evaluate("c => c.width") == 128)


@pytest.mark.slow
def test_a_link_of_a_strip_says_what_the_page_does_with_it(edit):
    tab = edit(strip="[0.2, 0.5]")
    expect(tab.told).to_contain_text("The link is of a strip of levels.")


@pytest.mark.slow
def test_no_width_scrolls_sideways(edit):
    tab = edit(steps=2)
    for width in (1400, 1024, 768, 390, 320):
        tab.page.set_viewport_size({"width": width, "height": 800})
        until(lambda width=width: tab.page.evaluate("document.documentElement.scrollWidth") <= width)
        for part in (tab.paint.locator(".board"), tab.picture, tab.page.locator("#sdedit-plane")):
            box = part.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width
