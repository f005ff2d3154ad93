"""The panel that measures what guidance buys and what it costs: fidelity and diversity over w."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gradio as gr

from components.charts import fidelity_against_diversity, fidelity_over_w
from components.pictures import FAST, RUNNING
from components.readouts import LATE, lines
from playground.backend import Backend, Failed, Note, Preview, Queued, Result, Stopped
from playground.errors import PlaygroundError
from playground.images.fidelity import LEAST, SCALES, SEEDS, Fidelity, Seen, curve, look, named, parts
from playground.images.tradeoff import has_verifier, verifier_of
from playground.recipes import TextToImage

BUTTON = f"Measure {len(SCALES)} scales over {SEEDS} seeds"
HELP = (
    f"Runs the settings at w = {', '.join(f'{w:g}' for w in SCALES)} for {SEEDS} seeds, "
    f"{len(SCALES) * SEEDS} pictures, which a scene verifier looks at: a small network trained on drawn scenes of "
    "the kind that the bundled model knows, never on generated ones. Fidelity is the probability that it gives to "
    "what the prompt names. Diversity is the mean distance between pictures of different seeds in its last layer, "
    "as a part of that without guidance (w = 1). Lectures draw the same with the Inception score and FID. Bars are "
    "standard errors. Saturated pictures, as at large w, are unlike any scene that it was trained on, and it may "
    "misread them: a low fidelity there can be the picture's fault or its own."
)
WITHOUT = (
    "Fidelity and diversity over w are not measured: they need a scene verifier beside the model, and none lies "
    "there."
)
KEPT = 64
"""Curves kept, of all visitors."""


class FidelityPanel:
    """Button, progress and charts; made where it is to stand, connected once the tab's controls are there.

    Args:
        backend: who runs.
        tab: the tab's name, for the elements' ids and the visitor's slot.
    """

    def __init__(self, backend: Backend, tab: str):
        self._backend, self._slot = backend, f"{tab}/fidelity"
        self._kept: OrderedDict[TextToImage, Fidelity] = OrderedDict()
        self._ended: set[str] = set()  # visitors who have pressed Stop since their measurement began
        there = self._able(next(iter(backend.models)))
        self.missing = gr.HTML(
            lines(WITHOUT), visible=not there, elem_classes="dp-note", elem_id=f"{tab}-unmeasured"
        )
        with gr.Column(visible=there, elem_id=f"{tab}-fidelity") as self.panel:
            with gr.Row():
                self.measure = gr.Button(BUTTON, size="sm", elem_id=f"{tab}-measure")
                self.stop = gr.Button("Stop", size="sm", scale=0, min_width=80, elem_id=f"{tab}-measure-stop")
            gr.HTML(f"<p>{HELP}</p>", elem_classes="dp-help")
            self.said = gr.HTML(elem_classes="dp-readout", elem_id=f"{tab}-measured")
            with gr.Row():
                self.over = gr.Plot(show_label=False, visible=False, elem_id=f"{tab}-fidelity-over-w")
                self.against = gr.Plot(show_label=False, visible=False, elem_id=f"{tab}-fidelity-against")

    def connect(self, recipe_of: Callable[[tuple[Any, ...]], TextToImage], controls: list[Any], model: Any) -> None:
        """Follow the button.

        Args:
            recipe_of: the recipe of the controls' values.
            controls: the tab's.
            model: the one of them that names the model.
        """

        def measure(request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
            try:
                yield from self._measured(recipe_of(values), request.session_hash or "")
            except (PlaygroundError, TimeoutError) as problem:
                yield {self.said: lines(str(problem) or LATE)}
            # Not in a `finally`: a visitor who leaves closes the generator, which must not yield then.
            yield {self.measure: gr.Button(BUTTON, interactive=True)}

        def chosen(name: str) -> dict[Any, Any]:
            there = self._able(name)
            return {self.panel: gr.update(visible=there), self.missing: gr.update(visible=not there)}

        self.measure.click(measure, controls, [self.measure, self.said, self.over, self.against], **RUNNING)
        self.stop.click(self._stop, None, None, **FAST)
        model.change(chosen, model, [self.panel, self.missing], **FAST)

    def _able(self, model: str) -> bool:
        return model in self._backend.models and has_verifier(self._backend.models[model])

    def _stop(self, request: gr.Request) -> None:
        self.end(request.session_hash or "")

    def end(self, visitor: str) -> None:
        """Stop a visitor's measurement, also where it is between two runs."""
        self._ended.add(visitor)
        self._backend.stop(visitor, self._slot)

    def _measured(self, recipe: TextToImage, visitor: str) -> Iterator[dict[Any, Any]]:
        """The curve grows seed by seed; one of equal settings is kept, and so are the pictures of a stopped one."""
        # Whatever the scale is that the slider shows, all of them are measured.
        key = parts(recipe, 1)[0].but(w=1.0)
        backend = self._backend
        verifier = backend.compute(lambda: verifier_of(backend.models.get(recipe.model, "")))
        if verifier is None:
            yield {self.said: lines(WITHOUT)}
            return
        trusted = verifier.told()
        if key in self._kept:
            self._kept.move_to_end(key)
            yield self._shown(self._kept[key], " (kept from an equal measurement)", trusted)
            return
        asked = named(recipe, verifier.labels)
        words = asked.words(verifier.labels)
        seeds: list[Seen] = []
        self._ended.discard(visitor)
        # The charts of an earlier measurement go with their caption.
        yield {
            self.measure: gr.Button(f"seed 1 of {SEEDS}", interactive=False),
            self.said: "",
            self.over: gr.Plot(visible=False),
            self.against: gr.Plot(visible=False),
        }
        for i, part in enumerate(parts(recipe)):
            for event in backend.run(part, visitor, self._slot):
                if isinstance(event, Preview):
                    told = f"seed {i + 1} of {SEEDS}: step {event.step} of {event.steps}"
                    yield {self.measure: gr.Button(told, interactive=False)}
                elif isinstance(event, Queued):
                    yield {self.measure: gr.Button(f"waiting: {event.ahead} ahead of yours", interactive=False)}
                elif isinstance(event, Result):
                    seeds.append(backend.compute(partial(look, verifier, event.value.pictures, asked)))
                elif isinstance(event, Note) and not event.of_words:
                    yield {self.said: lines(event.text)}
                elif isinstance(event, Failed):
                    yield {self.said: lines(event.text)}
                    return
                elif isinstance(event, Stopped):
                    self._ended.add(visitor)
            if visitor in self._ended and len(seeds) < SEEDS:
                self._ended.discard(visitor)
                if len(seeds) < LEAST:
                    yield {self.said: lines("The measurement was stopped.")}
                else:
                    yield self._shown(curve(seeds, words), ", and stopped there", trusted)
                return
            if LEAST <= len(seeds) < SEEDS:
                yield self._shown(curve(seeds, words), " so far", trusted)
        whole = curve(seeds, words)
        self._kept[key] = whole
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        yield self._shown(whole, "", trusted)

    def _shown(self, measured: Fidelity, more: str, trusted: str) -> dict[Any, Any]:
        told = f"{measured.seeds} seeds{more}. Looked for: {', '.join(measured.words)}."
        return {
            self.said: lines(told, trusted),
            self.over: gr.Plot(fidelity_over_w(measured), visible=True),
            self.against: gr.Plot(fidelity_against_diversity(measured), visible=True),
        }
