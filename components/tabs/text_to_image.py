"""The tab Text to image: one prompt, one noise, and what guidance does with them."""

from __future__ import annotations

import base64
import html
import random
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from components.charts import guidance_norms, guidance_parts
from components.controls import control, link_script, marks, own_query
from components.live import Live
from components.media import Media, data_url
from components.widgets import Filmstrip, Noising, Stage, Sweep, Tokens, Words
from playground.backend import Backend, Failed, Note, Preview, Queued, Result, Stopped
from playground.errors import PlaygroundError
from playground.grids import TITLES as GRID_TITLES
from playground.guidance import RULES, CFGPlusPlus, Composed
from playground.images.models import TextToImageModel, to_uint8
from playground.images.text_to_image import Generated
from playground.plan import Plan
from playground.recipes import TextToImage, rule_fields, title
from playground.schedules import Schedule
from playground.sharing.views import NOISE_FRAMES, RunViews
from playground.solvers import SOLVERS

TITLE = "Text to image"
NAMES = [name for name in TextToImage.model_fields if name not in ("sweep", "across", "values")]
PARAMETERS = {field: rule for rule in RULES for field in rule_fields(rule).values()}
"""The controls of rules' own parameters, and whose they are."""
SWEEP = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 9.0, 15.0)

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
One step needs the noise twice, with the prompt and without it, at the same $x_t$:

$$u = \epsilon_\theta(x_t, t, \varnothing), \quad c = \epsilon_\theta(x_t, t, \text{prompt})$$
"""

SOLVED = r"""
Other lectures write $(1+s)\,c - s\,u$ with $s = w - 1$. On the path $x_t = \alpha_t x_0 + \sigma_t \epsilon$
(here $t$ runs from 1, noise, to 0, data; flow matching writes $1-t$) the solver follows the probability-flow
ODE; stochastic solvers also add fresh noise and take it away again.

$$\frac{\mathrm d (x/\alpha)}{\mathrm d(\sigma/\alpha)} = \hat\epsilon(x, t)$$
"""

LATEX: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "$", "right": "$", "display": False},
]

EXAMPLES = ["a cat on the grass", "a red car on the beach", "a castle at sunset", "a rocket in space"]

FILM_ROWS = [
    {"name": "x_t", "key": "noise", "help": "where the sampler stands, decoded"},
    {"name": "x₀ without prompt", "key": "uncond", "help": "the picture that u believes in"},
    {"name": "x₀ with prompt", "key": "cond", "help": "the picture that c believes in"},
    {"name": "x₀ guided", "key": "guided", "help": "the picture that the solver is sent towards"},
]


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


def lines(*sentences: str) -> str:
    """Sentences as HTML; they may quote what a visitor typed."""
    return "".join(f"<p>{html.escape(s)}</p>" for s in sentences if s)


def number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def window_lines(recipe: TextToImage, plan: Plan, schedule: Schedule) -> list[str]:
    """Which steps guidance acts in, in words."""
    row = plan.rows[0]
    needed = [row.guidance.branches(t, i) for i, t in enumerate(row.times[:-1])]
    steps = [i for i, branches in enumerate(needed) if len(branches) == 2]
    told = []
    if still := needed.count(()):
        told.append(f"The velocity is 0 in the first {still} of {recipe.steps} steps; they cost nothing.")
    if recipe.w == 1 or (recipe.w == 0 and not steps) or recipe.rule == "none":
        return ["One branch is enough here: the other is not computed."]
    if not steps:
        return [*told, "The window holds no step: no guidance anywhere."]
    told.append(f"Guidance acts in steps {steps[0] + 1} to {steps[-1] + 1} of {recipe.steps}.")
    if isinstance(row.guidance, CFGPlusPlus) and row.solver == "ddim":
        lengths = [schedule.half_log_snr(row.times[i + 1]) - schedule.half_log_snr(row.times[i]) for i in steps]
        like = [CFGPlusPlus.equivalent(row.guidance.scale, float(h)) for h in lengths]
        told.append(
            f"λ = {number(row.guidance.scale)} takes the place of w. DDIM steps are those of CFG with w from "
            f"{number(max(like))} to {number(min(like))}."
        )
    return told


def said(recipe: TextToImage) -> str:
    """The rule with this recipe's numbers, in both conventions."""
    w = recipe.w
    if recipe.rule != "cfg":
        own = [(title(TextToImage, f), getattr(recipe, f)) for f in rule_fields(recipe.rule).values()]
        numbers = [f"w = {number(w)} (s = w − 1 = {number(w - 1)})", *(f"{n} = {number(v)}" for n, v in own)]
        return f"{RULES[recipe.rule].title}: {', '.join(numbers)}"
    return (
        f"û = u + {number(w)} (c − u) &nbsp;=&nbsp; {number(w)} c − {number(w - 1)} u"
        f" &nbsp;&nbsp;(s = w − 1 = {number(w - 1)})"
    )


def rule_panel(rule: str) -> str:
    """A rule's formula, and what it is about."""
    made = RULES[rule]
    return f"$${made.formula}$$\n\n{made.title[:1].upper()}{made.title[1:]}. {made.about}"


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


def cost_line(result: Generated, model: TextToImageModel, reused: bool) -> str:
    count = result.count
    again = " (kept from an equal run)" if reused else ""
    over = f"reused {result.taken_over} steps · " if result.taken_over else ""
    return (
        f"{over}{count.evaluations} model calls (NFE) · {count.sample_forwards} sample-forwards · "
        f"{result.seconds:.2f} s · {model.device.title}{again}"
    )


def film(token: str, result: Generated, model: TextToImageModel, row: int, everything: bool) -> dict[str, Any]:
    """The filmstrip's value for one row of a run."""
    path = model.denoiser.schedule
    suffix = "-all" if everything else ""
    columns, missing = [], 0
    for i, record in enumerate(result.trace):
        t = float(record.t[row])
        there = [True, record.known["uncond"][row], record.known["cond"][row], True]
        missing += there.count(False)
        columns.append(
            {
                "step": i + 1,
                "t": t,
                "level": f"σ/α = {number(float(path.noise_ratio(t)))}",
                "url": Media.url(token, f"film-{row}-{i}{suffix}.png"),
                "computed": [True] * 4 if everything else there,
                "reason": "guidance did not need this branch here",
            }
        )
    note = ""
    if missing and everything:
        note = f"{missing} denoiser calls that the run did not need are made when you look, and not in its NFE."
    elif missing:
        note = f"{missing} branches were not needed and not computed."
    film_rows = [dict(row) for row in FILM_ROWS]
    if RULES[result.recipe.rule].weak:
        film_rows[1] |= {"name": "x₀ of the weak model", "help": "the picture that the weak model believes in"}
    return {"tile": result.pictures.shape[-1], "rows": film_rows, "columns": columns, "note": note}


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
    tokens = [token for text in texts for token in model.text.tokens(text)]
    shown = [{"text": t.text, "kind": t.kind, "id": t.id} for t in tokens]
    width = model.text.network.config.hidden_size
    return {"tokens": shown, "note": f"{len(tokens)} tokens become {len(tokens)} × {width} numbers."}


def latents_picture(token: str, result: Generated, row: int) -> str:
    channels, height, width = result.latents.shape[1:]
    size = result.pictures.shape[-1]
    return (
        f'<img src="{Media.url(token, f"latents-{row}.png")}" alt="latent channels" '
        'style="width:100%;image-rendering:pixelated;border-radius:6px">'
        f"<p>{channels} channels of {height} × {width}, mid-grey is 0. The decoder makes {size} × {size} "
        "pixels of them.</p>"
    )


def sweep_tiles(selected: float, token: str | None = None) -> dict[str, Any]:
    tiles = [
        {
            "value": w,
            "label": f"w = {number(w)}",
            "url": Media.url(token, f"picture-{i}.png") if token else None,
        }
        for i, w in enumerate(SWEEP)
    ]
    return {"axis": "w", "tiles": tiles, "selected": selected if selected in SWEEP else None, "caption": ""}


def hindered(backend: Backend, rule: str) -> str:
    """What stands in the way of a rule on this page, whatever the settings."""
    if RULES[rule].weak and len(backend.models) < 2:
        return (
            "This page has one model only. Start it with --model and a second one of the same latents to try this."
        )
    return ""


def word_list(model: TextToImageModel) -> dict[str, Any]:
    groups = [{"name": k, "words": v} for k, v in (model.vocabulary or {}).items()]
    return {"examples": list(model.examples) or EXAMPLES, "groups": groups}


def build(page: gr.Blocks, backend: Backend, media: Media) -> list[Any]:
    """Lay out the tab and connect it; returns the controls in the order of `NAMES`."""
    live = Live(backend, TextToImage.tab)
    default = TextToImage(model=next(iter(backend.models)))
    shown = gr.State("")  # the token of the run on show

    # --- layout ---------------------------------------------------------------------------------------
    with gr.Row(elem_classes="dp-columns"):
        with gr.Column(elem_classes="dp-card dp-controls"):
            c: dict[str, Any] = {}
            c["prompt"] = control(TextToImage, "prompt", lines=2, max_length=1000)
            composed = gr.HTML(elem_classes="dp-note", elem_id="t2i-composed")
            words = Words(elem_id="t2i-words")
            c["w"] = control(TextToImage, "w")
            gr.HTML(marks(TextToImage, "w", (0.0, "0"), (1.0, "1")), elem_id="t2i-marks")
            both = gr.HTML(said(default), elem_classes="dp-readout", elem_id="t2i-conventions")
            with gr.Row():
                c["seed"] = control(TextToImage, "seed", scale=3)
                dice = gr.Button("🎲", scale=1, min_width=44, elem_id="t2i-dice", elem_classes="dp-dice")
            c["steps"] = control(TextToImage, "steps")
            c["solver"] = control(
                TextToImage, "solver", choices=[(f"{s.title} (order {s.order})", n) for n, s in SOLVERS.items()]
            )
            with gr.Accordion("More: negative prompt, guidance rule, window, grid, model", open=False):
                c["negative"] = control(TextToImage, "negative", lines=1, max_length=1000)
                c["rule"] = control(TextToImage, "rule", choices=[(r.title, n) for n, r in RULES.items()])
                hindrance = gr.HTML(elem_classes="dp-note", elem_id="t2i-hindrance")
                for field, rule in PARAMETERS.items():
                    c[field] = control(TextToImage, field, visible=rule == default.rule)
                others = [("choose one", ""), *((name, name) for name in backend.models)]
                c["weak_model"] = control(TextToImage, "weak_model", choices=others, visible=False)
                c["high"] = control(TextToImage, "high")
                c["low"] = control(TextToImage, "low")
                window = gr.HTML(elem_classes="dp-readout")
                c["grid"] = control(TextToImage, "grid", choices=[(v, k) for k, v in GRID_TITLES.items()])
                c["eta"] = control(TextToImage, "eta")
                c["variable"] = control(TextToImage, "variable")
                c["pictures"] = control(TextToImage, "pictures")
                c["model"] = control(TextToImage, "model", choices=list(backend.models), value=default.model)
        with gr.Column(elem_classes="dp-picture"):
            told = gr.HTML(elem_classes="dp-note", elem_id="t2i-link-notes")
            error = gr.HTML(elem_classes="dp-error", elem_id="t2i-error")
            stage = Stage(elem_id="t2i-stage")
            with gr.Row():
                status = gr.HTML(elem_classes="dp-readout", elem_id="t2i-status")
                stop = gr.Button("Stop", size="sm", scale=0, min_width=80, elem_id="t2i-stop")
            notes = gr.HTML(elem_classes="dp-note", elem_id="t2i-notes")
            with gr.Column(elem_classes="dp-card"):
                gr.Markdown("#### Eight guidance scales, one noise")
                sweep = Sweep(sweep_tiles(default.w), elem_id="t2i-sweep")
                sweep_button = gr.Button("Run the sweep with these settings", size="sm", elem_id="t2i-sweep-run")
        with gr.Column(elem_classes="dp-card dp-explain"):
            gr.Markdown("#### What you see")
            gr.Markdown(EQUATIONS, latex_delimiters=LATEX)
            formula = gr.Markdown(rule_panel(default.rule), latex_delimiters=LATEX, elem_id="t2i-formula")
            gr.Markdown(SOLVED, latex_delimiters=LATEX)
            gr.Markdown("#### Try")
            with gr.Row(elem_classes="dp-presets"):
                presets = {name: gr.Button(name, size="sm", min_width=130) for name in PRESETS}
            gr.Markdown("#### The two predictions, step by step")
            chart = gr.Plot(show_label=False, elem_id="t2i-chart")
            gr.Markdown("#### D = c − u along and across c")
            parts = gr.Plot(show_label=False, elem_id="t2i-parts")
    with gr.Column(elem_classes="dp-card"):
        gr.Markdown("#### Filmstrip: what every step believed")
        look = gr.Slider(1, 8, 1, step=1, label="picture", visible=False, elem_id="t2i-look")
        strip = Filmstrip(elem_id="t2i-film")
        everything = gr.Checkbox(
            label="also compute the branches that guidance skipped",
            info="costs model calls that the run did not need; they are counted apart",
            elem_id="t2i-everything",
        )
    with gr.Row(elem_classes="dp-halves"):
        with gr.Column(elem_classes="dp-card"):
            gr.Markdown("#### Three parts: text encoder, denoiser, decoder")
            tokens = Tokens(elem_id="t2i-tokens")
            latents = gr.HTML(elem_classes="dp-readout", elem_id="t2i-latents")
        with gr.Column(elem_classes="dp-card"):
            gr.Markdown("#### Forward noising: this picture at any t")
            noise = Noising(elem_id="t2i-noising")

    controls = [c[name] for name in NAMES]
    details = [strip, look, chart, parts, tokens, latents, noise]
    outputs = [stage, status, error, notes, both, composed, window, shown, *details]

    def run_views(result: Generated) -> RunViews:
        recipe = result.recipe
        weak = (lambda: backend.model(recipe.weak_model)) if RULES[recipe.rule].weak else None
        return RunViews(result, lambda make: backend.call(make, recipe.model), weak)

    # --- one run, from values to views ----------------------------------------------------------------
    def show_result(event: Result, recipe: TextToImage, visitor: str, everything: bool) -> dict[Any, Any]:
        result, model = event.value, backend.model(recipe.model)
        token = media.add(visitor, run_views(result))
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
            strip: film(token, result, model, 0, everything),
            look: gr.Slider(maximum=max(2, len(result.pictures)), value=1, visible=many),
            chart: guidance_norms(result.norms()),
            parts: guidance_parts(result.norms()),
            tokens: token_row(model, recipe.texts()),
            latents: latents_picture(token, result, 0),
            noise: noising(token, model, 0),
        }

    def views(steps: Iterator[tuple[bool, Any]], recipe: TextToImage, visitor: str, everything: bool):
        """The events of a run as updates of the page."""
        warned: list[str] = []
        for full, event in steps:
            if isinstance(event, Result) and full:
                yield show_result(event, recipe, visitor, everything)
            elif isinstance(event, Result):
                pictures = [{"url": data_url(p), "label": ""} for p in to_uint8(event.value.pictures)]
                yield {stage: {"pictures": pictures, "live": True, "caption": f"{event.value.recipe.steps} steps"}}
            elif isinstance(event, Preview) and full:
                n = event.count
                update: dict[Any, Any] = {
                    status: lines(
                        f"step {event.step} of {event.steps} · {n.evaluations} model calls · "
                        f"{n.sample_forwards} sample-forwards"
                    )
                }
                if event.pictures is not None:
                    pictures = [{"url": data_url(p), "label": ""} for p in event.pictures]
                    caption = f"x₀ as predicted at step {event.step}"
                    update[stage] = {"pictures": pictures, "live": True, "caption": caption}
                yield update
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

    def follow(request: gr.Request, everything: bool, values: tuple[Any, ...], settled: bool):
        visitor = request.session_hash or ""
        try:
            recipe = recipe_of(values)
            schedule = backend.model(recipe.model).denoiser.schedule if known(recipe) else None
            plan = recipe.plan(schedule) if schedule else None
            readout: dict[Any, Any] = {error: "", both: said(recipe), composed: read_as(recipe)}
        except PlaygroundError as problem:
            yield {error: lines(str(problem))}
            return
        if plan is not None and schedule is not None:
            readout[window] = lines(*window_lines(recipe, plan, schedule))
        yield readout
        short = quick(recipe, backend.pace(recipe.model)) if not settled else None
        steps = live.follow(visitor, values, recipe, short)
        yield from views(steps, recipe, visitor, everything)

    def known(recipe: TextToImage) -> bool:
        return recipe.model in backend.models

    def moved(request: gr.Request, everything: bool, *values: Any):
        yield from follow(request, everything, values, settled=False)

    def start(request: gr.Request, everything: bool, *values: Any):
        live.announce(request.session_hash or "", values)
        yield from follow(request, everything, values, settled=True)

    def announce(request: gr.Request, *values: Any) -> None:
        live.announce(request.session_hash or "", values)

    inputs = [everything, *controls]
    fast: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    running: dict[str, Any] = {
        "trigger_mode": "always_last",
        "show_progress": "hidden",
        "concurrency_limit": None,
        "api_visibility": "private",
    }
    touches = [e for x in controls for e in (x.input, getattr(x, "release", None)) if e is not None]
    # Text that is pasted or dropped is a change without an input.
    touches += [c["prompt"].change, c["negative"].change]
    # In this order: the light message first. See components/live.py.
    gr.on(touches, announce, controls, None, trigger_mode="multiple", **fast)
    gr.on(touches, moved, inputs, outputs, **running)
    gr.on([x.change for x in controls], None, controls, None, js=link_script(TextToImage, NAMES), **fast)

    def chosen(rule: str) -> dict[Any, Any]:
        """What belongs to a rule is shown, and to no other."""
        own = {c[field]: gr.update(visible=owner == rule) for field, owner in PARAMETERS.items()}
        own[c["weak_model"]] = gr.update(visible=RULES[rule].weak)
        return {**own, formula: rule_panel(rule), hindrance: lines(hindered(backend, rule))}

    of_rule = [*(c[field] for field in PARAMETERS), c["weak_model"], formula, hindrance]
    c["rule"].change(chosen, c["rule"], of_rule, **fast)

    def then_start(event: Any) -> None:
        event.then(start, inputs, outputs, **running)

    # --- buttons ---------------------------------------------------------------------------------------
    then_start(dice.click(lambda: random.randrange(2**31), None, c["seed"], **fast))
    for name, button in presets.items():
        wanted = PRESETS[name]
        then_start(button.click(lambda wanted=wanted: list(wanted.values()), None, [c[k] for k in wanted], **fast))

    def take_example(event: gr.EventData) -> str:
        return str(event._data["text"])[:1000]

    def add_word(prompt: str, event: gr.EventData) -> str:
        return f"{prompt.rstrip()} {event._data['text']}".strip()[:1000]

    then_start(words.example(take_example, None, c["prompt"], **fast))
    then_start(words.word(add_word, c["prompt"], c["prompt"], **fast))

    def stop_mine(request: gr.Request) -> None:
        backend.stop(request.session_hash or "")

    stop.click(stop_mine, None, None, **fast)

    # --- the sweep, a run of its own -----------------------------------------------------------------
    def run_sweep(request: gr.Request, *values: Any):
        visitor = request.session_hash or ""
        try:
            recipe = recipe_of(values, sweep=SWEEP)
        except PlaygroundError as problem:
            yield {error: lines(str(problem))}
            return
        for event in backend.run(recipe, visitor, f"{TextToImage.tab}/sweep"):
            if isinstance(event, Preview):
                yield {sweep_button: gr.Button(f"step {event.step} of {event.steps}", interactive=False)}
            elif isinstance(event, Result):
                tiles = sweep_tiles(recipe.w, media.add(visitor, run_views(event.value)))
                n = event.value.count
                tiles["caption"] = (
                    f"“{recipe.prompt}”, seed {recipe.seed}, {recipe.steps} steps: {n.evaluations} model calls, "
                    f"{n.sample_forwards} sample-forwards, {event.value.seconds:.2f} s for all eight"
                )
                yield {sweep: tiles, error: ""}
            elif isinstance(event, Failed):
                yield {error: lines(event.text)}
        yield {sweep_button: gr.Button("Run the sweep with these settings", interactive=True)}

    sweep_button.click(run_sweep, controls, [sweep, sweep_button, error], **running)

    def pick(event: gr.EventData) -> float:
        return float(event._data["value"])

    then_start(sweep.pick(pick, None, c["w"], **(fast | {"trigger_mode": "always_last"})))
    # The tile of the current scale is marked, whatever moved the slider; in the browser alone.
    c["w"].change(None, [c["w"], sweep], sweep, js="(w, strip) => ({...strip, selected: w})", **fast)

    # --- looking closer at a finished run ------------------------------------------------------------
    def look_at(token: str, row: float, everything: bool, request: gr.Request):
        kept = media.get(token)
        if not isinstance(kept, RunViews):
            return gr.skip()
        result, model = kept.result, backend.model(kept.result.recipe.model)
        index = min(int(row), len(result.pictures)) - 1
        return {
            strip: film(token, result, model, index, everything),
            chart: guidance_norms(result.norms(index)),
            parts: guidance_parts(result.norms(index)),
            latents: latents_picture(token, result, index),
            noise: noising(token, model, index),
        }

    gr.on(
        [look.input, look.release, everything.input],
        look_at,
        [shown, look, everything],
        [strip, chart, parts, latents, noise],
        **fast,
    )

    # --- the same for programs --------------------------------------------------------------------------
    def text_to_image(recipe: dict[str, Any], request: gr.Request) -> dict[str, Any]:
        """One picture or several, as base64 PNG, from the fields of a TextToImage recipe."""
        if not isinstance(recipe, dict):
            raise gr.Error("The recipe must be an object of settings.", print_exception=False)
        try:
            made = TextToImage.make(**recipe)
            visitor = request.session_hash or ""
            for event in backend.run(made, visitor, f"{TextToImage.tab}/api"):
                if isinstance(event, Failed):
                    raise gr.Error(event.text, print_exception=False)
                if isinstance(event, Result):
                    run = run_views(event.value)
                    files = [run.png(f"picture-{i}.png") for i in range(len(event.value.pictures))]
                    return {
                        "pictures": [base64.b64encode(f).decode() for f in files],
                        "evaluations": event.value.count.evaluations,
                        "sample_forwards": event.value.count.sample_forwards,
                        "seconds": event.value.seconds,
                        "link": "?" + urlencode(made.to_query()),
                    }
        except PlaygroundError as problem:
            raise gr.Error(str(problem), print_exception=False) from None
        raise gr.Error("The run was stopped.", print_exception=False)

    gr.api(text_to_image, api_name="text_to_image", concurrency_limit=None)

    # --- opening the page -------------------------------------------------------------------------------
    def restore(request: gr.Request):
        recipe, changed = TextToImage.from_query(own_query(request, TextToImage.tab))
        if not known(recipe):
            changed.append(
                f"The link's model {recipe.model[:40]!r} is not on this page; {default.model!r} is used."
            )
            recipe = recipe.but(model=default.model)
        if recipe.weak_model and recipe.weak_model not in backend.models:
            changed.append(f"The link's weak model {recipe.weak_model[:40]!r} is not on this page.")
            recipe = recipe.but(weak_model="")
        return {
            **{c[name]: getattr(recipe, name) for name in NAMES},
            words: word_list(backend.model(recipe.model)),
            sweep: sweep_tiles(recipe.w),
            told: lines(*changed),
        }

    def kept_sweep(request: gr.Request, *values: Any):
        """The sweep of these settings, if it has been run lately (the first page's has)."""
        recipe = recipe_of(values, sweep=SWEEP)
        if backend.finished(recipe) is not None:
            yield from run_sweep(request, *values)
        else:
            yield gr.skip()

    opened = page.load(restore, None, [*controls, words, sweep, told], **fast)
    then_start(opened)
    opened.then(kept_sweep, controls, [sweep, sweep_button, error], **running)
    c["model"].input(lambda name: word_list(backend.model(name)), c["model"], words, **fast)

    def left(request: gr.Request) -> None:
        live.forget(request.session_hash or "")
        media.forget(request.session_hash or "")

    page.unload(left)
    return controls
