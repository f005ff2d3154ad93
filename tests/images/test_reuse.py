"""Prefix reuse: what is taken over, what is not, and that nobody can tell from the pixels."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from playground.fields import Count
from playground.guidance import CFG, RULES
from playground.images.text_to_image import Evaluated, generate, run
from playground.recipes import TextToImage
from playground.reuse import Kept, Prefixes, nbytes
from playground.sampling import Control, Snapshot
from playground.solvers import SOLVERS

STEPS = 20
RECIPE = TextToImage(prompt="a red cat", w=4.0, steps=STEPS, seed=21)


def low(model, step, recipe=RECIPE):
    """A window end that leaves guidance on in the steps before this one."""
    times = recipe.plan(model.denoiser.schedule).rows[0].times
    return (times[step - 1] + times[step]) / 2


def same(a, b):
    assert torch.equal(a.latents, b.latents) and torch.equal(a.pictures, b.pictures)
    assert len(a.trace) == len(b.trace)
    for x, y in zip(a.trace, b.trace, strict=True):
        for name in ("t", "x", "cond", "uncond", "guided", "eps_cond", "eps_uncond"):
            assert torch.equal(getattr(x, name).nan_to_num(9), getattr(y, name).nan_to_num(9)), name
        assert x.known == y.known


def test_moving_the_end_of_the_window_repeats_only_the_steps_behind_it(models):
    model, prefixes = models["sd1"], Prefixes()
    first = generate(RECIPE.but(low=low(model, 15)), model, prefixes=prefixes)
    assert first.count == Count(20, 15 * 2 + 5) and first.taken_over == 0
    moved = RECIPE.but(low=low(model, 12))
    again = generate(moved, model, prefixes=prefixes)
    assert again.count == Count(8, 8) and again.taken_over == 12
    same(again, generate(moved, model))


@pytest.mark.parametrize(
    "changes",
    [{"steps": 21}, {"seed": 22}, {"w": 5.0}, {"prompt": "a red dog"}, {"solver": "ddim"}, {"pictures": 2}],
)
def test_what_changes_the_first_step_leaves_nothing_to_take_over(models, changes):
    model, prefixes = models["sd1"], Prefixes()
    generate(RECIPE, model, prefixes=prefixes)
    again = generate(RECIPE.but(**changes), model, prefixes=prefixes)
    assert again.taken_over == 0
    same(again, generate(RECIPE.but(**changes), model))


def test_models_share_nothing(models):
    prefixes = Prefixes()
    generate(RECIPE, models["sd1"], prefixes=prefixes)
    assert generate(RECIPE, models["sd2"], prefixes=prefixes).taken_over == 0


def test_an_equal_run_takes_over_everything(models):
    model, prefixes = models["sd1"], Prefixes()
    first = generate(RECIPE, model, prefixes=prefixes)
    again = generate(RECIPE, model, prefixes=prefixes)
    assert again.count == Count(0, 0) and again.taken_over == STEPS
    same(again, first)


@pytest.mark.parametrize("solver", [n for n, s in SOLVERS.items() if s.resumable])
def test_memories_of_solvers_and_fresh_noise_go_on(models, solver):
    model, prefixes = models["sd1"], Prefixes()
    recipe = RECIPE.but(solver=solver, steps=8, grid="karras")
    generate(recipe.but(low=low(model, 5, recipe)), model, prefixes=prefixes)
    moved = recipe.but(low=low(model, 4, recipe))
    again = generate(moved, model, prefixes=prefixes)
    # A second evaluation of step 4 may lie on the other side of the window's end.
    assert again.taken_over in (3, 4)
    same(again, generate(moved, model))


@pytest.mark.parametrize("change", [{"sweep": (0.0, 1.0, 4.0)}, {"pictures": 3}])
def test_batches_take_over_from_batches_of_their_own_layout(models, change):
    model, prefixes = models["sd1"], Prefixes()
    generate(RECIPE.but(low=low(model, 15), **change), model, prefixes=prefixes)
    moved = RECIPE.but(low=low(model, 12), **change)
    again = generate(moved, model, prefixes=prefixes)
    assert again.taken_over == 12
    same(again, generate(moved, model))


@dataclass(frozen=True)
class Momentum(CFG):
    """Guidance along a running mean of c - u."""

    @staticmethod
    def start(x):
        return {"mean": torch.zeros_like(x)}

    @staticmethod
    def combine(c, u, p, state):
        mean = 0.5 * state["mean"] + (c - u)
        return u + p.w * mean, {"mean": mean}


def test_memories_of_rules_go_on(models, monkeypatch):
    monkeypatch.setitem(RULES, "cfg", Momentum)
    model, prefixes = models["sd1"], Prefixes()
    generate(RECIPE.but(low=low(model, 15)), model, prefixes=prefixes)
    moved = RECIPE.but(low=low(model, 12))
    again = generate(moved, model, prefixes=prefixes)
    assert again.taken_over == 12
    same(again, generate(moved, model))


class Drift(Control):
    """Adds a growing amount after each step from `since` on."""

    def __init__(self, since):
        self.since, self.added = since, 0.0

    def after_step(self, plan_rows, step, x, s):
        if step < self.since:
            return x
        self.added += 0.01
        return x + self.added

    def reads(self, step):
        return step >= self.since

    def remember(self):
        return self.added

    def recall(self, memory):
        self.added = memory


@pytest.mark.parametrize(("before", "after", "steps"), [(15, 12, 12), (3, 3, 20), (2, 9, 2)])
def test_memories_of_controls_go_on(models, before, after, steps):
    model, prefixes = models["sd1"], Prefixes()
    generate(RECIPE, model, [Drift(before)], prefixes)
    again = generate(RECIPE, model, [Drift(after)], prefixes)
    assert again.taken_over == steps
    same(again, generate(RECIPE, model, [Drift(after)]))


def test_a_control_that_does_not_say_what_it_reads_prevents_reuse(models):
    class Silent(Control):
        def after_query(self, plan_rows, step, prediction):
            return prediction

    model, prefixes = models["sd1"], Prefixes()
    for _ in range(2):
        assert generate(RECIPE, model, [Silent()], prefixes).taken_over == 0


def test_the_steps_of_a_stopped_run_are_kept(models):
    model, prefixes = models["sd1"], Prefixes()
    events, calls = run(RECIPE, model, prefixes=prefixes), 0
    for event in events:
        calls += isinstance(event, Evaluated)
        if calls == 7:
            break
    events.close()
    again = generate(RECIPE, model, prefixes=prefixes)
    assert again.taken_over == 6
    same(again, generate(RECIPE, model))


def test_memory_is_bounded_and_what_was_dropped_is_computed_again(models):
    model, whole = models["sd1"], Prefixes()
    first = generate(RECIPE, model, prefixes=whole)
    small = Prefixes(limit=whole.nbytes // 2)
    for _ in range(2):
        again = generate(RECIPE, model, prefixes=small)
        assert small.nbytes <= whole.nbytes // 2
        same(again, first)


def test_bytes_are_those_of_the_tensors():
    kept = Kept(Snapshot(1, torch.zeros(3, 5), [torch.zeros(2)], {"mean": torch.zeros(4)}), None)
    assert nbytes(kept) == 4 * (15 + 2 + 4)


def test_a_run_that_is_larger_than_the_room_keeps_its_beginning():
    """And what it may not push out, it does not: the steps of others go, its own first ones stay."""
    prefixes = Prefixes(limit=10 * 4)
    step = lambda: Kept(torch.zeros(2), None)  # noqa: E731  # 8 bytes
    other, own = [f"o{k}" for k in range(3)], [f"k{k}" for k in range(9)]
    for key in other[1:]:
        prefixes.put(key, step(), other)
    assert len(prefixes.longest(other)) == 2
    for key in own[1:]:
        prefixes.put(key, step(), own)
        assert prefixes.nbytes <= 40
    assert len(prefixes.longest(own)) == 5 and prefixes.longest(other) == []
