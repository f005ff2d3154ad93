"""How each kind of experiment is run: one generator per recipe class.

A runner works on the device's thread. Whatever it yields between two evaluations is where it can be stopped or
made to wait: Preview and Note events, None when there is nothing to tell, and a Result at the end. To add an
experiment, write its runner here and put it into `RUNNERS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from playground.backend.events import Note, Preview, Result
from playground.backend.guides import Guides
from playground.errors import PlaygroundError, RecipeError
from playground.fields import Count
from playground.guidance import RULES
from playground.images.cohorts import Cohort, Drawn
from playground.images.cohorts import run as run_cohort
from playground.images.comparison import Compared, Comparison, Converged, Reference, refine
from playground.images.comparison import run as run_comparison
from playground.images.examples import EXAMPLES
from playground.images.models import TextToImageModel, to_uint8
from playground.images.prompt_to_prompt import PromptToPrompt
from playground.images.prompt_to_prompt import run as run_prompt_to_prompt
from playground.images.sdedit import SDEdit
from playground.images.sdedit import run as run_sdedit
from playground.images.text_to_image import Generated, Progress
from playground.images.text_to_image import run as run_text_to_image
from playground.plane.comparison import PlaneCompared, PlaneComparison
from playground.plane.comparison import run as run_plane_comparison
from playground.plane.flow import Flow, Moving
from playground.plane.flow import run as run_flow
from playground.plane.learned import Training, Trainings, train
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
        trainings: fields that are being learned, to go on with.
        guides: the pictures that visitors brought.
    """

    model: Callable[[str], TextToImageModel]
    wants_preview: Callable[[], bool]
    previewed: Callable[[float], None]
    prefixes: Prefixes
    trainings: Trainings
    guides: Guides


Work = Generator[Preview | Note | Result | None, None, None]


def _text_to_image(recipe: TextToImage, desk: Desk) -> Work:
    model, weak = _models(recipe, desk)
    events = run_text_to_image(recipe, model, prefixes=desk.prefixes, weak=weak)
    yield from _pictures(recipe, model, events, desk, weak)


def _sdedit(recipe: SDEdit, desk: Desk) -> Work:
    model, weak = _models(recipe, desk)
    guide, mask = guide_of(recipe, desk.guides, model.picture_size)
    events = run_sdedit(recipe, model, guide, mask, desk.prefixes, weak)
    yield from _pictures(recipe, model, events, desk, weak)


def _prompt_to_prompt(recipe: PromptToPrompt, desk: Desk) -> Work:
    model = desk.model(recipe.model)
    yield from _pictures(recipe, model, run_prompt_to_prompt(recipe, model, desk.prefixes), desk)


GONE = "This guide is not on this installation: paint one, bring a picture or choose an example."


def guide_of(recipe: SDEdit, guides: Guides, size: tuple[int, int]) -> tuple[Image.Image, Image.Image | None]:
    """The pictures that a recipe names: the guide, drawn at a size if it is an example, and the mask if it has one.

    Raises:
        RecipeError: when there is none of that name.
    """
    if not recipe.guide:
        raise RecipeError("There is no guide yet: paint one, bring a picture or choose an example.")
    known = EXAMPLES.get(recipe.guide)
    guide = known.picture(size) if known else guides.get(recipe.guide)
    if guide is None:
        raise RecipeError(GONE)
    mask = guides.get(recipe.mask) if recipe.mask else None
    if recipe.mask and mask is None:
        raise RecipeError("This mask is not on this installation: paint it anew or clear it.")
    return guide.convert("RGB"), mask


def _models(recipe: TextToImage, desk: Desk) -> tuple[TextToImageModel, TextToImageModel | None]:
    """A recipe's model, and the weak one where its rule has one."""
    weak = RULES[recipe.rule].weak and recipe.weak_model
    return desk.model(recipe.model), desk.model(recipe.weak_model) if weak else None


def _pictures(
    recipe: TextToImage,
    model: TextToImageModel,
    events: Iterator[Any],
    desk: Desk,
    weak: TextToImageModel | None = None,
) -> Work:
    """The events of a run that makes pictures, as the reader sees them."""
    for event in _noted(recipe, model, events, weak):
        if isinstance(event, Note):
            yield event
        elif isinstance(event, Generated):
            yield Result(event)
        elif isinstance(event, Progress):
            yield _shown(event, model, desk)
        else:
            yield None


def _noted(
    recipe: TextToImage, model: TextToImageModel, events: Iterator[Any], weak: TextToImageModel | None = None
) -> Iterator[Any]:
    """The events, and a Note for words that the model does not know and whenever memory has run out."""
    for words in recipe.texts():
        for text in model.text.notes(words):
            yield Note(text, of_words=True)
    limits = _limits(model, weak)
    for event in events:
        before, limits = limits, _limits(model, weak)
        fewer = [n for was, n in zip(before, limits, strict=True) if n is not None and (was is None or n < was)]
        if fewer:
            yield Note(f"Memory ran out: the same work goes on in batches of {min(fewer)}.")
        yield event


def _limits(model: TextToImageModel, weak: TextToImageModel | None) -> list[int | None]:
    """How many rows go into a call of each network, as far as memory has said."""
    asked = [model.denoiser, weak.denoiser] if weak else [model.denoiser]
    return [*(denoiser.batches.limit for denoiser in asked), model.autoencoder.batches.limit]


def _shown(progress: Progress, model: TextToImageModel, desk: Desk) -> Preview:
    pictures = None
    # The last step's prediction is the result, which follows at once.
    if progress.step < progress.steps and desk.wants_preview():
        began = time.monotonic()
        pictures = to_uint8(model.autoencoder.decode(progress.x0))
        desk.previewed(time.monotonic() - began)
    return Preview(progress.step, progress.steps, replace(progress.count), pictures)


def _comparison(recipe: Comparison | Reference | Cohort, desk: Desk) -> Work:
    """Previews of a comparison show its cells, by their first seed; the others tell how far they are."""
    model = desk.model(recipe.model)
    events: Iterator[Any]
    if isinstance(recipe, Cohort):
        events = run_cohort(recipe, model)
    else:
        events = refine(recipe, model) if isinstance(recipe, Reference) else run_comparison(recipe, model)
    for event in _noted(recipe, model, events):
        if isinstance(event, Note):
            yield event
        elif isinstance(event, Compared | Converged | Drawn):
            yield Result(event)
        elif isinstance(event, Progress):
            if isinstance(recipe, Comparison):
                cells = len(event.x0) // recipe.pictures
                # A cell whose turn has not come believes nothing yet: the middle of all latents.
                yield _shown(replace(event, x0=event.x0[:cells].nan_to_num()), model, desk)
            else:
                yield Preview(event.step, event.steps, event.count)
        else:
            yield None


def _trained(recipe: PlaneFlow, desk: Desk) -> Generator[Preview, None, Training]:
    """The recipe's learned field: a stopped training goes on where it stopped."""
    training = desk.trainings.get(recipe)
    if training is None or training.step < recipe.train_steps:
        for report in train(recipe, training):
            training = report
            desk.trainings.put(report)
            yield Preview(report.step, recipe.train_steps, Count(), value=report)
    assert training is not None
    return training


def _plane_comparison(recipe: PlaneComparison, desk: Desk) -> Work:
    """Train the field first, if it is a learned one. Previews bring the rows so far."""
    field = (yield from _trained(recipe, desk)).field if recipe.field == "learned" else None
    for event in run_plane_comparison(recipe, field):
        if isinstance(event, PlaneCompared):
            yield Result(event)
        elif event is None:
            yield None
        else:
            yield Preview(len(event), recipe.size, Count(), value=event)


def _plane_flow(recipe: PlaneFlow, desk: Desk) -> Work:
    """Train the field first, if it is a learned one."""
    field, history, trained = None, [], 0.0
    if recipe.field == "learned":
        training = yield from _trained(recipe, desk)
        field, history, trained = training.field, training.history, training.seconds
    for event in run_flow(recipe, field):
        if isinstance(event, Flow):
            yield Result(replace(event, history=history, trained=trained))
        elif isinstance(event, Moving):
            yield Preview(event.step, event.steps, event.count, value=event)
        else:
            yield None


RUNNERS: dict[type[Recipe], Callable[[Any, Desk], Work]] = {
    TextToImage: _text_to_image,
    SDEdit: _sdedit,
    PromptToPrompt: _prompt_to_prompt,
    Comparison: _comparison,
    Reference: _comparison,
    Cohort: _comparison,
    PlaneComparison: _plane_comparison,
    PlaneFlow: _plane_flow,
}
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
