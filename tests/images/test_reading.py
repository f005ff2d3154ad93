"""Prompts whose meaning is known, and what a verifier reads."""

from __future__ import annotations

import pytest
import torch

from playground.images.reading import Ask, asks, read, share_right
from playground.images.verifier import Labels, Verifier

LABELS = Labels(
    nouns=("cat", "owl", "tree"),
    colours=("red", "orange"),
    counts=(1, 2),
    relations=("left", "above", "wearing"),
    backgrounds=("grass", "sea", "red"),
    styles=(),
)


def test_prompts_say_what_is_asked():
    found = asks(LABELS, lambda prompt: True, 60)
    assert len(found) == 60 == len({a.prompt for a in found})
    for ask in found:
        said = f"an {ask.colour}" if ask.colour == "orange" else f"a {ask.colour}" if ask.colour else ""
        first = f"{said} {ask.nouns[0]}" if said else f"{'an' if ask.nouns[0] == 'owl' else 'a'} {ask.nouns[0]}"
        assert ask.prompt.startswith(first)
        if len(ask.nouns) == 2:
            between = {"left": "to the left of", "above": "above"}[ask.relation]
            assert f"{ask.nouns[0]} {between} a" in ask.prompt and ask.nouns[0] != ask.nouns[1]
        else:
            assert ask.relation is None
        where = {"grass": "on the grass", "sea": "in the sea", "red": "on a red background"}[ask.background]
        assert ask.prompt.endswith(where) and ask.colour != ask.background


def test_no_more_is_asked_than_words_allow():
    assert asks(LABELS, lambda prompt: False, 5) == []
    assert {a.prompt for a in asks(LABELS, lambda p: p == "a cat on the grass", 5)} == {"a cat on the grass"}


class Sure(Verifier):
    """A verifier whose answers are set by hand."""

    def __init__(self, **answers):
        super().__init__(LABELS, (8, 8, 8, 8), 8)
        self.answers = {k: torch.tensor(v, dtype=torch.float32) for k, v in answers.items()}

    def noun_logits(self, seen):
        return self.answers["nouns"]

    def colour_logits(self, seen, noun):
        return self.answers["colours"]

    def count_logits(self, seen, noun):
        return self.answers["counts"]

    def relation_logits(self, seen, first, second):
        return self.answers["relations"]

    def background_logits(self, seen):
        return self.answers["backgrounds"]


def test_every_attribute_is_judged_by_what_was_asked():
    asked = [
        Ask("a red cat above a tree on the grass", ("cat", "tree"), "red", "above", "grass"),
        Ask("an owl in the sea", ("owl",), None, None, "sea"),
        Ask("an owl in the sea", ("owl",), None, None, "sea"),
    ]
    judge = Sure(
        nouns=[[2, -1, 1], [-3, 2, 1], [-3, -1, -2]],  # right; most likely; not likely enough
        colours=[[0, 1, 0], [1, 0, 0], [1, 0, 0]],
        counts=[[1, 0], [1, 0], [0, 1]],
        relations=[[1, 0, 0], [1, 0, 0], [1, 0, 0]],
        backgrounds=[[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    )
    verdicts = read(judge, torch.zeros(3, 3, 128, 128), asked)
    assert verdicts == [
        {"noun": True, "colour": True, "count": True, "relation": False, "place": True},
        {"noun": True, "count": True, "place": True},
        {"noun": False, "count": False, "place": False},
    ]
    share, low, high = share_right(verdicts)
    assert share == pytest.approx(1 / 3) and 0 < low < share < high < 1


def test_the_interval_is_wilsons():
    # 0 of 10: [0, z^2 / (n + z^2)].
    share, low, high = share_right([{"noun": False}] * 10)
    assert (share, low) == (0, pytest.approx(0, abs=1e-12)) and high == pytest.approx(1.96**2 / (10 + 1.96**2))
    assert share_right([{"noun": True}] * 10)[2] == pytest.approx(1)
