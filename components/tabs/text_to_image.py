"""The tab Text to image: one prompt, one noise, and what guidance does with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from components.charts import guidance_norms, guidance_parts
from components.controls import control, mark_script, marks, own_query
from components.fidelity import FidelityPanel
from components.media import Media
from components.pictures import (
    FAST,
    RUNNING,
    Runs,
    Screen,
    beside,
    default_step,
    follow_rule,
    follow_step,
    known_here,
    more_settings,
    seed_row,
    solver_choice,
    taken_words,
)
from components.programs import api_slot, pictures_answer, refusals
from components.readouts import (
    LATEX,
    cost_line,
    film,
    lines,
    number,
    rule_panel,
    said,
    window_lines,
    word_list,
)
from components.saving import save_value
from components.standalone import Sheet, film_sheet, options
from components.widgets import Filmstrip, Noising, Save, Stage, Sweep, Tokens, Words
from playground.backend import Backend, Result
from playground.errors import PlaygroundError
from playground.guidance import RULES, Composed
from playground.images.models import TextToImageModel, readings
from playground.images.text_to_image import Generated
from playground.recipes import AXES, TextToImage, rule_fields, title
from playground.sharing.views import NOISE_FRAMES, RunViews
from playground.solvers import SOLVERS

TITLE = "Text to image"
NAMES = [name for name in TextToImage.model_fields if name not in ("sweep", "values")]
SWEEP = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 9.0, 15.0)
TABLE = (1.0, 2.0, 4.0, 8.0, 14.0)
"""The scales of a sweep with a second axis."""
RUN_SWEEP = "Run the sweep with these settings"
LINK_SECONDS = 20.0
"""That a sweep may take which a link brings, before it waits for a press."""

ALL_ALONG = {"low": 0.0, "high": 1.0, "rule": "cfg"}
PRESETS: dict[str, dict[str, Any]] = {
    "Unconditional (w = 0)": {"w": 0.0, **ALL_ALONG},
    "No guidance (w = 1)": {"w": 1.0, **ALL_ALONG},
    "Guidance (w = 4)": {"w": 4.0, **ALL_ALONG},
    "Too much (w = 14)": {"w": 14.0, **ALL_ALONG},
    "Too much, but in a window": {"w": 14.0, "low": 0.3, "high": 0.8, "rule": "cfg"},
    "Too much, but rescaled": {"w": 14.0, **ALL_ALONG, "rule": "rescale", "rescale_phi": 0.7},
    "Too much, but across c (APG)": {"w": 14.0, **ALL_ALONG, "rule": "apg", "apg_eta": 0.0},
    "Away from the prompt (w = −1)": {"w": -1.0, **ALL_ALONG},
    "Two prompts, joined by AND": {"prompt": "a cat AND a beach", "w": 4.0, **ALL_ALONG},
}

EQUATIONS = r"""
Guidance compares two predictions of the noise at the same $x_t$, without the prompt and with it:

$$u = \epsilon_\theta(x_t, t, \varnothing), \quad c = \epsilon_\theta(x_t, t, \text{prompt})$$

A negative prompt takes the place of $\varnothing$; with autoguidance $u$ is what a weaker model says to the prompt.
What a run costs stands below the picture. A *model call* (NFE, number of function evaluations) takes both
predictions of all pictures at once; *sample-forwards* count them one by one, so guidance doubles these. Some papers
count these as NFE.
"""


def quick(recipe: TextToImage, pace: float) -> TextToImage:
    """What runs while a slider moves: as many steps as fit into a quarter of a second, two pictures at most.

    Args:
        pace: seconds per sample-forward, as measured in earlier runs.
    """
    pictures = min(recipe.pictures, 2)
    steps = max(3, min(8, round(0.25 / (2 * pictures * pace))))
    return recipe.but(steps=min(recipe.steps, steps), pictures=pictures)


def recipe_of(values: tuple[Any, ...], **more: Any) -> TextToImage:
    """The recipe that the controls describe. An emptied number box is named, not guessed."""
    return TextToImage.make(**dict(zip(NAMES, values, strict=True)), **more)


def read_as(recipe: TextToImage) -> str:
    """How a prompt with several parts was read; nothing for other prompts."""
    condition = recipe.condition()
    if not isinstance(condition, Composed):
        return ""
    index = "₁₂₃₄₅₆₇₈₉"
    terms = [
        f"{'−' if a < 0 else '+'} {number(abs(a))} (c{index[i]} − u)" for i, (_, a) in enumerate(condition.parts)
    ]
    parts = [f"c{index[i]}: {'not ' if a < 0 else ''}“{text}”" for i, (text, a) in enumerate(condition.parts)]
    return lines(f"Read as c = u {' '.join(terms)}", " · ".join(parts))


def noising(token: str, model: TextToImageModel, row: int) -> dict[str, Any]:
    """The forward noising widget's value for one row of a run."""
    path = model.denoiser.schedule
    times = [k / (NOISE_FRAMES - 1) * path.t_max for k in range(NOISE_FRAMES)]
    log_snr = [float(path.log_snr(t)) for t in times]
    return {
        "url": Media.url(token, f"noise-{row}-"),
        "frames": NOISE_FRAMES,
        "times": times,
        "alpha": [float(path.alpha(t)) for t in times],
        "sigma": [float(path.sigma(t)) for t in times],
        "log_snr": [v if abs(v) != float("inf") else None for v in log_snr],
        "note": "The noise is the one this picture was made from.",
    }


def token_row(model: TextToImageModel, texts: list[str]) -> dict[str, Any]:
    tokens = [token for text in texts for reading in readings(model.text, text) for token in reading]
    shown = [{"text": t.text, "kind": t.kind, "id": t.id} for t in tokens]
    each = f"Each of {len(texts)} texts: " if len(texts) > 1 else ""
    return {"tokens": shown, "note": each + model.text.summary}


def sheet(views: RunViews, backend: Backend, query: Mapping[str, str]) -> Sheet:
    """A picture and its filmstrip as a file of their own."""
    return film_sheet(views, backend, options(query)["row"], [])


def latents_picture(token: str, result: Generated, row: int) -> str:
    channels, height, width = result.latents.shape[1:]
    size = result.pictures.shape[-1]
    return (
        f'<img src="{Media.url(token, f"latents-{row}.png")}" alt="latent channels" '
        'style="width:100%;image-rendering:pixelated;border-radius:6px">'
        f"<p>{channels} channels of {height} × {width}, mid-grey is 0. The decoder makes {size} × {size} "
        "pixels of them.</p>"
    )


def with_sweep(recipe: TextToImage, own: dict[str, Any] | None = None) -> TextToImage:
    """The recipe with the sweep over w, or the table of w and its second axis.

    Args:
        own: the scales, and the values of the second axis, that a link has chosen in place of the usual ones.
    """
    if own and own["across"] == recipe.across:
        return recipe.but(**own)
    return recipe.but(sweep=SWEEP) if recipe.across == "none" else recipe.table(TABLE, recipe.across)


def sweep_tiles(recipe: TextToImage, token: str | None = None) -> dict[str, Any]:
    """The sweep's value: a tile for each of its pictures, and the one marked that the other settings name."""
    axes = ["w"] if recipe.across == "none" else ["w", recipe.across]
    names = {"w": "w", "low": "end", "high": "start"}
    tiles = []
    for i, single in enumerate(recipe.singles()):
        value = {axis: getattr(single, axis) for axis in axes}
        label = " · ".join(f"{names.get(a, title(TextToImage, a))} = {number(v)}" for a, v in value.items())
        tiles.append(
            {"value": value, "label": label, "url": Media.url(token, f"picture-{i}.png") if token else None}
        )
    return {
        "axis": " and ".join(title(TextToImage, a) for a in axes),
        "tiles": tiles,
        "columns": len(recipe.sweep) if len(axes) == 2 else None,
        "selected": {axis: getattr(recipe, axis) for axis in axes},
        "caption": "",
        # What all of its pictures have in common, as the controls show it.
        "of": {n: getattr(recipe, n) for n in NAMES if n not in (*axes, "pictures")} if token else {},
    }


def second_axes(rule: str) -> list[tuple[str, str]]:
    """What can be the second axis of a sweep: the parameters of other rules come last, with the rule's name."""
    able = ["low", "high", "steps", *rule_fields(rule).values()]
    others = [
        (f"{title(TextToImage, name)} · changes the rule to {RULES[other].title}", name)
        for other in RULES
        if other != rule and not RULES[other].weak  # which needs a weak model to be chosen first
        for name in rule_fields(other).values()
    ]
    return [("none: eight scales w", "none"), *((title(TextToImage, name), name) for name in able), *others]


def rule_of(axis: str, rule: str) -> str:
    """The guidance rule that a second axis needs: that which is chosen, unless it is a parameter of another."""
    return next((name for name in RULES if axis in rule_fields(name).values()), rule)


def build(page: gr.Blocks, opens: Any, backend: Backend, media: Media) -> list[Any]:
    """Lay out the tab and connect it; returns the controls in the order of `NAMES`.

    Args:
        page: which tells when a visitor leaves.
        opens: the event of the tab's being on show for the first time.
        backend, media: who runs, and who serves what was made.
    """
    default = TextToImage(model=next(iter(backend.models)))
    shelf = media.shelf(TextToImage.tab)
    shown = gr.State("")  # the token of the run on show

    # --- layout ---------------------------------------------------------------------------------------
    with gr.Row(elem_classes="dp-columns"):
        with gr.Column(elem_classes="dp-card dp-controls"):
            c: dict[str, Any] = {}
            c["prompt"] = control(TextToImage, "prompt", lines=2)
            composed = gr.HTML(elem_classes="dp-note", elem_id="t2i-composed")
            words = Words(elem_id="t2i-words")
            c["w"] = control(TextToImage, "w")
            gr.HTML(marks(TextToImage, "w", (0.0, "0"), (1.0, "1")), elem_id="t2i-marks")
            both = gr.HTML(said(default), elem_classes="dp-readout", elem_id="t2i-conventions")
            dice = seed_row(TextToImage, c)
            c["steps"] = control(TextToImage, "steps")
            solver_choice(TextToImage, c)
            more = more_settings(TextToImage, c, backend)
        with gr.Column(elem_classes="dp-picture"):
            told = gr.HTML(elem_classes="dp-note", elem_id="t2i-link-notes")
            error = gr.HTML(elem_classes="dp-error", elem_id="t2i-error")
            stage = Stage(elem_id="t2i-stage")
            with gr.Row():
                status = gr.HTML(elem_classes="dp-readout", elem_id="t2i-status")
                stop = gr.Button("Stop", size="sm", scale=0, min_width=80, elem_id="t2i-stop")
            save = Save(elem_id="t2i-save")
            notes = gr.HTML(elem_classes="dp-note", elem_id="t2i-notes")
            with gr.Column(elem_classes="dp-card"):
                gr.Markdown("## Guidance scales from one noise")
                sweep = Sweep(sweep_tiles(with_sweep(default)), elem_id="t2i-sweep")
                c["across"] = control(
                    TextToImage,
                    "across",
                    choices=second_axes(default.rule),
                    info="a table: five scales w from left to right, four values of this from top to bottom",
                    elem_id="t2i-axis",
                )
                own_sweep = gr.State()  # the scales of the sweep that a link has brought
                sweep_button = gr.Button(RUN_SWEEP, size="sm", elem_id="t2i-sweep-run")
        with gr.Column(elem_classes="dp-card dp-explain"):
            gr.Markdown("## What you see")
            gr.Markdown(EQUATIONS, latex_delimiters=LATEX)
            formula = gr.Markdown(rule_panel(default.rule), latex_delimiters=LATEX, elem_id="t2i-formula")
            gr.Markdown("## The path and a step on it")
            step = gr.Markdown(default_step(backend), latex_delimiters=LATEX, elem_id="t2i-step")
            gr.Markdown("## Try")
            with gr.Row(elem_classes="dp-presets"):
                presets = {name: gr.Button(name, size="sm", min_width=130) for name in PRESETS}
            gr.Markdown("## The two predictions, step by step")
            chart = gr.Plot(show_label=False, elem_id="t2i-chart")
            gr.Markdown("## D = c − u in x₀, along and across c")
            parts = gr.Plot(show_label=False, elem_id="t2i-parts")
    with gr.Column(elem_classes="dp-card"):
        gr.Markdown("## Filmstrip: what every step believed")
        look = gr.Slider(
            1,
            8,
            1,
            step=1,
            label="picture",
            info="whose filmstrip, predictions, latents and noising are shown",
            visible=False,
            elem_id="t2i-look",
        )
        strip = Filmstrip(elem_id="t2i-film")
        everything = gr.Checkbox(
            label="also compute the branches that guidance skipped",
            info="costs model calls that the run did not need; they are counted apart",
            elem_id="t2i-everything",
        )
    with gr.Column(elem_classes="dp-card"):
        gr.Markdown("## What guidance buys, and what it costs")
        fidelity = FidelityPanel(backend, TextToImage.tab)
    with gr.Row(elem_classes="dp-halves"):
        with gr.Column(elem_classes="dp-card"):
            gr.Markdown("## Three parts: text encoder, denoiser, decoder")
            tokens = Tokens(elem_id="t2i-tokens")
            latents = gr.HTML(elem_classes="dp-readout", elem_id="t2i-latents")
        with gr.Column(elem_classes="dp-card"):
            gr.Markdown("## Forward noising: this picture at any t")
            noise = Noising(elem_id="t2i-noising")

    controls = [c[name] for name in NAMES]

    def run_views(result: Generated) -> RunViews:
        recipe = result.recipe
        weak = (lambda: backend.model(recipe.weak_model)) if RULES[recipe.rule].weak else None
        return RunViews(result, lambda make: backend.call(make, recipe.model), weak)

    # --- one run, from values to views ----------------------------------------------------------------
    def show(event: Result, recipe: TextToImage, visitor: str, everything: bool) -> dict[Any, Any]:
        result, model = event.value, backend.model(recipe.model)
        views = run_views(result)
        token = shelf.add(visitor, views)
        trace, extra = views.completed(0) if everything else (None, None)
        norms = result.norms(0, trace)
        many = len(result.pictures) > 1
        pictures = [
            {
                "url": Media.url(token, f"picture-{i}.png"),
                "label": f"seed {recipe.seed + i}" if many else "",
            }
            for i in range(len(result.pictures))
        ]
        return {
            stage: {"pictures": pictures, "live": False, "caption": recipe.prompt or "(no prompt)"},
            status: lines(cost_line(result, model, event.reused)),
            notes: lines(*(note for text in recipe.texts() for note in model.text.notes(text))),
            shown: token,
            save: save_value(token, recipe),
            strip: film(token, result, model, 0, everything, extra),
            look: gr.Slider(maximum=max(2, len(result.pictures)), value=1, visible=many),
            chart: guidance_norms(norms),
            parts: guidance_parts(norms),
            tokens: token_row(model, recipe.texts()),
            latents: latents_picture(token, result, 0),
            noise: noising(token, model, 0),
        }

    def read(values: tuple[Any, ...]) -> tuple[TextToImage, dict[Any, Any]]:
        """The recipe, and what can be said of it before it has run."""
        recipe = recipe_of(values).but(across="none")  # which is the sweep's, and changes nothing here
        said_now: dict[Any, Any] = {both: said(recipe), composed: read_as(recipe)}
        if recipe.model in backend.models:
            schedule = backend.model(recipe.model).denoiser.schedule
            said_now[more.window] = lines(*window_lines(recipe, recipe.plan(schedule), schedule))
        return recipe, said_now

    details = [save, strip, look, chart, parts, tokens, latents, noise]
    runs = Runs(
        backend,
        TextToImage,
        c,
        NAMES,
        Screen(stage, status, error, notes, save),
        read,
        show,
        quick,
        [both, composed, more.window, shown, *details],
        more=[everything],
        hidden=["across"],
    )
    follow_rule(c, more, formula, backend)
    follow_step(c, step, backend)

    def axes_of(rule: str, second: str) -> Any:
        """A rule's own parameters may be the second axis of a sweep."""
        return gr.update(choices=second_axes(rule), value=second if rule_of(second, rule) == rule else "none")

    c["rule"].change(axes_of, [c["rule"], c["across"]], c["across"], **FAST)

    # --- buttons ---------------------------------------------------------------------------------------
    runs.then_start(dice)
    for name, button in presets.items():
        wanted = PRESETS[name]
        runs.then_start(
            button.click(lambda wanted=wanted: list(wanted.values()), None, [c[k] for k in wanted], **FAST)
        )

    for event in taken_words(words, c["prompt"], c["prompt"]):
        runs.then_start(event)

    stop.click(runs.stop, None, None, **FAST)

    # --- the sweep, a run of its own -----------------------------------------------------------------
    def run_sweep(request: gr.Request, own: dict[str, Any] | None, *values: Any):
        try:
            recipe = with_sweep(recipe_of(values), own)
        except PlaygroundError as problem:
            yield {error: lines(str(problem))}
            return

        def made(result: Generated) -> dict[Any, Any]:
            tiles = sweep_tiles(recipe, shelf.add(request.session_hash, run_views(result)))
            n = result.count
            steps = "" if recipe.across == "steps" else f", {recipe.steps} steps"
            rule = "" if recipe.rule == "cfg" else f", {RULES[recipe.rule].title}"
            negative = f" without “{recipe.negative}”" if recipe.negative else ""
            tiles["caption"] = (
                f"“{recipe.prompt}”{negative}, seed {recipe.seed}, {SOLVERS[recipe.solver].title}{steps}{rule}: "
                f"{n.evaluations} model calls (NFE), {n.sample_forwards} sample-forwards, {result.seconds:.2f} s "
                f"for all {len(tiles['tiles'])}"
            )
            return {sweep: tiles}

        yield from beside(backend, recipe, request, "sweep", sweep_button, error, made)

    swept = [own_sweep, *controls]
    sweep_button.click(run_sweep, swept, [sweep, sweep_button, error], **RUNNING)

    def take_axis(axis: str, rule: str) -> list[Any]:
        """Chosen by hand: the usual scales, under the rule whose parameter it is."""
        wanted = rule_of(axis, rule)
        return [None, gr.skip() if wanted == rule else wanted]

    taken = c["across"].input(take_axis, [c["across"], c["rule"]], [own_sweep, c["rule"]], **FAST)
    taken.then(run_sweep, swept, [sweep, sweep_button, error], **RUNNING)
    runs.then_start(taken)

    def pick(event: gr.EventData) -> dict[Any, Any]:
        """The settings of a tile that was clicked; what a browser sends is not trusted."""
        taken = event._data["value"]
        numbers = {k: v for k, v in taken.items() if k in ("w", *AXES)} if isinstance(taken, dict) else {}
        return {c[k]: v for k, v in numbers.items() if isinstance(v, int | float)} or gr.skip()

    on_axes = [c[name] for name in ("w", *AXES)]
    runs.then_start(sweep.pick(pick, None, on_axes, **(FAST | {"trigger_mode": "multiple"})))
    gr.on([x.change for x in controls], None, [*controls, sweep], sweep, js=mark_script(NAMES), **FAST)

    fidelity.connect(lambda values: recipe_of(values).but(across="none"), controls, c["model"])

    # --- looking closer at a finished run ------------------------------------------------------------
    def look_at(token: str, row: float, everything: bool, request: gr.Request):
        kept = shelf.get(token)
        if not isinstance(kept, RunViews):
            return gr.skip()
        result, model = kept.result, backend.model(kept.result.recipe.model)
        index = min(int(row), len(result.pictures)) - 1
        trace, extra = kept.completed(index) if everything else (None, None)
        norms = result.norms(index, trace)
        return {
            save: save_value(token, result.recipe, index),
            strip: film(token, result, model, index, everything, extra),
            chart: guidance_norms(norms),
            parts: guidance_parts(norms),
            latents: latents_picture(token, result, index),
            noise: noising(token, model, index),
        }

    gr.on(
        [look.input, look.release, everything.input],
        look_at,
        [shown, look, everything],
        [save, strip, chart, parts, latents, noise],
        **FAST,
    )

    # --- the same for programs --------------------------------------------------------------------------
    def text_to_image(recipe: dict[str, Any], request: gr.Request) -> dict[str, Any]:
        """One picture or several, as base64 PNG, from the fields of a TextToImage recipe."""
        with refusals(recipe):
            made = TextToImage.make(**recipe)
            result = backend.result(made, request.session_hash or "", api_slot(TextToImage))
            return pictures_answer(made, result, run_views(result))

    gr.api(text_to_image, api_name="text_to_image", concurrency_limit=None)

    # --- opening the page -------------------------------------------------------------------------------
    def restore(request: gr.Request):
        recipe, changed = TextToImage.from_query(own_query(request, TextToImage.tab))
        recipe, missing = known_here(recipe, backend)
        own = {n: getattr(recipe, n) for n in ("sweep", "across", "values")} if recipe.sweep else None
        if own:
            try:
                recipe.singles()
            except PlaygroundError as problem:
                missing, own, recipe = [*missing, str(problem)], None, recipe.but(across="none")
            recipe = recipe.but(sweep=(), values=())
        if rule_of(recipe.across, recipe.rule) != recipe.rule:
            axis = title(TextToImage, recipe.across)
            missing.append(f"The link's second axis, {axis}, is not one of its guidance rule and was left out.")
            recipe = recipe.but(across="none")
        return {
            **{c[name]: getattr(recipe, name) for name in NAMES},
            c["across"]: gr.update(choices=second_axes(recipe.rule), value=recipe.across),
            words: word_list(backend.model(recipe.model)),
            sweep: sweep_tiles(with_sweep(recipe, own)),
            own_sweep: own,
            told: lines(*changed, *missing),
        }

    def kept_sweep(request: gr.Request, own: dict[str, Any] | None, *values: Any):
        """The sweep that a link has brought, or that of these settings if it has been run lately (the first page's
        has). A long one waits for a press: a link costs nobody minutes of their device."""
        wanted, seconds = False, 0.0
        try:
            recipe = with_sweep(recipe_of(values), own)
            done = backend.finished(recipe) is not None
            wanted = done or bool(own)
            if wanted and not done:
                schedule = backend.model(recipe.model).denoiser.schedule
                seconds = recipe.plan(schedule).cost(schedule).sample_forwards * backend.pace(recipe.model)
        except PlaygroundError:
            pass  # the picture's own run says what is wrong
        if wanted and seconds > LINK_SECONDS:
            long = f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"
            told = f"This link's sweep takes about {long} here: press “{RUN_SWEEP}”."
            yield {sweep: sweep_tiles(recipe) | {"caption": told}}
        elif wanted:
            yield from run_sweep(request, own, *values)
        else:
            yield gr.skip()

    opened = opens(restore, None, [*controls, words, sweep, own_sweep, told], **FAST)
    runs.then_open(opened)
    opened.then(kept_sweep, swept, [sweep, sweep_button, error], **RUNNING)
    c["model"].input(lambda name: word_list(backend.model(name)), c["model"], words, **FAST)

    def left(request: gr.Request) -> None:
        runs.live.forget(request.session_hash or "")
        shelf.forget(request.session_hash)

    page.unload(left)
    return controls
