"""Noun swaps by prompt-to-prompt: how they are judged, and, on a model with a verifier beside it, the verdict."""

from __future__ import annotations

import itertools
import json

import pytest
import torch

from playground.images.models import ASSETS, BUNDLED, load_model
from playground.images.prompt_to_prompt import PromptToPrompt, edit_prompt
from playground.images.reading import Ask
from playground.images.tradeoff import verifier_of
from playground.images.verifier import Labels, Verifier
from training import evaluate, package, swaps

EVALUATION = ASSETS / BUNDLED / package.FIGURES
FIGURES = json.loads(EVALUATION.read_text()) if EVALUATION.exists() else {}
LABELS = Labels(("cat", "dog", "owl", "hot dog"), ("red",), (1, 2), ("on",), ("grass", "blue"), ("sketch",))


def test_candidates_swap_one_noun_and_nothing_else():
    found = swaps.candidates(LABELS, 40)
    assert found == swaps.candidates(LABELS, 40) and len({s.seed for s in found}) == 40
    for swap in found:
        pairs = zip(swap.source.prompt.split(), swap.target.prompt.split(), strict=True)
        assert {(a, b) for a, b in pairs if a != b and a not in ("a", "an")} == {
            (*swap.source.nouns, *swap.target.nouns)
        }
        assert "grass" in swap.source.prompt and "hot dog" not in swap.source.nouns


def test_only_what_the_verifier_can_read_is_judged_and_by_its_own_noun(models, monkeypatch):
    torch.manual_seed(0)
    verifier = Verifier(LABELS, (8, 8, 16, 16), 12).eval()
    asked = []

    def verdicts(_, pictures, asks):
        asked.append(asks)
        # source, edit, alone: the second swap's source cannot be read.
        return [{"noun": n} for n in ((True, False, True), (False, True, True), (True, True, True))[len(asked) - 1]]

    def corner(result, size):
        place = torch.zeros(size, dtype=torch.bool)
        place[:4, :4] = True
        return place

    monkeypatch.setattr(swaps, "read", verdicts)
    monkeypatch.setattr(swaps, "attended", corner)  # an untrained model attends everywhere
    tried = [swaps.Swap(Ask("a cat", ("cat",)), Ask("a dog", ("dog",)), seed) for seed in range(3)]
    found = list(swaps.judged(models["sd1"], verifier, tried, steps=3))
    assert [j.there for j in found] == [False, True] and len(asked) == 3
    assert all(a == [s.source, s.target, s.target] for a, s in zip(asked, tried, strict=True))
    assert all(j.edited > 0 and j.alone > 0 for j in found)
    assert swaps.summary(found).there == 0.5


def test_the_summary_is_over_all_swaps():
    one, other = (swaps.Swap(Ask("a cat", ("cat",)), Ask("a dog", ("dog",)), seed) for seed in (0, 1))
    found = [swaps.Judged(one, True, 0.1, 0.4), swaps.Judged(other, False, 0.3, 0.4)]
    assert swaps.summary(found) == swaps.Summary(2, 0.5, pytest.approx(0.5), 0.5)
    assert swaps.summary([]).there == 0


def test_the_place_of_the_nouns_is_where_they_attend(models):
    recipe = PromptToPrompt(prompt="a cat", edits=("a dog",), steps=3)
    result = edit_prompt(recipe, models["sd1"])
    grid = next(g for g in result.grids if min(g) <= 16)
    for step, row in itertools.product(range(3), range(2)):
        maps = result.maps(step).after[grid][row]
        maps.zero_()
        maps[0, 2] = 1.0  # the noun, behind start and article, attends to the first corner alone
    place = swaps.attended(result, (64, 64))
    cell = 64 // grid[0]
    assert bool(place[: 2 * cell, : 2 * cell].all()) and int(place.sum()) == (2 * cell) ** 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(
    FIGURES.get("noun", 0.0) < evaluate.TARGETS["noun"],
    reason=f"the bundled model draws {FIGURES.get('noun', 0.0):.0%} of the nouns that it is asked for",
)
def test_fifty_swaps_on_the_bundled_model():
    verifier = verifier_of(BUNDLED)
    assert verifier is not None
    found = list(
        itertools.islice(swaps.judged(load_model(), verifier, swaps.candidates(verifier.labels)), swaps.SWAPS)
    )
    told = swaps.summary(found)
    assert told.swaps == swaps.SWAPS and told.there >= swaps.THERE and told.moved <= swaps.MOVED, told
