"""The backend: one worker thread owns the device and gives every visitor a fair turn.

`Backend.run(recipe, visitor)` is a generator of events. Runs advance one denoiser call at a time, so that
between any two of them a run can be stopped, superseded by a newer one of the same visitor and tab, or made
to wait while somebody else has a turn. Short tasks (decoding a picture that someone looks at) go in between.
"""

from __future__ import annotations

import gc
import itertools
import logging
import threading
import time
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, TypeVar

import torch

from playground.backend.events import FINAL, Event, Failed, Note, Outcome, Preview, Queued, Result, Stopped
from playground.backend.guides import Guides
from playground.backend.runners import Desk, Work, runner_of
from playground.devices import Device, choose_device, usual_threads
from playground.errors import Busy, Ended, ModelError, OutOfMemory, PlaygroundError, TooLarge, is_out_of_memory
from playground.guidance import RULES
from playground.images.models import BUNDLED, TextToImageModel, load_model
from playground.plane.learned import Trainings
from playground.plane.recipe import PlaneFlow
from playground.recipes import Recipe, TextToImage
from playground.reuse import Prefixes

log = logging.getLogger(__name__)
T = TypeVar("T")

FIRST_PREVIEW = 0.1
"""Seconds after its start until a run is first shown: the first steps believe in the mean of all data."""
PREVIEW_SHARE = 25
"""Of a run's time, one part in so many goes into what is shown on the way."""


class _Run:
    """A visitor's run: its recipe, its place, and the events nobody has read yet."""

    def __init__(self, recipe: Recipe, visitor: str, slot: str, order: int):
        self.recipe, self.visitor, self.slot, self.order = recipe, visitor, slot, order
        self.work: Work | None = None
        self.stop = threading.Event()
        self.next_preview = 0.0
        self.last_turn = 0.0
        self._news = threading.Condition()
        self._events: deque[Event] = deque()
        self._final = False

    def put(self, event: Event) -> None:
        """Deliver an event; only the newest progress is kept, so a slow reader never piles up pictures."""
        with self._news:
            if self._final:
                return
            if isinstance(event, Preview):
                unread = next((e for e in self._events if isinstance(e, Preview)), None)
                if unread is not None:
                    self._events.remove(unread)
                    if event.pictures is None:
                        event = replace(event, pictures=unread.pictures)
            self._final = isinstance(event, FINAL)
            self._events.append(event)
            self._news.notify_all()

    def get(self, timeout: float) -> Event | None:
        with self._news:
            self._news.wait_for(lambda: self._events, timeout)
            return self._events.popleft() if self._events else None

    @property
    def wants_preview(self) -> bool:
        """Whether the reader has seen the last preview, and a moment has passed since."""
        with self._news:
            unread = any(isinstance(e, Preview) and e.pictures is not None for e in self._events)
        return not unread and time.monotonic() > self.next_preview

    def previewed(self, seconds: float) -> None:
        # Eight a second at most, and never more than a small part of the run's time.
        self.next_preview = time.monotonic() + max(0.12, PREVIEW_SHARE * seconds)


class _Results:
    """Finished runs by recipe, the last ones that fit into a number of bytes."""

    def __init__(self, limit: int):
        self._limit, self._held = limit, 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[Recipe, Outcome] = OrderedDict()

    def get(self, recipe: Recipe) -> Any | None:
        with self._lock:
            if recipe in self._kept:
                self._kept.move_to_end(recipe)
            return self._kept.get(recipe)

    def put(self, result: Outcome) -> None:
        with self._lock:
            if result.recipe in self._kept or result.nbytes > self._limit:
                return
            self._kept[result.recipe] = result
            self._held += result.nbytes
            while self._held > self._limit:
                self._held -= self._kept.popitem(last=False)[1].nbytes


class Backend:
    """Models, one worker, and the runs of all visitors.

    Args:
        models: name -> folder or hub id, what visitors may choose from; the first is the default.
        device: where to compute; chosen if not given.
        max_queue: runs that may wait; more are refused with a sentence.
        turn: seconds of computing after which a run lets a waiting one of somebody else go first.
        max_models: models kept in memory; the one not used for longest is dropped.
        compiled: whether denoisers are compiled.
        keep_bytes: memory for finished runs, so that asking for the same again costs nothing, and as much for
            the steps of runs, so that one with the same beginning goes on from there.
    """

    def __init__(
        self,
        models: Mapping[str, str] | None = None,
        device: Device | None = None,
        max_queue: int = 40,
        turn: float = 1.0,
        max_models: int = 2,
        compiled: bool = False,
        keep_bytes: int = 256 * 2**20,
    ):
        self.models = dict(models or {BUNDLED: BUNDLED})
        self.device = device or choose_device()
        self.max_queue, self.turn, self.max_models = max_queue, turn, max_models
        self._compiled = compiled
        self._results = _Results(keep_bytes)
        self._trainings = Trainings()
        self.guides = Guides()
        self._prefixes = Prefixes(keep_bytes)
        self._loaded: OrderedDict[str, TextToImageModel] = OrderedDict()
        self._lock = threading.Condition()
        self._waiting: list[_Run] = []
        self._active: _Run | None = None
        self._pace: dict[str, float] = {}
        self._tasks: deque[tuple[Callable[[], Any], Future]] = deque()
        self._runs: dict[tuple[str, str], _Run] = {}
        self._last_turn: OrderedDict[str, float] = OrderedDict()
        self._number = itertools.count()
        self._closing = False
        self._compiling: str | None = None
        self._thread = threading.Thread(target=self._loop, name="device", daemon=True)
        self._thread.start()

    # --- what visitors call, from any thread -------------------------------------------------------

    def run(self, recipe: Recipe, visitor: str = "", slot: str | None = None) -> Iterator[Event]:
        """Run a recipe, and report until it is done. Closing the generator stops the run.

        Args:
            recipe: what to do.
            visitor: whose run it is; a visitor sees and stops only their own.
            slot: a newer run in the same slot stops the older one; by default the recipe's tab.

        Yields:
            Queued, Preview and Note events, and last one of Result, Failed, Stopped.
        """
        done = self._results.get(recipe)
        if done is not None:
            # An older run of this slot is still superseded.
            self.stop(visitor, slot or recipe.tab)
            yield Result(done, reused=True)
            return
        try:
            job = self._submit(recipe, visitor, slot or recipe.tab)
        except PlaygroundError as error:
            yield Failed(str(error), again=isinstance(error, Busy))
            return
        ahead, told = -1, False
        try:
            while True:
                event = job.get(timeout=0.25)
                if event is None:
                    now = self._ahead(job)
                    if now > 0 and now != ahead:
                        yield Queued(now)
                    # Why a run ahead takes so long.
                    if now > 0 and not told and (compiling := self._compiling) is not None:
                        told = True
                        yield Note(compiling)
                    ahead = now
                    continue
                yield event
                if isinstance(event, FINAL):
                    return
        finally:
            with self._lock:
                self._stop(job)

    def result(self, recipe: Recipe, visitor: str = "", slot: str | None = None) -> Any:
        """Run a recipe to its end, as `run` does, and return its result.

        Raises:
            Ended: in one sentence, when it failed or was stopped.
        """
        for event in self.run(recipe, visitor, slot):
            if isinstance(event, Failed):
                raise Ended(event.text)
            if isinstance(event, Result):
                return event.value
        raise Ended("The run was stopped.")

    def finished(self, recipe: Recipe) -> Any | None:
        """The result of an equal recipe, if it is still kept."""
        return self._results.get(recipe)

    def trained(self, recipe: PlaneFlow) -> bool:
        """Whether the field of a recipe has been learned, by a run of this or another visitor."""
        training = self._trainings.get(recipe)
        return training is not None and training.step >= recipe.train_steps

    def pace(self, model: str) -> float:
        """Seconds per sample-forward of a model in its last runs; a guess before the first."""
        return self._pace.get(model, 0.02)

    def stop(self, visitor: str, slot: str | None = None) -> None:
        """Stop a visitor's runs (in one slot, or all) before their next denoiser call."""
        with self._lock:
            for (owner, place), job in list(self._runs.items()):
                if owner == visitor and slot in (None, place):
                    self._stop(job)
            self._lock.notify_all()

    def forget(self, visitor: str) -> None:
        """Stop and drop everything of a visitor who has left."""
        self.stop(visitor)
        with self._lock:
            self._last_turn.pop(visitor, None)

    def call(self, function: Callable[[TextToImageModel], T], model: str, timeout: float = 60) -> T:
        """Run a short function on the device, between two denoiser calls, and return what it returns."""
        return self.compute(lambda: function(self._model(model)), timeout)

    def compute(self, function: Callable[[], T], timeout: float = 60) -> T:
        """Run a short function on the device's thread, between two evaluations, and return what it returns."""
        future: Future[T] = Future()
        with self._lock:
            if self._closing:
                raise Busy("The playground is closing.")
            if len(self._tasks) >= 16 * self.max_queue:
                raise Busy("Too many pictures are waiting to be decoded; try again in a moment.")
            self._tasks.append((function, future))
            self._lock.notify_all()
        try:
            return future.result(timeout)
        finally:
            future.cancel()  # nobody waits for it any longer; a finished one stays as it is

    def model(self, name: str) -> TextToImageModel:
        """A model of the list, loaded by the worker if it is not yet. One that is there is not waited for, however
        long the device takes over what it is doing."""
        loaded = self._loaded.get(name)
        if loaded is not None:
            return loaded
        return self.call(lambda model: model, name, timeout=600)

    def close(self) -> None:
        """End all runs and the worker."""
        with self._lock:
            self._closing = True
            for job in list(self._runs.values()):
                self._stop(job)
            self._lock.notify_all()
        self._thread.join(timeout=30)

    # --- bookkeeping ----------------------------------------------------------------------------------

    def _submit(self, recipe: Recipe, visitor: str, slot: str) -> _Run:
        runner_of(recipe)
        model = getattr(recipe, "model", None)
        if model is not None and model not in self.models:
            known = ", ".join(self.models)
            raise ModelError(f"There is no model called {model[:40]!r} on this page; it has: {known}.")
        with self._lock:
            if self._closing:
                raise Busy("The playground is closing.")
            older = self._runs.get((visitor, slot))
            if len(self._waiting) - (older in self._waiting) >= self.max_queue:
                # Before the older one is stopped: whoever is refused keeps what runs.
                runs = "1 run is" if self.max_queue == 1 else f"{self.max_queue} runs are"
                raise Busy(f"{runs} waiting already; try again in a moment.")
            if older is not None:
                self._stop(older)
            job = _Run(recipe, visitor, slot, next(self._number))
            self._runs[visitor, slot] = job
            self._waiting.append(job)
            self._lock.notify_all()
        return job

    def _stop(self, job: _Run) -> None:
        """Stop a run before its next denoiser call; one that waits ends now. The lock is held."""
        job.stop.set()
        if job in self._waiting:
            self._waiting.remove(job)
            self._end(job, Stopped())

    def _end(self, job: _Run, final: Event) -> None:
        """Forget a run that is not being computed any more, and tell its reader. The lock is held."""
        if job.work is not None:
            job.work.close()
        if self._runs.get((job.visitor, job.slot)) is job:
            del self._runs[job.visitor, job.slot]
        job.put(final)

    def _turn_order(self, job: _Run) -> tuple[float, float, int]:
        """Whoever had a turn longest ago comes first, then whoever's run had one longest ago, then whoever asked
        first."""
        return self._last_turn.get(job.visitor, 0.0), job.last_turn, job.order

    def _ahead(self, job: _Run) -> int:
        with self._lock:
            if job not in self._waiting:
                return 0
            mine = self._turn_order(job)
            return sum(self._turn_order(j) < mine for j in self._waiting) + (self._active is not None)

    def _model(self, name: str) -> TextToImageModel:
        """Called on the worker only."""
        if name in self._loaded:
            self._loaded.move_to_end(name)
            return self._loaded[name]
        if name not in self.models:
            raise ModelError(f"There is no model called {name[:40]!r} on this page.")
        while len(self._loaded) >= self.max_models:
            self._drop_oldest()
        while True:
            try:
                model = load_model(self.models[name], self.device, name, self._compiled)
                break
            except TooLarge:
                # Beside the others, or by itself?
                if not self._loaded:
                    raise
                if self._loaded.keys() <= self._in_use():
                    raise Busy(
                        f"The model {name!r} does not fit beside those of runs that go on here: try again when "
                        "they have ended."
                    ) from None
            self._drop_oldest()
        self._loaded[name] = model
        model.denoiser.tell = self._tell
        return model

    def _in_use(self) -> set[str]:
        """The models of runs that have begun."""
        with self._lock:
            begun = [job.recipe for job in self._runs.values() if job.work is not None]
        images = [recipe for recipe in begun if isinstance(recipe, TextToImage)]
        return {r.model for r in images} | {r.weak_model for r in images if RULES[r.rule].weak}

    def _drop_oldest(self) -> None:
        """Give back the memory of the model that was not used for longest; of one that a run has only if all have
        one, for then its memory is given back no sooner than the run ends."""
        used = self._in_use()
        idle = next((name for name in self._loaded if name not in used), None)
        del self._loaded[idle or next(iter(self._loaded))]
        gc.collect()  # networks refer to themselves
        if self.device.where.type == "cuda":
            torch.cuda.empty_cache()

    def _tell(self, compiling: str | None) -> None:
        """A denoiser begins to be compiled, on the worker, or is. Whose run it is reads it before that is done."""
        self._compiling = compiling
        if compiling is not None and self._active is not None:
            self._active.put(Note(compiling))

    # --- the worker -----------------------------------------------------------------------------------

    def _loop(self) -> None:
        # Before anything is computed: a thread may be born while another computes with one.
        torch.set_num_threads(usual_threads())
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._waiting or self._tasks or self._closing)
                if self._closing and not self._waiting:
                    break
                if self._waiting:
                    self._active = min(self._ready(), key=self._turn_order)
                    self._waiting.remove(self._active)
            self._do_tasks()
            if self._active is not None:
                self._take_turn(self._active)
                with self._lock:
                    self._active = None
        for _, future in self._tasks:
            future.cancel()

    def _do_tasks(self) -> None:
        while True:
            with self._lock:
                if not self._tasks:
                    return
                task, future = self._tasks.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(task())
            except BaseException as error:
                future.set_exception(error)

    def _ready(self) -> list[_Run]:
        """The waiting runs but those that an equal one, which has begun, works for as well: a class that opens one
        link computes it once."""
        begun = {job.recipe for job in self._waiting if job.work is not None and not job.stop.is_set()}
        return [j for j in self._waiting if j.work is not None or j.stop.is_set() or j.recipe not in begun]

    def _take_turn(self, job: _Run) -> None:
        """Advance a run until it ends, is stopped, or has used its turn while another waits."""
        began = time.monotonic()
        final: Event = Stopped()
        try:
            if not job.stop.is_set() and (done := self._results.get(job.recipe)) is not None:
                # An equal run was quicker.
                final = Result(done, reused=True)
                if job.work is not None:
                    job.work.close()
            elif not job.stop.is_set():
                if job.work is None:
                    job.next_preview = began + FIRST_PREVIEW
                    desk = Desk(
                        self._model,
                        lambda: job.wants_preview,
                        job.previewed,
                        self._prefixes,
                        self._trainings,
                        self.guides,
                    )
                    job.work = runner_of(job.recipe)(job.recipe, desk)
                for event in job.work:
                    if isinstance(event, Result):
                        self._results.put(event.value)
                        self._measure(event.value)
                        final = event
                        break
                    if event is not None:
                        job.put(event)
                    if job.stop.is_set():
                        break
                    self._do_tasks()
                    if time.monotonic() - began > self.turn and self._another_waits():
                        with self._lock:
                            self._last_turn[job.visitor] = job.last_turn = time.monotonic()
                            self._waiting.append(job)
                        return
        except PlaygroundError as error:
            if isinstance(error, OutOfMemory):
                self._prefixes.clear()  # the steps of earlier runs lie on the device, too
            final = Failed(str(error), again=isinstance(error, Busy | OutOfMemory))
        except Exception as error:
            # Neither the recipe nor the error's own message, which may quote it: nothing that a visitor
            # typed belongs in the log.
            place = "".join(traceback.format_tb(error.__traceback__))
            log.error("a run failed with %s\n%s", type(error).__name__, place)
            said = f"Something inside went wrong ({type(error).__name__}); the page goes on working."
            # Outside the batches, which are split: a model that does not fit, or a text encoder.
            final = Failed("The device's memory is too short for this." if is_out_of_memory(error) else said)
        with self._lock:
            self._last_turn[job.visitor] = time.monotonic()
            self._last_turn.move_to_end(job.visitor)
            while len(self._last_turn) > 1000:
                self._last_turn.popitem(last=False)
            self._end(job, final)

    def _measure(self, outcome: Any) -> None:
        """Note how long a model takes per sample-forward."""
        model = getattr(outcome.recipe, "model", None)
        # The rest of a run that went on from another's steps is too short to tell; at t0 = 0 nothing is asked.
        if model is not None and not getattr(outcome, "taken_over", 0) and outcome.count.sample_forwards:
            measured = outcome.seconds / outcome.count.sample_forwards
            self._pace[model] = 0.5 * (self.pace(model) + measured)

    def _another_waits(self) -> bool:
        """Somebody else's run, or one of the same visitor that a long one should let pass."""
        with self._lock:
            return bool(self._waiting)
