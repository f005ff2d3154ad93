"""Rows of a batch side by side on several CPU threads: the same pictures, and errors and edits as without."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import torch

from playground import devices
from playground.backend import Backend, Result
from playground.devices import Device, choose_device
from playground.images import models as models_module
from playground.images.models import load_model
from playground.images.prompt_to_prompt import PromptToPrompt, edit_prompt
from playground.images.text_to_image import generate
from playground.recipes import TextToImage
from playground.reuse import Prefixes

NAMES = ("sd1", "sd2", "sdxl", "sd3")


@pytest.fixture
def four_threads(monkeypatch):
    """As on a machine with four CPU threads, whatever the tests run on."""
    crew, before = ThreadPoolExecutor(3), torch.get_num_threads()
    torch.set_num_threads(4)
    monkeypatch.setattr(devices, "usual_threads", lambda: 4)
    monkeypatch.setattr(models_module, "usual_threads", lambda: 4)
    monkeypatch.setattr(devices, "_crew", lambda: crew)
    yield
    crew.shutdown()
    torch.set_num_threads(before)


@pytest.fixture(params=NAMES)
def model(request, models, large_models, four_threads):
    found = (models | large_models)[request.param]
    yield found
    found.denoiser.apart, found.denoiser.row_threads = False, None


def calls_of(monkeypatch, denoiser):
    """The numbers of rows that the network is called with, as they come."""
    seen, forward = [], denoiser._forward

    def noted(x, t, condition):
        seen.append(len(x))
        return forward(x, t, condition)

    monkeypatch.setattr(denoiser, "_forward", noted)
    return seen


@pytest.mark.parametrize(("rows", "parts"), [(1, [1]), (2, [1, 1]), (3, [1, 1, 1]), (6, [1, 1, 2, 2])])
def test_rows_side_by_side_give_what_rows_together_give(model, monkeypatch, rows, parts):
    denoiser = model.denoiser
    generator = torch.Generator().manual_seed(rows)
    x, t = torch.randn(rows, *denoiser.shape, generator=generator), torch.linspace(0.1, 0.9, rows)
    condition = denoiser.encode(["a red cat", "", "a green dog", "a cat", "a dog", "a big red cat"][:rows])
    with torch.no_grad():
        together = denoiser.evaluate(x, t, condition)
        denoiser.apart = True
        seen = calls_of(monkeypatch, denoiser)
        apart = denoiser.evaluate(x, t, condition)
    assert sorted(seen) == parts
    # Untrained networks let rounding grow.
    torch.testing.assert_close(apart, together, atol=1e-4 * together.abs().max().item(), rtol=0)


def test_a_run_is_the_same_and_has_an_identity_of_its_own(model):
    recipe = TextToImage(prompt="a red cat", negative="a dog", steps=4, w=4.0, seed=3, solver="heun")
    before, plain = model.denoiser.identity, generate(recipe, model)
    model.denoiser.apart = True
    made = generate(recipe, model)
    torch.testing.assert_close(made.latents, plain.latents, atol=1e-3 * plain.latents.abs().max().item(), rtol=0)
    assert torch.equal(generate(recipe, model).latents, made.latents)
    assert model.denoiser.identity != before


def test_steps_are_taken_over_to_the_bit(model):
    model.denoiser.apart, model.denoiser.row_threads = True, 1
    recipe, prefixes = TextToImage(prompt="a red cat", steps=10, w=4.0, seed=3), Prefixes()
    times = recipe.plan(model.denoiser.schedule).rows[0].times

    def until(step):
        return recipe.but(low=(times[step - 1] + times[step]) / 2)

    generate(until(8), model, prefixes=prefixes)
    again = generate(until(6), model, prefixes=prefixes)
    assert again.taken_over == 6
    assert torch.equal(again.latents, generate(until(6), model).latents)


def test_gradients_are_followed_through_rows_together(model, monkeypatch):
    denoiser = model.denoiser
    denoiser.apart = True
    seen = calls_of(monkeypatch, denoiser)
    x = torch.randn(2, *denoiser.shape, requires_grad=True)
    denoiser.evaluate(x, torch.full((2,), 0.5), denoiser.encode(["a cat", ""])).sum().backward()
    assert seen == [2]
    assert x.grad is not None and bool(x.grad.any())


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_edits_of_the_attention_see_all_rows(models, large_models, four_threads, name):
    model = (models | large_models)[name]
    recipe = PromptToPrompt(prompt="a red cat", edits=("a red dog",), steps=4, seed=3, cross=0.8)
    plain = edit_prompt(recipe, model)
    model.denoiser.apart = True
    try:
        made = edit_prompt(recipe, model)
    finally:
        model.denoiser.apart = False
    assert torch.equal(made.latents, plain.latents)
    assert not model.denoiser.network.looked_into


def test_short_memory_in_one_part_halves_the_batch(folders, four_threads, monkeypatch):
    recipe = TextToImage(model="emoji", prompt="a red cat", steps=2, w=4.0)
    with closing(Backend({"emoji": str(folders["sd1"])}, choose_device("cpu"))) as backend:
        denoiser = backend.model("emoji").denoiser
        denoiser.apart, forward, refused, lock = True, denoiser._forward, [], threading.Lock()

        def short(x, t, condition):
            with lock:
                first = not refused
                refused.extend([len(x)] * first)
            if first:
                raise torch.OutOfMemoryError("out of memory")
            return forward(x, t, condition)

        monkeypatch.setattr(denoiser, "_forward", short)
        (made,) = [e.value for e in backend.run(recipe, visitor="a") if isinstance(e, Result)]
    assert refused == [1]
    expected = generate(recipe.but(model=str(folders["sd1"])), load_model(str(folders["sd1"])))
    torch.testing.assert_close(made.latents, expected.latents, atol=1e-4, rtol=1e-3)


def test_parts_of_a_compiled_network_are_compiled_one_after_the_other(model, monkeypatch):
    denoiser, network, said = model.denoiser, model.denoiser.network, []
    denoiser.apart, at_once = True, threading.Semaphore(1)

    def compiled(*args, **options):
        assert said[-1] is None or at_once.acquire(blocking=False)  # what compiles does so alone
        try:
            return network._call_impl(*args, **options)
        finally:
            if said[-1] is not None:
                at_once.release()

    monkeypatch.setattr(network, "_compiled_call_impl", compiled)
    monkeypatch.setattr(denoiser, "compiled", True)
    monkeypatch.setattr(denoiser, "_compiled_for", set())
    monkeypatch.setattr(denoiser, "tell", said.append)
    x, t = torch.randn(6, *denoiser.shape), torch.full((6,), 0.5)
    with torch.no_grad():
        for rows in (6, 6, 4, 1):
            denoiser.evaluate(x[:rows], t[:rows], denoiser.encode(["a cat"] * rows))
    # 6 rows on four threads are parts of 1 and 2; a single row has all the threads, unless one is quicker.
    assert denoiser._compiled_for == {(1, 1), (2, 1), (1, 4)}
    starts = [text for text in said if text]
    assert len(starts) == 2 and "for 2 sample-forwards" in starts[0] and "for one sample-forward" in starts[1]


def test_loading_measures_both_ways_and_takes_the_quicker(folders, four_threads, monkeypatch):
    found = []

    def first_other(ways):
        found.append(list(ways))
        for call in ways.values():
            call()
        return found[-1][-1]

    monkeypatch.setattr(models_module, "quickest", first_other)
    denoiser = load_model(str(folders["sd1"]), choose_device("cpu")).denoiser
    assert found == [[4, 1], [False, True]]
    assert (denoiser.row_threads, denoiser.apart) == (1, True)


def test_half_precision_rows_side_by_side(folders, four_threads):
    model = load_model(str(folders["sd1"]), Device(torch.device("cpu"), torch.bfloat16))
    model.denoiser.apart = True
    made = generate(TextToImage(prompt="a red cat", steps=2), model)
    assert made.latents.dtype == torch.float32 and bool(made.latents.isfinite().all())
