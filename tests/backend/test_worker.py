"""The backend: its events, turns and stops, and what it survives."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from itertools import islice

import pytest
import torch
from holding import PATIENCE, Reader, tiny

from playground.backend import FINAL, Backend, Failed, Note, Preview, Queued, Result, Stopped
from playground.devices import choose_device
from playground.errors import Busy, ModelError, RecipeError, TooLarge
from playground.images.models import load_model
from playground.images.text_to_image import generate
from playground.recipes import Recipe, TextToImage


def is_a_sentence(text: str) -> bool:
    return not text[0].islower() and text.endswith(".") and "\n" not in text and "Traceback" not in text


def expect_picture(result, model) -> None:
    """What came out is what the recipe makes when it runs alone."""
    alone = generate(result.value.recipe, model)
    torch.testing.assert_close(result.value.pictures, alone.pictures, rtol=0, atol=1e-4)


# What a run reports


def test_steps_in_order_then_the_result(backend):
    events = list(backend.run(tiny(steps=12)))
    *progress, last = events
    assert isinstance(last, Result) and not last.reused
    assert all(isinstance(e, Preview) for e in progress)
    steps = [e.step for e in progress]
    assert steps == sorted(set(steps)) and steps[-1] <= 12
    assert all(e.steps == 12 and e.count.evaluations >= e.step for e in progress)


def test_the_result_is_what_generate_makes(backend, models):
    *_, last = backend.run(tiny(steps=5, solver="heun", pictures=2))
    expect_picture(last, models["sd2"])
    assert last.value.count == generate(last.value.recipe, models["sd2"]).count


def test_a_preview_is_the_picture_expected_at_that_step(backend, hand, monkeypatch):
    monkeypatch.setattr("playground.backend.worker.FIRST_PREVIEW", 0)
    hand.hold(after=1)
    reader = Reader(backend.run(tiny(pictures=2)))
    preview = reader.wait_for(Preview)
    assert preview.pictures.shape == (2, 16, 16, 3) and preview.pictures.dtype == "uint8"
    assert (preview.step, preview.steps) == (1, 3)
    hand.let_go()
    assert isinstance(reader.final, Result)


def test_unknown_words_are_noted(backend):
    events = list(backend.run(tiny(prompt="a purple cat")))
    (note,) = [e for e in events if isinstance(e, Note)]
    assert "purple" in note.text and is_a_sentence(note.text)


def test_a_slow_reader_finds_only_the_newest_progress(make_backend):
    backend = make_backend(turn=1000)
    recipe = tiny(steps=30)
    reading = backend.run(recipe)
    first = next(reading)
    # A second run ends after the first, so the first is over when it is.
    *_, last = backend.run(tiny(seed=1), visitor="another")
    assert isinstance(last, Result) and backend.finished(recipe)
    assert isinstance(first, Preview)
    rest = list(reading)
    assert len([e for e in rest if isinstance(e, Preview)]) <= 1
    assert isinstance(rest[-1], Result)


def test_a_model_that_is_not_on_the_page(backend):
    (event,) = backend.run(tiny(model="/etc/passwd"))
    assert isinstance(event, Failed) and is_a_sentence(event.text)
    with pytest.raises(ModelError):
        backend.model("/etc/passwd")


def test_an_experiment_of_another_kind_is_refused(backend):
    class Other(Recipe):
        tab = "other"

    (event,) = backend.run(Other())
    assert isinstance(event, Failed) and is_a_sentence(event.text)


def test_a_recipe_that_cannot_be_planned_fails_with_its_sentence(backend):
    class Unplannable(TextToImage):
        def plan(self, schedule):
            raise RecipeError("There is no such plan.")

    (event,) = backend.run(Unplannable(model="tiny"))
    assert event == Failed("There is no such plan.")
    assert isinstance(list(backend.run(tiny()))[-1], Result)


# Stopping and superseding


def test_a_newer_run_of_the_same_place_stops_the_older(backend, hand):
    hand.hold()
    older = Reader(backend.run(tiny(steps=50), "ann"))
    hand.wait_for_call(1)
    newer = Reader(backend.run(tiny(seed=1), "ann"))
    hand.let_go()
    assert isinstance(newer.final, Result) and newer.final.value.recipe.seed == 1
    assert isinstance(older.final, Stopped)
    assert hand.calls <= 5  # one or two of the older, three of the newer


def test_places_of_one_visitor_do_not_disturb_each_other(backend, hand):
    hand.hold()
    first = Reader(backend.run(tiny(), "ann", "sweep"))
    hand.wait_for_call(1)
    second = Reader(backend.run(tiny(seed=1), "ann", "quick"))
    hand.let_go()
    assert isinstance(first.final, Result) and isinstance(second.final, Result)


def test_nobody_stops_the_run_of_another(backend, hand, models):
    hand.hold()
    ann = Reader(backend.run(tiny(steps=6), "ann"))
    hand.wait_for_call(1)
    bob = Reader(backend.run(tiny(seed=1), "bob"))
    backend.stop("bob")
    backend.stop("")
    backend.stop("carl", "text-to-image")
    backend.forget("bob")
    hand.let_go()
    assert isinstance(bob.final, Stopped)
    assert isinstance(ann.final, Result)
    expect_picture(ann.final, models["sd2"])


def test_stop_ends_a_run_before_its_next_call(backend, hand):
    hand.hold(after=2)
    reader = Reader(backend.run(tiny(steps=50), "ann"))
    hand.wait_for_call(3)
    backend.stop("ann")
    hand.let_go()
    assert isinstance(reader.final, Stopped)
    assert hand.calls == 3
    *_, last = backend.run(tiny(), "bob")
    assert isinstance(last, Result) and hand.calls == 6


def test_stop_of_one_place_leaves_the_others(backend, hand):
    hand.hold()
    first = Reader(backend.run(tiny(), "ann", "sweep"))
    hand.wait_for_call(1)
    second = Reader(backend.run(tiny(seed=1), "ann", "quick"))
    backend.stop("ann", "quick")
    hand.let_go()
    assert isinstance(first.final, Result) and isinstance(second.final, Stopped)


def test_closing_the_generator_stops_the_run(backend, hand):
    hand.hold(after=1)
    reading = backend.run(tiny(steps=50), "ann")
    assert isinstance(next(reading), Preview)
    hand.wait_for_call(2)
    reading.close()
    hand.let_go()
    *_, last = backend.run(tiny(), "bob")
    assert isinstance(last, Result) and hand.calls == 2 + 3


def test_a_stopped_run_that_waits_ends_at_once(backend, hand):
    hand.hold()
    ann = Reader(backend.run(tiny(steps=50), "ann"))
    hand.wait_for_call(1)
    bob = Reader(backend.run(tiny(seed=1), "bob"))
    bob.wait_for(Queued)
    backend.stop("bob")
    bob.join(5)
    assert bob.events and isinstance(bob.events[-1], Stopped)
    assert ann.is_alive()


# Turns


def test_a_long_run_lets_a_short_one_pass(make_backend, hands, models):
    backend = make_backend(turn=0)
    hand = hands(backend)
    hand.hold()
    long = Reader(backend.run(tiny(steps=20), "ann"))
    hand.wait_for_call(1)
    short = Reader(backend.run(tiny(seed=1, steps=2), "bob"))
    short.wait_for(Queued)
    hand.let(9)
    assert isinstance(short.final, Result)
    assert not any(isinstance(e, FINAL) for e in long.events)
    hand.let_go()
    expect_picture(long.final, models["sd2"])
    expect_picture(short.final, models["sd2"])


def test_a_sweep_lets_the_visitors_own_quick_run_pass(make_backend, hands):
    backend = make_backend(turn=0)
    hand = hands(backend)
    hand.hold()
    sweep = Reader(backend.run(tiny(steps=20, sweep=(1.0, 4.0)), "ann", "sweep"))
    hand.wait_for_call(1)
    quick = Reader(backend.run(tiny(steps=2), "ann", "quick"))
    quick.wait_for(Queued)
    hand.let(9)
    quick.join(3)
    assert not quick.is_alive() and isinstance(quick.final, Result)
    assert not any(isinstance(e, FINAL) for e in sweep.events)


@pytest.mark.parametrize(("turn", "sizes"), [(0, [2, 6] * 3), (60, [2] * 3 + [6] * 3)], ids=["over", "not over"])
def test_two_runs_of_one_visitor_take_turns_when_a_turn_is_over(make_backend, hands, turn, sizes):
    backend = make_backend(turn=turn)
    hand = hands(backend)
    hand.hold()
    first = Reader(backend.run(tiny(pictures=1), "ann", "one"))
    hand.wait_for_call(1)
    second = Reader(backend.run(tiny(pictures=3), "ann", "two"))
    second.wait_for(Queued)
    hand.let_go()
    assert isinstance(first.final, Result) and isinstance(second.final, Result)
    assert hand.sizes == sizes


def test_who_was_served_longest_ago_comes_first(backend, hand):
    list(backend.run(tiny(seed=1), "ann"))
    hand.hold()
    blocker = Reader(backend.run(tiny(seed=2), "carl"))
    hand.wait_for_call(4)
    again = Reader(backend.run(tiny(seed=3, pictures=2), "ann"))
    again.wait_for(Queued)
    newcomer = Reader(backend.run(tiny(seed=4, pictures=3), "bob"))
    newcomer.wait_for(Queued)
    hand.let_go()
    assert all(isinstance(r.final, Result) for r in (blocker, again, newcomer))
    assert hand.sizes[-6:] == [6] * 3 + [4] * 3


def test_those_who_wait_hear_how_many_come_first(backend, hand):
    hand.hold()
    first = Reader(backend.run(tiny(steps=2), "ann"))
    hand.wait_for_call(1)
    second = Reader(backend.run(tiny(steps=2, seed=1), "bob"))
    assert second.wait_for(Queued).ahead == 1
    third = Reader(backend.run(tiny(steps=2, seed=2), "carl"))
    assert third.wait_for(Queued).ahead == 2
    hand.let_go()
    assert all(isinstance(r.final, Result) for r in (first, second, third))


def test_a_full_queue_refuses_with_a_sentence(make_backend, hands):
    backend = make_backend(max_queue=2)
    hand = hands(backend)
    hand.hold()
    readers = [Reader(backend.run(tiny(), "ann"))]
    hand.wait_for_call(1)
    for name in ("bob", "carl"):
        readers.append(Reader(backend.run(tiny(seed=1), name)))
        readers[-1].wait_for(Queued)
    (refused,) = backend.run(tiny(seed=2), "dora")
    assert isinstance(refused, Failed) and is_a_sentence(refused.text)
    hand.let_go()
    assert all(isinstance(r.final, Result) for r in readers)
    assert isinstance(list(backend.run(tiny(seed=2), "dora"))[-1], Result)


def test_whoever_is_refused_keeps_what_runs(make_backend, hands):
    backend = make_backend(max_queue=1)
    hand = hands(backend)
    hand.hold()
    mine = Reader(backend.run(tiny(), "ann"))
    hand.wait_for_call(1)
    other = Reader(backend.run(tiny(seed=1), "bob"))
    other.wait_for(Queued)
    (refused,) = backend.run(tiny(seed=2), "ann")
    assert isinstance(refused, Failed) and refused.again
    # A run that waits itself makes room for the one that takes its place.
    newer = Reader(backend.run(tiny(seed=3), "bob"))
    newer.wait_for(Queued)
    hand.let_go()
    assert isinstance(mine.final, Result) and isinstance(other.final, Stopped) and isinstance(newer.final, Result)


def test_what_memory_forbids_may_go_well_in_a_moment(backend, hand):
    assert isinstance(list(backend.run(tiny(steps=4)))[-1], Result)
    assert backend._prefixes.nbytes > 0
    hand.change = out_of_memory_above(0)
    failed = list(backend.run(tiny(seed=1)))[-1]
    assert isinstance(failed, Failed) and failed.again and is_a_sentence(failed.text)
    assert backend._prefixes.nbytes == 0  # earlier runs' steps lie on the device, too
    hand.change = out_of_memory_above(99)
    assert isinstance(list(backend.run(tiny(seed=1)))[-1], Result)


def test_twenty_visitors_each_get_their_own(backend, models):
    def visit(seed: int):
        return list(backend.run(tiny(seed=seed, steps=2), f"visitor {seed}"))[-1]

    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(visit, range(20)))
    assert [r.value.recipe.seed for r in results] == list(range(20))
    for result in results:
        expect_picture(result, models["sd2"])


# What it survives


def out_of_memory_above(rows: int):
    def change(out):
        if len(out) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return out

    return change


def test_out_of_memory_means_smaller_batches_and_a_note(backend, hand, models):
    hand.change = out_of_memory_above(3)
    events = list(backend.run(tiny(pictures=4)))
    (note,) = [e for e in events if isinstance(e, Note)]
    assert "batches of 2" in note.text and is_a_sentence(note.text)
    expect_picture(events[-1], models["sd2"])
    assert [type(e) for e in backend.run(tiny(pictures=4, seed=1))][-1] is Result


def test_short_memory_in_the_weak_model_is_noted(folders, hands):
    with closing(Backend(dict.fromkeys(("tiny", "weak"), str(folders["sd2"])), choose_device("cpu"))) as backend:
        hands(backend, "weak").change = out_of_memory_above(3)
        events = list(backend.run(tiny(pictures=4, rule="auto", weak_model="weak")))
    assert type(events[-1]) is Result
    assert [e.text for e in events if isinstance(e, Note) and "batches of 2" in e.text]


def test_out_of_memory_in_the_last_decoding_is_noted_too(backend, models):
    autoencoder = backend.model("tiny").autoencoder
    decode = autoencoder.network.decode

    def small(z, **options):
        if len(z) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return decode(z, **options)

    autoencoder.network.decode = small
    events = list(backend.run(tiny(steps=1, pictures=2)))
    expect_picture(events[-1], models["sd2"])
    assert [e for e in events if isinstance(e, Note)]


def not_a_number(out):
    return out * float("nan")


def broken(out):
    raise KeyError("the rabbit hole")


@pytest.mark.parametrize("fault", [out_of_memory_above(0), not_a_number, broken])
def test_a_fault_is_one_sentence_and_the_next_run_is_fine(backend, hand, models, fault):
    hand.change = fault
    *_, failed = backend.run(tiny(prompt="a cat", pictures=2), "ann")
    assert isinstance(failed, Failed)
    assert is_a_sentence(failed.text) and "rabbit" not in failed.text and "cat" not in failed.text.split()
    hand.change = lambda out: out
    for visitor in ("ann", "bob"):
        *_, last = backend.run(tiny(prompt="a cat", pictures=2, seed=len(visitor)), visitor, "again")
        expect_picture(last, models["sd2"])


def test_a_fault_in_one_run_does_not_reach_another(make_backend, hands, models):
    backend = make_backend(turn=0)
    hand = hands(backend)
    hand.change = lambda out: broken(out) if len(out) == 2 * 3 else out
    hand.hold()
    good = Reader(backend.run(tiny(steps=8), "ann"))
    hand.wait_for_call(1)
    bad = Reader(backend.run(tiny(pictures=3), "bob"))
    bad.wait_for(Queued)
    hand.let_go()
    assert isinstance(bad.final, Failed)
    expect_picture(good.final, models["sd2"])


@pytest.mark.parametrize(
    "quotes",
    [
        False,
        True,
    ],
)
def test_the_log_does_not_hold_what_a_visitor_typed(backend, hand, caplog, quotes):
    typed = "".join(reversed("enohpolyx"))  # so that this file's own lines, which a traceback shows, lack it

    def change(out):
        raise RuntimeError(f"cannot read {typed}" if quotes else "cannot read")

    hand.change = change
    with caplog.at_level(logging.DEBUG):
        *_, failed = backend.run(tiny(prompt=f"a {typed}"))
    assert isinstance(failed, Failed) and typed not in failed.text
    assert "a run failed" in caplog.text
    assert typed not in caplog.text


# Models


@pytest.mark.parametrize(("kept", "same"), [(2, True), (1, False)])
def test_the_model_not_used_for_longest_is_dropped(make_backend, kept, same):
    backend = make_backend(max_models=kept)
    first = backend.model("tiny")
    assert backend.model("flow").name == "flow"
    assert (backend.model("tiny") is first) is same


@pytest.mark.parametrize("fits", [1, 0])
def test_a_model_for_which_memory_is_short_takes_the_place_of_others(make_backend, monkeypatch, fits):
    """Two that fit one at a time are used one at a time; one that never fits is a sentence."""
    backend = make_backend()
    backend.model("tiny")
    loads = []

    def short(*args, **more):
        loads.append(len(backend._loaded))
        if len(backend._loaded) >= fits:
            raise TooLarge("The model does not fit.")
        return load_model(*args, **more)

    monkeypatch.setattr("playground.backend.worker.load_model", short)
    if fits:
        assert backend.model("flow").denoiser is not None and list(backend._loaded) == ["flow"]
    else:
        with pytest.raises(TooLarge, match="does not fit"):
            backend.model("flow")
    assert loads == [1, 0]
    assert isinstance(list(backend.run(tiny()))[-1], Result if fits else Failed)


@pytest.mark.parametrize("idle", [True, False])
def test_a_model_that_a_run_has_is_not_dropped_for_room(folders, hands, monkeypatch, idle):
    """Its memory would not be given back before the run ends."""
    names = {"tiny": "sd2", "flow": "flow", "third": "sd1"}
    with closing(Backend({n: str(folders[f]) for n, f in names.items()}, choose_device("cpu"), turn=0)) as backend:
        hand = hands(backend)
        if idle:
            backend.model("flow")  # used later than the other, and by nobody now
        hand.hold()
        long = Reader(backend.run(tiny(steps=6), "ann"))
        hand.wait_for_call(1)

        def short(*args, **more):
            if len(backend._loaded) > 1 or not idle:
                raise TooLarge("The model does not fit.")
            return load_model(*args, **more)

        monkeypatch.setattr("playground.backend.worker.load_model", short)
        other = Reader(backend.run(tiny(model="third", steps=2), "bob"))
        other.wait_for(Queued)
        hand.let_go()
        if idle:
            assert isinstance(other.final, Result)
            assert list(backend._loaded) == ["tiny", "third"]
        else:
            assert isinstance(other.final, Failed) and "try again when they have ended" in other.final.text
            assert list(backend._loaded) == ["tiny"]
        assert isinstance(long.final, Result)


def test_a_loaded_model_is_at_hand_while_the_device_is_busy(backend, hand):
    """Otherwise a page could not even say that its run waits."""
    hand.hold()
    reader = Reader(backend.run(tiny(), "ann"))
    hand.wait_for_call(1)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(backend.model, "tiny")
        try:
            assert asked.result(timeout=10).name == "tiny"
        finally:
            hand.let_go()
    assert isinstance(reader.final, Result)


def test_a_dropped_model_gives_the_same_picture_again(make_backend):
    backend = make_backend(max_models=1, keep_bytes=0)
    pictures = [list(backend.run(tiny(model=name)))[-1].value.pictures for name in ("tiny", "flow", "tiny")]
    assert torch.equal(pictures[0], pictures[2])
    assert not torch.equal(pictures[0], pictures[1])


# Finished runs are kept


def test_an_equal_recipe_is_not_computed_again(backend, hand):
    *_, first = backend.run(tiny(w=3))
    calls = hand.calls
    (again,) = backend.run(tiny(w=3.0), "somebody else")
    assert isinstance(again, Result) and again.reused and again.value is first.value
    assert hand.calls == calls
    assert not list(backend.run(tiny(w=3.1)))[-1].reused


@pytest.mark.parametrize("stopped", [False, True])
def test_a_class_that_opens_one_link_computes_it_once(make_backend, hands, models, stopped):
    """Equal runs that wait let the first one work for them all; if that is stopped, another takes over."""
    backend = make_backend(turn=0)
    hand = hands(backend)
    hand.hold()
    first = Reader(backend.run(tiny(steps=6), "visitor 0"))
    hand.wait_for_call(1)
    others = [Reader(backend.run(tiny(steps=6), f"visitor {k}")) for k in range(1, 5)]
    for other in others:
        other.wait_for(Queued)
    if stopped:
        backend.stop("visitor 0")
    hand.let_go()
    for reader in others:
        expect_picture(reader.final, models["sd2"])
    assert isinstance(first.final, Stopped if stopped else Result)
    assert hand.calls == 6 + stopped
    assert sum(other.final.reused for other in others) == len(others) - stopped


def test_a_kept_result_still_supersedes_the_run_before_it(backend, hand):
    list(backend.run(tiny(), "ann"))
    hand.hold()
    older = Reader(backend.run(tiny(steps=50), "ann"))
    hand.wait_for_call(4)
    (kept,) = backend.run(tiny(), "ann")
    hand.let_go()
    assert kept.reused and isinstance(older.final, Stopped)
    assert hand.calls == 4


def test_the_kept_ones_are_bounded_in_bytes(make_backend):
    size = list(make_backend().run(tiny()))[-1].value.nbytes
    limit = int(2.5 * size)
    backend = make_backend(keep_bytes=limit)
    recipes = [tiny(seed=seed) for seed in range(5)]
    for recipe in recipes:
        list(backend.run(recipe))
    kept = [backend.finished(r) for r in recipes]
    assert [k is not None for k in kept] == [False, False, False, True, True]
    assert sum(k.nbytes for k in kept if k) <= limit


def test_the_one_asked_for_lately_stays(make_backend):
    size = list(make_backend().run(tiny()))[-1].value.nbytes
    backend = make_backend(keep_bytes=int(2.5 * size))
    for seed in (0, 1, 0, 2):
        list(backend.run(tiny(seed=seed)))
    assert [backend.finished(tiny(seed=s)) is not None for s in range(3)] == [True, False, True]


# Short tasks


def test_a_task_runs_between_two_calls_of_a_run(backend, hand):
    hand.hold(after=1)
    reader = Reader(backend.run(tiny(steps=50), "ann"))
    hand.wait_for_call(2)
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(backend.call, lambda model: threading.current_thread().name, "tiny")
        hand.let(1)
        assert task.result(PATIENCE) == "device"
    assert hand.calls <= 4 and reader.is_alive()
    backend.stop("ann")
    hand.let_go()
    assert isinstance(reader.final, Stopped)


def test_an_error_in_a_task_is_the_callers_alone(backend):
    def fail(model):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        backend.call(fail, "tiny")
    assert backend.call(lambda model: model.name, "tiny") == "tiny"
    assert isinstance(list(backend.run(tiny()))[-1], Result)


def test_tasks_are_bounded(make_backend, hands):
    backend = make_backend(max_queue=1)
    hand = hands(backend)
    hand.hold()
    reader = Reader(backend.run(tiny()))
    hand.wait_for_call(1)
    with ThreadPoolExecutor(20) as pool:
        tasks = [pool.submit(backend.call, lambda model: model.name, "tiny") for _ in range(20)]
        refused = list(islice(as_completed(tasks, PATIENCE), 4))  # the device is held: these never reached it
        assert all(isinstance(task.exception(), Busy) for task in refused)
        hand.let_go()
        assert all(task.result(PATIENCE) == "tiny" for task in set(tasks) - set(refused))
    assert isinstance(reader.final, Result)


# The end


def test_close_ends_everything(make_backend, hands):
    backend = make_backend()
    hand = hands(backend)
    hand.hold()
    readers = [Reader(backend.run(tiny(steps=50), "ann"))]
    hand.wait_for_call(1)
    readers.append(Reader(backend.run(tiny(steps=50, seed=1), "bob")))
    readers[-1].wait_for(Queued)
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(backend.close)
        while not backend._closing:
            pass
        hand.let_go()
        closing.result(PATIENCE)
    assert all(isinstance(r.final, Stopped) for r in readers)
    assert hand.calls == 1
    assert not backend._thread.is_alive()
    with pytest.raises(Busy):
        backend.call(lambda model: model, "tiny")


def test_a_run_after_the_end_is_refused(make_backend):
    backend = make_backend()
    backend.close()
    reader = Reader(backend.run(tiny()))
    reader.join(5)
    assert not reader.is_alive() and isinstance(reader.final, Failed)


# Compiling


@pytest.fixture
def slowly_compiled(make_backend, monkeypatch):
    """A backend whose first call of each size is held, as a compiler would, and an event that lets it go on."""

    def compile_nothing(network, **options):
        network._compiled_call_impl = network._call_impl

    monkeypatch.setattr(torch.nn.Module, "compile", compile_nothing)
    backend, go_on = make_backend(compiled=True), threading.Event()
    denoiser = backend.model("tiny").denoiser
    forward, seen = denoiser._forward, set()

    def slow(x, t, condition):
        if len(x) not in seen:
            assert go_on.wait(PATIENCE)
            seen.add(len(x))
        return forward(x, t, condition)

    monkeypatch.setattr(denoiser, "_forward", slow)
    yield backend, go_on
    go_on.set()


def test_that_the_denoiser_is_being_compiled_is_said_while_it_is_and_to_who_waits(slowly_compiled, models):
    backend, go_on = slowly_compiled
    first = Reader(backend.run(tiny(w=4.0), "ann"))
    note = first.wait_for(Note)
    assert "being compiled for 2 sample-forwards at once" in note.text and is_a_sentence(note.text)
    second = Reader(backend.run(tiny(w=4.0, seed=8), "bob"))
    assert second.wait_for(Note).text == note.text
    go_on.set()
    expect_picture(first.final, models["sd2"])
    assert isinstance(second.final, Result)
    # The size is known now; another one is compiled on its own.
    again = list(backend.run(tiny(w=4.0, seed=9), "ann"))
    assert not any(isinstance(e, Note) for e in again)
    other = list(backend.run(tiny(w=1.0), "ann"))
    assert any(isinstance(e, Note) and "compiled for one sample-forward at once" in e.text for e in other)


def test_without_compiling_nothing_is_said_of_it(backend):
    assert not any(isinstance(e, Note) for e in backend.run(tiny()))
