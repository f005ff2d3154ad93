"""Faithful or realistic, measured."""

from __future__ import annotations

import pytest
import torch

from playground.fields import Count
from playground.images.examples import EXAMPLES
from playground.images.models import load_model
from playground.images.sdedit import Edited, SDEdit, edit
from playground.images.tradeoff import (
    features,
    gaussian_distance,
    parts,
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
    recipe = SDEdit(prompt=example.prompt, guide=name, seed=100)
    guide = example.picture(model.picture_size)
    curve = tradeoff([edit(part, model, guide) for part in parts(recipe)])
    assert curve.seeds == 16 and curve.correlation >= 0.9
