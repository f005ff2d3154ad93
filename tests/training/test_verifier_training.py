"""The verifier's targets, verdicts and files."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image

from playground.images.verifier import GRID, Verifier, grid_contrast
from training import evaluate, scenes, verifier, world
from training.scenes import Scene, Thing


@pytest.fixture(scope="module")
def model() -> Verifier:
    torch.manual_seed(0)
    return Verifier(verifier.labels(), widths=(8, 8, 8, 16), whole=16).eval()


def test_targets_say_what_the_scene_says():
    names = verifier.labels()
    riding = Scene((Thing("cat", colour="red"), Thing("bicycle")), "grass", "on", riding=True, style="pixel")
    gray = Scene((Thing("dog", count=3),), "white", style="mono")
    beside = Scene((Thing("dog"), Thing("cat", count=2)), "sea", "beside")
    true = verifier.targets([riding, gray, beside], names)
    assert {names.nouns[i] for i in true.present[0].nonzero()[:, 0]} == {"cat", "bicycle"}
    assert [names.nouns[i] for i in true.nouns[0]] == ["cat", "bicycle"]
    assert true.colours[0].tolist() == [1 + names.colours.index("red"), 0]
    assert true.colours[1].tolist() == [verifier.IGNORE] * 2  # no colours in black and white, no second thing
    assert [names.counts[i] for i in (true.counts[1, 0], true.counts[2, 1])] == [3, 2]
    assert names.relations[true.relation[0]] == "on"
    assert true.relation[1:].tolist() == [verifier.IGNORE] * 2
    assert true.beside.tolist() == [False, False, True]
    assert [names.backgrounds[i] for i in true.background] == ["grass", "white", "sea"]
    assert [("none", *names.styles)[i] for i in true.style] == ["pixel", "mono", "none"]


def test_loss_is_finite_for_every_kind_of_scene(model):
    for things, relation in (((Thing("cat"),), None), ((Thing("cat"), Thing("dog")), "beside")):
        true = verifier.targets([Scene(things, "grass", relation)], model.labels)
        assert verifier.loss(model, model(torch.zeros(1, 3, 128, 128)), true).isfinite()


def test_features_have_the_documented_shapes_and_gradients(model):
    pictures = torch.zeros(2, 3, 128, 128, requires_grad=True)
    seen = model(pictures)
    assert [m.shape[-1] for m in seen.maps] == [32, 16, 8]
    assert seen.nouns.shape[:2] == seen.positions.shape[:2] == (2, len(scenes.NOUNS))
    cat = torch.tensor([model.labels.nouns.index("cat")] * 2)
    assert model.colour_logits(seen, cat).shape == (2, 1 + len(scenes.COLOURS))
    assert model.relation_logits(seen, cat, cat).shape == (2, len(verifier.RELATIONS))
    model.noun_logits(seen)[:, 0].sum().backward()
    assert pictures.grad is not None
    assert pictures.grad.abs().sum() > 0


def test_the_grid_of_pixel_art_is_seen_at_its_borders():
    generator = torch.Generator().manual_seed(0)
    blocks = torch.rand(2, 3, 32, 32, generator=generator).mul(2).sub(1)
    blocks = blocks.repeat_interleave(GRID, 2).repeat_interleave(GRID, 3)
    across, down = grid_contrast(blocks).view(2, 2, GRID).unbind(1)
    # Differences are between a pixel and the next: the border of a block is at its last.
    for contrast in (across, down):
        assert contrast.argmax(1).tolist() == [GRID - 1] * 2
        assert torch.allclose(contrast.sum(1), torch.zeros(2), atol=1e-5)
        assert (contrast[:, -1] - contrast[:, 0] > 5).all()
    # A photograph of it, fainter and with noise, still has it; noise alone and nothing at all have none.
    faint = 0.5 * blocks + 0.05 * torch.randn(blocks.shape, generator=generator)
    assert (grid_contrast(faint).view(2, 2, GRID)[:, :, -1] > 0.7).all()
    assert grid_contrast(torch.randn(2, 3, 128, 128, generator=generator)).abs().max() < 0.05
    assert grid_contrast(torch.zeros(1, 3, 128, 128)).abs().max() == 0


def test_verdicts_cover_what_the_caption_asks_and_nothing_else(model):
    scene = Scene((Thing("cat", colour="red"), Thing("hat")), "grass", "wearing", background_named=False)
    (verdict,) = verifier.check(model, torch.zeros(1, 3, 128, 128), [scene])
    assert set(verdict) == {"noun", "colour", "single", "relation"}
    scene = Scene((Thing("cat", count=2), Thing("hat")), "grass", "beside", background_named=False)
    (verdict,) = verifier.check(model, torch.zeros(1, 3, 128, 128), [scene])
    assert set(verdict) == {"noun", "count", "relation"}


def test_summary_counts_each_attribute_where_it_is_asked():
    shares = verifier.summarise([{"noun": True, "colour": False}, {"noun": True}, {"noun": False, "style": True}])
    assert shares["noun"] == pytest.approx(2 / 3)
    assert shares["colour"] == 0
    assert shares["style"] == 1
    assert shares["all"] == pytest.approx(1 / 3)


def test_saved_verifier_reads_the_same(model, tmp_path):
    model.save(tmp_path)
    again = Verifier.load(tmp_path)
    assert again.labels == model.labels
    x = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(again.style_logits(again(x)), model.style_logits(model(x)), atol=1e-2, rtol=1e-2)


def test_prompts_are_what_the_evaluation_promises(monkeypatch):
    def without_drawing(seed: int, novel: bool = False) -> world.Example:
        rng = random.Random(f"{seed}/{novel}")
        scene = scenes.sample(rng, novel)
        return world.Example(Image.new("RGB", (1, 1)), scenes.caption(scene, rng), scene)

    monkeypatch.setattr(world, "example", without_drawing)
    made = evaluate.prompts()
    assert len(made) == 500
    shares = evaluate.composition(made)
    assert all(shares[name] >= least for name, least in evaluate.SHARES.items())
    assert shares["novel"] == 0.2
    for i, example in enumerate(made):
        assert scenes.is_novel(example.scene) == (i % evaluate.NOVEL_EVERY == 0)


def test_shortfalls_are_named_with_their_size():
    numbers = evaluate.TARGETS | {"psnr": 32.0, "seconds_per_picture": 1.0}
    ceiling = dict.fromkeys(verifier.ATTRIBUTES, 0.98)
    assert evaluate.short(numbers, ceiling) == []
    worse = numbers | {"noun": 0.5, "count": float("nan"), "psnr": 30.0, "seconds_per_picture": 1.5}
    less = evaluate.short(worse, ceiling | {"style": 0.9})
    assert less[0] == "noun 50.0 % of 90.0 %" and less[1].startswith("count nan")
    assert less[2:4] == ["round trip 30.0 dB of 32 dB", "1.50 s a picture instead of 1 s"]
    assert less[4:] == ["the verifier's own style on real scenes 90.0 % of 97.0 %"]


def test_diversity_is_zero_for_equal_pictures_and_one_for_unrelated_ones(model):
    generator = torch.Generator().manual_seed(0)
    groups = [torch.rand(1, 3, 128, 128, generator=generator).expand(4, -1, -1, -1) for _ in range(3)]
    assert evaluate.diversity(model, torch.cat(groups), 4) == pytest.approx(0, abs=1e-3)
    mixed = torch.rand(12, 3, 128, 128, generator=generator)
    assert evaluate.diversity(model, mixed, 4) == pytest.approx(1, abs=0.1)
    assert np.isfinite(evaluate.diversity(model, mixed, 4))


def test_a_saved_verifier_says_how_far_it_can_be_trusted(model, tmp_path):
    model.save(tmp_path)
    assert Verifier.load(tmp_path).told() == ""
    shares = dict.fromkeys(verifier.ATTRIBUTES, 0.9) | {"noun": 0.954, "all": 0.5}
    measured = Verifier(verifier.labels(), widths=(8, 8, 8, 16), whole=16)
    measured.accuracy = shares
    measured.save(tmp_path)
    found = Verifier.load(tmp_path)
    assert found.accuracy == shares
    assert "noun 95%, colour 90%" in found.told() and "place 90% and style 90%" in found.told()
    assert "everything at once in 50%" in found.told()
