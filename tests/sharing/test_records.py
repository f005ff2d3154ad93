"""An experiment travels in a link or a file, and comes back as it was."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from playground.__main__ import main, render
from playground.backend import Backend
from playground.errors import RecipeError
from playground.images.comparison import Comparison
from playground.images.guides import content_name
from playground.images.prompt_to_prompt import PromptToPrompt
from playground.images.sdedit import SDEdit
from playground.plane import PlaneFlow
from playground.plane.targets import encode_mixture
from playground.recipes import TextToImage
from playground.sharing import records
from playground.sharing.html import carrier
from playground.sharing.png import CHUNK, to_png
from playground.sharing.records import MOST_CHARACTERS, from_file, from_link, from_png, load
from playground.uploads import open_picture

PIXEL = Image.new("RGB", (2, 2), "teal")
RECIPES = [
    TextToImage(prompt="ein Bär & <b>“Tee”</b> 🫖?=#", w=-0.5, low=0.25, pictures=3),
    SDEdit(prompt="a castle", guide="castle", t0=0.35, repeats=2),
    PromptToPrompt(prompt="a cat", edits=("a dog", "a red dog"), weights=((1, 1, 2.2),), cross=0.6),
    Comparison(solvers=("ddim", "heun"), budgets=(6, 8), equal="steps", seed=11),
    PlaneFlow(target="mixture", mixture=encode_mixture([(0.5, -1, 0.2, 0.4, 0.3, 1, 1)]), steps=7),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.tab)
def test_a_link_and_a_file_give_the_recipe_back(recipe, tmp_path):
    query = urlencode(recipe.to_query())
    for link in (
        f"http://127.0.0.1:7860/?{query}",
        f"https://example.org/class/?{query}#plane",
        f"?{query}",
        query,
    ):
        assert load(link) == (recipe, [], {})
    (tmp_path / "saved.png").write_bytes(to_png(PIXEL, recipe))
    assert load(str(tmp_path / "saved.png")) == (recipe, [], {})


def page(recipe, **attached) -> bytes:
    """An HTML file that carries a recipe."""
    return f"<!doctype html><title>x</title>{carrier(recipe, attached)}<script>let a = '<';</script>".encode()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.tab)
def test_an_html_file_gives_the_recipe_back(recipe, tmp_path):
    (tmp_path / "saved.html").write_bytes(page(recipe))
    assert load(str(tmp_path / "saved.html")) == (recipe, [], {})


def test_no_text_of_a_recipe_gets_out_of_its_html_element():
    nasty = "</script><script>alert(1)</script><!--]]>\u2028&lt;\x00"
    text = page(TextToImage(prompt=nasty))
    assert text.count(b"</script>") == 2 and b"alert(1)<" not in text
    assert from_file(text)[0].prompt == nasty


def test_an_opening_that_nothing_closes_reaches_no_further_than_the_next():
    opening = b'<script type="application/json" id="diffusion-playground">'
    for many in (opening, opening + b"{"):
        # Were each of these searched to the end of the file, this would take hours.
        with pytest.raises(RecipeError):
            from_file(b"<!doctype html>" + 100_000 * many)
        content = page(TextToImage(seed=5))
        assert from_file(content.replace(opening, many + opening))[0] == TextToImage(seed=5)
        assert from_file(content.replace(b"<title>", many + b"<title>"))[0] == TextToImage(seed=5)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_record_of_a_picture_is_read_without_unpacking_it(monkeypatch):
    content = to_png(Image.new("1", (12_000, 12_000)), TextToImage(seed=5))

    def unpacked(*_: object) -> None:
        raise AssertionError("unpacked")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", unpacked)
    assert from_png(content)[0] == TextToImage(seed=5)
    with pytest.raises(RecipeError):
        from_png(to_png(Image.new("1", (12_000, 12_000))))


def test_a_record_behind_the_pixels_is_found():
    content = to_png(Image.new("RGB", (8, 8)), TextToImage(seed=5))
    start = content.index(b"iTXt") - 4
    length = int.from_bytes(content[start : start + 4], "big") + 12
    end = content.index(b"IEND") - 4
    moved = content[:start] + content[start + length : end] + content[start : start + length] + content[end:]
    assert from_png(moved)[0] == TextToImage(seed=5)


def test_pictures_travel_in_an_html_file_too():
    guide = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8))
    recipe = SDEdit(guide=content_name(guide))
    again, notes, found = from_file(page(recipe, **{recipe.guide: guide}))
    assert (again, notes) == (recipe, []) and np.array_equal(np.array(found[recipe.guide]), np.array(guide))
    _, notes, found = from_file(page(recipe, **{recipe.guide: PIXEL}))
    assert found == {} and len(notes) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"<!doctype html><p>hello",
        b"<html></html>",
        b"hello",
        b"PK\x03\x04",
        b"\xff" * 100,
        b"GIF89a",
        page(TextToImage()).replace(b"{", b"["),
        page(TextToImage()).replace(b"}", b""),
        page(TextToImage()).replace(b'"v":1', b'"v":1,"x":"' + b"x" * MOST_CHARACTERS + b'"'),
    ],
)
def test_other_files_are_one_sentence(content):
    with pytest.raises(RecipeError) as caught:
        from_file(content)
    assert str(caught.value).endswith(".") and "Traceback" not in str(caught.value)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.tab)
def test_a_link_of_another_version_opens_with_what_is_known_of_it(recipe):
    query = recipe.to_query() | {"v": "0", "a_setting_of_then": "7"}
    again, notes = from_link("?" + urlencode(query))
    assert again == recipe
    assert len(notes) == 2 and "version 0" in notes[0] and "a_setting_of_then" in notes[1]


def test_pictures_that_a_recipe_names_travel_in_the_file():
    rng = np.random.default_rng(0)
    guide = Image.fromarray(rng.integers(0, 255, (40, 30, 3), np.uint8))
    mask = Image.fromarray(rng.integers(0, 255, (40, 30), np.uint8))
    recipe = SDEdit(guide=content_name(guide), mask=content_name(mask))
    attached = {recipe.guide: guide, recipe.mask: mask}
    again, notes, found = from_png(to_png(PIXEL, recipe, attached=attached))
    assert again == recipe and notes == []
    assert found[recipe.guide].mode == "RGB" and np.array_equal(np.array(found[recipe.guide]), np.array(guide))
    assert found[recipe.mask].mode == "L" and np.array_equal(np.array(found[recipe.mask]), np.array(mask))


def test_a_picture_that_is_not_what_its_name_says_is_left_out():
    recipe = SDEdit(guide=content_name(PIXEL))
    other = Image.new("RGB", (2, 2), "red")
    _, notes, found = from_png(to_png(PIXEL, recipe, attached={recipe.guide: other}))
    assert found == {} and len(notes) == 1


def test_pictures_that_the_recipe_does_not_mean_are_not_opened(monkeypatch):
    opened = []
    monkeypatch.setattr(records, "open_picture", lambda *a: opened.append(a) or open_picture(*a))
    recipe = SDEdit(guide=content_name(PIXEL))
    others = {f"{k:012x}": Image.new("RGB", (2, 2), (k, 0, 0)) for k in range(20)}
    _, notes, found = from_png(to_png(PIXEL, recipe, attached={recipe.guide: PIXEL} | others))
    assert set(found) == {recipe.guide} and len(opened) == 1 and notes == []


def test_a_picture_larger_than_any_guide_is_left_out():
    large = Image.new("RGB", (2100, 2100))
    recipe = SDEdit(guide=content_name(large))
    _, notes, found = from_png(to_png(PIXEL, recipe, attached={recipe.guide: large}))
    assert found == {} and len(notes) == 1


def with_chunk(text: str) -> bytes:
    info, buffer = PngInfo(), io.BytesIO()
    info.add_itxt(CHUNK, text)
    PIXEL.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def jpeg() -> bytes:
    buffer = io.BytesIO()
    PIXEL.save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"\x89PNG\r\n\x1a\n", jpeg(), to_png(PIXEL), to_png(PIXEL)[:40], b"<svg/>"]
    + [with_chunk(t) for t in ("", "[]", "7", "{", "[" * 50_000, "x" * (MOST_CHARACTERS + 1))],
)
def test_files_without_an_experiment_are_one_sentence(content):
    with pytest.raises(RecipeError) as caught:
        from_png(content)
    assert str(caught.value).endswith(".") and "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    "link", ["", "hello", "http://x/?q=1", "?" + "x" * (MOST_CHARACTERS + 1), "http://[?tab=1"]
)
def test_links_without_an_experiment_are_one_sentence(link):
    with pytest.raises(RecipeError) as caught:
        from_link(link)
    assert str(caught.value).endswith(".")


def test_values_out_of_range_are_told_as_for_a_page():
    recipe, notes, _ = from_png(with_chunk('{"tab": "text-to-image", "v": 1, "w": 99, "steps": "x", "bad": 1}'))
    assert (recipe.w, recipe.steps) == (15, TextToImage().steps) and len(notes) == 3


def test_a_rendered_picture_is_that_of_the_page_and_renders_the_same_again(backend, tmp_path):
    recipe = TextToImage(prompt="a red cat", steps=3, seed=4)
    (first,) = render("?" + urlencode(recipe.to_query()), tmp_path / "a.png", backend)
    assert from_png(first.read_bytes())[0] == recipe
    made = np.array(Image.open(first))
    assert np.array_equal(made, np.array(backend.result(recipe).images[0]))
    backend._results = type(backend._results)(2**20)  # nothing is kept from the first time
    (again,) = render(str(first), tmp_path / "b.png", backend)
    assert np.array_equal(made, np.array(Image.open(again)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "link", ["?tab=text-to-image&w=9&seed=12&prompt=two+dogs+on+the+beach", "?tab=sdedit&guide=castle&seed=3"]
)
@pytest.mark.parametrize(
    "processor",
    [
        {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
        {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    ],
    ids=["old", "common"],
)
def test_elsewhere_a_picture_is_the_same_within_what_the_readme_says(link, processor, tmp_path):
    """Another processor adds in another order: torch and its kernels are told to take this one for an older one."""
    if processor.get("ATEN_CPU_CAPABILITY") == torch.backends.cpu.get_cpu_capability().lower():
        pytest.skip("this is such a processor")
    pictures = []
    for name, environment in (("here", {}), ("there", processor)):
        command = [sys.executable, "-m", "playground", "render", link, "-o", str(tmp_path / f"{name}.png")]
        subprocess.run(command, env=os.environ | environment, check=True, capture_output=True, timeout=300)
        pictures.append(np.array(Image.open(tmp_path / f"{name}.png")).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 2


def test_several_pictures_are_numbered_and_each_is_its_own_experiment(backend, tmp_path):
    recipe = TextToImage(prompt="a red cat", steps=2, seed=4, pictures=3)
    files = render("?" + urlencode(recipe.to_query()), tmp_path / "out.png", backend)
    assert [f.name for f in files] == ["out-1.png", "out-2.png", "out-3.png"]
    assert [from_png(f.read_bytes())[0].seed for f in files] == [4, 5, 6]


def test_a_guide_that_somebody_brought_travels_with_its_picture(backend, folders, tmp_path):
    rng = np.random.default_rng(0)
    name = backend.guides.put(Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)))
    recipe = SDEdit(prompt="a red cat", guide=name, t0=0.6, steps=4)
    (first,) = render("?" + urlencode(recipe.to_query()), tmp_path / "a.png", backend)
    elsewhere = Backend({"emoji": str(folders["sd1"])})
    try:
        with pytest.raises(Exception, match="not on this installation"):
            render("?" + urlencode(recipe.to_query()), tmp_path / "b.png", elsewhere)
        (again,) = render(str(first), tmp_path / "b.png", elsewhere)
    finally:
        elsewhere.close()
    assert np.array_equal(np.array(Image.open(first)), np.array(Image.open(again)))


@pytest.mark.parametrize(
    "recipe",
    [PlaneFlow(particles=200, steps=3), PlaneFlow(target="pair", dimension=1, particles=100, steps=3)],
    ids=["plane", "line"],
)
def test_a_flow_is_a_picture_that_carries_its_recipe(recipe, backend, tmp_path):
    (file,) = render("?" + urlencode(recipe.to_query()), tmp_path / "flow.png", backend)
    picture = np.array(Image.open(file).convert("RGB"))
    assert picture.shape == (720, 720, 3) and from_png(file.read_bytes())[0] == recipe
    assert 0.005 < (picture.min(-1) < 240).mean() < 0.9  # something is drawn, and not everywhere


def test_the_command_says_in_one_sentence_what_is_wrong(tmp_path, capsys):
    assert main(["render", str(tmp_path / "missing.png"), "-o", str(tmp_path / "o.png")]) == 2
    error = capsys.readouterr().err.strip()
    assert error.endswith(".") and "\n" not in error
