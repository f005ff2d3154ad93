"""The drawing: deterministic, and every named attribute can be seen."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from training import scenes, world
from training.scenes import Scene, Thing

needs_font = pytest.mark.skipif(
    not world.font_is_installed(), reason="the emoji font is missing: apt install fonts-noto-color-emoji"
)


def _pixels(scene: Scene, seed: int = 0) -> np.ndarray:
    return np.asarray(world.draw(scene, random.Random(seed))[0]).astype(float)


def test_every_place_and_style_has_a_painter():
    assert set(world._PLACES) == set(scenes.PLACES)
    assert set(world._STYLES) == set(scenes.STYLES)
    assert set(world.PLAIN) == set(scenes.PLAIN_COLOURS)
    assert set(world.INK) == set(scenes.COLOURS)


def test_a_missing_font_is_named(monkeypatch):
    monkeypatch.setattr(world, "FONT_PATHS", ())
    world._font.cache_clear()
    with pytest.raises(world.FontMissingError, match="fonts-noto-color-emoji"):
        world._font()


@needs_font
@pytest.mark.parametrize("novel", [False, True])
def test_a_picture_is_a_pure_function_of_its_seed(novel: bool):
    for seed in range(12):
        first, second = world.example(seed, novel), world.example(seed, novel)
        assert first.scene == second.scene
        assert first.caption == second.caption
        assert first.image.tobytes() == second.image.tobytes()
        assert first.image.size == (world.SIZE, world.SIZE)
        assert first.image.mode == "RGB"
        assert scenes.is_novel(first.scene) == novel


@needs_font
def test_every_noun_has_a_glyph_of_its_own():
    glyphs = {noun: world._glyph(noun).resize((24, 24)).tobytes() for noun in scenes.NOUNS}
    assert len(set(glyphs.values())) == len(glyphs)


@needs_font
@pytest.mark.parametrize("colour", [c for c in scenes.COLOURS if c not in ("black", "white")])
def test_a_tint_is_recognisable_on_every_tintable_noun(colour: str):
    for noun in scenes.COMMON_NOUNS:
        if noun in scenes.UNTINTED:
            continue
        sprite = np.asarray(world._sprite(noun, colour, 0)).astype(float)
        mean = sprite[sprite[..., 3] > 128][:, :3].mean(0)
        inks = {c: np.array(ink, float) for c, ink in world.INK.items() if c not in ("black", "white")}

        def hue(v: np.ndarray) -> np.ndarray:
            centred = v - v.mean()
            return centred / np.linalg.norm(centred)

        nearest = max(inks, key=lambda c: float(hue(mean) @ hue(inks[c])))
        assert nearest == colour, noun


@needs_font
@pytest.mark.parametrize(
    ("kind", "place"), [("snowy", "forest"), ("rainy", "city"), ("foggy", "grass"), ("starry", "night")]
)
def test_a_graded_adjective_changes_the_picture_by_its_amount(kind: str, place: str):
    def scene(amount: float) -> Scene:
        return Scene((Thing("cat"),), place, weather=kind if amount else None, weather_amount=amount)

    changes = []
    for amount in (0.2, 0.5, 1.0):
        differences = [np.abs(_pixels(scene(amount), seed) - _pixels(scene(0.0), seed)).mean() for seed in range(6)]
        changes.append(np.mean(differences))
    assert 0 < changes[0] < changes[1] < changes[2]


@needs_font
def test_fur_grows_with_its_amount():
    areas = [(np.asarray(world._sprite("cat", None, level))[..., 3] > 60).sum() for level in (0, 2, 5, 8)]
    assert areas == sorted(areas)
    assert areas[-1] > 1.15 * areas[0]


@needs_font
@pytest.mark.parametrize("style", scenes.COLOURLESS_STYLES)
def test_colourless_styles_are_gray(style: str):
    pixels = _pixels(Scene((Thing("frog"),), "forest", style=style))
    assert np.ptp(pixels, axis=-1).max() == 0


@needs_font
def test_relations_are_drawn_as_said():
    def middle(scene: Scene, seed: int) -> tuple[float, float]:
        drawn = np.abs(_pixels(scene, seed) - np.array(_pixels(scene, seed)[0, 0])).sum(-1)
        ys, xs = np.nonzero(drawn > 150)
        return float(xs.mean()), float(ys.mean())

    # A small black thing on white weighs what a big white one does not: the middle of the ink tells where it is.
    for relation, axis, sign in (("left", 0, -1), ("right", 0, 1), ("above", 1, -1), ("under", 1, 1)):
        scene = Scene((Thing("heart", colour="black"), Thing("key", size="small")), "white", relation)
        for seed in range(4):
            assert sign * (middle(scene, seed)[axis] - world.SIZE / 2) > 0, relation


@needs_font
def test_drawing_is_fast_enough_to_render_on_the_fly():
    for seed in range(60):
        world.example(seed)
    start = time.process_time()
    for seed in range(100, 160):
        world.example(seed)
    assert (time.process_time() - start) / 60 < 0.03  # 2 ms measured; ten times that on a busy machine


@needs_font
def test_contact_sheet_holds_all_pictures():
    made = [world.example(seed) for seed in range(5)]
    sheet = world.contact_sheet([(e.image, e.caption) for e in made], columns=3)
    assert sheet.width >= 3 * world.SIZE
    assert sheet.height >= 2 * world.SIZE
