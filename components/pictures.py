"""What the tabs that make pictures share: settings, and the way from a hand on them to what is on show."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import gradio as gr

from components.controls import control, link_script
from components.live import Live
from components.media import data_url
from components.readouts import (
    PARAMETERS,
    PUTS_BACK,
    VARIABLE_TITLES,
    hindered,
    lines,
    rule_panel,
    step_panel,
)
from playground.backend import Backend, Failed, Note, Preview, Queued, Result, Stopped
from playground.errors import PlaygroundError
from playground.grids import TITLES as GRID_TITLES
from playground.guidance import RULES
from playground.images.models import to_uint8
from playground.recipes import TextToImage
from playground.solvers import SOLVERS

FAST: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Options of an event that takes no time to speak of."""
RUNNING: dict[str, Any] = {
    "trigger_mode": "always_last",
    "show_progress": "hidden",
    "concurrency_limit": None,
    "api_visibility": "private",
}
"""Options of an event that runs something: the backend's queue decides when."""

UNFINISHED: dict[str, Any] = {"unfinished": True}
"""The value of the row "Save" while something is on show that is not yet a finished run."""
BESIDE_THE_PAGE = "The page does not run that; `python -m playground render` with the link does."
"""Of what recipes can hold and no control of the page says."""

Read = Callable[..., tuple[TextToImage, dict[Any, Any]]]
Show = Callable[..., dict[Any, Any]]
Components = dict[str, Any]


def seed_row(recipe: type[TextToImage], c: Components) -> Any:
    """The seed and its dice; returns the event of a throw."""
    with gr.Row():
        c["seed"] = control(recipe, "seed", scale=3)
        dice = gr.Button("🎲", scale=1, min_width=44, elem_id=f"{recipe.tab}-dice", elem_classes="dp-dice")
    return dice.click(lambda: random.randrange(2**31), None, c["seed"], **FAST)


def solver_choice(recipe: type[TextToImage], c: Components) -> None:
    """The dropdown of all solvers with their orders."""
    titles = [(f"{s.title} ({s.told_order()})", name) for name, s in SOLVERS.items()]
    c["solver"] = control(recipe, "solver", choices=titles)


@dataclass
class More:
    """What `more_settings` laid out beside the controls themselves.

    Attributes:
        window: where it is told in which steps guidance acts.
        hindrance: where it is told why a rule cannot run here.
    """

    window: gr.HTML
    hindrance: gr.HTML


def more_settings(
    recipe: type[TextToImage], c: Components, backend: Backend, pictures: bool = True, weak: bool = True
) -> More:
    """The folded rest of the settings: negative prompt, guidance rule, window, grid, model.

    Args:
        pictures: whether there may be several from one prompt.
        weak: whether a weaker model may take the place of u (autoguidance).
    """
    default = next(iter(backend.models))
    rule_now = recipe.model_fields["rule"].default
    with gr.Accordion("More: negative prompt, guidance rule, window, grid, model", open=False):
        c["negative"] = control(recipe, "negative", lines=1)
        rules = [(r.title, n) for n, r in RULES.items() if weak or not r.weak]
        c["rule"] = control(recipe, "rule", choices=rules)
        hindrance = gr.HTML(elem_classes="dp-note", elem_id=f"{recipe.tab}-hindrance")
        for field, rule in PARAMETERS.items():
            c[field] = control(recipe, field, visible=rule == rule_now)
        weaker = [("choose one", ""), *((name, name) for name in backend.models)]
        if weak:
            c["weak_model"] = control(recipe, "weak_model", choices=weaker, visible=False)
        c["high"] = control(recipe, "high")
        c["low"] = control(recipe, "low")
        window = gr.HTML(elem_classes="dp-readout", elem_id=f"{recipe.tab}-window")
        c["grid"] = control(recipe, "grid", choices=[(v, k) for k, v in GRID_TITLES.items()])
        c["eta"] = control(recipe, "eta")
        c["variable"] = control(recipe, "variable", choices=[(v, k) for k, v in VARIABLE_TITLES.items()])
        if pictures:
            c["pictures"] = control(recipe, "pictures")
        c["model"] = control(recipe, "model", choices=list(backend.models), value=default)
    return More(window, hindrance)


def follow_rule(c: Components, more: More, formula: gr.Markdown, backend: Backend) -> None:
    """What belongs to a guidance rule is shown, and to no other."""

    def chosen(rule: str) -> dict[Any, Any]:
        own: dict[Any, Any] = {
            c[field]: gr.update(visible=belongs == rule) for field, belongs in PARAMETERS.items()
        }
        if weak_model is not None:
            own[weak_model] = gr.update(visible=RULES[rule].weak)
            own[more.hindrance] = lines(hindered(backend, rule))
        return {**own, formula: rule_panel(rule)}

    weak_model = c.get("weak_model")
    shown = [
        *(c[field] for field in PARAMETERS),
        *([] if weak_model is None else [weak_model]),
        formula,
        more.hindrance,
    ]
    c["rule"].change(chosen, c["rule"], shown, **FAST)


def follow_step(c: Components, panel: gr.Markdown, backend: Backend) -> None:
    """The equation panel names the path, the equation and the step of the solver that is chosen."""
    names = ["model", "solver", "variable", "eta", "grid", "rule"]

    def chosen(*values: Any) -> Any:
        try:
            return default_step(backend, **dict(zip(names, values, strict=True)))
        except PlaygroundError:
            return gr.skip()  # the run itself says why

    settings = [c[name] for name in names]
    gr.on([x.change for x in settings], chosen, settings, panel, **FAST)


def default_step(backend: Backend, rule: str = "cfg", **values: Any) -> str:
    """What `follow_step` shows for a guidance rule and these values; other settings do not matter for it.

    Raises:
        PlaygroundError: for values that are impossible, or a solver that the model cannot take.
    """
    made = TextToImage.make(**{"model": next(iter(backend.models))} | values)
    model = backend.model(made.model)
    solver = SOLVERS[made.solver]
    told = [step_panel(made.plan(model.denoiser.schedule).rows[0], model)]
    if RULES[rule].renoises and solver.renoises:
        told.append(PUTS_BACK)
    if limits := solver.limits():
        told.append(" ".join(limits))
    return "\n\n".join(told)


def taken_words(words: Any, example_to: Any, word_to: Any) -> tuple[Any, Any]:
    """A click on an example writes it, a click on a word of the list appends it; returns the two events.

    Args:
        words: the widget of examples and words.
        example_to, word_to: the text boxes that they go to.
    """

    def take_example(event: gr.EventData) -> str:
        return str(event._data["text"])

    def add_word(prompt: str, event: gr.EventData) -> str:
        return f"{prompt.rstrip()} {event._data['text']}".strip()

    return words.example(take_example, None, example_to, **FAST), words.word(add_word, word_to, word_to, **FAST)


def beside(
    backend: Backend,
    recipe: TextToImage,
    request: gr.Request,
    slot: str,
    button: gr.Button,
    error: Any,
    made: Callable[[Any], dict[Any, Any]],
) -> Iterator[dict[Any, Any]]:
    """A run of its own beside the tab's, whose steps are told on the button that starts it.

    Args:
        slot: what a newer such run of the visitor replaces.
        error: where a failure is told.
        made: (result) -> what is shown of it.
    """
    noted: list[str] = []
    for event in backend.run(recipe, request.session_hash or "", f"{recipe.tab}/{slot}"):
        if isinstance(event, Preview):
            told = f"step {event.step} of {event.steps} · {event.count.evaluations} model calls (NFE)"
            yield {button: gr.Button(told, interactive=False)}
        elif isinstance(event, Queued):
            yield {button: gr.Button(f"waiting: {event.ahead} ahead of yours", interactive=False)}
        elif isinstance(event, Note):
            # Words that a model does not know are told beside the picture.
            noted += [] if event.of_words else [event.text]
            yield {error: lines(*noted)}
        elif isinstance(event, Result):
            yield {error: lines(*noted), **made(event.value)}
        elif isinstance(event, Failed):
            yield {error: lines(event.text)}
    yield {button: gr.Button(button.value, interactive=True)}


R = TypeVar("R", bound=TextToImage)


def known_here(recipe: R, backend: Backend) -> tuple[R, list[str]]:
    """A link's recipe with models that this page has, and sentences about those that it has not."""
    told = []
    default = next(iter(backend.models))
    if recipe.model not in backend.models:
        told.append(f"The link's model {recipe.model[:40]!r} is not on this page; {default!r} is used.")
        recipe = recipe.but(model=default)
    if recipe.weak_model and recipe.weak_model not in backend.models:
        told.append(f"The link's weak model {recipe.weak_model[:40]!r} is not on this page.")
        recipe = recipe.but(weak_model="")
    return recipe, told


@dataclass
class Screen:
    """Where a tab shows a run."""

    stage: Any
    status: Any
    error: Any
    notes: Any
    save: Any


class Runs:
    """The runs of one tab: the visitors' hands on its controls, and what comes of them on the page.

    Args:
        backend: who runs.
        recipe: the tab's recipe.
        c: the controls by field name.
        names: the fields that have one, in the order of the values.
        screen: where a run is shown.
        read: (values) -> the recipe, and what is to be said of it before it has run. May raise a PlaygroundError,
            whose sentence is shown.
        show: (result event, recipe, visitor, *more) -> what is shown of a finished run.
        quick: (recipe, seconds per sample-forward) -> what runs while a hand moves.
        outputs: everything that `read` and `show` may update.
        more: components whose values `show` also gets.
        hidden: fields that are made by a widget; they change without an input.
    """

    def __init__(
        self,
        backend: Backend,
        recipe: type[TextToImage],
        c: Components,
        names: Sequence[str],
        screen: Screen,
        read: Read,
        show: Show,
        quick: Callable[[Any, float], Any],
        outputs: Sequence[Any],
        more: Sequence[Any] = (),
        hidden: Sequence[str] = (),
    ):
        self.backend, self.recipe, self.screen = backend, recipe, screen
        self.read, self.show, self.quick = read, show, quick
        self.live = Live(backend, recipe.tab)
        self.controls = [c[name] for name in names]
        self._more = len(more)
        self.inputs = [*more, *self.controls]
        self.outputs = [screen.stage, screen.status, screen.error, screen.notes, *outputs]
        self.write_link = link_script(recipe, list(names))
        visible = [c[name] for name in names if name not in hidden]
        touches = [e for x in visible for e in (x.input, getattr(x, "release", None)) if e is not None]
        # Text that is pasted or dropped is a change without an input.
        touches += [x.change for x in visible if isinstance(x, gr.Textbox)]
        # In this order: the light message first. See components/live.py.
        gr.on(touches, self._announce, self.controls, None, trigger_mode="multiple", **FAST)
        gr.on(touches, self.moved, self.inputs, self.outputs, **RUNNING)
        gr.on([x.change for x in self.controls], None, self.controls, None, js=self.write_link, **FAST)

    def then_start(self, event: Any) -> None:
        """After this event, run the settings as they then are."""
        # Values that are set from here reach the address without a change event where the tab is not on show.
        event.then(None, self.controls, None, js=self.write_link, **FAST)
        event.then(self.start, self.inputs, self.outputs, **RUNNING)

    def then_open(self, event: Any) -> None:
        """After this event, which opens the page, run what its link says; the address stays as it is."""
        event.then(self.start, self.inputs, self.outputs, **RUNNING)

    def then_move(self, event: Any) -> None:
        """After this event, follow the settings as if a hand moved."""
        event.then(None, self.controls, None, js=self.write_link, **FAST)
        announced = event.then(self._announce, self.controls, None, trigger_mode="multiple", **FAST)
        announced.then(self.moved, self.inputs, self.outputs, **RUNNING)

    def stop(self, request: gr.Request) -> None:
        """End the visitor's runs."""
        self.backend.stop(request.session_hash or "")

    def moved(self, request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        """A hand is on a control."""
        yield from self._follow(request, values, settled=False)

    def start(self, request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        """A button was pressed, or the page opens."""
        self._announce(request, *values[self._more :])
        yield from self._follow(request, values, settled=True)

    def announce(self, request: gr.Request, values: tuple[Any, ...]) -> None:
        """These values are now the newest (`Live.announce`)."""
        self.live.announce(request.session_hash or "", values)

    def _announce(self, request: gr.Request, *values: Any) -> None:
        self.announce(request, values)

    def _follow(self, request: gr.Request, given: tuple[Any, ...], settled: bool) -> Iterator[dict[Any, Any]]:
        more, values = given[: self._more], given[self._more :]
        try:
            recipe, said = self.read(values)
        except PlaygroundError as problem:
            yield {self.screen.error: lines(str(problem))}
            return
        yield said
        short = None if settled else self.quick(recipe, self.backend.pace(recipe.model))
        visitor = request.session_hash or ""
        noted: list[str] = []
        # What was said of an earlier failure goes when something happens: the same settings may be told twice, and
        # are run once.
        first: dict[Any, Any] = {self.screen.error: ""}
        for full, event in self.live.follow(visitor, values, recipe, short):
            if isinstance(event, Note):
                noted.append(event.text)
                update = {self.screen.notes: lines(*dict.fromkeys(noted))}
            elif isinstance(event, Result) and full:
                # What the run said of itself stays: that memory was short, words it does not know.
                update = self.show(event, recipe, visitor, *more)
                said_there = update.get(self.screen.notes) or ""
                more_said = lines(*(text for text in dict.fromkeys(noted) if lines(text) not in said_there))
                update[self.screen.notes] = said_there + more_said
            else:
                update = self._update(full, event)
            if update or first:
                yield first | update
            first = {}

    def _update(self, full: bool, event: Any) -> dict[Any, Any]:
        """What an event that is not the end of a full run changes."""
        screen = self.screen
        if isinstance(event, Result):
            pictures = [{"url": data_url(p), "label": ""} for p in to_uint8(event.value.pictures)]
            caption = f"{event.value.recipe.steps} steps"
            return {
                screen.stage: {"pictures": pictures, "live": True, "caption": caption},
                screen.save: UNFINISHED,
            }
        if isinstance(event, Preview) and full:
            n = event.count
            told = (
                f"step {event.step} of {event.steps} · {n.evaluations} model calls · "
                f"{n.sample_forwards} sample-forwards"
            )
            update: dict[Any, Any] = {screen.status: lines(told)}
            if event.pictures is not None:
                pictures = [{"url": data_url(p), "label": ""} for p in event.pictures]
                caption = f"x₀ as predicted at step {event.step}"
                update[screen.stage] = {"pictures": pictures, "live": True, "caption": caption}
                update[screen.save] = UNFINISHED
            return update
        if isinstance(event, Stopped | Failed) and not full:
            return {}  # a solver or grid may need more steps than a quick run has: the full one says what is wrong
        return outcome(event, screen)


def outcome(event: Any, screen: Screen) -> dict[Any, Any]:
    """Waiting, failure and stop, in words."""
    if isinstance(event, Queued):
        runs = "1 run is" if event.ahead == 1 else f"{event.ahead} runs are"
        return {screen.status: lines(f"waiting: {runs} ahead of yours")}
    if isinstance(event, Failed):
        return {screen.error: lines(event.text)}
    return {screen.status: lines("stopped")} if isinstance(event, Stopped) else {}
