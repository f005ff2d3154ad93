"""What must hold of prompt-to-prompt, on random models of every family with cross-attention."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter

import pytest
import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel

from playground.devices import Device
from playground.errors import ModelError, RecipeError
from playground.guidance import RULES
from playground.images import attention
from playground.images.attention import AttentionEdits
from playground.images.models import load_model
from playground.images.prompt_to_prompt import (
    PromptToPrompt,
    attention_arrays,
    blend_of,
    edit_prompt,
    edits_of,
)
from playground.images.prompt_to_prompt import run as run_prompts
from playground.images.text_to_image import generate, run
from playground.recipes import TextToImage
from playground.reuse import Prefixes
from playground.solvers import SOLVERS

STEPS = 5
RECIPE = PromptToPrompt(
    prompt="a red cat",
    edits=("a red dog",),
    w=4.0,
    steps=STEPS,
    seed=21,
    solver="ddim",
    cross=0.8,
    self_fraction=0.4,
)
OFF = {"cross": 0.0, "self_fraction": 0.0}


@pytest.fixture(scope="module")
def every_model(models, large_models, sd2_folder):
    """Random models of each family with cross-attention, and the one that ships."""
    return models | large_models | {"sd2 layout": load_model(str(sd2_folder)), "bundled": load_model()}


@pytest.fixture(params=["sd1", "sd2", "sd2 layout", "sdxl", "bundled"])
def model(request, every_model):
    return every_model[request.param]


def unedited(recipe, model):
    """The same rows in the same batch and with the same kernels, nothing edited."""
    return edit_prompt(recipe.but(**OFF, weights=(), own_cross=(), blend=()), model)


# 1 to 3: what edits leave alone


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cross": 1.0, "self_fraction": 1.0},
        {"edits": ("a big red dog", "a green cat"), "blend": ((0, 2),)},
        {"weights": ((1, 1, 5.0),)},
        {"solver": "heun"},
        {"solver": "ancestral"},
    ],
)
def test_no_edit_changes_the_source(model, changes):
    recipe = RECIPE.but(**changes)
    made, plain = edit_prompt(recipe, model), unedited(recipe, model)
    assert torch.equal(made.latents[0], plain.latents[0]) and torch.equal(made.pictures[0], plain.pictures[0])
    assert not torch.equal(made.latents[1], plain.latents[1])


@pytest.mark.parametrize("method", ["replace", "refine"])
@pytest.mark.parametrize("solver", ["ddim", "heun", "dpmpp_2m"])
def test_identical_prompts_give_identical_pictures(model, method, solver):
    recipe = RECIPE.but(edits=(RECIPE.prompt,), method=method, solver=solver, weights=((1, 1, 1.0),))
    made = edit_prompt(recipe, model)
    assert torch.equal(made.latents[0], made.latents[1])


def test_nothing_switched_on_is_the_plain_batch(model):
    made = edit_prompt(RECIPE.but(**OFF), model)
    for prompt, latents in zip(RECIPE.prompts(), made.latents, strict=True):
        fields = {n: getattr(RECIPE, n) for n in TextToImage.model_fields} | {"prompt": prompt}
        alone = generate(TextToImage(**fields), model).latents[0]
        assert (latents - alone).norm() <= 1e-4 * alone.norm()


def test_nothing_switched_on_hands_every_attention_on_as_it_is(model, monkeypatch):
    same = []
    for name in ("cross", "self_attention"):
        inner = getattr(AttentionEdits, name)

        def noted(self, probabilities, inner=inner):
            made = inner(self, probabilities)
            same.append(made is probabilities)
            return made

        monkeypatch.setattr(AttentionEdits, name, noted)
    edit_prompt(RECIPE.but(**OFF, edits=("a red dog", "a green cat")), model)
    assert same and all(same)


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_edits_and_leaves_the_source_alone(models, solver):
    recipe = RECIPE.but(solver=solver, grid="trailing", edits=("a red dog", "a red cat"), blend=((0, 2), (1, 2)))
    made, plain = edit_prompt(recipe, models["sd1"]), unedited(recipe, models["sd1"])
    assert torch.equal(made.latents[0], plain.latents[0]) and torch.equal(made.latents[2], made.latents[0])
    assert bool(made.latents.isfinite().all()) and not torch.equal(made.latents[1], made.latents[0])


# 4: sums


@pytest.mark.parametrize("edit", ["a red dog", "a red c", "a cat", "a big red cat", "a red cat now"])
def test_rows_add_up_to_one_before_an_edit_and_after_replace(model, edit):
    made = edit_prompt(RECIPE.but(edits=(edit,), method="replace"), model)
    assert torch.allclose(made.alignments[0].matrix.sum(1), torch.ones(len(made.alignments[0].own)))
    for step in range(STEPS):
        maps = made.maps(step)
        for grid, before in maps.before.items():
            assert torch.allclose(before.float().sum(-1), torch.ones(before.shape[:2]), atol=5e-3)
            assert torch.allclose(maps.after[grid].float().sum(-1), torch.ones(before.shape[:2]), atol=5e-3)


@pytest.mark.parametrize(("renormalise", "kept"), [("no", False), ("yes", True)])
def test_weights_keep_the_sum_only_when_renormalised(model, renormalise, kept):
    recipe = RECIPE.but(weights=((1, 2, 6.0),), renormalise=renormalise)
    after = edit_prompt(recipe, model).maps(0).after
    after = next(iter(after.values()))[1].float().sum(-1)
    assert torch.allclose(after, torch.ones_like(after), atol=5e-3) == kept


@pytest.mark.parametrize("weight", [-2.0, -1.0, -0.1, 0.0, 6.0])
def test_renormalised_attention_keeps_its_signs_and_its_size(models, weight):
    """Divided by a sum that is negative or next to nothing, every word would change its sign or explode."""
    (edit,) = edits_of(RECIPE.but(weights=((1, 2, weight),), renormalise="yes"), models["sd1"].text)
    value = torch.full((1, 1, len(edit.weights)), 0.1 / len(edit.weights))
    tokens = list(edit.alignment.target[2].tokens)
    value[..., tokens] = 0.9 / len(tokens)
    made = AttentionEdits._weighted(edit, value)
    assert float(made.abs().sum()) == pytest.approx(1)
    weighted = value * edit.weights
    torch.testing.assert_close(made / made[0, 0, 0], weighted / weighted[0, 0, 0])
    nothing = AttentionEdits._weighted(edit, torch.zeros_like(value))
    assert not nothing.any()


def test_renormalising_nothing_repeats_nothing(models):
    model, prefixes = models["sd1"], Prefixes()
    edit_prompt(RECIPE, model, prefixes)
    assert edit_prompt(RECIPE.but(renormalise="yes"), model, prefixes).taken_over == STEPS


# 5 and 6: what an edit does to the maps


def takes_over(made, step, words):
    """Whether these words attend as their counterparts, in one step: A* = A_source M, on every grid."""
    (alignment,) = made.alignments
    tokens = [t for k in words for t in alignment.target[k].tokens]
    pairs = zip(made.maps(step).before.values(), made.maps(step).after.values(), strict=True)
    return all(
        torch.allclose(after[1].float()[:, tokens], (before[0].float() @ alignment.matrix)[:, tokens], atol=1e-3)
        for before, after in pairs
    )


def test_a_swapped_word_attends_where_its_counterpart_did(model):
    made = edit_prompt(RECIPE.but(cross=0.6), model)
    assert [takes_over(made, k, [0, 1, 2]) for k in range(STEPS)] == [True, True, True, False, False]
    for step in range(STEPS):
        for before, after in zip(made.maps(step).before.values(), made.maps(step).after.values(), strict=True):
            assert torch.equal(after[0], before[0])
            assert torch.equal(after[1], before[1]) == (step >= 3)


def test_a_weight_scales_exactly_its_column(model):
    recipe = RECIPE.but(**OFF, weights=((1, 2, 3.0),))
    made = edit_prompt(recipe, model)
    before, after = (next(iter(m.values()))[1].float() for m in (made.maps(0).before, made.maps(0).after))
    factors = torch.ones(before.shape[-1])
    factors[list(made.alignments[0].target[2].tokens)] = 3.0
    assert torch.allclose(after, before * factors, rtol=2e-3, atol=1e-6)


def test_a_weight_on_the_source_is_a_picture_of_its_own(model):
    recipe = RECIPE.but(edits=(), weights=((0, 1, 5.0),))
    made, plain = (
        edit_prompt(recipe, model),
        edit_prompt(recipe.but(edits=("a red cat",), weights=()), model),
    )
    assert len(made.pictures) == 2
    assert torch.equal(made.latents[0], plain.latents[0]) and not torch.equal(made.latents[1], made.latents[0])


def test_a_word_can_have_a_fraction_of_its_own(model):
    made = edit_prompt(RECIPE.but(cross=1.0, own_cross=((1, 2, 0.2),)), model)
    for step in range(STEPS):
        assert takes_over(made, step, [0, 1])
        assert takes_over(made, step, [2]) == (step < 1)


# 7: local blend


def control_of(recipe, model):
    edits = edits_of(recipe, model.text)
    _, h, w = model.denoiser.shape
    return AttentionEdits(model.denoiser.network, (h, w), edits, blend_of(recipe, edits, model.text))


@pytest.mark.parametrize(("threshold", "of"), [(-1.0, "itself"), (2.0, "the source")])
def test_a_full_mask_changes_nothing_and_an_empty_one_gives_the_source(model, threshold, of):
    recipe = RECIPE.but(blend=((0, 2), (1, 2)))
    made = control_of(recipe, model)
    object.__setattr__(made.blend, "threshold", threshold)
    object.__setattr__(made.blend, "start", 0)
    blended = last(run(recipe, model, [made]))
    plain = edit_prompt(recipe.but(blend=()), model)
    assert torch.equal(blended.latents[0], plain.latents[0])
    assert torch.equal(blended.latents[1], plain.latents[1 if of == "itself" else 0])


def last(events):
    for event in events:  # noqa: B007
        pass
    return event


def test_a_word_that_is_turned_down_is_blended_where_it_is(models):
    """The mask is that of the word's place, however much of it is taken."""
    recipe, masks = RECIPE.but(blend=((1, 2),), threshold=0.9, steps=1), []
    for weight in (1.0, 0.0, -2.0):
        made = control_of(recipe.but(weights=((1, 2, weight),)), models["sd1"])
        object.__setattr__(made.blend, "start", 0)
        masks.append(last(run(recipe, models["sd1"], [made])).trace[0].noted[0].mask)
    # The first layer's maps do not depend on the weight, later ones' a little.
    for mask in masks[1:]:
        assert bool(mask[1].any())
        assert (mask != masks[0]).float().mean() < 0.1


def test_outside_the_mask_the_edit_is_the_source(model):
    # A random network attends nearly evenly: the threshold that cuts its maps in two lies close to 1.
    for threshold in (0.9, 0.95, 0.98, 0.99, 0.995, 0.999):
        control = control_of(RECIPE.but(blend=((0, 2), (1, 2))), model)
        object.__setattr__(control.blend, "threshold", threshold)
        made = last(run(RECIPE, model, [control]))
        mask = made.trace[-1].noted[0].mask[1].bool()
        if mask.float().mean() < 1:
            break
    assert 0 < mask.float().mean() < 1
    assert torch.equal(made.latents[1][:, ~mask], made.latents[0][:, ~mask])
    assert not torch.equal(made.latents[1][:, mask], made.latents[0][:, mask])


# 8: repetition, order, w = 1


def test_two_runs_agree_to_the_bit(model):
    assert torch.equal(edit_prompt(RECIPE, model).latents, edit_prompt(RECIPE, model).latents)


def test_the_order_of_prompts_and_their_number_do_not_matter(model):
    edits = ("a red dog", "a green cat")
    both = edit_prompt(RECIPE.but(edits=edits), model).latents
    swapped = edit_prompt(RECIPE.but(edits=edits[::-1]), model).latents
    alone = edit_prompt(RECIPE.but(edits=edits[:1]), model).latents
    for a, b in ((both[1], swapped[2]), (both[2], swapped[1]), (both[1], alone[1])):
        assert (a - b).norm() <= 1e-4 * b.norm()


def test_it_works_without_guidance(model):
    made = edit_prompt(RECIPE.but(w=1.0), model)
    assert made.count.sample_forwards == 2 * STEPS
    assert not torch.equal(made.latents[0], made.latents[1])


@pytest.mark.parametrize("rule", [name for name, rule in RULES.items() if not rule.weak])
@pytest.mark.parametrize("changes", [{}, {"w": 0.0}, {"w": 0.0, "low": 0.2, "high": 0.6}, {"w": 1.0}])
def test_every_rule_has_its_maps_where_the_prompts_were_asked(models, rule, changes):
    """Without guidance's c there is no attention of words to look at, and no other step's is taken for it."""
    made = edit_prompt(RECIPE.but(rule=rule, blend=((1, 2),), **changes), models["sd1"])
    asked = [bool(record.known["cond"][1]) for record in made.trace]
    assert [bool(made.maps(k).before) for k in range(STEPS)] == asked
    seen = [made.maps(k) for k in range(STEPS)]
    assert len({id(maps) for maps in seen}) == STEPS
    arrays = attention_arrays(made, 5)
    assert bool(arrays) == any(asked)
    for array in arrays.values():
        assert [bool(step.any()) for step in array] == asked


def test_a_run_that_keeps_no_maps_takes_none_from_another(models):
    prefixes = Prefixes(2**28)
    edit_prompt(RECIPE.but(crosses=(RECIPE.cross,), selves=(RECIPE.self_fraction,)), models["sd1"], prefixes)
    assert all(edit_prompt(RECIPE, models["sd1"], prefixes).maps(k).before for k in range(STEPS))


def test_a_source_word_blends_an_edit_where_its_counterpart_attends(models):
    text = models["sd1"].text

    def blended(edit):
        recipe = RECIPE.but(prompt="a cat", edits=(edit,), blend=((0, 1),))
        edits = edits_of(recipe, text)
        return blend_of(recipe, edits, text).tokens, edits[0].alignment

    (source, tokens), alignment = blended("a red cat")
    assert source == alignment.source[1].tokens and tokens == alignment.target[2].tokens
    control = control_of(RECIPE.but(prompt="a cat", edits=("a",), blend=((0, 1),)), models["sd1"])
    assert control.blend.tokens[1] == ()
    made = last(run(RECIPE.but(prompt="a cat", edits=("a",)), models["sd1"], [control]))
    assert made.trace[-1].noted[0].mask is not None


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (96, 96), (128, 128), (64, 96)])
def test_self_attention_is_copied_up_to_a_quarter_of_the_latents(models, size):
    control = AttentionEdits(models["sd1"].denoiser.network, size, [])
    grids = [control.grid(size[0] * size[1] // 4**k) for k in range(4)]
    copied = [g for g in grids if g[0] * g[1] <= control.self_grid]
    assert copied and all(g[0] <= max(16, size[0] / 4) for g in copied)
    assert (size[0] // 4, size[1] // 4) in copied


# 9: the maps are those of the network


@pytest.mark.parametrize("edit", ["a red dog", "a big red dog"])
def test_kept_maps_are_those_of_a_brute_force_capture(model, edit, monkeypatch):
    """The probabilities that the layers compute, taken from the queries and keys with hooks."""
    word = len(edit.split()) - 1
    recipe = RECIPE.but(edits=(edit,), cross=1.0, weights=((1, word, 3.0),), steps=1)
    found, handles, held, asked = [], [], {}, []
    during = AttentionEdits.during_call

    def noted(self, who):
        asked[:] = who
        return during(self, who)

    monkeypatch.setattr(AttentionEdits, "during_call", noted)
    for name, layer in model.denoiser.network.named_modules():
        if name.endswith(".attn2"):
            for part in ("to_q", "to_k"):
                where = (name, part)
                handles.append(
                    getattr(layer, part).register_forward_hook(
                        lambda m, i, out, where=where: held.update({where: out})
                    )
                )

            def done(module, inputs, output, name=name):
                heads = module.heads
                q, k = (held[name, p].unflatten(-1, (heads, -1)).transpose(1, 2) for p in ("to_q", "to_k"))
                places = {a.row: i for i, a in enumerate(asked) if a.role == "cond"}
                found.append(torch.softmax(q @ k.mT * module.scale, -1)[[places[0], places[1]]].float())

            handles.append(layer.register_forward_hook(done))
    try:
        made = edit_prompt(recipe, model)
    finally:
        for handle in handles:
            handle.remove()
    (alignment,) = made.alignments
    weights = torch.ones(len(alignment.own))
    weights[list(alignment.target[word].tokens)] = 3.0
    for (height, width), before in made.maps(0).before.items():
        layers = torch.stack([p for p in found if p.shape[2] == height * width])
        assert torch.allclose(before.float(), layers.mean((0, 2)), atol=1e-3)
        edited = layers.clone()
        taken = torch.where(alignment.own, layers[:, 1], layers[:, 0] @ alignment.matrix)
        edited[:, 1] = taken * weights
        assert torch.allclose(made.maps(0).after[height, width].float(), edited.mean((0, 2)), atol=2e-3)


def test_in_half_precision_attention_is_taken_over_too(folders):
    half = load_model(str(folders["sd1"]), Device(torch.device("cpu"), torch.bfloat16))
    made = edit_prompt(RECIPE.but(cross=1.0, weights=((0, 2, 3.0),)), half)
    assert made.latents.isfinite().all()
    assert torch.equal(made.latents[0], unedited(RECIPE.but(weights=((0, 2, 3.0),)), half).latents[0])
    alignment = made.alignments[0]
    for before, after in zip(made.maps(0).before.values(), made.maps(0).after.values(), strict=True):
        expected = before[0].float() @ alignment.matrix
        torch.testing.assert_close(after[1].float(), expected, rtol=0.02, atol=2e-3)


def test_large_grids_are_left_to_the_fused_kernel_and_not_kept(folders, tmp_path):
    """64 x 64 latents, as Stable Diffusion has, on four grids of which each is treated in its own way."""
    folder = tmp_path / "four grids"
    shutil.copytree(folders["sd1"], folder)
    torch.manual_seed(5)
    plain = UNet2DConditionModel.from_pretrained(folder / "unet")
    UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D",) * 4,
        up_block_types=("CrossAttnUpBlock2D",) * 4,
        cross_attention_dim=plain.config.cross_attention_dim,
        attention_head_dim=2,
    ).save_pretrained(folder / "unet")
    model = load_model(str(folder))
    fused = Counter()
    for name, layer in model.denoiser.network.named_modules():
        if name.endswith((".attn1", ".attn2")):
            layer.processor = Noting(layer.processor, fused)
    recipe = RECIPE.but(steps=2, cross=1.0, self_fraction=1.0, blend=((0, 2), (1, 2)))
    made = edit_prompt(recipe, model)
    # Self-attention on 64 x 64 and 32 x 32, in one layer on the way down and two on the way up, both steps.
    assert fused == {4096: 6, 1024: 6}
    assert made.grids == [(32, 32), (16, 16), (8, 8)]
    # The paper's 16 x 16 makes the mask, and all of the latents are masked.
    assert AttentionEdits._blend_grid(dict.fromkeys(made.grids)) == (16, 16)
    assert made.maps(0).mask.shape == (2, 64, 64)
    assert torch.equal(made.latents[0], unedited(recipe, model).latents[0])
    assert not torch.equal(made.latents[1], made.latents[0])


class Noting:
    """A layer's processor, and how often it was called for how many queries."""

    def __init__(self, usual, calls):
        self.usual, self.calls = usual, calls

    def __call__(self, attn, hidden_states, *args, **options):
        self.calls[hidden_states.shape[1]] += 1
        return self.usual(attn, hidden_states, *args, **options)


# The machinery


def test_processors_are_put_back_also_after_an_error(model, monkeypatch):
    before = dict(model.denoiser.network.attn_processors)
    events = run(RECIPE, model, [control_of(RECIPE, model)])
    next(events)
    assert model.denoiser.network.attn_processors == before  # between two calls, others use the network
    events.close()

    def broken(*args, **kwargs):
        raise RuntimeError("broken")

    monkeypatch.setattr(AttentionEdits, "cross", broken)
    with pytest.raises(RuntimeError, match="broken"):
        edit_prompt(RECIPE, model)
    assert model.denoiser.network.attn_processors == before


def test_a_compiled_network_is_edited_as_it_is(models, monkeypatch):
    """Compiled, every step of an edit would be a program of its own."""
    expected = edit_prompt(RECIPE, models["sd1"])
    network, calls = models["sd1"].denoiser.network, []

    def compiled(*args, **options):
        calls.append(len(args[0]))
        return network._call_impl(*args, **options)

    monkeypatch.setattr(network, "_compiled_call_impl", compiled)
    assert torch.equal(edit_prompt(RECIPE, models["sd1"]).latents, expected.latents) and not calls
    generate(TextToImage(steps=2), models["sd1"])
    assert len(calls) == 2


def test_runs_that_take_turns_do_not_touch_each_other(models):
    model = models["sd1"]
    plain = TextToImage(prompt="a red cat", steps=STEPS, seed=3)
    alone = generate(plain, model)
    edited = edit_prompt(RECIPE, model)
    a, b = run(plain, model), run(RECIPE, model, [control_of(RECIPE, model)])
    ends = {}
    for _ in range(4 * STEPS):
        for name, events in (("a", a), ("b", b)):
            event = next(events, None)
            if event is not None:
                ends[name] = event
    assert torch.equal(ends["a"].latents, alone.latents)
    assert torch.equal(ends["b"].latents, edited.latents)


def test_a_changed_fraction_repeats_only_its_steps(model):
    prefixes = Prefixes()
    recipe = RECIPE.but(steps=20, cross=0.8, self_fraction=0.3)
    edit_prompt(recipe, model, prefixes)
    again = edit_prompt(recipe.but(cross=0.6), model, prefixes)
    assert again.taken_over == 12 and again.count.evaluations == 8
    fresh = edit_prompt(recipe.but(cross=0.6), model)
    assert torch.equal(again.latents, fresh.latents)
    for step in range(20):
        for grid, after in again.maps(step).after.items():
            assert torch.equal(after, fresh.maps(step).after[grid])


def test_a_blended_run_goes_on_from_its_remembered_maps(models):
    model, prefixes = models["sd1"], Prefixes()
    recipe = RECIPE.but(steps=10, cross=0.8, blend=((0, 2), (1, 2)), threshold=0.8)
    edit_prompt(recipe, model, prefixes)
    again = edit_prompt(recipe.but(cross=0.6), model, prefixes)
    assert again.taken_over == 6
    assert torch.equal(again.latents, edit_prompt(recipe.but(cross=0.6), model).latents)


def test_a_threshold_repeats_only_the_steps_that_are_blended(models):
    model, prefixes = models["sd1"], Prefixes()
    recipe = RECIPE.but(steps=10, blend=((0, 2), (1, 2)), threshold=0.3)
    edit_prompt(recipe, model, prefixes)
    again = edit_prompt(recipe.but(threshold=0.9), model, prefixes)
    assert again.taken_over == 2
    assert torch.equal(again.latents, edit_prompt(recipe.but(threshold=0.9), model).latents)


def test_what_the_kept_maps_take_is_bounded(models, monkeypatch):
    for steps, rows, tokens in itertools.product((1, 20, 100), (2, 5), (24, 77, 512)):
        queries = attention.shown_grid(steps, rows, tokens)
        grids = [queries // 4**k for k in range(6) if queries // 4**k]
        assert 4 * steps * rows * tokens * sum(grids) <= attention.MOST_BYTES
        assert queries in (1024, 256, 64, 16)
    assert attention.shown_grid(50, 2, 77) == 1024
    model = load_model()
    recipe = RECIPE.but(blend=((0, 2), (1, 2)))
    whole = edit_prompt(recipe, model)
    assert whole.grids == [(16, 16), (8, 8)]
    monkeypatch.setattr(attention, "MOST_BYTES", 4 * STEPS * 2 * model.text.encoders[0].length * 100)
    less = edit_prompt(recipe, model)
    assert less.grids == [(8, 8)]
    # What is looked at changes nothing else: the local blend has the finer maps.
    assert torch.equal(less.latents, whole.latents)
    assert torch.equal(less.maps(1).after[8, 8], whole.maps(1).after[8, 8])


def test_the_solver_asks_twice_and_the_step_counts_once(model):
    made = edit_prompt(RECIPE.but(solver="heun", cross=0.6), model)
    assert [takes_over(made, k, [0, 1, 2]) for k in range(STEPS)] == [True, True, True, False, False]


def test_a_batch_that_does_not_fit_is_one_sentence_and_is_tried_again(models, monkeypatch):
    model = models["sd1"]
    evaluate = model.denoiser.evaluate

    def small(x, t, condition):
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return evaluate(x, t, condition)

    monkeypatch.setattr(model.denoiser, "evaluate", small)
    for before in (None, 7):
        # That others fitted is not forgotten for that.
        model.denoiser.batches.limit = before
        with pytest.raises(RecipeError, match="together, and memory is too short"):
            edit_prompt(RECIPE, model)
        assert model.denoiser.batches.limit == before
    monkeypatch.setattr(model.denoiser, "evaluate", evaluate)
    assert len(edit_prompt(RECIPE, model).pictures) == len(RECIPE.prompts())
    assert model.denoiser.batches.limit == 7
    model.denoiser.batches.limit = None


def test_another_runs_short_memory_does_not_end_this_one(models):
    model, made = models["sd1"], None
    try:
        for event in run_prompts(RECIPE, model):
            model.denoiser.batches.limit = 1  # between two calls
            made = event
    finally:
        model.denoiser.batches.limit = None
    assert len(made.pictures) == len(RECIPE.prompts())


def test_a_grid_without_an_edit_is_refused_in_one_sentence(models):
    recipe = RECIPE.but(edits=(), weights=(), own_cross=(), blend=(), crosses=(0.0, 1.0), selves=(0.0,))
    with pytest.raises(RecipeError, match="needs an edited prompt"):
        edit_prompt(recipe, models["sd1"])
    assert len(edit_prompt(recipe.but(selves=()), models["sd1"]).pictures) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": ((1, 9, 2.0),)}, "has 3 words"),
        ({"weights": ((1, 1, 11.0),)}, "between -2 and 10"),
        ({"own_cross": ((1, 1, 1.5),)}, "between 0 and 1"),
        ({"prompt": "a cat AND a dog"}, "plain prompts"),
        ({"prompt": "AND a cat"}, "plain prompts"),
        ({"edits": ("a red dog", "a cat AND NOT a tree")}, "plain prompts"),
        ({"sweep": (1.0, 2.0)}, "Text to image"),
        ({"edits": ("a cat " * 100,)}, "cannot be aligned"),
    ],
)
def test_what_cannot_be_done_is_said(models, changes, words):
    with pytest.raises(RecipeError, match=words):
        edit_prompt(RECIPE.but(**changes), models["sd1"])


def test_a_model_without_cross_attention_is_refused(large_models):
    with pytest.raises(ModelError, match="cross-attention"):
        edit_prompt(RECIPE, large_models["sd3"])


def test_a_second_look_at_the_picture_is_no_cross_attention():
    """Stable Diffusion 3.5 calls its second self-attention "attn2"."""
    network = SD3Transformer2DModel(
        sample_size=8,
        num_layers=1,
        in_channels=4,
        out_channels=4,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=16,
        pooled_projection_dim=16,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    assert any(name.endswith("attn2") for name, _ in network.named_modules())
    with pytest.raises(ModelError, match="cross-attention"):
        AttentionEdits(network, (8, 8), [])


def test_one_edit_alone_is_what_it_was_among_others(models):
    recipe = RECIPE.but(
        edits=("a green cat", "a red dog"),
        weights=((0, 1, 2.0), (1, 1, 5.0), (2, 2, 3.0)),
        own_cross=((1, 1, 0.2), (2, 2, 0.4)),
        blend=((0, 2), (2, 2)),
    )
    alone = recipe.only(2)
    assert (alone.edits, alone.weights) == (("a red dog",), ((0, 1, 2.0), (1, 2, 3.0)))
    assert (alone.own_cross, alone.blend) == (((1, 2, 0.4),), ((0, 2), (1, 2)))
    both, one = edit_prompt(recipe, models["sd1"]).latents[2], edit_prompt(alone, models["sd1"]).latents[1]
    assert (both - one).norm() <= 1e-4 * both.norm()


def test_a_grid_of_fractions_is_its_single_runs_and_keeps_no_maps(models):
    model, recipe = models["sd1"], RECIPE.but(steps=4)
    grid = edit_prompt(recipe.but(crosses=(0.0, 0.5, 1.0), selves=(0.0, 1.0)), model)
    assert len(grid.pictures) == 7 and grid.maps(0).before == {}
    singles = grid.recipe.singles()
    assert [(s.cross, s.self_fraction) for s in singles[1:]] == [
        (c, s) for s in (0.0, 1.0) for c in (0.0, 0.5, 1.0)
    ]
    for k in (1, 3, 5, 6):
        single = edit_prompt(singles[k], model)
        torch.testing.assert_close(grid.latents[k], single.latents[1], rtol=0, atol=2e-4)
        torch.testing.assert_close(grid.latents[0], single.latents[0], rtol=0, atol=2e-4)
    assert len({tuple(p.flatten().tolist()) for p in grid.latents}) == 7
