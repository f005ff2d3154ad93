"""How each kind of experiment is run: one generator per recipe class.

A runner works on the device's thread. Whatever it yields between two evaluations is where it can be stopped or
made to wait: Preview and Note events, None when there is nothing to tell, and a Result at the end. To add an
experiment, write its runner here and put it into `RUNNERS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any

from playground.backend.events import Note, Preview, Result
from playground.errors import PlaygroundError
from playground.guidance import RULES
from playground.images.models import TextToImageModel, to_uint8
from playground.images.text_to_image import Generated, Progress
from playground.images.text_to_image import run as run_text_to_image
from playground.plane.flow import Flow, Moving
from playground.plane.flow import run as run_flow
from playground.plane.recipe import PlaneFlow
from playground.recipes import Recipe, TextToImage
from playground.reuse import Prefixes


@dataclass(frozen=True)
class Desk:
    """What the worker lends to a run.

    Attributes:
        model: a model by name, loaded if it is not yet.
        wants_preview: whether the reader has seen the last preview, and a moment has passed since.
        previewed: to be told how many seconds a preview took, so that they stay a small part of the run.
        prefixes: the steps of earlier runs.
    """

    model: Callable[[str], TextToImageModel]
    wants_preview: Callable[[], bool]
    previewed: Callable[[float], None]
    prefixes: Prefixes


Work = Generator[Preview | Note | Result | None, None, None]


def _text_to_image(recipe: TextToImage, desk: Desk) -> Work:
    model = desk.model(recipe.model)
    weak = desk.model(recipe.weak_model) if RULES[recipe.rule].weak and recipe.weak_model else None
    for words in recipe.texts():
        for text in model.text.notes(words):
            yield Note(text)
    limits = _limits(model)
    for event in run_text_to_image(recipe, model, prefixes=desk.prefixes, weak=weak):
        before, limits = limits, _limits(model)
        if limits != before:
            fewest = min(n for n in limits if n is not None)
            yield Note(f"Memory ran out: the same work goes on in batches of {fewest}.")
        if isinstance(event, Generated):
            yield Result(event)
        elif isinstance(event, Progress):
            yield _shown(event, model, desk)
        else:
            yield None


def _limits(model: TextToImageModel) -> tuple[int | None, int | None]:
    return model.denoiser.batches.limit, model.autoencoder.batches.limit


def _shown(progress: Progress, model: TextToImageModel, desk: Desk) -> Preview:
    pictures = None
    # The last step's prediction is the result, which follows at once.
    if progress.step < progress.steps and desk.wants_preview():
        began = time.monotonic()
        pictures = to_uint8(model.autoencoder.decode(progress.x0))
        desk.previewed(time.monotonic() - began)
    return Preview(progress.step, progress.steps, replace(progress.count), pictures)


def _plane_flow(recipe: PlaneFlow, desk: Desk) -> Work:
    for event in run_flow(recipe):
        if isinstance(event, Flow):
            yield Result(event)
        elif isinstance(event, Moving):
            yield Preview(event.step, event.steps, event.count, value=event)
        else:
            yield None


RUNNERS: dict[type[Recipe], Callable[[Any, Desk], Work]] = {TextToImage: _text_to_image, PlaneFlow: _plane_flow}
"""The runner of each kind of recipe."""


def runner_of(recipe: Recipe) -> Callable[[Any, Desk], Work]:
    """The runner of a recipe's class, or of the nearest class that it derives from.

    Raises:
        PlaygroundError: for an experiment that has none.
    """
    for kind in type(recipe).__mro__:
        if kind in RUNNERS:
            return RUNNERS[kind]
    raise PlaygroundError("This kind of experiment cannot be run here.")
