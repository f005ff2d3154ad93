"""Many pictures of one solver: their seeds, how their distributions compare, and what a verifier reads in them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from playground.images.cohorts import (
    ELSEWHERE,
    SEEDS,
    Cohort,
    Drawn,
    apart,
    asked_of,
    draw,
    quality,
)
from playground.images.comparison import Comparison, compare, converge, distance, measure
from playground.images.text_to_image import generate
from playground.images.tradeoff import perceptual, verifier_of
from playground.images.verifier import Labels, Verifier
from playground.recipes import TextToImage

NAMES = Labels(
    nouns=("cat", "dog", "grass"),
    colours=("red", "green"),
    counts=(1, 2),
    relations=("on", "above"),
    backgrounds=("grass", "sky", "blue"),
    styles=("sketch",),
)


@pytest.fixture(scope="module")
def verifier():
    torch.manual_seed(0)
    return Verifier(NAMES, (8, 8, 16, 16), 12).eval()


def test_a_cohort_is_the_runs_it_stands_for(models):
    tiny = models["sd1"]
    cohort = Cohort.of(TextToImage(w=3, seed=5), solver="churn", steps=3, pictures=3)
    drawn = draw(cohort, tiny)
    for i in range(3):
        alone = generate(TextToImage(w=3, seed=5 + i, solver="churn", steps=3), tiny)
        torch.testing.assert_close(drawn.latents[i], alone.latents[0], rtol=1e-4, atol=1e-4)
    assert drawn.count.evaluations == alone.count.evaluations
    prompts = ("a cat", "a dog on the grass")
    drawn = draw(cohort.but(prompts=prompts), tiny)
    for i, prompt in enumerate(prompts):
        alone = generate(TextToImage(w=3, seed=5 + i, solver="churn", steps=3, prompt=prompt), tiny)
        torch.testing.assert_close(drawn.latents[i], alone.latents[0], rtol=1e-4, atol=1e-4)


def test_the_reference_has_other_seeds_and_is_shared_by_all_cells(models):
    recipe = Comparison(solvers=("churn", "ddim"), budgets=(4, 8), w=2, seed=3)
    cells = recipe.cells(models["sd1"].denoiser.schedule)
    ours = {s.seed for cell in cells for s in Cohort.cell(recipe, cell).singles()}
    truth = Cohort.converged(recipe)
    assert ours == set(range(3, 3 + SEEDS))
    assert {s.seed for s in truth.singles()} == {3 + ELSEWHERE + i for i in range(SEEDS)}
    assert Cohort.converged(recipe.but(grid="karras", solvers=("heun",), eta=0.3)) == truth
    assert Cohort.cell(recipe, cells[0]).w == 2 and Cohort.cell(recipe, cells[0]).pictures == SEEDS


def test_one_distribution_is_not_told_from_itself_and_another_is(models):
    shape = (4, 8, 8)

    def drawn(seed, shift=0.0):
        latents = torch.randn(SEEDS, *shape, generator=torch.Generator().manual_seed(seed)) + shift
        recipe = Cohort(solver="churn", steps=3)
        return Drawn(recipe, latents, torch.zeros(SEEDS, 3, 8, 8), replace(draws.count), 1.0)

    draws = draw(Cohort(solver="churn", steps=3, pictures=2), models["sd1"])
    same, other = apart(drawn(0), drawn(1), 6), apart(drawn(0), drawn(1, 0.5), 6)
    assert same.distance < same.chance < other.distance
    assert (same.solver, same.budget, same.evaluations) == ("churn", 6, draws.count.evaluations)


def test_only_prompts_that_the_model_knows_are_asked(models, verifier):
    """The tiny model knows ten words; what it is asked is made of these and means what it says."""
    tiny = models["sd2"]  # words; the others spell
    asked = asked_of(tiny, verifier, 8)
    assert asked and len({a.prompt for a in asked}) == len(asked)
    assert all(not tiny.text.notes(a.prompt) for a in asked)
    assert all(a.background != "sky" for a in asked)  # "in" is unknown to it
    assert asked == asked_of(tiny, verifier, 8)


def test_the_share_of_a_cohort_is_what_the_verifier_reads(models, verifier):
    tiny = models["sd2"]
    asked = asked_of(tiny, verifier, 6)
    prompts = tuple(a.prompt for a in asked)
    drawn = draw(Cohort.of(TextToImage(), solver="ddim", steps=2, prompts=prompts), tiny)
    row = quality(drawn, asked, verifier, 2)
    assert row.prompts == len(asked) and row.low <= row.share <= row.high and row.evaluations == 2
    assert 0 <= row.nouns <= 1


def test_the_perceptual_distance_of_a_cell_is_that_of_its_pictures(models, verifier):
    tiny = models["sd1"]
    recipe = Comparison(solvers=("ddim", "churn"), budgets=(4,), pictures=2)
    result, reference = compare(recipe, tiny), converge(recipe.references()["ode"], tiny)
    first, own = measure(result, {"ode": reference}, verifier)
    each = [float(perceptual(verifier, result.pictures[2 * i][None], reference.pictures[i])) for i in (0, 1)]
    assert first.perceptual == pytest.approx(sum(each) / 2, rel=1e-5) and first.perceptual > 0
    assert own.perceptual != own.perceptual
    assert measure(result, {"ode": reference})[0].perceptual != first.perceptual  # NaN
    assert distance(result.pictures[0], reference.pictures[0]) > 0


def test_the_verifier_is_that_beside_the_model(tmp_path, verifier):
    assert verifier_of(str(tmp_path)) is None
    verifier.save(tmp_path / "verifier")
    found = verifier_of(str(tmp_path))
    assert found is not None and found.labels == NAMES
