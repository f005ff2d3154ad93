"""The tab 2D flow: particles on their way from noise to a distribution whose field is known exactly."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from components.arrivals import Arrivals
from components.charts import errors_against_cost, path_coefficients, training_loss
from components.controls import control, link_script, marks, own_query
from components.equations import equations
from components.live import Live
from components.media import Media
from components.programs import api_slot, array, refusals, run_answer
from components.readouts import LATEX, VARIABLE_TITLES, lines
from components.saving import save_value
from components.standalone import ROOM, Part, Sheet, options
from components.widgets import Plane, Save
from playground.backend import Backend, Failed, Note, Preview, Queued, Result, Stopped
from playground.errors import PlaygroundError, RecipeError
from playground.grids import TITLES as GRID_TITLES
from playground.guidance import RULES
from playground.plane.comparison import PlaneComparison
from playground.plane.flow import Flow
from playground.plane.learned import Training
from playground.plane.metrics import ErrorRow
from playground.plane.pictures import picture_as_points
from playground.plane.point import ask_point
from playground.plane.quality import distance
from playground.plane.recipe import SAMPLERS, STEPPINGS, WORD_LIMIT, PlaneFlow, impossible
from playground.plane.targets import (
    TITLES,
    decode_mixture,
    decode_points,
    encode_mixture,
    encode_points,
)
from playground.plane.views import FlowViews, keys, reasons, remarks
from playground.recipes import bounds, rule_fields
from playground.solvers import SOLVERS

TITLE = "2D flow"
NAMES = [name for name in PlaneFlow.model_fields if name != "dimension"]  # the target decides it
HIDDEN = ("points", "mixture")  # made on the plane, not typed
GUARDED = ("target", "source", "path", "grid", "solver", "variable", "rule", "field", "loss")
"""Lists whose choices can be impossible; that of classes shows only those that there are."""

PARAMETERS = {field: rule for rule in RULES for field in rule_fields(rule).values() if field in NAMES}
"""The controls of rules' own parameters, and whose they are."""
TRAINING = ("loss", "train_steps", "width", "depth", "batch", "dropout", "train_seed")

FILED = ("density", "arrows", "noising", "conditional", "grid", "tilted", "errors", "line-1")
"""Buffers that a saved file has, beside those that every flow has; on the line the density is one of these."""

LOOK = {"layers": ["particles", "trajectories", "density"], "at": 0.62}

# What a preset sets, and how it is looked at. All else goes back to its default.
POLYGONS = {"layers": ["solver", "trajectories", "density"], "at": 1.0}
ENDS = {"layers": ["particles", "density"], "at": 1.0}
WRONG = {"target": "eight", "path": "cosine", "field": "learned", "loss": "eps", "train_steps": 600}
WRONG |= {"width": 32, "depth": 2, "steps": 100}
RIGHT = {"target": "moons", "path": "cosine", "steps": 12}
GUIDED = {"layers": ["particles", "trajectories", "contours"], "at": 1.0}
Preset = tuple[dict[str, Any], dict[str, Any]]
PRESETS: dict[str, tuple[str, dict[str, Preset]]] = {
    "Truncation error": (
        "Few steps cut corners: the orange polygons leave the exact curves. More steps help, a higher order more.",
        {
            "Euler, 4 steps": ({"target": "pair", "solver": "euler", "steps": 4}, POLYGONS),
            "Euler, 32 steps": ({"target": "pair", "solver": "euler", "steps": 32}, POLYGONS),
            "Heun, 4 steps": ({"target": "pair", "solver": "heun", "steps": 4}, POLYGONS),
        },
    ),
    "A smarter time grid": (
        "The same twelve Heun steps on EDM's path: of equal length in t, or long where noise is high and short "
        "where it is low.",
        {
            "uniform": ({"target": "moons", "path": "edm", "solver": "heun", "steps": 12}, ENDS),
            "Karras": ({"target": "moons", "path": "edm", "solver": "heun", "steps": 12, "grid": "karras"}, ENDS),
        },
    ),
    "Noise while sampling": (
        "It repairs a field that is wrong (a small network, hardly trained): fresh noise lets particles forget "
        "where they were led. It hurts a right one: the same number of steps now has to follow a rougher path.",
        {
            "wrong field": (WRONG | {"solver": "ddim"}, ENDS),
            "wrong field and noise": (WRONG | {"solver": "ancestral"}, ENDS),
            "right field": (RIGHT | {"solver": "ddim"}, ENDS),
            "right field and noise": (RIGHT | {"solver": "euler_maruyama"}, ENDS),
        },
    ),
    "Guidance on three Gaussians": (
        "w = 0 ignores the class, w = 1 samples it, more exaggerates it. What comes out is not the tilted density "
        "p(x) p(c|x)^w that guidance is often said to sample.",
        {
            "w = 0": ({"target": "three", "label": 0, "w": 0.0, "steps": 32}, GUIDED),
            "w = 1": ({"target": "three", "label": 0, "w": 1.0, "steps": 32}, GUIDED),
            "w = 4": ({"target": "three", "label": 0, "w": 4.0, "steps": 32}, GUIDED),
            "guided is not tilted": (
                {"target": "three", "label": 0, "w": 2.0, "steps": 64},
                {"layers": ["particles", "tilted"], "at": 1.0},
            ),
        },
    ),
    "Autoguidance": (
        "Away from a worse version of the same field (here that of blurred data): samples move to the core of the "
        "moons, with no class involved.",
        {
            "off": ({"target": "moons", "rule": "auto", "w": 1.0, "blur": 0.3, "steps": 32}, ENDS),
            "w = 2": ({"target": "moons", "rule": "auto", "w": 2.0, "blur": 0.3, "steps": 32}, ENDS),
        },
    ),
    "Conditional and marginal": (
        "Blue: straight paths to one data point (click another). Green: the marginal paths, which average over all "
        "data points and bend.",
        {
            "both paths": (
                {"target": "eight", "steps": 48},
                {"layers": ["trajectories", "conditional", "density"], "at": 0.75},
            ),
        },
    ),
}

COST = """
Solvers on this target and path, from the same particles: how far each ends from where the exact flow takes it
(left; solvers that draw noise end elsewhere), and how far the whole cloud is from the distribution (right; 95%
of clouds of as many exact draws stay below the dashed line). The latter is the sliced W₂, as in the line below the
plane: the root-mean-square distance by which one cloud has to be moved to become the other, as seen from random
directions; 0 means equal. They run from σ/α = 20 to 0.05, short of clean
data. An error that falls with the square of the evaluations, slope 2, is order 2. All steps are spaced evenly
in log σ/α here, whatever the time grid. Guidance is off.
"""
ASK = (
    "Click a point of the plane for log p, exact and by the ODE, and the way there and back "
    "(untick “edit on the plane” first, where it is ticked)."
)
COMPARE = "Compare solvers"
TRAIN = "Train, or go on training"
GO_ON = 1000
"""Updates by which a field that has been learned goes on."""
COST_BUDGETS = (8, 16, 32, 64, 128)
PROBLEM = ("dimension", "target", "word", "points", "mixture", "bandwidth")
COMPARABLE = (*PROBLEM, "source", "path", "label", "eta", "seed")
"""What decides about errors against cost: the problem, and not how the flow on show solves it."""
COMPARED = ("euler", "heun", "dpmpp_2m", "rk4", "ancestral")

PATH_TITLES = {
    "linear": "linear: α = 1 − t, σ = t (rectified flow)",
    "cosine": "cosine: α = cos πt/2, σ = sin πt/2",
    "vp": "variance preserving (DDPM, score SDE)",
    "edm": "variance exploding (EDM): α = 1, σ = 80 t",
}


def recipe_of(values: tuple[Any, ...]) -> PlaneFlow:
    """The recipe that the controls describe. The target decides which classes there are."""
    told = dict(zip(NAMES, values, strict=True))
    recipe = PlaneFlow.make(**told)
    if recipe.label >= 0 and not (recipe.target == "points" and not recipe.points):
        classes = recipe.classes()
        if len(classes) < 2 or recipe.label not in classes:
            return recipe.but(label=-1)
    return recipe


EMPTY = {"edit": "draw", "components": [], "keys": {}}
"""The canvas's value while there is nothing but a plane to draw on."""


def unreadable(values: tuple[Any, ...]) -> bool:
    """Whether drawn points are wanted and those of the controls cannot be read: then they have to be drawn anew."""
    told = dict(zip(NAMES, values, strict=True))
    try:
        return told["target"] == "points" and not len(decode_points(str(told["points"]))[0])
    except PlaygroundError:
        return True


def refused_choices(recipe: PlaneFlow) -> dict[str, str]:
    """Choices that are impossible next to all else, "field/choice" -> the reason.

    A target that has nothing drawn or typed yet is possible: it is chosen first, and the dimension follows it.
    """
    refused = impossible(recipe)
    return {k: v for k, v in refused.items() if not k.startswith("target/") or "closed form" in v}


def problem_of(recipe: PlaneFlow) -> dict[str, Any]:
    """The fields that decide about errors against cost."""
    return {name: getattr(recipe, name) for name in COMPARABLE}


def comparison_line(recipe: PlaneComparison) -> str:
    """What a comparison is of, in words."""
    told = [TARGET_TITLES[recipe.target], f"{recipe.path} path", f"{recipe.source} source"]
    if recipe.label >= 0:
        told.append(f"class {recipe.label}")
    return ", ".join([*told, f"η = {recipe.eta:g}", f"seed {recipe.seed}"])


def comparison_of(recipe: PlaneFlow, solvers: Sequence[str]) -> PlaneComparison:
    """Solvers on the exact field of a flow's target, path and class."""
    return PlaneComparison.make(**problem_of(recipe), solvers=tuple(solvers), budgets=COST_BUDGETS, grid="log_snr")


class Pace:
    """How long a flow takes, learned from the last ones, so that the quick runs of a moving hand are quick."""

    def __init__(self) -> None:
        self.seconds = 3e-8  # per particle, component and evaluation

    @staticmethod
    def _work(recipe: PlaneFlow) -> float:
        forwards = recipe.plan(recipe.schedule()).cost(recipe.schedule()).sample_forwards
        return forwards * len(recipe.data().weights)

    def learn(self, flow: Flow) -> None:
        if not (work := self._work(flow.recipe)):  # a rule held every step still
            return
        measured = flow.seconds / (work * flow.recipe.particles)
        self.seconds = 0.5 * (self.seconds + measured)

    def quick(self, recipe: PlaneFlow) -> PlaneFlow:
        """The same with as many particles as fit into a fifth of a second."""
        most = int(0.2 / (self.seconds * max(1, self._work(recipe))))
        return recipe.but(particles=max(150, min(recipe.particles, 1000, most)))


def cost_line(flow: Flow, reused: bool) -> str:
    n, recipe = flow.count, flow.recipe
    both = f" · {n.sample_forwards} per particle with both branches" if n.sample_forwards != n.evaluations else ""
    again = " (kept from an equal run)" if reused else ""
    return f"{n.evaluations} evaluations (NFE){both} · {recipe.particles} particles · {flow.seconds:.2f} s{again}"


def film_line(flow: Flow) -> str:
    """That there are fewer frames than wanted, if so."""
    made, wanted = len(flow.frames), flow.recipe.frames
    return f"{made} frames instead of {wanted}: so many particles make a large film." if made < wanted else ""


def training_line(flow: Flow) -> str:
    """What the learned field cost, and how good it got."""
    if not flow.history:
        return ""
    step, loss, floor = flow.history[-1]
    return f"trained with {step} updates in {flow.trained:.1f} s · loss {loss:.4f} · of the exact field {floor:.4f}"


def distance_line(flow: Flow) -> str:
    far, floor = distance(flow)
    recipe = flow.recipe
    whose = "the data" if recipe.label < 0 else f"class {recipe.label}"
    return f"sliced W₂ to {whose}: {far:.3f} (as many exact draws: {floor:.3f})"


def plane_value(
    flow: Flow, token: str, live: bool, show: dict[str, Any] | None, edit: str | None, components: list
) -> dict[str, Any]:
    """The canvas's value for a flow."""
    recipe = flow.recipe
    classes = recipe.classes()
    return {
        "url": Media.url(token),
        "keys": keys(recipe),
        "reasons": reasons(recipe),
        "remarks": remarks(recipe),
        "dimension": recipe.dimension,
        "classes": [f"class {c}" for c in classes] if len(classes) > 1 else [],
        "learned": recipe.field == "learned",
        "live": live,
        "show": show,
        "edit": edit,
        "components": components,
    }


def sheet(views: FlowViews, backend: Backend, query: Mapping[str, str]) -> Sheet:
    """The flow as a file of its own, with every layer that it has."""
    flow, recipe, look = views.flow, views.flow.recipe, options(query)
    shown = {"id": "file", "layers": look["layers"] or LOOK["layers"], "at": look["at"]}
    if look["at"] is None:
        shown["at"] = LOOK["at"]
    value = plane_value(flow, "run", False, shown, None, []) | {"alone": True}
    refused = value["reasons"]
    there = FILED if recipe.dimension == 2 else [n for n in FILED if n not in ("density", "line-1")]
    names = ["flow", "line-0", *(n for n in ("exact", *there) if n not in refused)]
    files = {}
    for name in names:
        try:
            files[Media.url("run", f"{name}.bin")] = views.binary(f"{name}.bin")
        except PlaygroundError as problem:
            refused[name] = str(problem)  # the layer is greyed out, and says why
    film = Media.url("run", "flow.bin")
    note = ""
    if (over := sum(map(len, files.values())) - ROOM) > 0:
        each = 2 * (flow.frames.shape[0] * flow.frames.shape[2] + 1)  # bytes of a particle, see `Flow.to_bytes`
        kept = max(1, recipe.particles - math.ceil(over / each))
        few = replace(flow, frames=flow.frames[:, :kept], states=flow.states[:, :kept], labels=flow.labels[:kept])
        files[film] = few.to_bytes()
        note = f"To keep the file small it has {kept} of the {recipe.particles} particles."
    target = TARGET_TITLES[recipe.target] if recipe.target != "word" else f"“{recipe.word}”"
    steps = f"{SOLVERS[recipe.solver].title}, {recipe.steps} {'step' if recipe.steps == 1 else 'steps'}"
    return Sheet(
        f"From noise to {target}: {steps}",
        recipe,
        [cost_line(flow, False), distance_line(flow), note],
        [Part("", Plane, value)],
        files,
    )


def takes_long(recipe: PlaneFlow) -> bool:
    """Whether learning its field takes much longer than learning the page's own."""

    def work(r: PlaneFlow) -> int:
        return r.train_steps * r.batch * r.depth * r.width**2

    usual = PlaneFlow()  # an update has its price, however small the network
    long = work(recipe) > 2 * work(usual) or recipe.train_steps > 2 * usual.train_steps
    return recipe.field == "learned" and long


def choices_of(name: str, titles: dict[Any, str], refused: dict[str, str]) -> list[tuple[str, Any]]:
    """A control's choices: those that are impossible now come last, marked and with the reason."""
    possible = [(title, value) for value, title in titles.items() if f"{name}/{value}" not in refused]
    others = [
        (f"✕ {title} · {refused[f'{name}/{value}']}", value)
        for value, title in titles.items()
        if f"{name}/{value}" in refused
    ]
    return possible + others


TARGET_TITLES = dict(TITLES)
SOLVER_TITLES = {name: f"{SOLVERS[name].title} ({SOLVERS[name].told_order()})" for name in SAMPLERS}
STEPPING_TITLES = {name: GRID_TITLES[name] for name in STEPPINGS}
RULE_TITLES = {name: r.title for name, r in RULES.items()}


def build(page: gr.Blocks, opens: Any, backend: Backend, media: Media) -> list[Any]:
    """Lay out the tab and connect it; returns the controls in the order of `NAMES`.

    Args:
        page: which tells when a visitor leaves.
        opens: the event of the tab's being on show for the first time.
        backend, media: who runs, and who serves what was made.
    """
    live, pace = Live(backend, PlaneFlow.tab), Pace()
    default = PlaneFlow()
    shelf = media.shelf(PlaneFlow.tab)
    shown = gr.State("")  # the token of the flow on show
    look = gr.State({"id": "opening", **LOOK})

    # --- layout ---------------------------------------------------------------------------------------
    c: dict[str, Any] = {}

    def choice(name: str, titles: dict[Any, str], **options: Any) -> None:
        c[name] = control(PlaneFlow, name, choices=[(t, v) for v, t in titles.items()], **options)

    def plain(*names: str, **options: Any) -> None:
        for name in names:
            c[name] = control(PlaneFlow, name, **options)

    with gr.Row(elem_classes="dp-columns"):
        with gr.Column(elem_classes="dp-card dp-controls"):
            choice("target", TARGET_TITLES)
            c["word"] = control(PlaneFlow, "word", max_length=WORD_LIMIT, visible=False)
            with gr.Column(visible=False) as drawing:
                upload = gr.UploadButton(
                    "Picture: its dark pixels", file_types=["image"], size="sm", elem_id="flow-upload"
                )
            edit = gr.Checkbox(
                True,
                label="edit on the plane",
                info="draw, or drag the Gaussians",
                visible=False,
                elem_id="flow-edit",
            )
            plain("bandwidth", visible=False)
            for name in HIDDEN:
                c[name] = control(PlaneFlow, name, visible="hidden")
            plain("steps")
            choice("solver", SOLVER_TITLES)
            plain("eta", interactive=False)
            with gr.Row():
                c["seed"] = control(PlaneFlow, "seed", scale=3)
                dice = gr.Button("🎲", scale=1, min_width=44, elem_id="flow-dice", elem_classes="dp-dice")
            choice("label", {-1: "none"} | {k: f"class {k}" for k in default.classes()})
            plain("w", interactive=False)
            gr.HTML(marks(PlaneFlow, "w", (0.0, "0"), (1.0, "1")))
            with gr.Accordion("More: path, source, grid, particles", open=False):
                choice("path", PATH_TITLES)
                choice("source", {"gaussian": "Gaussian", "uniform": "uniform"})
                choice("grid", STEPPING_TITLES)
                choice("variable", VARIABLE_TITLES)
                plain("particles", "frames")
            with gr.Accordion("More: guidance rule and window", open=False):
                choice("rule", RULE_TITLES)
                plain(*PARAMETERS, "blur", visible=False)
                plain("high", "low")
            with gr.Accordion("The learned field", open=False):
                choice("field", {"exact": "exact (closed form)", "learned": "learned (trained here)"})
                plain(*TRAINING)
                train = gr.Button(TRAIN, size="sm", elem_id="flow-train")
                losses = gr.Plot(show_label=False, visible=False, elem_id="flow-loss-chart")
        with gr.Column(elem_classes="dp-picture"):
            told = gr.HTML(elem_classes="dp-note", elem_id="flow-link-notes")
            refusal = gr.HTML(elem_classes="dp-error", elem_id="flow-refusal")
            error = gr.HTML(elem_classes="dp-error", elem_id="flow-error")
            plane = Plane(elem_id="flow-plane")
            with gr.Row():
                status = gr.HTML(elem_classes="dp-readout", elem_id="flow-status")
                stop = gr.Button("Stop", size="sm", scale=0, min_width=80, elem_id="flow-stop")
            save = Save(elem_id="flow-save")
            notes = gr.HTML(elem_classes="dp-note", elem_id="flow-notes")
            point = gr.HTML(lines(ASK), elem_classes="dp-readout", elem_id="flow-point")
            with gr.Column(elem_classes="dp-card"):
                gr.Markdown("## The path and its steps")
                chart = gr.Plot(show_label=False, elem_id="flow-path-chart")
        with gr.Column(elem_classes="dp-card dp-explain"):
            gr.Markdown("## What you see")
            formula = gr.Markdown(equations(default), latex_delimiters=LATEX, elem_id="flow-formula")
            gr.Markdown("## Try")
            presets: list[tuple[str, gr.Button, Preset]] = []
            for group, (sentence, members) in PRESETS.items():
                gr.Markdown(f"**{group}.** {sentence}")
                with gr.Row(elem_classes="dp-presets"):
                    for name, preset in members.items():
                        presets.append((f"{group}: {name}", gr.Button(name, size="sm", min_width=120), preset))
    with gr.Column(elem_classes="dp-card"):
        gr.Markdown("## Error against cost")
        gr.Markdown(COST, latex_delimiters=LATEX)
        with gr.Row():
            compared = gr.Dropdown(
                [(SOLVERS[name].title, name) for name in SAMPLERS],
                value=list(COMPARED),
                multiselect=True,
                label="solvers",
                info="with the recipe's η and their own variable",
                scale=4,
                elem_id="flow-compared",
            )
            compare = gr.Button(COMPARE, size="sm", scale=1, min_width=160, elem_id="flow-compare")
        with gr.Row(elem_classes="dp-halves", visible=False) as halves:
            costs = [gr.Plot(show_label=False, elem_id=f"flow-{what}-chart") for what in ("error", "marginal")]
        costs_of = gr.HTML(elem_classes="dp-note", elem_id="flow-costs-of")
        compared_of = gr.State(None)

    controls = [c[name] for name in NAMES]
    outputs = [plane, status, error, notes, save, shown, chart, losses, point]

    # --- one run, from values to views ----------------------------------------------------------------
    def editing(recipe: PlaneFlow, on: bool) -> tuple[str | None, list]:
        if not on or recipe.target not in HIDDEN:
            return None, []
        if recipe.target == "mixture":
            return "mixture", [list(row) for row in decode_mixture(recipe.mixture)]
        points, labels = decode_points(recipe.points)
        return "draw", [[x, y, k] for (x, y), k in zip(points.tolist(), labels, strict=True)]

    def show_flow(flow: Flow, visitor: str, is_live: bool, show: dict[str, Any], on: bool) -> dict[str, Any]:
        token = shelf.add(visitor, FlowViews(flow, backend.compute))
        return {"token": token, "value": plane_value(flow, token, is_live, show, *editing(flow.recipe, on))}

    def views(
        steps: Iterator[tuple[bool, Any]], recipe: PlaneFlow, visitor: str, show: dict[str, Any], on: bool
    ) -> Iterator[dict[Any, Any]]:
        """The events of a run as updates of the page."""
        warned: list[str] = []
        for full, event in steps:
            if isinstance(event, Result):
                flow: Flow = event.value
                if (
                    not event.reused and recipe.field == "exact"
                ):  # a network's time has nothing to do with components
                    pace.learn(flow)
                made = show_flow(flow, visitor, not full, show, on)
                update: dict[Any, Any] = {plane: made["value"], shown: made["token"]}
                if full:
                    update |= {
                        status: lines(
                            cost_line(flow, event.reused), film_line(flow), training_line(flow), distance_line(flow)
                        ),
                        notes: lines(*warned),
                        save: save_value(made["token"], flow.recipe),
                        chart: path_coefficients(recipe),
                        losses: gr.Plot(training_loss(flow.history), visible=True)
                        if flow.history
                        else gr.Plot(visible=False),
                        point: lines(ASK),  # what was told there was told of another flow
                    }
                yield update
            elif isinstance(event, Preview) and isinstance(event.value, Training):
                training = event.value
                text = f"update {training.step} of {event.steps} · {training.seconds:.1f} s"
                loss = f"loss {training.loss:.4f} · of the exact field {training.floor:.4f}"
                yield {
                    status: lines(f"{text} · {loss}"),
                    losses: gr.Plot(training_loss(training.history), visible=True),
                }
            elif isinstance(event, Preview) and full:
                yield {status: lines(f"step {event.step} of {event.steps} · {event.count.evaluations} evaluations")}
            elif isinstance(event, Queued):
                runs = "1 run is" if event.ahead == 1 else f"{event.ahead} runs are"
                yield {status: lines(f"waiting: {runs} ahead of yours")}
            elif isinstance(event, Note):
                warned.append(event.text)
                yield {notes: lines(*warned)}
            elif isinstance(event, Failed):
                yield {error: lines(event.text)}
            elif isinstance(event, Stopped) and full:
                yield {status: lines("stopped")}

    def follow(request: gr.Request, show: dict[str, Any], on: bool, values: tuple[Any, ...], settled: bool):
        visitor = request.session_hash or ""
        try:
            recipe = recipe_of(values)
            if recipe.target == "points" and not recipe.points:
                yield {
                    **dict.fromkeys((error, status), ""),
                    notes: lines("Draw on the plane with mouse or finger, or choose a picture."),
                    plane: EMPTY,
                }
                return
            recipe.check()
            if not settled and takes_long(recipe) and not backend.trained(recipe):
                text = f"This field is learned in {recipe.train_steps:,} updates, which takes a while: press"
                yield {error: "", notes: lines(f"{text} “{TRAIN}” under “The learned field”.")}
                return
            short = None
            if not settled:
                # A field that has to be learned first has no quick version: it waits until the hand rests.
                short = recipe if recipe.field == "learned" else pace.quick(recipe)
        except PlaygroundError as problem:
            yield {error: lines(str(problem))} | ({plane: EMPTY} if unreadable(values) else {})
            return
        yield {error: "", notes: ""}
        yield from views(live.follow(visitor, values, recipe, short), recipe, visitor, show, on)

    def moved(request: gr.Request, show: dict[str, Any], on: bool, *values: Any):
        yield from follow(request, show, on, values, settled=False)

    def start(request: gr.Request, show: dict[str, Any], on: bool, *values: Any):
        live.announce(request.session_hash or "", values)
        yield from follow(request, show, on, values, settled=True)

    def announce(request: gr.Request, *values: Any) -> None:
        live.announce(request.session_hash or "", values)

    inputs = [look, edit, *controls]
    fast: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    running: dict[str, Any] = {
        "trigger_mode": "always_last",
        "show_progress": "hidden",
        "concurrency_limit": None,
        "api_visibility": "private",
    }
    touches = [e for x in controls for e in (x.input, getattr(x, "release", None)) if e is not None]
    touches += [c[name].change for name in ("word", *HIDDEN)]
    # In this order: the light message first. See components/live.py.
    gr.on(touches, announce, controls, None, trigger_mode="multiple", **fast)
    gr.on(touches, moved, inputs, outputs, **running)
    gr.on([x.change for x in controls], None, controls, None, js=link_script(PlaneFlow, NAMES), **fast)

    def then_start(event: Any) -> None:
        event.then(start, inputs, outputs, **running)

    # --- what a choice makes impossible, or pointless -------------------------------------------------------
    arranged = [*("target", "word", "bandwidth", "source", "path", "grid", "solver", "variable", "eta", "label")]
    arranged += ["w", "rule", "low", "high", "field", *TRAINING, *PARAMETERS, "blur"]

    def arrange(*values: Any) -> Any:
        """Grey out what cannot be chosen, and say why."""
        try:
            recipe = recipe_of(values)
            try:
                classes = recipe.classes()
            except PlaygroundError:
                # Nothing is drawn yet, or a word or mixture cannot be used: its controls are needed all the more.
                recipe = recipe.but(target="moons", field="exact")
                classes = []
            refused = refused_choices(recipe)
        except PlaygroundError:
            return gr.skip()
        told = dict(zip(NAMES, values, strict=True))
        labels = {-1: "none"} | ({k: f"class {k}" for k in classes} if len(classes) > 1 else {})
        titles: dict[str, dict[Any, str]] = {
            "target": TARGET_TITLES,
            "source": {"gaussian": "Gaussian", "uniform": "uniform"},
            "path": PATH_TITLES,
            "grid": STEPPING_TITLES,
            "solver": SOLVER_TITLES,
            "variable": {"auto": "the solver's own", "sigma": "σ/α (EDM)", "t": "t", "snr": "α/σ"},
            "label": labels,
            "rule": RULE_TITLES,
            "field": {"exact": "exact (closed form)", "learned": "learned (trained here)"},
            "loss": {"flow": "flow", "eps": "eps", "x0": "x0", "score": "score"},
        }
        updates: dict[Any, Any] = {}
        for name, known in titles.items():
            updates[c[name]] = {"choices": choices_of(name, known, refused)}
        updates[c["label"]]["value"] = recipe.label if recipe.label in labels else -1

        def only(condition: bool, reason: str, *names: str) -> None:
            for name in names:
                info = PlaneFlow.model_fields[name].description
                entry = updates.setdefault(c[name], {})
                entry |= {"interactive": condition, "info": info if condition else reason}

        only(SOLVERS[recipe.solver].stochastic, "this solver draws no noise", "eta")
        why = "choose a class first" if len(classes) > 1 else "this target has no classes"
        only(len(classes) > 1, "this target has no classes", "label")
        only(recipe.label >= 0 or RULES[recipe.rule].weak, why, "w", "low", "high")
        learned = recipe.field == "learned"
        only(learned, "only for the learned field", *TRAINING)
        only(bool(SOLVERS[recipe.solver].variables), "this solver's formula fixes it", "variable")
        kernels = told["target"] in ("word", "points")
        result = {component: gr.update(**entry) for component, entry in updates.items()}
        for name, rule in PARAMETERS.items():
            result[c[name]] = gr.update(visible=recipe.rule == rule)
        result[c["blur"]] = gr.update(visible=RULES[recipe.rule].weak)
        result[c["bandwidth"]] = gr.update(visible=kernels)
        result[c["word"]] = gr.update(visible=told["target"] == "word")
        result[drawing] = gr.update(visible=told["target"] == "points")
        result[edit] = gr.update(visible=told["target"] in HIDDEN)
        return result

    deciding = [c[n] for n in ("target", "source", "path", "grid", "solver", "variable", "label", "field", "eta")]
    deciding += [c[n] for n in ("rule", "loss", "word", "points", "mixture")]
    gr.on(
        [x.change for x in deciding],
        arrange,
        controls,
        [*(c[n] for n in arranged), drawing, edit],
        **(fast | {"trigger_mode": "always_last"}),
    )

    def explain(*values: Any) -> Any:
        try:
            return equations(recipe_of(values))
        except PlaygroundError:
            return gr.skip()

    explained = ["target", "source", "path", "solver", "variable", "grid", "eta", "label", "field", "loss"]
    explained += ["rule", "w", "low", "high", "blur"]
    gr.on(
        [c[n].change for n in (*explained, *PARAMETERS)],
        explain,
        controls,
        formula,
        **(fast | {"trigger_mode": "always_last"}),
    )

    # A list shows what is impossible, too, and why; who chooses it all the same is told, and keeps what was there.
    turned_back, put_back = gr.State(0), gr.State(None)  # how often, and which control has got what again

    def guarded(name: str) -> Any:
        def guard(token: str, count: int, back: Any, *values: Any) -> Any:
            try:
                recipe = recipe_of(values)
                chosen = getattr(recipe, name)
                if back == (name, chosen):  # a list that was set tells its value once more
                    return gr.skip()
                before = shelf.get(token)
                usual = [before.flow.recipe] if isinstance(before, FlowViews) else []
                known = [getattr(r, name) for r in (*usual, default)]
                for value in (*known, *get_args(PlaneFlow.model_fields[name].annotation)):
                    if value == chosen:
                        continue
                    kept = recipe_of(tuple(value if n == name else v for n, v in zip(NAMES, values, strict=True)))
                    if why := refused_choices(kept).get(f"{name}/{chosen}"):
                        kept.check()
                        again = {c[name]: value, turned_back: count + 1, put_back: (name, value)}
                        return {refusal: lines(why), **again}
                    break
            except PlaygroundError:
                pass
            return {refusal: "", put_back: None}

        return guard

    for name in GUARDED:
        states = [turned_back, put_back]
        c[name].input(guarded(name), [shown, *states, *controls], [refusal, c[name], *states], **fast)
    others = [c[n] for n in NAMES if n not in GUARDED]
    gr.on([x.input for x in others], lambda: "", None, refusal, **fast)
    then_start(turned_back.change(lambda: None, None, None, **fast))

    # --- buttons ---------------------------------------------------------------------------------------
    then_start(dice.click(lambda: random.randrange(2**31), None, c["seed"], **fast))
    for name, button, (changes, view) in presets:
        wanted = PlaneFlow(**changes)
        shown_as = {"id": name, **view}

        def take(wanted=wanted, shown_as=shown_as):
            view_ = shown_as | {"id": f"{shown_as['id']} {random.randrange(2**31)}"}
            return [view_, *(getattr(wanted, n) for n in NAMES)]

        then_start(button.click(take, None, [look, *controls], **fast))

    def trained(*values: Any) -> Any:
        """Learn the field; one that has been learned goes on."""
        try:
            recipe = recipe_of(values)
        except PlaygroundError:
            return {c["field"]: "learned"}
        _, most = bounds(PlaneFlow.model_fields["train_steps"])
        if recipe.field != "learned" or not backend.trained(recipe):
            return {c["field"]: "learned", refusal: ""}
        if recipe.train_steps == most:
            return {refusal: lines(f"This field has had all {most:,} updates that one may have.")}
        return {c["train_steps"]: min(most, recipe.train_steps + GO_ON), refusal: ""}

    then_start(train.click(trained, controls, [c["field"], c["train_steps"], refusal], **fast))

    def stop_mine(request: gr.Request) -> None:
        backend.stop(request.session_hash or "")

    stop.click(stop_mine, None, None, **fast)

    # --- what is done on the plane ---------------------------------------------------------------------------
    def ask(token: str, event: gr.EventData) -> str:
        kept = shelf.get(token)
        if not isinstance(kept, FlowViews):
            return lines("This flow is no longer kept; move a slider to run it again.")
        try:
            x, y, t = (float(event._data[k]) for k in ("x", "y", "t"))
            answer = backend.compute(lambda: ask_point(kept.flow.recipe, kept.field, (x, y), t))
        except (PlaygroundError, TimeoutError) as problem:
            return lines(str(problem) or "That took too long.")
        except (KeyError, TypeError, ValueError):
            return lines("That is not a point of the plane.")
        return lines(*answer.sentences())

    plane.point(ask, shown, point, **(fast | {"trigger_mode": "multiple"}))

    shapes, strokes = Arrivals(), Arrivals()

    def shaped(request: gr.Request, event: gr.EventData) -> Any:
        if not shapes.note(request.session_hash, event._data.get("number")):
            return gr.skip()
        try:
            return {c["mixture"]: encode_mixture([tuple(row) for row in event._data["components"]]), error: ""}
        except PlaygroundError as problem:
            return {error: lines(str(problem))}
        except (KeyError, TypeError):
            return gr.skip()

    def drawn(request: gr.Request, event: gr.EventData) -> Any:
        if not strokes.note(request.session_hash, event._data.get("number")):
            return gr.skip()
        try:
            rows = event._data["points"]
            if not rows:
                return {c["points"]: "", error: ""}
            return {c["points"]: encode_points([r[:2] for r in rows], [int(r[2]) for r in rows]), error: ""}
        except PlaygroundError as problem:
            return {error: lines(str(problem))}
        except (KeyError, TypeError, ValueError, IndexError):
            return gr.skip()

    plane.shaped(shaped, None, [c["mixture"], error], **(fast | {"trigger_mode": "multiple"}))
    plane.drawn(drawn, None, [c["points"], error], **(fast | {"trigger_mode": "multiple"}))
    then_start(edit.input(lambda: None, None, None, **fast))

    def uploaded(path: str) -> Any:
        try:
            text, done = picture_as_points(Path(path).read_bytes())
            return {c["points"]: text, error: "", told: lines(*done)}
        except PlaygroundError as problem:
            return {error: lines(str(problem))}

    upload.upload(uploaded, upload, [c["points"], error, told], **fast)

    # --- error against cost ------------------------------------------------------------------------------------
    def run_comparison(request: gr.Request, solvers: list[str], *values: Any):
        def charted(rows: list[ErrorRow], button: gr.Button) -> dict[Any, Any]:
            figures = [errors_against_cost(rows, what) for what in ("error", "marginal")]
            return {
                compare: button,
                halves: gr.Row(visible=True),
                compared_of: recipe,
                **dict(zip(costs, figures, strict=True)),
                error: "",
            }

        again = gr.Button(COMPARE, interactive=True)
        try:
            if not solvers:
                raise RecipeError("Choose at least one solver to compare.")
            recipe = comparison_of(recipe_of(values), solvers)
            for event in backend.run(recipe, request.session_hash or "", f"{PlaneFlow.tab}/compare"):
                if isinstance(event, Preview) and not event.step:
                    yield {compare: gr.Button("finding the exact solution", interactive=False), error: ""}
                elif isinstance(event, Preview):
                    yield charted(event.value, gr.Button(f"{event.step} of {event.steps} runs", interactive=False))
                elif isinstance(event, Queued):
                    yield {compare: gr.Button(f"waiting: {event.ahead} ahead of yours", interactive=False)}
                elif isinstance(event, Result):
                    yield charted(event.value.rows, again)
                elif isinstance(event, Failed):
                    yield {error: lines(event.text), compare: again}
                elif isinstance(event, Stopped):
                    yield {compare: again}
        except PlaygroundError as problem:
            yield {error: lines(str(problem)), compare: again}

    compare.click(run_comparison, [compared, *controls], [compare, halves, compared_of, *costs, error], **running)

    def still(of: PlaneComparison | None, *values: Any) -> str:
        """What the charts are of, where that is no longer what the controls say."""
        if of is None:
            return ""
        try:
            if problem_of(recipe_of(values)) == problem_of(of):
                return ""
        except PlaygroundError:
            pass
        return lines(f"The charts are of other settings: {comparison_line(of)}. Compare again for those above.")

    deciders = [compared_of, *(c[name] for name in COMPARABLE if name in c)]
    gr.on(
        [x.change for x in deciders],
        still,
        [compared_of, *controls],
        costs_of,
        **(fast | {"trigger_mode": "always_last"}),
    )

    # --- the same for programs --------------------------------------------------------------------------
    def plane_flow(recipe: dict[str, Any], request: gr.Request) -> dict[str, Any]:
        """The trajectories of a PlaneFlow recipe: times, and arrays as base64 of little-endian numbers."""
        with refusals(recipe):
            made = PlaneFlow.make(**recipe)
            result = backend.result(made, request.session_hash or "", api_slot(PlaneFlow))
        far, floor = distance(result)
        return {
            "times": result.times.tolist(),
            "solver_times": result.solver_times.tolist(),
            "frames": array(result.frames.numpy().astype("<f4")),
            "states": array(result.states.numpy().astype("<f4")),
            "labels": array(result.labels.numpy().astype("<i2")),
            "sliced_w2": far,
            "sliced_w2_of_exact_draws": floor,
            **run_answer(made, result),
        }

    gr.api(plane_flow, api_name="plane_flow", concurrency_limit=None)

    # --- opening the page -------------------------------------------------------------------------------
    def restore(request: gr.Request):
        recipe, changed = PlaneFlow.from_query(own_query(request, PlaneFlow.tab))
        return {**{c[name]: getattr(recipe, name) for name in NAMES}, told: lines(*changed)}

    opened = opens(restore, None, [*controls, told], **fast)

    def begin(request: gr.Request, show: dict[str, Any], on: bool, *values: Any):
        """What the link says, at once; a long training waits for a click, as it does when a hand asks for it."""
        live.announce(request.session_hash or "", values)
        try:
            settled = not takes_long(recipe_of(values))
        except PlaygroundError:
            settled = True  # which says what is wrong
        yield from follow(request, show, on, values, settled)

    opened.then(begin, inputs, outputs, **running)

    def left(request: gr.Request) -> None:
        live.forget(request.session_hash or "")
        shelf.forget(request.session_hash)
        for arrivals in (shapes, strokes):
            arrivals.forget(request.session_hash)

    page.unload(left)
    return controls
