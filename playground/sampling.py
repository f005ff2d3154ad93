"""The driver: runs a Plan, one field evaluation for all rows at a time.

`sample` is a generator. Between any two evaluations it yields, so that whoever runs it can show progress,
let others have a turn, or stop: closing the generator ends the run.

Rows that ask in step form a lane; each lane has its own solver generator. All lanes' questions of a tick go
to the field in one batch, with all branches that guidance needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from playground.errors import NonFiniteError
from playground.fields import Count, Field, Prediction, rows
from playground.guidance import Branch, Guidance, guided
from playground.noise import start_noise, step_noise
from playground.plan import Plan, Row
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
    """One call of the field is done."""

    answers: list[Answer]


@dataclass(frozen=True)
class Stepped:
    """The rows of a lane took step `step` and stand at x [B, ...]."""

    rows: list[int]
    step: int
    x: Tensor


@dataclass(frozen=True)
class Finished:
    """All rows have arrived: x [rows of the plan, ...], and what it took."""

    x: Tensor
    count: Count


Event = Evaluated | Stepped | Finished


class Control:
    """Something that takes part in a run: edits, masks, measurements. Every hook may return its input."""

    def after_query(self, plan_rows: list[int], step: int, prediction: Prediction) -> Prediction:
        """May replace the guided prediction (B rows) before the solver sees it."""
        return prediction

    def after_step(self, plan_rows: list[int], step: int, x: Tensor, s: Tensor) -> Tensor:
        """May replace x [B, ...], which now stands at times s [B]."""
        return x


class _Lane:
    """Rows that ask in step: their x, solver memory and guidance memory."""

    def __init__(self, plan_rows: list[int], members: list[Row], field: Field, device: torch.device, dtype):
        self.rows, self.members = plan_rows, members
        self.times = torch.tensor([r.times for r in members], dtype=torch.float64)
        self.solver: Solver = members[0].make_solver(field.schedule)
        self.shape, self.device, self.dtype = field.shape, device, dtype
        noise = torch.stack([start_noise(r.seed, field.shape) for r in members])
        self.x = noise.to(device, dtype)
        self.x = self.x * rows(field.schedule.sigma(self.times[:, 0]), self.x)
        self.state: Any = None
        # Copies: a rule may begin with x itself, and what it remembers is written in place.
        self.guidance_state = {k: v.clone() for k, v in members[0].guidance.start(self.x).items()}
        self.step = self.stage = 0
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
        drawn = [step_noise(r.seed, self.step, draw, self.shape) for r in self.members]
        return torch.stack(drawn).to(self.device, self.dtype)

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
        event = Stepped(self.rows, self.step, x)
        self.step += 1
        self._begin()
        return event


def _combine(lane: _Lane, branches: dict[Branch, tuple[list[int], Prediction]]) -> Prediction:
    """The prediction of every row of a lane from the branches that were computed for it."""
    rules: list[Guidance] = [r.guidance for r in lane.members]
    cond_rows = branches["cond"][0] if "cond" in branches else []
    uncond_rows = branches["uncond"][0] if "uncond" in branches else []
    both = [i for i in cond_rows if i in set(uncond_rows)]
    if not both:
        parts = [(index, p) for index, p in branches.values()]
    else:
        answers = {
            name: p if index == both else p.take(torch.tensor([index.index(i) for i in both]))
            for name, (index, p) in branches.items()
        }
        state = {k: v[both] for k, v in lane.guidance_state.items()}
        combined, state = guided([rules[i] for i in both], answers, state)
        for name, value in state.items():
            lane.guidance_state[name][both] = value
        if len(both) == len(rules):
            return combined
        parts = [(both, combined)]
        for index, p in branches.values():
            alone = [i for i in index if i not in both]
            if alone:
                parts.append((alone, p.take(torch.tensor([index.index(i) for i in alone]))))
    # Put the rows back into order.
    kind = parts[0][1].kind
    joined = Prediction.joined([p.replaced(kind, p.read(kind)) for _, p in parts])
    order = [i for index, _ in parts for i in index]
    if order == list(range(len(rules))):
        return joined
    back = torch.tensor(sorted(range(len(order)), key=order.__getitem__))
    return joined.take(back)


def _ask(field: Field, lanes: list[_Lane]) -> list[Answer]:
    """All branches of all rows of all lanes in one call."""
    # (branch, lane, positions) in the order of the batch: unconditional rows first, as diffusers does.
    blocks: list[tuple[Branch, int, list[int]]] = []
    names: tuple[Branch, Branch] = ("uncond", "cond")
    for name in names:
        for k, lane in enumerate(lanes):
            times = lane.query.t.tolist()
            index = [i for i, r in enumerate(lane.members) if name in r.guidance.branches(times[i], lane.step)]
            if index:
                blocks.append((name, k, index))
    x = torch.cat([lanes[k].query.x[index] for _, k, index in blocks])
    t = torch.cat([lanes[k].query.t[index] for _, k, index in blocks])
    told = [getattr(lanes[k].members[i], name) for name, k, index in blocks for i in index]
    prediction = field.predict(x, t, field.encode(told))

    heard: list[dict[Branch, tuple[list[int], Prediction]]] = [{} for _ in lanes]
    start = 0
    for name, k, index in blocks:
        heard[k][name] = (index, prediction.take(slice(start, start + len(index))))
        start += len(index)
    return [
        Answer(lane.rows, lane.step, lane.stage, _combine(lane, branches), branches)
        for lane, branches in zip(lanes, heard, strict=True)
    ]


@torch.no_grad()
def _tick(field: Field, lanes: list[_Lane], controls: Sequence[Control]) -> tuple[Evaluated, list[Stepped]]:
    answers, stepped = [], []
    for lane, answer in zip(lanes, _ask(field, lanes), strict=True):
        prediction = answer.guided
        for control in controls:
            prediction = control.after_query(answer.rows, answer.step, prediction)
        answers.append(replace(answer, guided=prediction))
        event = lane.answer(prediction, controls)
        if event:
            stepped.append(event)
    return Evaluated(answers), stepped


def sample(
    plan: Plan,
    field: Field,
    controls: Sequence[Control] = (),
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Iterator[Event]:
    """Run a plan.

    Args:
        plan: what to do.
        field: who answers.
        controls: take part in the given order.
        device, dtype: where x lives and its precision.

    Yields:
        Evaluated after each field call, Stepped when rows finish a step, Finished at the end.

    Raises:
        NonFiniteError: when x stops being finite.
    """
    device = torch.device(device)
    lanes = [
        _Lane(index, [plan.rows[i] for i in index], field, device, dtype) for index in plan.lanes(field.schedule)
    ]
    count = Count()
    while active := [lane for lane in lanes if not lane.done]:
        evaluations, forwards = field.count.evaluations, field.count.sample_forwards
        evaluated, stepped = _tick(field, active, controls)
        count.evaluations += field.count.evaluations - evaluations
        count.sample_forwards += field.count.sample_forwards - forwards
        yield evaluated
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
