"""The driver: runs a Plan, one field evaluation for all rows at a time.

`sample` is a generator. Between any two evaluations it yields, so that whoever runs it can show progress,
let others have a turn, or stop: closing the generator ends the run.

Rows that ask in step form a lane; each lane has its own solver generator. All lanes' questions of a tick go
to the field in one batch, with all branches that guidance needs.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from playground.errors import NonFiniteError, RecipeError
from playground.fields import Count, Field, Prediction, rows
from playground.guidance import Branch, Guidance, guided
from playground.noise import brownian_noise, start_noise, step_noise
from playground.plan import Plan, Role, Row, Told
from playground.solvers import Query, Solver


@dataclass(frozen=True)
class Answer:
    """What the rows of a lane got to hear at one evaluation, after the controls had their say.

    Attributes:
        rows: plan rows, as a list of B indices.
        step, stage: which question of which step this was, from 0.
        guided: the prediction the solver received, B rows.
        branches: per branch, the lane positions it was computed for and the prediction of just these.
    """

    rows: list[int]
    step: int
    stage: int
    guided: Prediction
    branches: dict[Branch, tuple[list[int], Prediction]]


@dataclass(frozen=True)
class Evaluated:
    """One call of the field is done; `count` is what the run has taken so far."""

    answers: list[Answer]
    count: Count


@dataclass(frozen=True)
class Snapshot:
    """Where the rows of a lane stand between two steps: everything that going on from there needs.

    Attributes:
        step: steps taken.
        x: [B, ...].
        state: the solver's memory.
        guidance: the guidance rule's memory.
        controls: that of the controls, in their order.
    """

    step: int
    x: Tensor
    state: Any
    guidance: dict[str, Tensor]
    controls: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Stepped:
    """The rows of a lane took step `step`, and where they stand now."""

    rows: list[int]
    step: int
    snapshot: Snapshot

    @property
    def x(self) -> Tensor:
        """[B, ...]"""
        return self.snapshot.x


@dataclass(frozen=True)
class Finished:
    """All rows have arrived: x [rows of the plan, ...], and what it took."""

    x: Tensor
    count: Count


Event = Evaluated | Stepped | Finished


@dataclass(frozen=True)
class Asked:
    """A row of the batch that the field is called with.

    Attributes:
        row: of the plan.
        step, stage: which question of which step this is, from 0.
        role: what it is told, as c or as u.
    """

    row: int
    step: int
    stage: int
    role: Role


class Control:
    """Something that takes part in a run: edits, masks, measurements. Every hook may return its input."""

    def during_call(self, asked: Sequence[Asked]) -> AbstractContextManager[object]:
        """A context around one call of the field with these rows, for what happens inside of it (attention).
        Calls of other runs may come between two calls, so nothing may be left behind."""
        return nullcontext()

    def after_query(self, plan_rows: list[int], step: int, prediction: Prediction) -> Prediction:
        """May replace the guided prediction (B rows) before the solver sees it."""
        return prediction

    def after_step(self, plan_rows: list[int], step: int, x: Tensor, s: Tensor) -> Tensor:
        """May replace x [B, ...], which now stands at times s [B]."""
        return x

    def reads(self, step: int) -> Hashable:
        """Everything that the control's part in a step depends on besides x, its own memory and the step's
        number. None, which is what a control that does not say gets, means that no step of a run with it can
        be taken over from another run (see reuse.py)."""
        return None

    def remember(self) -> Any:
        """What the control needs to go on from here, never changed afterwards. Default: nothing."""
        return None

    def recall(self, memory: Any) -> None:
        """Go on from what `remember` returned."""

    def noted(self) -> Any:
        """What the control has noted of the step just done, for whoever looks at the run. Default: nothing."""
        return None


@dataclass(frozen=True)
class _Point:
    """A row at x [...] and time t []; `place` names this point, None the one where all rows of its seed begin."""

    row: Row
    x: Tensor
    t: Tensor
    place: Hashable
    index: int = 0
    step: int = 0
    stage: int = 0


class _Lane:
    """Rows that ask in step: their x, solver memory and guidance memory."""

    def __init__(
        self,
        plan_rows: list[int],
        members: list[Row],
        field: Field,
        device: torch.device,
        dtype: torch.dtype,
        start: Snapshot | None = None,
        guides: Mapping[str, Tensor] | None = None,
    ):
        self.rows, self.members = plan_rows, members
        self.times = torch.tensor([r.times for r in members], dtype=torch.float64)
        self.solver: Solver = members[0].make_solver(field.schedule)
        self.shape, self.cloud, self.device, self.dtype = field.shape, field.cloud, device, dtype
        if start is None:
            noise = torch.stack([start_noise(r.seed, field.shape) for r in members]).to(device, dtype)
            x = noise * rows(field.schedule.sigma(self.times[:, 0]), noise)
            led = [(i, r.guide) for i, r in enumerate(members) if r.guide is not None]
            if led:
                index = [i for i, _ in led]
                samples = torch.stack([(guides or {})[name] for _, name in led]).to(x)
                x[index] += rows(field.schedule.alpha(self.times[index, 0]), samples) * samples
            start = Snapshot(0, x, None, members[0].guidance.start(x))
        self.x, self.state, self.step, self.stage = start.x, start.state, start.step, 0
        # Copies: a rule may begin with x itself, and what it remembers is written in place.
        self.guidance_state = {k: v.clone() for k, v in start.guidance.items()}
        self._begin()

    @property
    def done(self) -> bool:
        return self.step == self.times.shape[1] - 1

    def _begin(self) -> None:
        self.stage = 0
        if not self.done:
            t, s = self.times[:, self.step], self.times[:, self.step + 1]
            self._running = self.solver.step(self.x, t, s, self.state, self._noise)
            self.query: Query = next(self._running)

    def _noise(self, draw: int) -> Tensor:
        drawn = [self._drawn(row, i, draw) for i, row in enumerate(self.members)]
        return torch.stack(drawn).to(self.device, self.dtype)

    def _drawn(self, row: Row, index: int, draw: int) -> Tensor:
        if not row.brownian:
            return step_noise(row.seed, self.step, draw, self.shape)
        if draw:
            raise RecipeError(
                f"{self.solver.title} draws more than once in a step: it has no single path of noise."
            )
        t, s = self.times[index, self.step : self.step + 2].tolist()
        return brownian_noise(row.seed, t, s, self.shape)

    def points(self) -> list[_Point]:
        """Where the rows are asked now."""
        first = self.step == self.stage == 0
        return [
            _Point(
                row,
                self.query.x[i],
                self.query.t[i],
                None if first else (id(self), i),
                self.rows[i],
                self.step,
                self.stage,
            )
            for i, row in enumerate(self.members)
        ]

    def answer(self, prediction: Prediction, controls: Sequence[Control]) -> Stepped | None:
        """Go on to the next question; a Stepped event if that finished a step."""
        try:
            self.query = self._running.send(prediction)
            self.stage += 1
            return None
        except StopIteration as stop:
            x, self.state = stop.value
        s = self.times[:, self.step + 1]
        for control in controls:
            x = control.after_step(self.rows, self.step, x, s)
        if not bool(torch.isfinite(x).all()):
            raise NonFiniteError(
                f"The numbers overflowed in step {self.step + 1}; a smaller guidance scale, more steps or "
                "another solver avoids that."
            )
        self.x = x
        remembered = {k: v.clone() for k, v in self.guidance_state.items()}
        snapshot = Snapshot(self.step + 1, x, self.state, remembered, tuple(c.remember() for c in controls))
        event = Stepped(self.rows, self.step, snapshot)
        self.step += 1
        self._begin()
        return event


def _combine(lane: _Lane, branches: dict[Branch, tuple[list[int], Prediction]]) -> Prediction:
    """The prediction of every row of a lane from the branches that were computed for it."""
    rules: list[Guidance] = [r.guidance for r in lane.members]
    cond_rows = branches["cond"][0] if "cond" in branches else []
    uncond_rows = branches["uncond"][0] if "uncond" in branches else []
    both = [i for i in cond_rows if i in set(uncond_rows)]
    parts = [] if both else [(index, p) for index, p in branches.values()]
    if both:
        answers = {
            name: p if index == both else p.take(torch.tensor([index.index(i) for i in both]))
            for name, (index, p) in branches.items()
        }
        state = {k: v[both] for k, v in lane.guidance_state.items()}
        combined, state = guided([rules[i] for i in both], answers, state, lane.cloud)
        for name, value in state.items():
            lane.guidance_state[name][both] = value
        if len(both) == len(rules):
            return combined
        parts.append((both, combined))
        for index, p in branches.values():
            alone = [i for i in index if i not in both]
            if alone:
                parts.append((alone, p.take(torch.tensor([index.index(i) for i in alone]))))
    asked = {*cond_rows, *uncond_rows}
    if still := [i for i in range(len(rules)) if i not in asked]:
        # A rule that asks for nothing wants x to stay where it is.
        x, t = lane.query.x[still], lane.query.t[still]
        parts.append((still, Prediction("velocity", torch.zeros_like(x), x, t, lane.solver.schedule)))
    # Put the rows back into order.
    kind = parts[0][1].kind
    joined = Prediction.joined([p.replaced(kind, p.read(kind)) for _, p in parts])
    order = [i for index, _ in parts for i in index]
    if order == list(range(len(rules))):
        return joined
    back = torch.tensor(sorted(range(len(order)), key=order.__getitem__))
    return joined.take(back)


def _ask(field: Field, weak: Field | None, lanes: list[_Lane], controls: Sequence[Control]) -> list[Answer]:
    """All branches of all rows of all lanes in one call of the field, and one of the weak field if any is its."""
    # (branch, lane, positions) in the order of the batch: unconditional rows first, as diffusers does.
    blocks: list[tuple[Branch, int, list[int]]] = []
    points = [lane.points() for lane in lanes]
    names: tuple[Branch, Branch] = ("uncond", "cond")
    for name in names:
        for k, lane in enumerate(lanes):
            times = lane.query.t.tolist()
            index = [i for i, r in enumerate(lane.members) if name in r.guidance.branches(times[i], lane.step)]
            if index:
                blocks.append((name, k, index))
    heard: list[dict[Branch, tuple[list[int], Prediction]]] = [{} for _ in lanes]
    if blocks:
        questions = [(points[k][i], name) for name, k, index in blocks for i in index]
        prediction = _predict(field, weak, questions, controls)
    start = 0
    for name, k, index in blocks:
        heard[k][name] = (index, prediction.take(slice(start, start + len(index))))
        start += len(index)
    return [
        Answer(lane.rows, lane.step, lane.stage, _combine(lane, branches), branches)
        for lane, branches in zip(lanes, heard, strict=True)
    ]


def _predict(
    field: Field,
    weak: Field | None,
    questions: list[tuple[_Point, Branch]],
    controls: Sequence[Control] = (),
) -> Prediction:
    """One row per question; what is the same, as in all rows of a sweep at its start, is asked once."""
    places: dict[Hashable, int] = {}
    distinct: list[tuple[_Point, Told]] = []
    terms: list[list[tuple[int, float]]] = []  # per question, which of them with which weights
    for point, name in questions:
        terms.append([])
        for told, weight in point.row.told(name):
            at_start = point.place is None
            key = point.row.first_question(told, float(point.t)) if at_start else (point.place, told)
            if key not in places:
                places[key] = len(distinct)
                distinct.append((point, told))
            terms[-1].append((places[key], weight))
    answers, order = [], []
    for asked, is_weak in ((field, False), (weak, True)):
        index = [k for k, (_, told) in enumerate(distinct) if (told[0] == "weak") == is_weak]
        if index and asked is not None:
            x = torch.stack([distinct[k][0].x for k in index])
            t = torch.stack([distinct[k][0].t for k in index])
            with ExitStack() as stack:
                for control in () if is_weak else controls:
                    batch = [distinct[k] for k in index]
                    who = [Asked(point.index, point.step, point.stage, told[0]) for point, told in batch]
                    stack.enter_context(control.during_call(who))
                answers.append(asked.predict(x, t, asked.encode([distinct[k][1][1] for k in index])))
            order += index
    kind = answers[0].kind
    prediction = Prediction.joined([p.replaced(kind, p.read(kind)) for p in answers])
    at = {k: row for row, k in enumerate(order)}
    first = [at[parts[0][0]] for parts in terms]
    result = prediction if first == list(range(len(order))) else prediction.take(torch.tensor(first))
    if all(len(parts) == 1 and parts[0][1] == 1 for parts in terms):
        return result
    # Weights that add up to 1 give the same sum in every kind.
    total = torch.zeros_like(result.value)
    for n in range(max(map(len, terms))):
        mine = [q for q, parts in enumerate(terms) if len(parts) > n]
        value = prediction.value[[at[terms[q][n][0]] for q in mine]]
        total[mine] += rows(torch.tensor([terms[q][n][1] for q in mine], dtype=torch.float64), value) * value
    return result.replaced(kind, total)


@torch.no_grad()
def answers_of(
    members: Sequence[Row], name: Branch, x: Tensor, t: Tensor, field: Field, weak: Field | None = None
) -> Prediction:
    """A branch of B rows at x [B, ...] and t [B], for somebody who wants to see what a run did not need.

    Raises:
        RecipeError: when a row needs a weak field and there is none.
    """
    _check_weak(name == "uncond" and any(r.guidance.weak for r in members), field, weak)
    return _predict(field, weak, [(_Point(r, x[i], t[i], i), name) for i, r in enumerate(members)])


def _check_weak(needed: bool, field: Field, weak: Field | None) -> None:
    if needed and weak is None:
        raise RecipeError("Autoguidance needs a weak model beside the one that is guided.")
    if weak is None or not needed:
        return
    if weak.shape != field.shape or weak.schedule.identity != field.schedule.identity:
        raise RecipeError("The weak model has other latents or noise levels than the one that is guided.")


@torch.no_grad()
def _tick(
    field: Field, weak: Field | None, lanes: list[_Lane], controls: Sequence[Control]
) -> tuple[list[Answer], list[Stepped]]:
    answers, stepped = [], []
    for lane, answer in zip(lanes, _ask(field, weak, lanes, controls), strict=True):
        prediction = answer.guided
        for control in controls:
            prediction = control.after_query(answer.rows, answer.step, prediction)
        answers.append(replace(answer, guided=prediction))
        event = lane.answer(prediction, controls)
        if event:
            stepped.append(event)
    return answers, stepped


def sample(
    plan: Plan,
    field: Field,
    controls: Sequence[Control] = (),
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    start: Snapshot | None = None,
    weak: Field | None = None,
    guides: Mapping[str, Tensor] | None = None,
) -> Iterator[Event]:
    """Run a plan.

    Args:
        plan: what to do.
        field: who answers.
        controls: take part in the given order.
        device, dtype: where x lives and its precision.
        start: where to go on instead of beginning at noise; only for plans of a single lane.
        weak: who answers in the place of the unconditional branch, for rules that want a weaker field.
        guides: samples of the field's shape, by the names that rows start from.

    Yields:
        Evaluated after each field call, Stepped when rows finish a step, Finished at the end.

    Raises:
        NonFiniteError: when x stops being finite.
        RecipeError: when a weak field is needed and missing, or unlike the field.
    """
    device = torch.device(device)
    _check_weak(plan.asks_weak(field.schedule), field, weak)
    lanes = [
        _Lane(index, [plan.rows[i] for i in index], field, device, dtype, start, guides)
        for index in plan.lanes(field.schedule)
    ]
    if start is not None:
        assert len(lanes) == 1, "only a lane of its own can go on from a snapshot"
        for control, memory in zip(controls, start.controls, strict=True):
            control.recall(memory)
    count, fields = Count(), [field] if weak is None or weak is field else [field, weak]
    while active := [lane for lane in lanes if not lane.done]:
        before = [replace(f.count) for f in fields]
        answers, stepped = _tick(field, weak, active, controls)
        for f, was in zip(fields, before, strict=True):
            count.evaluations += f.count.evaluations - was.evaluations
            count.sample_forwards += f.count.sample_forwards - was.sample_forwards
        yield Evaluated(answers, replace(count))
        yield from stepped
    x = torch.empty(len(plan.rows), *field.shape, dtype=dtype, device=device)
    for lane in lanes:
        x[lane.rows] = lane.x
    yield Finished(x, count)


def run(plan: Plan, field: Field, controls: Sequence[Control] = (), **where: Any) -> Finished:
    """Run a plan to its end and return the last event."""
    event: Event | None = None
    for event in sample(plan, field, controls, **where):  # noqa: B007
        pass
    assert isinstance(event, Finished)
    return event
