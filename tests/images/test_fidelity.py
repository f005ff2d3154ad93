"""Fidelity and diversity over the guidance scale."""

from __future__ import annotations

import math

import pytest
import torch

from playground.errors import RecipeError
from playground.images.fidelity import SCALES, Named, Seen, curve, look, named, parts, probability
from playground.images.verifier import Labels, Verifier
from playground.recipes import TextToImage

LABELS = Labels(
    nouns=("cat", "cherry", "box", "glass"),
    colours=("red", "blue"),
    counts=(1, 2),
    relations=("left", "right"),
    backgrounds=("grass", "beach", "red"),
    styles=("sketch",),
)


@pytest.mark.parametrize(
    ("prompt", "things", "place"),
    [
        ("a cat on the grass", [("cat", None)], "grass"),
        ("A red cat and two blue cherries, at the beach", [("cat", "red"), ("cherry", "blue")], "beach"),
        ("three boxes", [("box", None)], None),
        ("a glass", [("glass", None)], None),
        ("a red unicorn in the grass", [], "grass"),
        ("a red cat and a blue cat", [("cat", "red"), ("cat", "blue")], None),
        ("a cat and a cat", [("cat", None)], None),
        ("a cat AND a beach AND NOT a box", [("cat", None)], "beach"),
    ],
)
def test_what_a_prompt_names(prompt, things, place):
    found = named(TextToImage(prompt=prompt), LABELS)
    colours = (None, *LABELS.colours)
    assert [(LABELS.nouns[noun], colours[colour or 0]) for noun, colour in found.things] == things
    assert (None if found.place is None else LABELS.backgrounds[found.place]) == place
    assert found.words(LABELS) == [f"{c} {n}" if c else n for n, c in things] + ([place] if place else [])


@pytest.mark.parametrize("prompt", ["", "a unicorn", "red", "NOT a cat AND a unicorn"])
def test_a_prompt_of_which_nothing_is_known_is_refused(prompt):
    with pytest.raises(RecipeError, match="names no thing"):
        named(TextToImage(prompt=prompt), LABELS)


@pytest.mark.parametrize("rule", ["none", "cfgpp"])
def test_a_rule_that_does_not_follow_w_is_not_measured_over_it(rule):
    with pytest.raises(RecipeError, match="does not follow"):
        parts(TextToImage(prompt="a cat", rule=rule))


def small_verifier() -> Verifier:
    torch.manual_seed(0)
    return Verifier(LABELS, (8, 8, 16, 16), 12).eval()


def test_the_probability_is_that_of_each_thing_asked():
    verifier = small_verifier()
    pictures = torch.rand(3, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        seen = verifier(pictures)
        cat = torch.sigmoid(verifier.noun_logits(seen))[:, 0]
        red = torch.softmax(verifier.colour_logits(seen, torch.zeros(3, dtype=torch.long)), -1)[:, 1]
        grass = torch.softmax(verifier.background_logits(seen), -1)[:, 0]
        everything = probability(verifier, seen, Named(((0, 1),), 0))
    assert torch.allclose(everything, (cat + red + grass) / 3, atol=1e-6)
    assert torch.allclose(look(verifier, pictures, Named(((0, None),), None)).probability, cat, atol=1e-6)
    # Pictures of another size are looked at as well.
    assert look(verifier, torch.zeros(2, 3, 32, 32), Named((), 0)).layer.shape[0] == 2


def test_the_curve_by_hand():
    # Two scales, three seeds on a line: distances 1, 1, 2 at w = 1 and half of it at w = 4.
    at = torch.tensor([0.0, 1.0, 2.0])
    seeds = [
        Seen(torch.tensor([0.2 + 0.1 * i, 0.9]), torch.stack([x * torch.ones(4) / 2, x * torch.ones(4) / 4]))
        for i, x in enumerate(at)
    ]
    made = curve(seeds, ["cat"], (1.0, 4.0))
    assert made.fidelity == pytest.approx([0.3, 0.9]) and made.diversity == pytest.approx([1.0, 0.5])
    assert made.fidelity_error == pytest.approx([0.1 / math.sqrt(3), 0], abs=1e-7)
    assert made.diversity_error == pytest.approx([0, 0], abs=1e-6)
    assert made.seeds == 3 and made.words == ["cat"]
    assert math.isnan(curve(seeds[:2], [], (1.0, 4.0)).diversity_error[0])


def test_the_jackknife_of_a_mean_distance_by_hand():
    # Distances at w = 1 are 1 everywhere (corners of a triangle); at w = 2 they are 1, 2, 3.
    plain = torch.eye(3) / math.sqrt(2)
    line = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [3.0, 0, 0]])
    made = curve([Seen(torch.zeros(2), torch.stack([plain[i], line[i]])) for i in range(3)], [], (1.0, 2.0))
    assert made.diversity == pytest.approx([1.0, 2.0])
    # Leaving one out leaves one distance: 2, 3, 1 of mean 2.
    assert made.diversity_error == pytest.approx([0.0, math.sqrt(2 / 3 * 2)], abs=1e-6)


def test_parts_are_one_sweep_for_each_seed():
    made = parts(TextToImage(seed=2**31 - 2, w=7.0, pictures=4, steps=9, sweep=(1.0,), across="steps", values=(3,)))
    assert len(made) == 16 and all(p.sweep == SCALES and p.pictures == 1 and p.steps == 9 for p in made)
    assert [p.seed for p in made[:3]] == [2**31 - 2, 2**31 - 1, 0] and made[0].across == "none"
    assert len({s.seed for p in made for s in p.singles()}) == 16
