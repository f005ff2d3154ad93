"""The page as its visitors use it."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import expect
from visiting import SLIDERS, until

pytestmark = pytest.mark.browser

NASTY = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


# Opening


def test_the_page_opens_with_a_picture_a_sweep_and_a_chart(visit):
    tab = visit()
    assert tab.picture.evaluate("image => image.naturalWidth") == 128
    expect(tab.sweep).to_have_count(8)
    expect(tab.sweep.locator("img")).to_have_count(8)
    expect(tab.page.locator("#t2i-chart .js-plotly-plot")).to_be_visible()
    assert tab.cost() == (20, 40)
    expect(tab.error).to_have_text("")
    assert tab.page.locator(".katex").count() >= 4


@pytest.mark.slow
def test_every_control_has_a_name_and_a_line_of_help(visit):
    tab = visit(steps=2)
    tab.more()
    for name in tab.values():
        expect(tab.control(name).locator("[data-testid=block-info]").first).not_to_be_empty()
        assert len(tab.control(name).locator(".info-text").first.inner_text()) > 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "cost"),
    [
        ({"steps": 3, "solver": "euler"}, (3, 6)),
        ({"steps": 3, "solver": "heun", "grid": "uniform"}, (5, 10)),
        ({"steps": 3, "w": 0}, (3, 3)),
        ({"steps": 3, "w": 1}, (3, 3)),
        ({"steps": 2, "rule": "none"}, (2, 2)),
        ({"steps": 2, "pictures": 3}, (2, 12)),
    ],
)
def test_the_cost_is_that_of_the_formulas(visit, settings, cost):
    assert visit(**settings).cost() == cost


# Guidance


def test_dragging_shows_pictures_on_the_way_and_ends_with_the_last_value(visit):
    tab = visit(steps=12, w=2)
    tab.watch()
    track = tab.slider("w").bounding_box()
    mouse, y = tab.page.mouse, track["y"] + track["height"] / 2
    at = [track["x"] + track["width"] * part for part in (0.2, 0.4, 0.5, 0.6, 0.7, 0.8)]
    mouse.move(track["x"] + track["width"] * 3 / 16, y)
    mouse.down()
    tries = 0
    while len(tab.seen("data:")) < 2:
        mouse.move(at[tries % 5], y)
        tries += 1
        assert tries < 3000, "nothing moved with the hand"
    mouse.move(at[5], y)
    last = float(tab.number("w").first.input_value())
    mouse.up()
    assert tab.wait_for_recipe(w=last)["steps"] == 12
    assert 11 < last < 13
    expect(tab.page.locator("#t2i-stage .live")).to_be_hidden()
    assert tab.cost() == (12, 24)


@pytest.mark.slow
def test_twenty_quick_moves_complete_two_full_runs_at_most(visit):
    tab = visit(steps=10, w=2)
    first = tab.source()
    tab.watch()
    tab.slider("w").evaluate(
        """async slider => {
            for (let k = 1; k <= 20; k += 1) {
                slider.value = k / 2;
                slider.dispatchEvent(new Event('input', { bubbles: true }));
                await new Promise(done => setTimeout(done, 30));
            }
        }"""
    )
    tab.wait_for_recipe(w=10.0)
    full = [source for source in tab.seen("media/") if source != first]
    assert 1 <= len(full) <= 2


@pytest.mark.slow
def test_arrow_keys_move_guidance(visit):
    tab = visit(steps=3, w=2)
    tab.slider("w").focus()
    tab.page.keyboard.press("ArrowRight")
    tab.page.keyboard.press("ArrowRight")
    tab.wait_for_recipe(w=2.2)
    tab.page.keyboard.press("ArrowLeft")
    tab.wait_for_recipe(w=2.1)


@pytest.mark.slow
def test_the_number_box_moves_guidance(visit):
    tab = visit(steps=3, w=2)
    tab.set("w", -1)
    tab.wait_for_recipe(w=-1.0)
    expect(tab.page.locator("#t2i-conventions")).to_contain_text("s = w − 1 = −2")


@pytest.mark.slow
def test_the_reset_button_redraws(visit):
    tab = visit(steps=3, w=2)
    tab.control("w").locator("button").click()
    tab.wait_for_recipe(w=4.0)


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "w", "low"), [("No guidance", 1.0, 0.0), ("in a window", 14.0, 0.3)])
def test_presets_set_guidance(visit, preset, w, low):
    tab = visit(steps=3)
    tab.page.get_by_role("button", name=preset).click()
    tab.wait_for_recipe(w=w, low=low)
    expect(tab.number("w").first).to_have_value(f"{w:g}")


# The prompt


def test_typing_redraws_and_names_unknown_words(visit):
    tab = visit(steps=2)
    tab.write("a blue wombat")
    tab.wait_for_recipe(prompt="a blue wombat")
    expect(tab.notes).to_contain_text("“wombat”")
    expect(tab.page.locator("#t2i-tokens .chip.unknown .text")).to_have_text("wombat")
    for _ in "wombat":
        tab.prompt.press("Backspace")
    tab.prompt.press_sequentially("cat")
    tab.wait_for_recipe(prompt="a blue cat")
    expect(tab.notes).to_have_text("")


@pytest.mark.slow
def test_pasting_redraws(visit):
    tab = visit(steps=2)
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.page.evaluate("navigator.clipboard.writeText('a red car')")
    tab.prompt.press("Control+A")
    tab.prompt.press("Control+V")
    tab.wait_for_recipe(prompt="a red car")


@pytest.mark.slow
def test_emptying_the_prompt_redraws(visit):
    tab = visit(steps=2)
    tab.prompt.press("Control+A")
    tab.prompt.press("Delete")
    tab.wait_for_recipe(prompt="")


@pytest.mark.slow
def test_writing_without_a_keyboard_redraws(visit):
    """As phones, input methods and speech do."""
    tab = visit(steps=2)
    tab.prompt.press("Control+A")
    tab.page.keyboard.insert_text("قطة 🐱")
    tab.wait_for_recipe(prompt="قطة 🐱")


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["", "🐱" * 20, "قطة على العشب", "cat " * 240, "\\ ' \" & % # ?", "a\nb"])
def test_any_prompt_gives_a_picture(visit, prompt):
    tab = visit(steps=1, prompt=prompt)
    assert tab.recipe()["prompt"] == prompt
    expect(tab.error).to_have_text("")
    expect(tab.prompt).to_have_value(prompt)


@pytest.mark.slow
def test_examples_and_words_can_be_clicked(visit):
    tab = visit(steps=2)
    example = tab.page.locator("#t2i-words .examples button").nth(1)
    text = example.inner_text()
    example.click()
    tab.wait_for_recipe(prompt=text)
    tab.page.locator("#t2i-words summary").click()
    tab.page.locator("#t2i-words input[type=search]").fill("ca")
    word = tab.page.locator("#t2i-words .words button:visible").first
    added = word.inner_text()
    word.click()
    tab.wait_for_recipe(prompt=f"{text} {added}")
    expect(tab.prompt).to_have_value(f"{text} {added}")


@pytest.mark.slow
def test_the_dice_draws_another_noise(visit):
    tab = visit(steps=2)
    tab.page.locator("#text-to-image-dice").click()
    expect(tab.number("seed")).not_to_have_value("7")
    tab.wait_for_recipe(seed=int(tab.number("seed").input_value()))


# Stopping


def test_stop_ends_the_run_and_the_page_goes_on(visit):
    tab = visit(steps=2)
    before = tab.source()
    tab.slider("steps").press("End")
    expect(tab.status).to_contain_text("of 100")
    tab.page.locator("#t2i-stop").click()
    expect(tab.status).to_have_text("stopped")
    assert tab.source() in ("", before)
    tab.set("steps", 3)
    tab.wait_for_recipe(steps=3)


@pytest.mark.slow
def test_stop_after_typing_a_number_does_not_start_again(visit):
    tab = visit(steps=2)
    tab.set("steps", 100)
    expect(tab.status).to_contain_text("of 100")
    tab.page.locator("#t2i-stop").click()
    expect(tab.status).to_have_text("stopped")
    tab.page.wait_for_timeout(4000)
    assert tab.status.inner_text() == "stopped"


# The sweep


def test_the_sweep_runs_and_a_click_takes_its_value(visit):
    tab = visit(steps=1, seed=3)
    expect(tab.sweep.locator("img")).to_have_count(0)
    tab.page.locator("#t2i-sweep-run").click()
    expect(tab.sweep.locator("img")).to_have_count(8)
    # In a single step all eight ask at one point: c once, and u once.
    expect(tab.page.locator("#t2i-sweep .caption")).to_contain_text("1 model calls (NFE), 2 sample-forwards")
    tab.sweep.nth(6).click()
    tab.wait_for_recipe(w=9.0, seed=3)
    expect(tab.number("w").first).to_have_value("9")


@pytest.mark.slow
def test_the_marked_tile_follows_the_slider(visit):
    tab = visit(steps=1)
    tab.set("w", 6)
    tab.wait_for_recipe(w=6.0)
    expect(tab.sweep.nth(5)).to_have_attribute("aria-pressed", "true")


# Looking closer


@pytest.mark.slow
def test_the_filmstrip_fetches_only_what_is_looked_at(visit):
    tab = visit(steps=30)
    expect(tab.film.locator(".column")).to_have_count(30)
    assert tab.counted("t2i-film") == 0  # it is below the fold
    tab.film.locator(".rows").scroll_into_view_if_needed()
    until(lambda: tab.counted("t2i-film", "draws") > 0)
    draws = tab.counted("t2i-film", "draws")
    slider = tab.film.locator("input[type=range]")
    slider.focus()
    tab.page.keyboard.press("Home")
    expect(tab.film.locator(".where")).to_contain_text("step 1 ")
    until(lambda: tab.counted("t2i-film", "draws") > draws)
    assert tab.counted("t2i-film") <= 30
    expect(tab.film.locator(".rows .name")).to_have_text(
        ["x_t", "x₀ without prompt", "x₀ with prompt", "x₀ guided"]
    )


@pytest.mark.slow
def test_a_window_skips_branches_and_they_can_be_computed(visit):
    tab = visit(
        steps=10, low=0.3, high=0.7, seed=3011
    )  # of its own: no steps are taken over from another test's run
    calls, forwards = tab.cost()
    assert calls == 10 and 10 < forwards < 20
    expect(tab.film.locator(".note")).to_contain_text(f"{20 - forwards} branches were not needed")
    slider = tab.film.locator("input[type=range]")
    slider.focus()
    tab.page.keyboard.press("Home")
    hatched = tab.film.locator(".rows .cell.hatched")
    expect(hatched).to_have_count(1)
    tab.page.locator("#t2i-everything input").check()
    expect(hatched).to_have_count(0)
    until(lambda: tab.film.locator(".column.hatched, .column .hatched").count() == 0)
    assert tab.cost() == (calls, forwards)  # what is made for looking is not counted as the run's
    # Another run is shown in the same way.
    tab.set("seed", 3012)
    tab.wait_for_recipe(seed=3012)
    chart = tab.page.locator("#t2i-chart .js-plotly-plot")
    read = "e => e.data.slice(0, 3).map(s => Array.from(s.y._inputArray ?? s.y).filter(v => v !== null).length)"
    until(lambda: chart.evaluate(read) == [10, 10, 10])
    expect(hatched).to_have_count(0)


@pytest.mark.slow
def test_moving_the_window_redraws(visit):
    tab = visit(steps=10)
    assert tab.cost() == (10, 20)
    tab.more()
    tab.set("high", 0.5)
    tab.wait_for_recipe(high=0.5)
    assert tab.cost()[1] < 20
    expect(tab.page.get_by_text("Guidance acts in steps")).to_be_visible()


def test_forward_noising_goes_from_the_picture_to_noise(visit):
    tab = visit(steps=2)
    box = tab.page.locator("#t2i-noising")
    image, slider = box.locator(".picture img"), box.locator("input[type=range]")
    slider.focus()
    tab.page.keyboard.press("End")
    expect(box.locator(".t")).to_have_text("1.000")
    expect(image).to_have_attribute("alt", "The picture at t = 1.000")
    noise = tab.png(image.get_attribute("src"))
    tab.page.keyboard.press("Home")
    expect(image).to_have_attribute("alt", "The picture at t = 0.000")
    assert tab.png(image.get_attribute("src")) != noise


@pytest.mark.slow
def test_each_of_several_pictures_can_be_looked_at(visit):
    tab = visit(steps=2, pictures=2, seed=40)
    expect(tab.picture).to_have_count(2)
    expect(tab.page.locator("#t2i-stage .label")).to_have_text(["seed 40", "seed 41"])
    look = tab.page.locator("#t2i-look input[type=range]")
    before = tab.page.locator("#t2i-latents img").get_attribute("src")
    look.focus()
    tab.page.keyboard.press("ArrowRight")
    expect(tab.page.locator("#t2i-latents img")).not_to_have_attribute("src", before)


# Links


def test_the_address_follows_the_controls_and_restores_them(visit):
    tab = visit(steps=2)
    tab.set("w", 7.5)
    tab.set("seed", 11)
    tab.write("two & a=b?c#d%20")
    tab.wait_for_recipe(w=7.5, seed=11, prompt="two & a=b?c#d%20")
    until(lambda: tab.link().get("prompt") == "two & a=b?c#d%20")
    assert tab.link() == {
        "tab": "text-to-image",
        "v": "1",
        "steps": "2",
        "w": "7.5",
        "seed": "11",
        "prompt": "two & a=b?c#d%20",
    }
    again = visit(**tab.link())
    assert again.values() == tab.values()
    assert again.png() == tab.png()
    assert again.link() == tab.link()


@pytest.mark.slow
def test_a_default_leaves_the_address(visit):
    tab = visit(steps=2, w=9)
    tab.set("w", 4)
    until(lambda: "w" not in tab.link())


@pytest.mark.slow
def test_a_link_restores_everything_on_another_installation(visit, tmp_path):
    from serving import Server

    tab = visit(
        steps=5,
        w=6.5,
        low=0.1,
        high=0.9,
        seed=123,
        prompt="a red car on the beach",
        negative="a cat",
        solver="heun",
        grid="karras",
        pictures=2,
    )
    other = Server(tmp_path / "log.txt")
    try:
        again = visit(at=other.url, **tab.link())
        assert again.values() == tab.values()
        assert again.recipe() == tab.recipe()
        assert again.png() == tab.png()
    finally:
        again.page.close()
        other.close()


def test_a_bad_link_is_clamped_and_says_so(visit):
    tab = visit(steps="0", w="1e99", solver="magic", model="../../etc/passwd", colour="red")
    for said in (
        "steps was out of range",
        "guidance w was out of range",
        "solver is not possible",
        "is not on this page",
        "'colour' is not a setting",
    ):
        expect(tab.told).to_contain_text(said)


@pytest.mark.parametrize(
    ("query", "shown", "said"),
    [
        ({"w": "1e99"}, {"w": "15"}, "guidance w was out of range"),
        ({"w": "NaN"}, {"w": "4"}, "guidance w is not possible"),
        ({"w": "-Infinity"}, {"w": "-1"}, "guidance w"),
        ({"steps": "0"}, {"steps": "1"}, "steps was out of range"),
        ({"steps": "1.5", "seed": "-3"}, {"steps": "20", "seed": "0"}, "steps is not possible"),
        ({"solver": "magic"}, {"solver": "DPM-Solver++(2M) (order 2)"}, "solver is not possible"),
        ({"model": "../../etc/passwd"}, {"model": "emoji"}, "is not on this page"),
        ({"colour": "red"}, {"w": "4"}, "'colour' is not a setting"),
        ({"v": "99"}, {"w": "4"}, "version 99"),
        ({"low": "0.9", "high": "0.1", "w": "2"}, {"low": "0", "high": "0.1", "w": "2"}, "window is empty"),
        ({"prompt": "a cat " * 400}, {"prompt": ("a cat " * 400)[:1000]}, "prompt was too long"),
    ],
)
class TestBadLinks:
    @pytest.mark.slow
    def test_the_controls_show_what_is_possible(self, visit, query, shown, said):
        values = visit(**({"steps": "2"} | query)).values()
        assert {name: values[name] for name in shown} == shown

    @pytest.mark.slow
    def test_the_page_says_what_was_changed(self, visit, query, shown, said):
        tab = visit(**({"steps": "2"} | query))
        expect(tab.told).to_contain_text(said)


@pytest.mark.parametrize("axis", ["low", "high"])
def test_a_link_with_a_part_of_the_window_as_second_axis_opens(visit, axis):
    tab = visit(steps=2, across=axis, low=0.3, high=0.8)
    tab.set("w", 2)
    tab.wait_for_recipe(w=2.0, low=0.3, high=0.8)
    assert tab.link()["across"] == axis


def test_a_long_sweep_of_a_link_waits_for_a_press(visit):
    scales = [round(0.5 * k, 1) for k in range(1, 17)]
    tab = visit(
        steps=2, solver="rk4", sweep=json.dumps(scales), across="steps", values="[100, 99]", prompt="cat AND dog"
    )
    caption = tab.page.locator("#t2i-sweep .caption")
    expect(caption).to_contain_text("press “Run the sweep with these settings”")
    assert tab.sweep.count() == 32 and tab.page.locator("#t2i-sweep .tile img").count() == 0


def test_what_is_stopped_cannot_be_saved_as_the_run_before(visit):
    tab = visit(steps=2)
    png = tab.page.locator("#t2i-save").get_by_role("button", name=re.compile("^Save as PNG"))
    expect(png).to_be_enabled()
    tab.set("steps", 100)
    expect(tab.page.locator("#t2i-stage")).to_contain_text("as predicted at step")
    expect(png).to_be_disabled()
    tab.page.locator("#t2i-stop").click()
    expect(tab.status).to_have_text("stopped")
    expect(png).to_be_disabled()
    expect(tab.page.locator("#t2i-save")).to_contain_text("Files are made of finished runs")
    tab.set("steps", 3)
    expect(png).to_be_enabled()


# What a hostile visitor types


@pytest.mark.slow
def test_what_is_typed_stays_text(visit):
    tab = visit(steps=1)
    tab.write(NASTY)
    tab.wait_for_recipe(prompt=NASTY)
    expect(tab.notes).to_contain_text("“onerror”")
    expect(tab.page.locator("#t2i-stage figcaption")).to_have_text(NASTY)
    tab.page.locator("#t2i-sweep-run").click()
    expect(tab.page.locator("#t2i-sweep .caption")).to_contain_text(NASTY)
    again = visit(**tab.link(), colour=NASTY)
    for page in (tab.page, again.page):
        assert page.evaluate("window.hacked") is None
        assert page.locator("img[src=x]").count() == 0


def test_an_error_is_a_sentence_and_the_page_stays_usable(visit):
    tab = visit(steps=2)
    before = tab.source()
    tab.more()
    tab.set("low", 0.9)
    tab.set("high", 0.1)
    expect(tab.error).to_contain_text("The guidance window is empty")
    expect(tab.error).to_be_visible()
    assert tab.source() == before or tab.recipe()["low"] == 0.9
    tab.set("low", 0)
    tab.wait_for_recipe(low=0.0, high=0.1)
    expect(tab.error).to_be_hidden()


def test_a_seed_that_cannot_be_is_named(visit):
    tab = visit(steps=2)
    for seed, value in enumerate(("", "99999999999", "-5"), start=8):
        tab.number("seed").fill(value)
        tab.number("seed").press("Enter")
        expect(tab.error).to_contain_text("Seed must be")
        tab.number("seed").fill(str(seed))
        tab.wait_for_recipe(seed=seed)
        expect(tab.error).to_be_hidden()


@pytest.mark.slow
@pytest.mark.parametrize("value", ["99", "-7", ""])
def test_a_scale_that_cannot_be_is_named(visit, value):
    tab = visit(steps=2)
    tab.number("w").fill(value)
    expect(tab.error).to_contain_text("Guidance w must be")
    assert tab.page.locator(".error", has_text="Error").count() == 0
    tab.number("w").fill("3")
    tab.wait_for_recipe(w=3.0)


# Two visitors


@pytest.mark.slow
def test_two_visitors_do_not_stop_or_see_each_other(visit):
    ann, bob = visit(steps=2), visit(steps=2, prompt="a castle at sunset")
    picture = bob.source()
    ann.set("steps", 60)
    expect(ann.status).to_contain_text("of 60")
    bob.set("w", 6)
    bob.page.locator("#t2i-stop").click()
    bob.set("w", 7)
    bob.wait_for_recipe(w=7.0, prompt="a castle at sunset")
    assert bob.source() != picture
    bob.page.close()
    assert ann.wait_for_recipe(steps=60)["prompt"] == "a cat on the grass"
    expect(ann.prompt).to_have_value("a cat on the grass")


# Hands, eyes and small screens


@pytest.mark.slow
def test_everything_can_be_done_with_the_keyboard(visit):
    tab = visit(steps=2)
    expect(tab.page.locator("#t2i-sweep-run")).to_be_enabled()
    tab.prompt.focus()
    names: list[tuple[str, bool, str]] = []
    while len(names) < 120 and not any(name == "t2i-film" for name, *_ in names):
        tab.page.keyboard.press("Tab")
        names.append(
            tab.page.evaluate(
                """() => {
                    const node = document.activeElement;
                    const id = node.closest('[id^=text-to-image-], [id^=t2i-]')?.id ?? '';
                    return [id, node.matches(':focus-visible'), getComputedStyle(node).outlineStyle];
                }"""
            )
        )
    reached = {name for name, *_ in names}
    wanted = {"w", "seed", "steps", "solver"}
    assert {f"text-to-image-{n}" for n in wanted} <= reached
    wanted = {"words", "stop", "stage", "sweep", "sweep-run", "film"}
    assert {"text-to-image-dice", *(f"t2i-{name}" for name in wanted)} <= reached
    assert all(visible and style != "none" for name, visible, style in names if name)


@pytest.mark.slow
def test_buttons_answer_enter(visit):
    tab = visit(steps=2)
    tab.page.locator("#text-to-image-dice").focus()
    tab.page.keyboard.press("Enter")
    expect(tab.number("seed")).not_to_have_value("7")
    tab.wait_for_recipe(seed=int(tab.number("seed").input_value()))
    tab.sweep.nth(0).focus()
    tab.page.keyboard.press("Enter")
    tab.wait_for_recipe(w=0.0)


@pytest.mark.slow
def test_no_width_scrolls_sideways_and_a_phone_shows_the_picture_first(visit):
    tab = visit(steps=2)
    tab.more()
    for width in (1400, 1024, 768, 390, 320):
        tab.page.set_viewport_size({"width": width, "height": 800})
        until(lambda width=width: tab.page.evaluate("document.documentElement.scrollWidth") <= width)
        for name in SLIDERS:
            box = tab.control(name).bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width
    assert tab.picture.bounding_box()["y"] < tab.prompt.bounding_box()["y"]
    assert tab.picture.bounding_box()["width"] > 250


def luminance(colour: str) -> float:
    parts = [float(p) / 255 for p in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_card(visit, dark):
    tab = visit(dark=dark, steps=2)
    background = tab.page.locator(".dp-card").first.evaluate("e => getComputedStyle(e).backgroundColor")
    assert (luminance(background) < 0.05) is dark
    for text in ("#t2i-conventions p, #t2i-conventions div", "#text-to-image-w .info-text", "#t2i-sweep .label"):
        colour = tab.page.locator(text).first.evaluate("e => getComputedStyle(e).color")
        low, high = sorted((luminance(colour), luminance(background)))
        assert (high + 0.05) / (low + 0.05) >= 4.5
