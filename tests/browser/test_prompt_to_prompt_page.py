"""The tab Prompt-to-prompt, as its visitors use it."""

from __future__ import annotations

import io
import json
import re

import pytest
from PIL import Image
from playwright.sync_api import expect
from visiting import until

from components.tabs.prompt_to_prompt import GRID, PRESETS
from playground.images.models import load_model

pytestmark = pytest.mark.browser
SHORT = {"tab": "prompt-to-prompt", "steps": 4, "solver": "euler"}


class Edited:
    """The tab, open."""

    def __init__(self, visited):
        self.tab, self.page = visited, visited.page
        self.status = self.page.locator("#p2p-status .prose")
        self.error = self.page.locator("#p2p-error .prose")
        self.pictures = self.page.locator("#p2p-stage .picture img")
        self.words = self.page.locator("#p2p-edits .word")
        self.attention = self.page.locator("#p2p-attention")
        self.finished()

    def control(self, name):
        return self.page.locator(f"#prompt-to-prompt-{name}")

    def finished(self, after=()):
        """Until finished pictures other than these are on show: their addresses."""

        def shown():
            sources = self.pictures.evaluate_all("all => all.map((image) => image.getAttribute('src') ?? '')")
            done = sources and all(s.startswith("media/") for s in sources) and sources != list(after)
            return sources if done else None

        found = until(shown, "no new pictures came")
        expect(self.status).to_contain_text("NFE")
        return found

    def choose(self, name, entry):
        self.control(name).locator("input").first.click()
        self.page.get_by_role("option", name=entry, exact=True).click()

    def pixels(self, source):
        """A picture without the recipe in its file."""
        return Image.open(io.BytesIO(self.tab.png(source))).tobytes()

    def fraction(self, name, value):
        box = self.control(name).locator("input[type=number]").first
        box.fill(f"{value:g}")
        box.press("Enter")


@pytest.fixture
def open_tab(visit):
    def opened(**query):
        lists = {k: json.dumps(v) if isinstance(v, list) else v for k, v in query.items()}
        return Edited(visit(wait=False, **(SHORT | lists)))

    return opened


def test_a_cut_fraction_repeats_only_its_steps(open_tab):
    at = open_tab(steps=10)
    before = at.finished()
    at.fraction("cross", 0.5)
    at.finished(before)
    expect(at.status).to_contain_text("reused 5 steps · 5 model calls (NFE)")
    assert at.tab.link()["cross"] == "0.5"


@pytest.mark.slow
def test_a_words_map_is_laid_over_the_picture_without_a_call(open_tab):
    at = open_tab()
    until(lambda: at.page.evaluate("window.__dp['p2p-attention'].loads") >= 1)
    asked = []
    at.page.on("request", lambda request: asked.append(request.url))
    word = at.attention.locator(".row").nth(1).locator(".word", has_text="dog")
    word.hover()
    expect(at.attention.locator(".row").nth(1).locator("canvas").first).to_be_visible()
    expect(at.attention.locator(".about")).to_contain_text("reads “cat”")
    expect(at.attention.locator(".note")).to_contain_text(" MB of memory.")
    at.attention.locator(".mean").uncheck()
    for step in (2, 4):
        at.attention.locator(".step").fill(str(step))
    word.click()
    at.attention.locator(".sheet").check()
    expect(at.attention.locator(".row").first.locator(".sheet-words canvas")).to_have_count(7)
    at.attention.locator(".kind").select_option("before")
    grids = at.attention.locator(".grid option")
    at.attention.locator(".grid").select_option(index=grids.count() - 1)
    assert [url for url in asked if "media/" in url or "gradio_api" in url] == []


@pytest.mark.slow
def test_a_word_is_weighed_with_the_keys_and_the_link_restores_it(open_tab):
    at = open_tab()
    before = at.finished()
    at.words.filter(has_text="dog").click()
    weight = at.page.locator("#p2p-edits .weight")
    weight.focus()
    for _ in range(12):
        weight.press("ArrowRight")
    expect(at.page.locator("#p2p-edits .line output").first).to_have_text("2.2")
    until(lambda: at.tab.link().get("weights") == "[[1,1,2.2]]")
    again = open_tab(weights=[[1, 1, 2.2]])
    expect(again.words.filter(has_text="dog")).to_contain_text("× 2.2")
    # The keys may have been so slow that a weight on the way got its pictures too.
    wanted = again.tab.png(again.finished()[1])
    until(lambda: at.tab.png(at.finished(before)[1]) == wanted)
    # The words are typed anew: the weight goes with its word.
    before = again.finished()
    again.control("edits").locator("textarea").fill("a big dog on the grass")
    until(lambda: again.tab.link().get("weights") == "[[1,2,2.2]]")
    again.finished(before)
    expect(again.error).to_be_hidden()
    again.control("edits").locator("textarea").fill("a cat on the grass")
    until(lambda: "weights" not in again.tab.link())


@pytest.mark.slow
def test_a_word_has_a_fraction_and_a_blend_of_its_own(open_tab):
    at = open_tab(steps=10, threshold=0.9)
    dog = at.words.filter(has_text="dog")
    dog.click()
    panel = at.page.locator("#p2p-edits")
    panel.locator(".has").check()
    expect(dog).to_contain_text("≤ 30 %")
    until(lambda: at.tab.link().get("own_cross") == "[[1,1,0.3]]")
    word = at.attention.locator(".row").nth(1).locator(".word", has_text="dog")
    about = at.attention.locator(".about")

    def told(text):
        word.hover()
        return text in about.inner_text()

    until(lambda: told("reads “cat” in the first 3 of 10 steps"))
    at.attention.locator(".mean").uncheck()
    for step, text in ((3, "reads “cat”"), (4, "keeps its own attention in this step")):
        at.attention.locator(".step").fill(str(step))
        until(lambda text=text: told(text))
    assert at.attention.locator(".blended").is_hidden()
    panel.locator(".blend").check()
    expect(dog).to_contain_text("blend")
    until(lambda: at.tab.link().get("blend") == "[[1,1]]")
    at.page.mouse.move(0, 0)
    at.attention.locator(".mask").check()
    expect(about).to_have_text("Bright: the edit is itself. Dark: it is the source.")
    expect(at.attention.locator(".row").nth(1).locator("canvas").first).to_be_visible()


@pytest.mark.slow
def test_a_dragged_weight_rests_at_one(open_tab):
    at = open_tab()
    at.words.filter(has_text="dog").click()
    bar = at.page.locator("#p2p-edits .weight")
    bar.scroll_into_view_if_needed()
    box = bar.bounding_box()

    def to(value):
        at.page.mouse.move(box["x"] + 8 + (box["width"] - 16) * (value + 2) / 12, box["y"] + box["height"] / 2)

    output = at.page.locator("#p2p-edits .line output").first
    to(1.0)
    at.page.mouse.down()
    to(4.0)
    expect(output).to_have_text(re.compile(r"^[34]\.\d$"))
    to(1.1)
    expect(output).to_have_text("1.0")
    at.page.mouse.up()
    until(lambda: "weights" not in at.tab.link())


@pytest.mark.slow
def test_a_grid_without_an_edit_says_what_it_needs(open_tab):
    at = open_tab(steps=3)
    before = at.finished()
    at.control("edits").locator("textarea").fill("")
    until(lambda: len(at.finished(before)) == 1)
    at.page.locator("#p2p-grid-run").click()
    expect(at.error).to_contain_text("needs an edited prompt")


@pytest.mark.slow
def test_how_words_are_aligned_can_be_overridden(open_tab):
    """A swapped word reads the old one's attention; told that it refines, it is new and keeps its own."""
    at = open_tab()

    def readers():
        """Which token of the source each token of the edit reads, as the matrix shows it; None for its own."""
        columns = at.page.evaluate(
            """() => {
                const z = document.querySelector('#p2p-matrix .js-plotly-plot')?.data?.[0].z ?? [[]];
                return [...z[0]].map((_, j) => [...z].findIndex((row) => row[j] === 1));
            }"""
        )
        return [row if row >= 0 else None for row in columns]

    alignment = at.page.locator("#p2p-alignment")
    expect(alignment).to_contain_text("replace: words were swapped")
    expect(alignment).to_contain_text("dog ← “cat”")
    until(lambda: readers() == [0, 1, 2, 3, 4, 5, 6])
    at.page.locator("#p2p-edits .word", has_text="dog").click()
    expect(at.page.locator("#p2p-edits .fresh")).to_be_hidden()
    before = at.finished()
    at.choose("method", "refine")
    after = at.finished(before)
    expect(alignment).to_contain_text("refine: words were swapped")
    expect(alignment).to_contain_text("dog new")
    expect(alignment).to_contain_text("No longer read: cat.")
    until(lambda: readers() == [0, 1, None, 3, 4, 5, 6])
    expect(at.page.locator("#p2p-edits .fresh")).to_be_visible()
    assert at.tab.link()["method"] == "refine"
    assert at.pixels(after[0]) == at.pixels(before[0])
    assert at.pixels(after[1]) != at.pixels(before[1])


@pytest.mark.slow
def test_renormalising_changes_what_a_weight_does(open_tab):
    at = open_tab(edits=["a cat on the grass"], weights=[[1, 4, 5]])
    before = at.finished()
    at.choose("renormalise", "yes")
    after = at.finished(before)
    assert at.tab.link()["renormalise"] == "yes"
    assert at.pixels(after[0]) == at.pixels(before[0])
    assert at.pixels(after[1]) != at.pixels(before[1])
    at.choose("renormalise", "no")
    until(lambda: at.pixels(at.finished(after)[1]) == at.pixels(before[1]))


@pytest.mark.slow
def test_an_edit_is_laid_over_its_source(open_tab):
    at = open_tab(edits=["a dog on the grass", "a bird on the grass"])
    compare = at.page.locator("#p2p-compare")
    names = compare.locator(".stage .name")
    expect(names).to_have_text(["difference", "source", "edit 1"])
    expect(compare.locator(".left")).to_have_text("source")
    expect(compare.locator(".caption")).to_contain_text("mean absolute difference from the source: ")
    for value in (20, 80):
        compare.get_by_label("Edge between before and after").fill(str(value))
        # The source is cut off to the right of the edge.
        expect(compare.locator(".before")).to_have_css("clip-path", f"inset(0px {100 - value}% 0px 0px)")
    compare.locator(".stage").first.click()
    expect(compare.locator(".left")).to_have_text("difference")
    first = compare.locator(".after img").get_attribute("src")
    look = at.page.locator("#p2p-look input[type=number]")
    look.fill("2")
    look.press("Enter")
    expect(names).to_have_text(["difference", "source", "edit 2"])
    expect(at.page.locator("#p2p-alignment")).to_contain_text("bird ← “cat”")
    assert compare.locator(".after img").get_attribute("src") != first


@pytest.mark.slow
def test_a_word_that_is_chosen_keeps_the_keyboard(open_tab):
    at = open_tab()
    word = at.words.filter(has_text="dog")
    word.focus()
    word.press("Enter")
    expect(word).to_have_attribute("aria-pressed", "true")
    expect(word).to_be_focused()
    expect(at.page.locator("#p2p-edits .chosen")).to_have_text("“dog”")
    # The panel follows its word when another is typed before it.
    at.control("edits").locator("textarea").fill("a big dog on the grass")
    expect(at.words.filter(has_text="big")).to_be_visible()
    expect(at.page.locator("#p2p-edits .chosen")).to_have_text("“dog”")
    expect(at.words.filter(has_text="dog")).to_have_attribute("aria-pressed", "true")


@pytest.mark.slow
def test_a_preset_is_the_same_whatever_was_tried_before(open_tab):
    at = open_tab(rule="cfgpp", solver="ddim", negative="snow", renormalise="yes")
    before = at.finished()
    at.page.get_by_role("button", name="Refine by place", exact=True).click()
    at.finished(before)
    until(lambda: "rule" not in at.tab.link() and "negative" not in at.tab.link())
    expect(at.error).to_be_hidden()
    until(lambda: len(at.finished()) == 3)
    assert set(at.tab.link()) == {"v", "tab", "prompt", "edits"}


@pytest.mark.slow
def test_edits_are_lines_and_each_is_a_picture(open_tab):
    at = open_tab(edits=["a dog on the grass", "a bird on the grass"])
    assert len(at.finished()) == 3
    expect(at.page.locator("#p2p-alignment")).to_contain_text("← “cat”")
    before = at.finished()
    at.control("edits").locator("textarea").fill("")
    until(lambda: len(at.finished(before)) == 1)
    expect(at.page.locator("#p2p-alignment")).to_contain_text("There is no edited prompt yet.")
    at.control("edits").locator("textarea").fill("1\n2\n3\n4")
    expect(at.error).to_contain_text("at most 3")


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_runs(open_tab, name):
    at = open_tab()
    before = at.finished()
    button = at.page.get_by_role("button", name=name, exact=True)
    if any(map(load_model().text.notes, (PRESETS[name]["prompt"], *PRESETS[name]["edits"]))):
        expect(button).to_have_count(0)
        return
    button.click()
    # A preset sets its fields one after the other, and a run of the first of them may be seen on the way.
    count = 1 + len(PRESETS[name]["edits"])
    sources = until(lambda: len(found := at.finished(before)) == count and found, f"not {count} pictures")
    expect(at.error).to_be_hidden()
    files = {at.tab.png(s) for s in sources}
    assert len(files) == len(sources)
    assert at.tab.link().get("prompt", "a cat on the grass") == PRESETS[name]["prompt"]


@pytest.mark.slow
def test_the_grid_of_fractions_runs_and_a_click_takes_its_pair(open_tab):
    at = open_tab(steps=3)
    before = at.finished()
    at.page.locator("#p2p-grid-run").click()
    tiles = at.page.locator("#p2p-grid .tile")
    until(lambda: tiles.locator("img").count() == len(GRID) ** 2)
    tiles.nth(0).click()
    at.finished(before)
    link = at.tab.link()
    assert link["cross"] == "0" and link["self_fraction"] == "0"
    caption = at.page.locator("#p2p-grid .caption")
    expect(caption).to_contain_text("model calls")
    expect(caption).not_to_contain_text("Other settings")
    expect(at.page.locator("#p2p-grid .tile[aria-pressed=true]")).to_have_count(1)
    at.page.locator("#prompt-to-prompt-seed input[type=number]").fill("12")
    at.page.locator("#prompt-to-prompt-seed input[type=number]").press("Enter")
    expect(caption).to_contain_text("Other settings than those now")


def test_a_link_of_a_grid_says_what_the_page_does_with_it(open_tab):
    at = open_tab(steps=3, crosses=[0, 1], selves=[0, 0.5])
    expect(at.page.locator("#p2p-link-notes")).to_contain_text("The link is of a grid of fractions.")
    at.finished()
    assert not {"crosses", "selves"} & set(at.tab.link())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"prompt": "cat " * 60}, "tokens and the model reads"),
        ({"prompt": "a cat AND a dog"}, "parts joined by AND"),
        ({"rule": "auto"}, "no autoguidance"),
    ],
)
def test_what_cannot_be_done_is_said(visit, query, said):
    visited = visit(wait=False, **(SHORT | query))
    expect(visited.page.locator("#p2p-error .prose")).to_contain_text(said)
    # How the words are aligned is known whether they can run or not.
    aligned = "tokens and the model reads" if "cat cat" in query.get("prompt", "") else "words were"
    expect(visited.page.locator("#p2p-alignment")).to_contain_text(aligned)


@pytest.mark.slow
def test_the_tab_fits_a_phone(visit):
    at = Edited(visit(wait=False, screen=(390, 844), **SHORT))
    assert at.page.evaluate("document.documentElement.scrollWidth") <= 390
