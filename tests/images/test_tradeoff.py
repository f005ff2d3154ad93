"""Faithful or realistic, measured."""

from __future__ import annotations

import pytest
import torch

from playground.errors import ModelError
from playground.fields import Count
from playground.images.examples import EXAMPLES
from playground.images.models import load_model
from playground.images.sdedit import Edited, SDEdit, edit
from playground.images.tradeoff import (
    features,
    gaussian_distance,
    judged,
    parts,
    perceptual,
    realism,
    spearman,
    tradeoff,
    verifier_of,
)
from playground.images.verifier import Labels, Verifier

LEVELS = (0.2, 0.5, 0.8)


def strip(recipe, offsets, free=None) -> Edited:
    """Pictures that lie `offsets` (in 1/255) away from a grey guide."""
    guide = torch.zeros(3, 4, 4)
    pictures = torch.stack([guide + offset / 127.5 for offset in offsets])
    return Edited(
        recipe=recipe,
        latents=pictures,
        pictures=pictures,
        trace=[],
        count=Count(),
        seconds=0.0,
        guide=guide,
        free=free,
    )


def test_distance_mean_and_spread_by_hand():
    recipe = SDEdit(strip=LEVELS, pictures=2)
    curve = tradeoff([strip(recipe, [10, 20, 40, 14, 26, 50])])
    assert curve.distance == pytest.approx([12, 23, 45])
    assert curve.spread == pytest.approx([8**0.5, 18**0.5, 50**0.5])
    assert curve.seeds == 2 and curve.correlation == pytest.approx(1)


def test_with_a_mask_only_what_was_made_anew_counts():
    free = torch.zeros(4, 4)
    free[:2] = 1
    made = strip(SDEdit(), [30], free)
    made.pictures[0, :, 2:] = 0.5
    assert made.distances.tolist() == pytest.approx([30])


def test_parts_are_sixteen_seeds_in_batches_of_eight():
    recipe = SDEdit(seed=5, w=3.0)
    made = parts(recipe)
    assert [(p.seed, p.pictures, len(p.strip), p.w) for p in made] == [(5, 8, 8, 3.0), (13, 8, 8, 3.0)]
    singles = [s for p in made for s in p.singles()]
    assert len({(s.seed, s.t0) for s in singles}) == 128
    assert [p.pictures for p in parts(recipe, LEVELS, 10)] == [8, 2]


def test_spearman_by_hand():
    # Without ties: 1 - 6 sum d^2 / (n^3 - n), here with d = (2, -1, -1, 0).
    assert spearman([1, 2, 3, 4], [3, 1, 2, 5]) == pytest.approx(1 - 6 * 6 / 60)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    # Ties share their rank: Pearson's correlation of (0, 1, 2, 3) and (0.5, 0.5, 2, 3).
    assert spearman([1, 2, 3, 4], [1, 1, 2, 3]) == pytest.approx(4.5 / (5 * 4.5) ** 0.5)


def test_realism_is_zero_for_the_same_pictures_and_grows_with_a_shift():
    torch.manual_seed(0)
    real = torch.randn(8, 3, 4, 4)
    made = strip(SDEdit(strip=LEVELS, pictures=8), [0] * 24)
    made.pictures = torch.stack([real, real + 1, real + 3], 1).flatten(0, 1)
    same, near, far = realism([made], [real], lambda pictures: pictures.flatten(1))
    assert same == pytest.approx(0, abs=1e-5)
    assert near == pytest.approx(48**0.5) and far == pytest.approx(3 * 48**0.5)
    assert gaussian_distance(real.flatten(1), 2 * real.flatten(1)) > 0


def small_verifier() -> Verifier:
    torch.manual_seed(0)
    names = dict.fromkeys(("nouns", "colours", "relations", "backgrounds", "styles"), ("a", "b"))
    return Verifier(Labels(**names, counts=(1, 2)), (8, 8, 16, 16), 12).eval()


def test_perceptual_distance_is_zero_for_the_guide_and_grows_with_what_is_seen():
    verifier = small_verifier()
    y, x = torch.meshgrid(torch.linspace(-1, 1, 128), torch.linspace(-1, 1, 128), indexing="ij")
    guide = torch.stack([x, y, x * y])
    other = torch.stack([guide, guide + 0.02 * torch.randn(3, 128, 128), torch.randn(3, 128, 128)])
    same, near, far = perceptual(verifier, other, guide).tolist()
    assert same == pytest.approx(0, abs=1e-9) and 0 < near < far
    # By hand: |a/|a| - b/|b||^2 = 2 - 2 cos, at each place; a place without any feature has no direction.
    total = 0.0
    with torch.no_grad():
        for one, two in zip(*(verifier(p[None]).maps for p in (other[2], guide)), strict=True):
            cosine = torch.nn.functional.cosine_similarity(one, two, dim=1)
            there = [(m.norm(dim=1) > 0).float() for m in (one, two)]
            total += float((there[0] + there[1] - 2 * cosine).mean())
    assert far == pytest.approx(total, rel=1e-4)


def test_what_the_verifier_sees_joins_the_curve():
    verifier = small_verifier()
    torch.manual_seed(1)
    guide = torch.rand(3, 64, 64) * 2 - 1
    noise = torch.randn(4, 3, 64, 64)
    pictures = torch.stack([guide + s * n for n in noise for s in LEVELS])
    made = strip(SDEdit(strip=LEVELS, pictures=4), [0] * 12)
    made.guide, made.pictures = guide, pictures.clamp(-1, 1)
    curve = tradeoff([made])
    both = judged(curve, [made], [torch.rand(4, 3, 64, 64)], verifier)
    assert both.distance == curve.distance and curve.perceptual == curve.realism == []
    assert both.perceptual == sorted(both.perceptual) and both.perceptual[0] > 0
    by_level = [perceptual(verifier, made.pictures[i::3], guide).mean().item() for i in range(3)]
    assert both.perceptual == pytest.approx(by_level, rel=1e-4)
    real = features(verifier, torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(5)))
    assert len(both.realism) == 3 and all(r > 0 for r in both.realism) and real.shape == (4, 12 + 16)


def test_with_a_mask_the_verifier_looks_at_the_marked_part():
    verifier = small_verifier()
    torch.manual_seed(2)
    guide, free = torch.rand(3, 128, 128) * 2 - 1, torch.zeros(128, 128)
    free[:, :32] = 1
    inside, outside = guide.expand(2, 3, 128, 128).clone()
    inside[:, :, :16] = 1.0
    outside[:, :, 112:] = 1.0
    both = torch.stack([inside, outside])
    near, far = perceptual(verifier, both, guide, free), perceptual(verifier, both, guide)
    # A layer sees some of its surroundings, and nothing across the picture but by its norms.
    assert near[0] > 4 * near[1] and 0.5 < far[0] / far[1] < 2
    # A mask over everything is no mask; one place of the coarsest layer by hand.
    assert torch.allclose(perceptual(verifier, both, guide, torch.ones(128, 128)), far)
    part = torch.zeros(128, 128)
    part[32:48, 48:64] = 1
    with torch.no_grad():
        maps = verifier(both).maps[-2:]
    # Rows 32 to 48 and columns 48 to 64 of 128: places 4, 5 and 6, 7 of 16; places 2 and 3 of 8.
    fine, coarse = maps
    assert fine.shape[-1] == 16 and coarse.shape[-1] == 8
    expected = torch.cat([fine[:, :, 4:6, 6:8].mean((2, 3)), coarse[:, :, 2, 3]], 1)
    assert torch.allclose(features(verifier, both, part), expected, atol=1e-5)


def test_the_curve_says_that_it_is_of_the_masked_part():
    free = torch.zeros(4, 4)
    free[0] = 1
    made = [strip(SDEdit(strip=LEVELS, pictures=2), [10, 20, 30] * 2, mask) for mask in (free, None)]
    assert [tradeoff([m]).masked for m in made] == [True, False]


def test_a_damaged_verifier_is_one_sentence(tmp_path):
    (tmp_path / "verifier").mkdir()
    (tmp_path / "verifier" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be read"):
        verifier_of(str(tmp_path))


def test_a_verifier_is_found_beside_a_model_and_sees_pictures_of_any_size(tmp_path):
    assert verifier_of(str(tmp_path)) is None
    names = dict.fromkeys(("nouns", "colours", "relations", "backgrounds", "styles"), ("a", "b"))
    Verifier(Labels(**names, counts=(1, 2))).save(tmp_path / "verifier")
    found = verifier_of(str(tmp_path))
    assert found is not None
    seen = features(found, torch.rand(3, 3, 64, 64))
    assert seen.shape[0] == 3 and bool(torch.isfinite(seen).all())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["beach", "castle"])
def test_the_distance_to_the_guide_grows_with_t0_on_the_bundled_model(name):
    model = load_model()
    example = EXAMPLES[name]
    recipe = SDEdit(prompt=example.prompt, guide=name, seed=100, steps=10)
    guide = example.picture(model.picture_size)
    curve = tradeoff([edit(part, model, guide) for part in parts(recipe)])
    assert curve.seeds == 16 and curve.correlation >= 0.9
