"""A field learned before your eyes: a small network, trained on pairs (x_0, eps) by one of four losses.

The exact field is the minimiser of each of these losses, so its own loss is the floor that training can come
close to and not go below: what is left there is the variance of the target given x_t.
"""

from __future__ import annotations

import copy
import math
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from playground.devices import threads_for
from playground.fields import Condition, Field, Kind, rows
from playground.plane.mixtures import ExactField, Mixture, uniform_from_normal
from playground.plane.recipe import PlaneFlow
from playground.schedules import EDM, Schedule

EVERY = 25
"""Updates between two reports, which are the moments where training can stop."""
RATE, SLOWER_AFTER = 1e-2, 500
AVERAGED = 9
"""Weights are averaged with a window of about 1/AVERAGED of all updates so far, which needs to know of no last one
(power function averaging, Karras et al. 2024, "Analyzing and improving the training dynamics", eq. 121)."""
NEAR_DATA = 1.5
"""Times are uniform numbers to this power: close to the data a field has its finest features."""
MEAN_LOG_SIGMA, SPREAD_LOG_SIGMA = -0.4, 1.4
"""Noise levels that training on EDM's path visits: log sigma ~ N(-0.4, 1.4^2), as Karras et al. 2022 but for data
twice as wide."""


class MLP(nn.Module):
    """(x, t, class) -> D numbers: `depth` hidden layers of `width` units with SiLU.

    x enters at unit size, with sines and cosines of it (a plain network is slow to learn features as fine as the
    data's; Tancik et al. 2020, "Fourier features"); t as the angle atan(sigma/alpha), which runs from 0 at data to
    (nearly) 1 quarter turn at noise on every path, and its harmonics; a class as one of `classes` + 1 indicators,
    the last for none.
    """

    HARMONICS = 4
    FREQUENCIES = (2.0, 4.0)

    def __init__(self, dim: int, classes: int, width: int, depth: int):
        super().__init__()
        self.width = width
        places = dim * (1 + 2 * len(self.FREQUENCIES))
        sizes = [places + 1 + 2 * self.HARMONICS + classes + 1] + [width] * depth
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, dim))

    def forward(self, x: Tensor, angle: Tensor, indicators: Tensor) -> Tensor:
        turns = angle[:, None] * torch.arange(1, self.HARMONICS + 1) * math.pi
        waves = torch.cat([f * x for f in self.FREQUENCIES], 1)
        features = [x, waves.sin(), waves.cos(), angle[:, None], turns.sin(), turns.cos(), indicators]
        return self.layers(torch.cat(features, 1))


class MLPField(Field):
    """A network as a field. Condition: a class per row, None for unconditional.

    Args:
        network: its output is the loss's quantity: the velocity in units of (alpha', sigma'), eps, x0 or the score.
        loss: which of them.
        classes: the labels of the target, in order.
        name: tells networks apart.
    """

    def __init__(
        self, network: MLP, schedule: Schedule, loss: str, classes: Sequence[int], dim: int, name: str = "mlp"
    ):
        super().__init__()
        kinds: dict[str, Kind] = {"flow": "velocity", "eps": "eps", "x0": "x0", "score": "eps"}
        self.network, self.schedule, self.loss = network, schedule, loss
        self.kind, self.shape, self.classes, self.name = kinds[loss], (dim,), list(classes), name

    @property
    def identity(self) -> str:
        return f"{self.name}/{self.loss}/{self.schedule.identity}"

    def encode(self, conditions: Sequence[object]) -> Condition:
        return {"label": torch.tensor([-1 if c is None else int(c) for c in conditions])}  # type: ignore[call-overload]

    def output(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """What the network says, for x [B, D], t [B] and labels [B]."""
        a, s = self.schedule.alpha(t), self.schedule.sigma(t)
        size = torch.sqrt(a**2 + s**2)
        angle = (torch.atan2(s, a) * 2 / math.pi).to(torch.float32)
        places = torch.full_like(labels, len(self.classes))
        for i, c in enumerate(self.classes):
            places = torch.where(labels == c, i, places)
        indicators = nn.functional.one_hot(places, len(self.classes) + 1).float()
        return self.network(x.float() / rows(size, x.float()), angle, indicators).to(x)

    def evaluate(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        with threads_for(len(x) * self.network.width):
            out = self.output(x, t, condition.get("label", torch.full((len(x),), -1)))
        if self.loss == "flow":
            return out * rows(velocity_size(self.schedule, t), x)
        return -rows(self.schedule.sigma(t), x) * out if self.loss == "score" else out


def velocity_size(schedule: Schedule, t: Tensor) -> Tensor:
    """sqrt(alpha'^2 + sigma'^2): velocities are learned in this unit, so that no noise level outweighs the rest."""
    return torch.sqrt(schedule.alpha_dot(t) ** 2 + schedule.sigma_dot(t) ** 2)


def training_times(schedule: Schedule, count: int, generator: torch.Generator) -> Tensor:
    """[count] times that updates visit."""
    if isinstance(schedule, EDM):
        normal = torch.randn(count, generator=generator, dtype=torch.float64)
        return schedule.clamp(torch.exp(MEAN_LOG_SIGMA + SPREAD_LOG_SIGMA * normal) / schedule.sigma_max)
    share = torch.rand(count, generator=generator, dtype=torch.float64) ** NEAR_DATA
    return schedule.t_min + share * (schedule.t_max - schedule.t_min)


@dataclass(frozen=True)
class Batch:
    """Pairs on their path: data x0 and noise [B, D], times [B], x_t [B, D], labels [B] (-1 where hidden)."""

    x0: Tensor
    noise: Tensor
    t: Tensor
    x: Tensor
    labels: Tensor

    def take(self, index: slice) -> Batch:
        """Some of the pairs."""
        return Batch(*(getattr(self, n)[index] for n in ("x0", "noise", "t", "x", "labels")))


def batch(recipe: PlaneFlow, mixture: Mixture, schedule: Schedule, count: int, generator: torch.Generator) -> Batch:
    """Pairs to learn from, x_t = alpha x_0 + sigma eps; the class of a pair is hidden with chance `dropout`."""
    k = torch.multinomial(mixture.weights, count, replacement=True, generator=generator)
    x0 = mixture.drawn(k, generator).float()
    noise = torch.randn(x0.shape, generator=generator)
    if recipe.source == "uniform":
        noise = uniform_from_normal(noise)
    t = training_times(schedule, count, generator)
    x = rows(schedule.alpha(t), x0) * x0 + rows(schedule.sigma(t), x0) * noise
    hidden = torch.rand(count, generator=generator) < (recipe.dropout if len(mixture.classes) > 1 else 1)
    return Batch(x0, noise, t, x, torch.where(hidden, -1, mixture.labels[k]))


def losses(recipe: PlaneFlow, field: Field, pairs: Batch, answer: Tensor | None = None) -> Tensor:
    """The squared error of each pair, weighted as in training: [B].

        flow   |u - (a' x0 + s' eps)|^2 / (a'^2 + s'^2)        eps  |eps_theta - eps|^2
        x0     |x0_theta - x0|^2                               score  s^2 |score_theta + eps/s|^2

    Args:
        field: whose prediction u, eps_theta, x0_theta or score_theta is; the exact field's gives the floor.
        answer: the prediction in units of the network's output, if it is known already.
    """
    path = field.schedule
    if answer is None:
        p = field.predict(pairs.x, pairs.t, {"label": pairs.labels})
        answer = {
            "flow": lambda: p.velocity / rows(velocity_size(path, pairs.t), pairs.x),
            "eps": lambda: p.eps,
            "x0": lambda: p.x0,
            "score": lambda: p.score,
        }[recipe.loss]()
    if recipe.loss == "flow":
        a, s = (rows(v, pairs.x) for v in (path.alpha_dot(pairs.t), path.sigma_dot(pairs.t)))
        wanted = (a * pairs.x0 + s * pairs.noise) / rows(velocity_size(path, pairs.t), pairs.x)
        return (answer - wanted).square().sum(-1)
    if recipe.loss == "score":
        return (rows(path.sigma(pairs.t), pairs.x) * answer + pairs.noise).square().sum(-1)
    return (answer - (pairs.noise if recipe.loss == "eps" else pairs.x0)).square().sum(-1)


@dataclass
class Training:
    """Where training stands.

    Attributes:
        recipe: whose field is learned.
        step: updates so far, of `recipe.train_steps`.
        history: (step, loss, floor) at each report: the learned and the exact field's mean loss on the same fresh
            pairs, which were not trained on.
        field: the field as it is now, with averaged weights.
        state: what going on needs.
        seconds: of work on these updates and reports, without the time between its parts.
    """

    recipe: PlaneFlow
    step: int
    history: list[tuple[int, float, float]]
    field: MLPField
    state: dict[str, Any]
    seconds: float = 0.0

    @property
    def loss(self) -> float:
        """The learned field's loss at the last report."""
        return self.history[-1][1]

    @property
    def floor(self) -> float:
        """The exact field's loss on the same pairs."""
        return self.history[-1][2]


FIELDS = (
    *("target", "word", "points", "mixture", "bandwidth", "dimension", "source", "path"),
    *("loss", "width", "depth", "batch", "train_seed", "dropout"),
)


def training_key(recipe: PlaneFlow) -> tuple:
    """Everything that a training depends on but its length: recipes that share it share one training."""
    return tuple(getattr(recipe, name) for name in FIELDS)


def _draws(recipe: PlaneFlow, what: str) -> torch.Generator:
    """Random numbers of their own for each block of a training (a generator hears the low 32 bits of its seed)."""
    digest = blake2b(f"{recipe.train_seed}/{what}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def train(recipe: PlaneFlow, start: Training | None = None) -> Iterator[Training]:
    """Learn a recipe's field, and report every few updates; the last report is the end.

    The updates depend on `training_key` and their number alone: stopping and going on from the last report gives
    the weights of a training that never stopped.

    Args:
        start: go on from here (a report of a recipe with the same `training_key`).

    Raises:
        RecipeError: for a recipe that is impossible.
    """
    recipe.check()
    schedule, mixture = recipe.schedule(), recipe.data()
    classes = mixture.classes if len(mixture.classes) > 1 else []
    exact = ExactField(mixture, schedule, "velocity" if schedule.t_min == 0 else "x0", recipe.source)
    name = "mlp/" + blake2b(repr(training_key(recipe)).encode(), digest_size=16).hexdigest()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train_seed)
        network = MLP(mixture.dim, len(classes), recipe.width, recipe.depth)
    averaged = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, betas=(0.9, 0.99), fused=True)
    step, history, seconds = 0, [], 0.0
    if start is not None:
        step, history, seconds = start.step, list(start.history), start.seconds
        network.load_state_dict(start.state["network"])
        averaged.load_state_dict(start.state["averaged"])
        optimizer.load_state_dict(copy.deepcopy(start.state["optimizer"]))

    def learned(weights: MLP, at: int) -> MLPField:
        return MLPField(weights, schedule, recipe.loss, classes, mixture.dim, f"{name}/{at}")

    while step < recipe.train_steps:
        began = time.perf_counter()
        with threads_for(recipe.batch * recipe.width):
            # Drawn by block, so that an update sees the same pairs wherever training was stopped before.
            block = step // EVERY
            pairs = batch(recipe, mixture, schedule, EVERY * recipe.batch, _draws(recipe, f"block {block}"))
            trained = learned(network, step)
            for i in range(step % EVERY, min(EVERY, recipe.train_steps - block * EVERY)):
                part = pairs.take(slice(i * recipe.batch, (i + 1) * recipe.batch))
                with torch.enable_grad():
                    loss = losses(recipe, trained, part, trained.output(part.x, part.t, part.labels)).mean()
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                step += 1
                for group in optimizer.param_groups:
                    group["lr"] = RATE * min(1.0, step / 50, math.sqrt(SLOWER_AFTER / step))
                optimizer.step()
                with torch.no_grad():
                    keep = (1 - 1 / step) ** AVERAGED
                    torch._foreach_lerp_(list(averaged.parameters()), list(network.parameters()), 1 - keep)
            with torch.no_grad():
                fresh = batch(recipe, mixture, schedule, 1024, _draws(recipe, f"report {step}"))
                now = learned(copy.deepcopy(averaged), step)
                history.append(
                    (
                        step,
                        float(losses(recipe, now, fresh).mean()),
                        float(losses(recipe, exact, fresh).mean()),
                    )
                )
        state = {
            "network": copy.deepcopy(network.state_dict()),
            "averaged": copy.deepcopy(averaged.state_dict()),
            "optimizer": copy.deepcopy(optimizer.state_dict()),
        }
        seconds += time.perf_counter() - began
        yield Training(recipe, step, list(history), now, state, seconds)


class Trainings:
    """The newest report of each training, the last `limit` of them: a run goes on where an equal one stopped."""

    def __init__(self, limit: int = 16):
        self._limit = limit
        self._kept: OrderedDict[tuple, Training] = OrderedDict()

    def get(self, recipe: PlaneFlow) -> Training | None:
        """The report to go on from: none if it is already further than the recipe asks for."""
        found = self._kept.get(training_key(recipe))
        return found if found is not None and found.step <= recipe.train_steps else None

    def put(self, training: Training) -> None:
        """Keep a report in the place of earlier ones."""
        key = training_key(training.recipe)
        self._kept[key] = training
        self._kept.move_to_end(key)
        while len(self._kept) > self._limit:
            self._kept.popitem(last=False)
