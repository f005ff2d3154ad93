"""The tab Samplers: many solvers on one problem, from one noise, at equal cost."""

from __future__ import annotations

import html
import random
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any
from urllib.parse import urlencode

import gradio as gr
import numpy as np
from PIL import Image

from components.charts import (
    comparison_curvature,
    comparison_errors,
    comparison_paths,
    comparison_steps,
    distributions_apart,
    errors_against_cost,
    over_noise,
    quality_over_cost,
)
from components.controls import CheckboxGroup, control, link_script, listed, own_query
from components.media import Media, data_url
from components.pictures import FAST, RUNNING, follow_rule, known_here, more_settings, taken_words
from components.programs import api_slot, refusals, run_answer
from components.readouts import LATE, LATEX, lines, number, rule_panel, said, word_list
from components.saving import save_value
from components.standalone import ROOM, Part, Sheet, fitted, views_files
from components.widgets import Filmstrip, Race, Save, Words
from playground.backend import Backend, Failed, Note, Preview, Queued, Result, Stopped
from playground.backend.planes import TABLED, in_plane, measured_in_plane
from playground.distributions import verdict
from playground.errors import Ended, ModelError, PlaygroundError, RecipeError
from playground.grids import TITLES as GRID_TITLES
from playground.guidance import RULES
from playground.images.cohorts import (
    PROMPTS,
    SEEDS,
    TRUTH_STEPS,
    Apart,
    Cohort,
    Drawn,
    Quality,
    apart,
    asked_of,
    quality,
)
from playground.images.comparison import (
    AGREEMENT,
    Compared,
    Comparison,
    Converged,
    Kind,
    Measured,
    measure,
    summary,
)
from playground.images.tradeoff import has_verifier, verifier_of
from playground.images.verifier import Verifier
from playground.plane.comparison import ETAS, PlaneCompared, PlaneComparison, of_noise
from playground.recipes import Recipe, rule_fields, title
from playground.schedules import Schedule
from playground.sharing.comparisons import TILE, ComparisonViews, NoiseViews, cell_text, single
from playground.solvers import SOLVERS

TITLE = "Samplers"
WITHOUT = ("sweep", "across", "values", "weak_model", "solver", "steps")
NAMES = [name for name in Comparison.model_fields if name not in WITHOUT]
LISTS = ("solvers", "budgets")
BUDGETS = (3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48)
NOISY = ("ancestral", "euler_maruyama", "churn")
"""Solvers that take any amount of noise."""
NOISE_BUDGETS = (6, 24)
FIELDS = {"image": "image model", "exact": "exact field", "learned": "learned field"}
TARGETS = [("two moons", "moons"), ("eight Gaussians", "eight"), ("checkerboard", "checkerboard")]
TARGET_TITLES = {key: name for name, key in TARGETS}

PRESETS: dict[str, dict[str, Any]] = {
    "The folklore: six solvers": {},
    "The same on the Karras grid": {"grid": "karras"},
    "Equal steps hide the cost": {
        "equal": "steps",
        "solvers": ("ddim", "heun", "dpmpp_2m", "rk4"),
        "budgets": (6, 12),
    },
    "Multistep or single step": {"solvers": ("dpmpp_2s", "dpmpp_2m", "heun", "midpoint")},
    "Step 10 of 20 is not a 10-step run": {
        "solvers": ("ddim", "dpmpp_2m"),
        "budgets": (10, 20),
        "equal": "steps",
    },
    "Noise costs evaluations": {
        "solvers": ("ddim", "ancestral", "euler_maruyama", "churn"),
        "budgets": (12, 24, 48),
    },
    "In the plane, where the solution is known": {"field": "exact", "budgets": (6, 12, 24, 48)},
}

EQUATION = r"""
All solvers that draw no noise approximate one solution: of the probability-flow ODE

$$\frac{\mathrm d (x/\alpha)}{\mathrm d(\sigma/\alpha)} = \hat\epsilon(x, t)$$

from one noise. What a picture costs is the number of calls of the denoiser (**NFE**), not of steps: Heun and 2S
call it twice in a step. A method of order $p$ has an error that falls like $\text{NFE}^{-p}$ once steps are small;
with few steps the order says little, and guidance makes the ODE stiffer.

The distance in each cell is measured: $\lVert z - z^\star\rVert / \lVert z^\star\rVert$ of the latents, where
$z^\star$ is the converged solution. Its steps are doubled until two refinements agree; how far they are apart is
the dashed line. An error below it says nothing, and its point is hollow.

Solvers of the SDE add fresh noise, so each picture is another one. Ancestral and Euler–Maruyama run on **one
Brownian path** here, the same at every number of steps, and have a solution of their own to converge to. The others
draw noise of their own in every step and have none: what can be compared is their **distribution** over seeds.

The path bends where the prediction changes. In $x/\alpha$ over $\sigma/\alpha$ its direction is
$\hat\epsilon$, so a prediction that stays the same is a straight line, whatever the schedule.
"""

UNJUDGED = (
    "Not measured: it needs the scene verifier, which reads what a picture shows, and none lies beside this model "
    "(a folder “verifier” in the model's folder)."
)
JUDGED = (
    f"The share of {PROMPTS} prompts of which the scene verifier reads everything right: things, colour, number, "
    "relation and place. Bars are 95% intervals. The verifier errs, and some of what is asked no picture of the "
    "model shows, with any solver: compare the solvers, not with 100%."
)
TRUTH = f"{TRUTH_STEPS} steps of {SOLVERS['dpmpp_2m'].title}"
DISTRIBUTIONS = (
    "Energy coefficient of the latents: 0 for equal distributions, 1 for two different points; "
    f"{SEEDS} pictures of each, against {SEEDS} from other seeds by {TRUTH}, close to the ODE's solutions. Where "
    "two distributions are equal, 95% of samples stay below the dashed line (permutation test). With guidance the "
    "SDE has another distribution than the ODE, so a solver that draws noise need not reach the line."
)
IN_PLANE = (
    "Above: median distance from the converged flow of the field, for solvers that draw no noise. Below: sliced W₂ "
    "to exact draws; 95% of clouds of as many exact draws stay below the dashed line. A learned field keeps a "
    "distance that no step removes, and fresh noise can repair. Budgets, seed, noise and time grid are those of "
    "the controls; the grid is stretched between σ/α = 20 and 0.05, each solver is written in its own variable, "
    "and guidance is off."
)
SHARED = "Seconds are shares of the batched run, by evaluations, until each is timed by itself."
NOISE = (
    "Exact and learned field: sliced W₂ to exact draws at σ/α = 0.05, where these runs end, on a grid uniform "
    f"in t. Image model: energy coefficient against pictures by {TRUTH}, on the grid above. 95% of "
    "samples of the right distribution stay below a dashed line; a difference smaller than that is not called "
    "one. An exact field needs no noise: it costs steps. A learned one errs, and fresh noise lets the next "
    "steps correct that, if there are enough of them. Under guidance the SDE's pictures have another "
    "distribution, which this counts as distance, too: take w = 1 to see repair alone."
)


def recipe_of(values: tuple[Any, ...]) -> Comparison:
    """The recipe that the controls describe."""
    told = dict(zip(NAMES, values, strict=True))
    lists = {k: listed(told[k]) if isinstance(told[k], str | None) else told[k] for k in LISTS}
    if told["field"] == "image":
        told["target"] = Comparison.model_fields["target"].default  # left over from the plane
    if not lists["solvers"]:
        raise RecipeError("Choose at least one solver.")
    if not lists["budgets"]:
        raise RecipeError("Choose at least one budget.")
    return Comparison.make(**told | lists)


def settings_of(
    recipe: Comparison, seeds: int | None = None, prompt: str | None = None, without: tuple[str, ...] = ()
) -> str:
    """Of which settings a result is: those that always matter, and others where they are not at their default.

    Args:
        recipe: of the result.
        seeds: how many, from the recipe's one on; by default those of the recipe.
        prompt: what was drawn, where that is not the recipe's prompt.
        without: settings that do not matter for this result.
    """
    if prompt is None:
        prompt = f"“{recipe.prompt}”" if recipe.prompt else "no prompt"
    count = recipe.pictures if seeds is None else seeds
    seed = f"seed {recipe.seed}" if count == 1 else f"seeds {recipe.seed} to {recipe.seed + count - 1}"
    unit = "steps" if recipe.equal == "steps" else "evaluations"
    budgets = ", ".join(map(str, sorted(set(recipe.budgets))))
    told = [prompt, f"w = {number(recipe.w)}", seed, f"grid {GRID_TITLES[recipe.grid]}", f"{budgets} {unit}"]
    default = Comparison.model_fields
    if recipe.rule != default["rule"].default:
        told.append(RULES[recipe.rule].title)
    others = (*rule_fields(recipe.rule).values(), "negative", "high", "low", "eta", "variable", "model")
    for name in others:
        if name not in without and (value := getattr(recipe, name)) != default[name].default:
            shown = number(value) if isinstance(value, int | float) else f"“{value}”"
            told.append(f"{title(Comparison, name)} = {shown}")
    return ", ".join(told)


class Stirred(NoiseViews):
    """What noise does, and of which settings that is (`of`)."""

    def __init__(self, of: str, *found: Any) -> None:
        super().__init__(*found)
        self.of = of


def about(solver: str) -> str:
    """What a solver is, in a few words."""
    kind = SOLVERS[solver]
    calls = "1 call" if kind.evaluations == 1 else f"{kind.evaluations} calls"
    return f"{kind.told_order()}, {calls} a step, {'draws noise' if kind.stochastic else 'deterministic'}"


def solver_choices(refused: dict[str, str]) -> list[tuple[str, str]]:
    """All that can run, with what they are."""
    return [(f"{s.title} ({about(name)})", name) for name, s in SOLVERS.items() if name not in refused]


def refused_lines(refused: dict[str, str]) -> str:
    """HTML: those that cannot, grayed out, and why; solvers with one reason share it."""
    reasons: dict[str, list[str]] = {}
    for name, why in refused.items():
        reason = why.replace(SOLVERS[name].title, "it")
        reasons.setdefault(reason[:1].upper() + reason[1:], []).append(SOLVERS[name].title)
    return "".join(
        "<div class='dp-refused'>"
        + "".join(f"<label><input type='checkbox' disabled> {html.escape(name)}</label>" for name in names)
        + f"{lines(why)}</div>"
        for why, names in reasons.items()
    )


LIVE = 64
"""Side of a cell's picture while the comparison runs, pixels."""


def side_by_side(pictures: np.ndarray) -> np.ndarray:
    """Pictures [R, H, W, 3] on their way as one small strip [LIVE, R LIVE, 3]."""
    small = [Image.fromarray(picture).resize((LIVE, LIVE), Image.Resampling.BILINEAR) for picture in pictures]
    return np.concatenate([np.asarray(picture) for picture in small], 1)


def race_value(
    recipe: Comparison, result: Compared | None, table: list[Measured], token: str, schedule: Schedule
) -> dict[str, Any]:
    """The race's value; without a result, what would be run."""
    cells = result.cells if result else recipe.cells(schedule)
    solvers = list(dict.fromkeys(c.solver for c in cells))
    budgets = sorted({c.budget for c in cells})
    shown, row = [], 0
    for cell in cells:
        measured = table[row] if table and cell.steps else None
        if not cell.steps:
            text = cell.reason or "not one step"
        elif measured is None:
            text = f"{cell.steps} steps · {cell.evaluations} NFE"
        else:
            text = cell_text(measured)
        known = measured is not None and measured.known
        shown.append(
            {
                "solver": solvers.index(cell.solver),
                "budget": budgets.index(cell.budget),
                "row": row if cell.steps else None,
                "evaluations": cell.evaluations,
                "error": measured.error if measured and known else None,
                "text": text,
            }
        )
        row += bool(cell.steps)
    unit = "steps" if recipe.equal == "steps" else "evaluations"
    return {
        "url": Media.url(token, "race-") if result else None,
        "frames": max((c.evaluations for c in cells), default=1),
        "tile": min(TILE, result.pictures.shape[-1]) if result else TILE,
        "budgets": [f"{b} {unit}" for b in budgets],
        "solvers": [{"name": s, "title": SOLVERS[s].title, "about": about(s)} for s in solvers],
        "cells": shown,
        "selected": None,
        "note": ""
        if recipe.pictures == 1
        else f"The pictures are those of seed {recipe.seed}; errors are means over {recipe.pictures} seeds, with "
        "their standard deviations.",
    }


def sheet(views: ComparisonViews, backend: Backend, query: Mapping[str, str]) -> Sheet:
    """The race with all its frames, as a file of its own."""
    result, recipe = views.result, views.result.recipe
    assert isinstance(recipe, Comparison)
    schedule = backend.model(recipe.model).denoiser.schedule
    value = race_value(recipe, result, views.table, "run", schedule) | {"alone": True}
    urls = [f"{value['url']}{k}.png" for k in range(1, value["frames"] + 1)]
    files, value["tile"], note = fitted(views_files(views, urls), ROOM, value["tile"])
    n = result.count
    known = any(m.error == m.error for m in views.table)
    told = "“Off” is the distance of the latents from the converged solution of the same noise." if known else ""
    return Sheet(
        f"Samplers at equal {'steps' if recipe.equal == 'steps' else 'cost'}: {recipe.prompt or '(no prompt)'}",
        recipe,
        [
            html.unescape(said(recipe)),
            f"{n.evaluations} model calls (batched) · {n.sample_forwards} sample-forwards · {result.seconds:.2f} s",
            told,
            note,
        ],
        [Part("The race: every picture after as many model calls", Race, value)],
        files,
    )


def film_value(result: Compared, row: int, token: str, schedule: Schedule) -> dict[str, Any]:
    """The filmstrip of one cell: a column is an evaluation, second ones of a step included."""
    columns = [
        {
            "step": k + 1,
            "t": t,
            "level": f"σ/α = {number(float(schedule.noise_ratio(t)))}",
            "url": Media.url(token, f"film-{row}-{k}.png"),
            "computed": [True, True],
        }
        for k, t in enumerate(result.seen[row].t)
    ]
    cell = result.run_cells[row]
    rows = [
        {"name": "x_t", "key": "noise", "help": "where the solver asks, decoded"},
        {"name": "x₀", "key": "guided", "help": "the picture that the guided denoiser answers with"},
    ]
    note = f"{SOLVERS[cell.solver].title}, {cell.steps} steps: columns are evaluations."
    return {"tile": result.pictures.shape[-1], "rows": rows, "columns": columns, "note": note}


def halfway_value(result: Compared, token: str, schedule: Schedule) -> str:
    """HTML: what a long run believes in the middle, beside the end of a run that has as many steps in all."""
    assert isinstance(result.recipe, Comparison)
    pairs = []
    for k, long in enumerate(result.run_cells):
        for j, short in enumerate(result.run_cells):
            same = short.solver == long.solver and long.steps == 2 * short.steps
            if same:
                pairs.append((k, j, short, long))
    if not pairs:
        return lines("Compare budgets of which one is twice the other, 10 and 20 say, to see it here.")
    shown = []
    for k, j, short, long in pairs[:3]:
        n = result.recipe.seen_before(short.solver, short.steps, long.steps, schedule)
        title = SOLVERS[short.solver].title
        figures = [
            (
                Media.url(token, f"film-{k}-{n}.png"),
                f"x_t and x₀ after {short.steps} of {long.steps} steps",
                "half",
            ),
            (Media.url(token, f"picture-{j}.png"), f"the run of {short.steps} steps", "whole"),
            (Media.url(token, f"picture-{k}.png"), f"the run of {long.steps} steps", "whole"),
        ]
        tiles = "".join(
            f'<figure class="dp-figure dp-{kind}"><img src="{url}" alt="{text}" loading="lazy">'
            f"<figcaption>{text}</figcaption></figure>"
            for url, text, kind in figures
        )
        shown.append(f"<p><b>{title}</b></p><div class='dp-figures'>{tiles}</div>")
    return "".join(shown)


def trust(table: list[Measured], references: dict[Kind, Converged]) -> list[str]:
    """How far the references can be trusted, and which solvers have none."""
    told = []
    for kind, one in references.items():
        name = {"ode": "ODE", "sde": "SDE on this Brownian path"}[kind]
        count = f"{' + '.join(map(str, one.steps))} steps"
        coarse, fine = one.steps[-2:]
        gap = f"{coarse} and {fine} steps differ by {one.gaps[-1]:.2%}"
        floor = f"Errors below {one.tolerance:.2%} mean nothing."
        if one.agrees:
            told.append(
                f"Reference of the {name}: {count}; {gap}, within the tolerance of {AGREEMENT[kind]:.1%}. {floor}"
            )
        else:
            told.append(
                f"The reference of the {name} has not converged: after {count}, {gap}, and the tolerance is "
                f"{AGREEMENT[kind]:.1%}. {floor}"
            )
    if own := dict.fromkeys(SOLVERS[m.cell.solver].title for m in table if not m.compares):
        told.append(
            f"Own noise in each step, so no solution to compare with: {', '.join(own)}. Their distributions are "
            "compared below."
        )
    return told


def beyond_chance(rows: list[Apart]) -> list[str]:
    """Which solvers' distributions can be told from the converged one, at their largest budget."""
    last = {r.solver: r for r in sorted(rows, key=lambda r: r.budget)}
    far = [SOLVERS[s].title for s, r in last.items() if r.distance > r.chance]
    near = [SOLVERS[s].title for s, r in last.items() if r.distance <= r.chance]
    return [
        f"Further from the converged distribution than chance, even at the largest budget: {', '.join(far)}."
        if far
        else "",
        f"Not to be told from it with {SEEDS} pictures: {', '.join(near)}." if near else "",
    ]


def best_read(rows: list[Quality]) -> list[str]:
    """At each budget, whose pictures are read best, and who cannot be told from that."""
    told = []
    for budget in sorted({r.budget for r in rows}):
        own = sorted((r for r in rows if r.budget == budget), key=lambda r: -r.share)
        best = own[0]
        alike = [SOLVERS[r.solver].title for r in own[1:] if r.high >= best.low]
        told.append(
            f"Budget {budget}: {SOLVERS[best.solver].title} is read right for {best.share:.0%} of the prompts"
            + (f"; within the error bars: {', '.join(alike)}." if alike else ".")
        )
    return told


def build(page: gr.Blocks, opens: Any, backend: Backend, media: Media) -> list[Any]:
    """Lay out the tab and connect it; returns the controls in the order of `NAMES`.

    Args:
        page: which tells when a visitor leaves.
        opens: the event of the tab's being on show for the first time.
        backend, media: who runs, and who serves what was made.
    """
    default = Comparison(model=next(iter(backend.models)))
    verifiers: dict[str, Verifier | None] = {}
    damaged: dict[str, str] = {}

    def judge(model: str) -> Verifier | None:
        """The verifier beside a model; a damaged one is as none, and the page says so where it would be used."""
        if model not in verifiers:
            try:
                verifiers[model] = backend.compute(lambda: verifier_of(backend.models[model]))
            except ModelError as problem:
                verifiers[model], damaged[model] = None, str(problem)
        return verifiers[model]

    def trusted(model: str) -> list[str]:
        """What is measured, and how far the judge can be trusted."""
        verifier = judge(model)
        return [JUDGED, verifier.told() if verifier else ""]

    shelf = media.shelf(Comparison.tab)
    begun: dict[str, Comparison] = {}  # by visitor, the comparison that has begun last
    begun_in_plane: dict[str, PlaneComparison] = {}
    shown = gr.State("")  # the token of the comparison on show
    left_out = gr.State([])  # the solvers that are not offered
    refused_now = default.refused(backend.model(default.model).denoiser.schedule)

    # --- layout ---------------------------------------------------------------------------------------
    with gr.Row(elem_classes="dp-columns"):
        with gr.Column(elem_classes="dp-card dp-controls"):
            c: dict[str, Any] = {}
            c["field"] = gr.Radio(
                [(name if key == "image" else f"{name} in the plane", key) for key, name in FIELDS.items()],
                value=default.field,
                label=title(Comparison, "field"),
                info=Comparison.model_fields["field"].description,
                elem_id="samplers-field",
            )
            c["target"] = control(Comparison, "target", choices=TARGETS, visible=False)
            c["prompt"] = control(Comparison, "prompt", lines=2)
            words = Words(elem_id="samplers-words")
            c["solvers"] = CheckboxGroup(
                solver_choices(refused_now),
                value=list(default.solvers),
                label="solvers",
                info="each runs at each budget, all from one noise",
                elem_id="samplers-solvers",
            )
            refused_note = gr.HTML(refused_lines(refused_now), elem_classes="dp-note", elem_id="samplers-refused")
            c["budgets"] = CheckboxGroup(
                [(str(b), b) for b in BUDGETS],
                value=list(default.budgets),
                label="budgets",
                info="model calls, or steps, of a picture",
                elem_id="samplers-budgets",
            )
            c["equal"] = control(Comparison, "equal")
            c["w"] = control(Comparison, "w")
            both = gr.HTML(said(default), elem_classes="dp-readout", elem_id="samplers-conventions")
            with gr.Row():
                c["seed"] = control(Comparison, "seed", scale=3)
                dice = gr.Button("🎲", scale=1, min_width=44, elem_id="samplers-dice", elem_classes="dp-dice")
            c["pictures"] = control(Comparison, "pictures")
            more = more_settings(Comparison, c, backend, pictures=False, weak=False)
            go = gr.Button("Compare", variant="primary", elem_id="samplers-go")
            expected = gr.HTML(elem_classes="dp-readout", elem_id="samplers-expected")
        with gr.Column(elem_classes="dp-picture dp-wide"):
            told = gr.HTML(elem_classes="dp-note", elem_id="samplers-link-notes")
            notes = gr.HTML(elem_classes="dp-note", elem_id="samplers-notes")
            error = gr.HTML(elem_classes="dp-error", elem_id="samplers-error")
            with gr.Column(elem_classes="dp-card", visible=False) as plane_card:
                gr.Markdown("## The same solvers in the plane, where the solution is known")
                with gr.Row():
                    plane_said = gr.HTML(elem_classes="dp-readout", elem_id="samplers-plane-said")
                    plane_stop = gr.Button("Stop", size="sm", scale=0, min_width=80, elem_id="samplers-plane-stop")
                with gr.Column(visible=False) as plane_charts:
                    plane_errors = gr.Plot(show_label=False, elem_id="samplers-plane-errors")
                    plane_marginals = gr.Plot(show_label=False, elem_id="samplers-plane-marginals")
                    gr.HTML(lines(IN_PLANE), elem_classes="dp-note")
            with gr.Column(elem_classes="dp-cards") as on_images:
                with gr.Column(elem_classes="dp-card"):
                    gr.Markdown("## The race: every picture after as many model calls")
                    race = Race(elem_id="samplers-race")
                    with gr.Row():
                        status = gr.HTML(elem_classes="dp-readout", elem_id="samplers-status")
                        stop = gr.Button("Stop", size="sm", scale=0, min_width=80, elem_id="samplers-stop")
                    save = Save(elem_id="samplers-save")
                with gr.Column(elem_classes="dp-card"):
                    gr.Markdown("## What was measured")
                    summed = gr.HTML(elem_classes="dp-readout", elem_id="samplers-summary")
                with gr.Column(elem_classes="dp-card"):
                    gr.Markdown("## Filmstrip of a cell: click one above")
                    strip = Filmstrip(elem_id="samplers-film")
        with gr.Column(elem_classes="dp-card dp-explain"):
            gr.Markdown("## What you see")
            gr.Markdown(EQUATION, latex_delimiters=LATEX)
            formula = gr.Markdown(rule_panel(default.rule), latex_delimiters=LATEX, elem_id="samplers-formula")
            gr.Markdown("## Try")
            with gr.Row(elem_classes="dp-presets"):
                presets = {name: gr.Button(name, size="sm", min_width=130) for name in PRESETS}
            gr.Markdown("## Step 10 of 20 is not a 10-step run")
            halfway = gr.HTML(elem_classes="dp-readout", elem_id="samplers-halfway")
    # Hidden in the plane, whatever a comparison that is still running does to the charts.
    with gr.Column() as closer:
        with gr.Row(elem_classes="dp-halves", elem_id="samplers-charts", visible=False) as charts:
            with gr.Column(elem_classes="dp-card"):
                gr.Markdown("## Error against cost")
                with gr.Row():
                    axis = gr.Radio(
                        [("evaluations", "evaluations"), ("seconds", "seconds")],
                        value="evaluations",
                        label="cost",
                        elem_id="samplers-axis",
                    )
                    what = gr.Radio(
                        [("latents", "error"), ("perceptual", "perceptual")],
                        value="error",
                        label="distance",
                        visible=False,
                        elem_id="samplers-distance",
                    )
                clock = gr.Button("Time each picture by itself", size="sm", elem_id="samplers-clock")
                clocked = gr.HTML(
                    lines(SHARED),
                    elem_classes="dp-readout",
                    elem_id="samplers-clocked",
                )
                errors = gr.Plot(show_label=False, elem_id="samplers-errors")
                gr.Markdown("## Where the steps are")
                steps = gr.Plot(show_label=False, elem_id="samplers-steps")
            with gr.Column(elem_classes="dp-card"):
                gr.Markdown("## The latents' paths, at the largest budget")
                paths = gr.Plot(show_label=False, elem_id="samplers-paths")
                gr.Markdown("## Where the path bends")
                turns = gr.Plot(show_label=False, elem_id="samplers-turns")
        with gr.Row(elem_classes="dp-halves"):
            with gr.Column(elem_classes="dp-card"):
                gr.Markdown("## Distributions over seeds: also for solvers with noise of their own")
                with gr.Row():
                    spread_go = gr.Button("Compare distributions", size="sm", elem_id="samplers-spread-go")
                    spread_stop = gr.Button(
                        "Stop", size="sm", scale=0, min_width=80, elem_id="samplers-spread-stop"
                    )
                spread_said = gr.HTML(
                    lines(DISTRIBUTIONS), elem_classes="dp-readout", elem_id="samplers-spread-said"
                )
                spread_plot = gr.Plot(show_label=False, visible=False, elem_id="samplers-spread")
            with gr.Column(elem_classes="dp-card"):
                gr.Markdown("## Quality: what the scene verifier reads")
                with gr.Row() as quality_row:
                    quality_go = gr.Button("Measure quality", size="sm", elem_id="samplers-quality-go")
                    quality_stop = gr.Button("Stop", size="sm", scale=0, min_width=80)
                quality_said = gr.HTML(lines(JUDGED), elem_classes="dp-readout", elem_id="samplers-quality-said")
                quality_plot = gr.Plot(show_label=False, visible=False, elem_id="samplers-quality")
    with gr.Column(elem_classes="dp-card"):
        gr.Markdown("## Stochasticity: where noise repairs and where it hurts")
        with gr.Row():
            stirred = gr.Dropdown(
                [(SOLVERS[name].title, name) for name in NOISY],
                value=NOISY[0],
                label="solver",
                elem_id="samplers-noise-solver",
            )
            stirred_target = gr.Dropdown(TARGETS, value="moons", label="target", elem_id="samplers-noise-target")
            eta = gr.Slider(0, 1, 0, step=0.2, label="noise η", info="churn, for Heun", elem_id="samplers-noise")
        with gr.Row():
            noise_go = gr.Button("Measure what noise does", size="sm", elem_id="samplers-noise-go")
            noise_stop = gr.Button("Stop", size="sm", scale=0, min_width=80)
        noise_said = gr.HTML(lines(NOISE), elem_classes="dp-readout", elem_id="samplers-noise-said")
        with gr.Row(visible=False) as noise_charts:
            noise_plots = {}
            for key, heading in FIELDS.items():
                with gr.Column(min_width=280):
                    gr.Markdown(f"**{heading}**")
                    noise_plots[key] = gr.Plot(show_label=False, elem_id=f"samplers-noise-{key}")
        noise_pictures = gr.HTML(elem_classes="dp-readout", elem_id="samplers-noise-pictures")
        noise_token = gr.State("")
    controls = [c[name] for name in NAMES]

    # --- a comparison, from values to views -----------------------------------------------------------
    def pictured(token: str, kept: ComparisonViews) -> dict[Any, Any]:
        """The race and the file to save, with the numbers as they are now."""
        result = kept.result
        schedule = backend.model(result.recipe.model).denoiser.schedule
        return {
            race: race_value(result.recipe, result, kept.table, token, schedule),
            save: save_value(token, result.recipe),
        }

    def charted(kept: ComparisonViews, cost: str, distance: str) -> Any:
        seen = distance == "perceptual" and any(m.perceptual == m.perceptual for m in kept.table)
        return comparison_errors(
            kept.table, "seconds" if cost == "seconds" else "evaluations", "perceptual" if seen else "error"
        )

    def finished(result: Compared, visitor: str | None) -> tuple[str, dict[Any, Any]]:
        """The token of a comparison, and what can be shown of it without a reference."""
        kept = ComparisonViews(result, measure(result, {}), lambda make: backend.call(make, result.recipe.model))
        token, n = shelf.add(visitor, kept), result.count
        schedule = backend.model(result.recipe.model).denoiser.schedule
        return token, pictured(token, kept) | {
            shown: token,
            status: lines(
                f"{n.evaluations} model calls (batched) · {n.sample_forwards} sample-forwards · "
                f"{result.seconds:.2f} s for all {len(result.pictures)} pictures"
            ),
            halfway: halfway_value(result, token, schedule),
            clocked: lines(SHARED),
        }

    def measured(token: str, references: dict[Kind, Converged], cost: str, distance: str) -> dict[Any, Any]:
        """The numbers and charts of a comparison, with the references that are there."""
        kept = shelf.get(token)
        if not isinstance(kept, ComparisonViews):
            return {}
        result, verifier = kept.result, judge(kept.result.recipe.model) if references else None
        schedule = backend.model(result.recipe.model).denoiser.schedule
        found = backend.compute(lambda: measure(result, references, verifier))
        # Somebody may have had them timed while the references ran.
        kept.remeasured([replace(m, alone=was.alone) for m, was in zip(found, kept.table, strict=True)])
        longest = max(m.cell.budget for m in kept.table)
        rows = [k for k, m in enumerate(kept.table) if m.cell.budget == longest]
        return pictured(token, kept) | {
            summed: lines(
                f"Of {settings_of(result.recipe)}.",
                *summary(kept.table, result.recipe.equal),
                *trust(kept.table, references),
            ),
            charts: gr.update(visible=True),
            errors: charted(kept, cost, distance),
            paths: comparison_paths(result, rows),
            steps: comparison_steps(result, rows, schedule),
            turns: comparison_curvature(result, rows, schedule),
        }

    def progress(event: Any, what: str) -> dict[Any, Any]:
        if isinstance(event, Preview):
            n = event.count
            return {
                status: lines(f"{what}: call {event.step} of {event.steps} · {n.sample_forwards} sample-forwards")
            }
        if isinstance(event, Queued):
            return {status: lines(f"{what}: waiting, {event.ahead} ahead of yours")}
        if isinstance(event, Failed):
            return {error: lines(event.text)}
        return {status: lines("stopped")} if isinstance(event, Stopped) else {}

    def nothing_yet(recipe: Comparison, waiting: dict[str, Any]) -> dict[Any, Any]:
        """The cells are empty, and nothing of an earlier comparison is behind or beside them."""
        return {
            **dict.fromkeys((error, notes, status, shown, halfway), ""),
            save: {},
            strip: {},
            race: waiting,
            clocked: lines(SHARED),
            charts: gr.update(visible=False),
            summed: lines(f"Of {settings_of(recipe)}."),
        }

    def run_comparison(request: gr.Request, cost: str, distance: str, *values: Any) -> Iterator[dict[Any, Any]]:
        visitor = request.session_hash or ""
        mine: Comparison | None = None
        done: dict[Any, Any] = {}

        def overtaken() -> bool:
            """Whether a later comparison of the visitor has begun: what is on show is its own."""
            return mine is not None and begun.get(visitor) is not mine

        try:
            recipe = recipe_of(values)
            schedule = backend.model(recipe.model).denoiser.schedule
            recipe = recipe.possible(schedule)
            waiting = race_value(recipe, None, [], "", schedule)
            mine = begun[visitor] = recipe
            backend.stop(visitor, f"{Comparison.tab}/alone")  # of an earlier comparison
            yield nothing_yet(recipe, waiting)
            result: Compared | None = None
            noted: list[str] = []
            for event in backend.run(recipe, visitor, Comparison.tab):
                if overtaken():
                    return
                if isinstance(event, Result):
                    result = event.value
                elif isinstance(event, Note):
                    noted.append(event.text)
                    yield {notes: lines(*dict.fromkeys(noted))}
                elif update := progress(event, "comparing"):
                    if isinstance(event, Preview) and event.pictures is not None:
                        seen = {"live": data_url(side_by_side(event.pictures)), "step": event.step}
                        update[race] = waiting | seen
                    yield update
            if result is None:
                return
            token, update = finished(result, request.session_hash)
            yield update
            done = {status: update[status]}
            references: dict[Kind, Converged] = {}
            for kind, reference in recipe.references().items():
                for event in backend.run(reference, visitor, f"{Comparison.tab}/reference"):
                    if overtaken() and not wanted(visitor, reference):
                        return
                    if isinstance(event, Result):
                        references[kind] = event.value
                    elif overtaken():
                        pass
                    elif isinstance(event, Note) and not event.of_words:
                        noted.append(event.text)
                        yield {notes: lines(*dict.fromkeys(noted))}
                    elif update := progress(event, f"reference of the {kind.upper()}"):
                        yield update
                if kind not in references or overtaken():
                    return
            update = done | measured(token, references, cost, distance)
            if not overtaken():  # measuring takes a while, too
                yield update
        except (PlaygroundError, TimeoutError) as problem:
            if not overtaken():
                yield done | {error: lines(str(problem) or LATE)}

    def wanted(visitor: str, reference: Recipe) -> bool:
        """Whether the comparison that has begun last is measured with this reference as well: then it goes on."""
        last = begun.get(visitor)
        return last is not None and reference in last.references().values()

    on_plane = [plane_said, plane_charts, plane_errors, plane_marginals]

    def compare_plane(recipe: Comparison, request: gr.Request) -> Iterator[dict[Any, Any]]:
        visitor = request.session_hash or ""
        plane: PlaneComparison | None = None
        try:
            begun_in_plane[visitor] = plane = in_plane(recipe)
            for slot in ("", "/reference"):
                backend.stop(visitor, f"{Comparison.tab}{slot}")
            yield {error: "", notes: "", plane_said: "", plane_charts: gr.update(visible=False)}
            found: PlaneCompared = yield from follow(plane, request, "plane", FIELDS[recipe.field], plane_said)
            if begun_in_plane.get(visitor) is not plane:
                return
            absent = [SOLVERS[s].title for s in recipe.solvers if s not in plane.solvers]
            short = {s for s in plane.solvers if not any(r.solver == s for r in found.rows)}
            yield {
                plane_charts: gr.update(visible=True),
                plane_errors: errors_against_cost(found.rows, "error"),
                plane_marginals: errors_against_cost(found.rows, "marginal"),
                plane_said: lines(
                    f"Of {TARGET_TITLES[plane.target]}, seed {plane.seed}, grid {GRID_TITLES[plane.grid]}"
                    + ("." if plane.eta == 1 else f", η = {number(plane.eta)}."),
                    *summary(measured_in_plane(found.rows), recipe.equal),
                    f"{len(found.rows)} runs of {plane.particles:,} particles on the {FIELDS[recipe.field]}. “Off” "
                    "is the median distance as a part of the cloud's radius (root mean square).",
                    f"Only on a checkpoint's table: {', '.join(absent)}." if absent else "",
                    f"No budget pays for a step of {', '.join(SOLVERS[s].title for s in sorted(short))}."
                    if short
                    else "",
                ),
            }
        except (PlaygroundError, TimeoutError) as problem:
            if plane is None or begun_in_plane.get(visitor) is plane:
                yield {plane_said: lines(str(problem) or LATE)}

    def run_chosen(request: gr.Request, cost: str, distance: str, *values: Any) -> Iterator[dict[Any, Any]]:
        """The comparison on whatever the switch names."""
        try:
            recipe = recipe_of(values)
        except PlaygroundError as problem:
            yield {error: lines(str(problem))}
            return
        if recipe.field == "image":
            backend.stop(request.session_hash or "", f"{Comparison.tab}/plane")
            yield from run_comparison(request, cost, distance, *values)
        else:
            yield from compare_plane(recipe, request)

    def place(field: str) -> dict[Any, Any]:
        """What belongs to the chosen field is there, the other is not."""
        image = field == "image"
        return {
            c["target"]: gr.update(visible=not image),
            plane_card: gr.update(visible=not image),
            on_images: gr.update(visible=image),
            closer: gr.update(visible=image),
        }

    placed = [plane_card, on_images, closer]
    c["field"].change(place, c["field"], [c["target"], *placed], **FAST)

    shows = [race, notes, status, save, error, summed, shown, halfway, clocked, charts, errors, paths, steps, turns]
    shows += [strip, *on_plane]
    asking = [axis, what, *controls]

    def then_compare(event: Any) -> None:
        event.then(None, controls, None, js=write_link, **FAST)
        event.then(run_chosen, asking, shows, **RUNNING)

    write_link = link_script(Comparison, NAMES)
    gr.on([x.change for x in controls], None, controls, None, js=write_link, **FAST)
    go.click(run_chosen, asking, shows, **RUNNING)
    follow_rule(c, more, formula, backend)

    def stop_mine(request: gr.Request) -> None:
        backend.stop(request.session_hash or "")

    for button in (stop, spread_stop, quality_stop, noise_stop, plane_stop):
        button.click(stop_mine, None, None, **FAST)

    def refusals_of(recipe: Comparison, schedule: Schedule) -> dict[str, str]:
        """Why solvers cannot take part: on the image model, or in the plane.

        Under a rule with which nothing is compared, those of the usual rule: such a rule has to go anyway, and the
        choices stay until it does.
        """
        if recipe.field != "image":
            return TABLED
        try:
            recipe.check_rule()
        except RecipeError:
            recipe = recipe.but(rule=default.rule)
        return recipe.refused(schedule)

    def offered(refused: dict[str, str], solvers: Iterable[str]) -> Any:
        """The solvers to choose from, and the chosen ones among them."""
        return gr.update(choices=solver_choices(refused), value=[s for s in solvers if s not in refused])

    def foretold(before: list[str], *values: Any) -> dict[Any, Any]:
        """What a comparison will take, before it is run, and what cannot take part."""
        try:
            recipe = recipe_of(values)
            schedule = backend.model(recipe.model).denoiser.schedule
            refused = refusals_of(recipe, schedule)
        except (PlaygroundError, TimeoutError) as problem:
            return {error: lines(str(problem) or LATE)}
        about_them: dict[Any, Any] = {both: said(recipe), refused_note: refused_lines(refused)}
        if len(refused) == len(SOLVERS):
            pass  # the reason is told below: an empty list would leave nothing to come back with
        elif sorted(refused) != before:
            # Only then: a hand that clicks on meanwhile must not find its click undone.
            about_them[c["solvers"]] = offered(refused, recipe.solvers)
            about_them[left_out] = sorted(refused)
        if recipe.field != "image":
            return about_them | plane_foretold(recipe)
        try:
            recipe = recipe.possible(schedule)
            cost = recipe.plan(schedule).cost(schedule)
        except PlaygroundError as problem:
            return about_them | {error: lines(str(problem)), expected: ""}
        pace = backend.pace(recipe.model)
        told = f"{cost.sample_forwards} sample-forwards, about {cost.sample_forwards * pace:.0f} s here"
        missing = [r for r in recipe.references().values() if backend.finished(r) is None]
        if missing:
            more = sum(r.plan(schedule).cost(schedule).sample_forwards for r in missing)
            told += (
                f"; then at least {more} for the reference, about {more * pace:.0f} s, once for these settings: "
                "solvers, budgets and grid do not matter"
            )
        return about_them | {error: "", expected: lines(told)}

    def plane_foretold(recipe: Comparison) -> dict[Any, Any]:
        try:
            plane = in_plane(recipe)
        except PlaygroundError as problem:
            return {error: lines(str(problem)), expected: ""}
        trains = plane.field == "learned" and not backend.trained(plane)
        first = f"a network is trained for {plane.train_steps:,} updates, then " if trains else ""
        return {error: "", expected: lines(f"{first}{plane.size} runs of {plane.particles:,} particles each")}

    touched = [x.change for x in controls]
    foretells = [expected, both, refused_note, c["solvers"], left_out, error]
    gr.on(touched, foretold, [left_out, *controls], foretells, trigger_mode="always_last", **FAST)

    # --- looking closer ---------------------------------------------------------------------------------
    def pick(token: str, event: gr.EventData) -> Any:
        kept = shelf.get(token)
        row = event._data["row"]
        if not isinstance(kept, ComparisonViews) or not isinstance(row, int) or row >= len(kept.result.seen):
            return gr.skip()
        return film_value(kept.result, row, token, backend.model(kept.result.recipe.model).denoiser.schedule)

    race.pick(pick, shown, strip, **FAST)

    def other_axis(token: str, cost: str, distance: str) -> Any:
        kept = shelf.get(token)
        return charted(kept, cost, distance) if isinstance(kept, ComparisonViews) else gr.skip()

    gr.on([axis.input, what.input], other_axis, [shown, axis, what], errors, **FAST)

    # --- runs beside the comparison -----------------------------------------------------------------------
    def follow(
        recipe: Recipe, request: gr.Request, slot: str, name: str, where: Any
    ) -> Generator[dict[Any, Any], None, Any]:
        """Run a recipe to its end, tell at `where` how far it is, and return its result.

        Raises:
            Ended: in one sentence, when it failed or was stopped.
        """
        for event in backend.run(recipe, request.session_hash or "", f"{Comparison.tab}/{slot}"):
            if isinstance(event, Result):
                return event.value
            if isinstance(event, Preview):
                training = isinstance(recipe, PlaneComparison) and not isinstance(event.value, list)
                does = "training its network, update" if training else "call" if event.count.evaluations else "run"
                far = f"{does} {event.step} of {event.steps}" if event.step else "finding the exact solution"
                yield {where: lines(f"{name}: {far}")}
            elif isinstance(event, Queued):
                yield {where: lines(f"{name}: waiting, {event.ahead} ahead of yours")}
            elif isinstance(event, Failed):
                raise Ended(event.text)
        raise Ended("Stopped. What was finished is kept, and is not computed again.")

    def chosen(values: tuple[Any, ...]) -> tuple[Comparison, Schedule]:
        recipe = recipe_of(values)
        schedule = backend.model(recipe.model).denoiser.schedule
        return recipe.possible(schedule), schedule

    def time_alone(request: gr.Request, token: str, cost: str, distance: str) -> Iterator[dict[Any, Any]]:
        kept = shelf.get(token)
        if not isinstance(kept, ComparisonViews):
            yield {clocked: lines("Compare first.")}
            return

        def on_show() -> bool:
            """Whether no other comparison has begun meanwhile."""
            return begun.get(request.session_hash or "") == kept.result.recipe

        try:
            taken = []
            for row, m in enumerate(kept.table):
                name = f"{SOLVERS[m.cell.solver].title}, {m.cell.evaluations} NFE ({row + 1} of {len(kept.table)})"
                one = yield from follow(single(kept.result, row), request, "alone", name, clocked)
                taken.append(one.seconds)
        except (PlaygroundError, TimeoutError) as problem:
            if on_show():
                yield {clocked: lines(str(problem) or LATE)}
            return
        kept.remeasured([replace(m, alone=t) for m, t in zip(kept.table, taken, strict=True)])
        if not on_show():
            return
        said = "Each picture was timed in a run by itself, decoder included."
        yield pictured(token, kept) | {
            clocked: lines(said),
            errors: charted(kept, "seconds", distance),
            axis: "seconds",
        }

    clock.click(time_alone, [shown, axis, what], [clocked, errors, axis, race, save], **RUNNING)

    def compare_distributions(request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        rows: list[Apart] = []
        of = ""
        try:
            recipe, schedule = chosen(values)
            of = f"Of {settings_of(recipe, SEEDS)}."
            yield {spread_plot: gr.update(visible=False)}  # of other settings
            cells = [c for c in recipe.cells(schedule) if c.steps]
            truth: Drawn = yield from follow(
                Cohort.converged(recipe), request, "spread", "converged solutions", spread_said
            )
            for i, cell in enumerate(cells):
                name = f"{SOLVERS[cell.solver].title}, {cell.evaluations} NFE ({i + 1} of {len(cells)})"
                drawn = yield from follow(Cohort.cell(recipe, cell), request, "spread", name, spread_said)
                rows.append(backend.compute(partial(apart, drawn, truth, cell.budget)))
                yield {spread_plot: gr.Plot(distributions_apart(rows), visible=True)}
            # Once more: of plots that follow one another fast, the page may leave out the last.
            whole = gr.Plot(distributions_apart(rows), visible=True)
            yield {spread_said: lines(of, *beyond_chance(rows), DISTRIBUTIONS), spread_plot: whole}
        except (PlaygroundError, TimeoutError) as problem:
            yield {spread_said: lines(str(problem) or LATE, of if rows else "")}

    spread_go.click(compare_distributions, controls, [spread_said, spread_plot], **RUNNING)

    def judged_here(model: str) -> dict[Any, Any]:
        """What needs the verifier is there where it is, and says why not elsewhere."""
        try:
            there = model in backend.models and judge(model) is not None
            told = trusted(model) if there else [damaged.get(model, UNJUDGED)]
        except TimeoutError:  # the device is busy: whether the verifier can be read shows when it is used
            there = has_verifier(backend.models[model])
            told = [JUDGED if there else UNJUDGED]
        return {
            quality_row: gr.update(visible=there),
            quality_said: lines(*told),
            what: gr.update(visible=there, value="error"),
        }

    c["model"].change(judged_here, c["model"], [quality_row, quality_said, what], **FAST)

    def measure_quality(request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        rows: list[Quality] = []
        of = ""
        try:
            recipe, schedule = chosen(values)
            verifier = judge(recipe.model)
            if verifier is None:
                raise RecipeError(damaged.get(recipe.model, UNJUDGED))
            asked = backend.call(lambda model: asked_of(model, verifier), recipe.model)
            if not asked:
                raise RecipeError("The model does not know enough of the verifier's words to be asked anything.")
            of = f"Of {settings_of(recipe, len(asked), f'{len(asked)} prompts')}."
            yield {quality_plot: gr.update(visible=False)}  # of other settings
            cells = [c for c in recipe.cells(schedule) if c.steps]
            for i, cell in enumerate(cells):
                cohort = Cohort.cell(recipe, cell, prompts=tuple(a.prompt for a in asked))
                name = f"{SOLVERS[cell.solver].title}, {cell.evaluations} NFE ({i + 1} of {len(cells)})"
                drawn = yield from follow(cohort, request, "quality", name, quality_said)
                rows.append(backend.compute(partial(quality, drawn, asked, verifier, cell.budget)))
                yield {quality_plot: gr.Plot(quality_over_cost(rows), visible=True)}
            whole = gr.Plot(quality_over_cost(rows), visible=True)
            yield {quality_said: lines(of, *best_read(rows), *trusted(recipe.model)), quality_plot: whole}
        except (PlaygroundError, TimeoutError) as problem:
            yield {quality_said: lines(str(problem) or LATE, of if rows else "")}

    quality_go.click(measure_quality, controls, [quality_said, quality_plot], **RUNNING)

    # --- what noise does ----------------------------------------------------------------------------------
    def stirred_views(token: str, kept: Stirred, at: float) -> dict[Any, Any]:
        """The three curves with a mark at an amount of noise, what they say, and the pictures there."""
        titles = {"image": "energy coefficient"}
        place = min(range(len(ETAS)), key=lambda k: abs(ETAS[k] - at))
        told = []
        for key, curves in kept.curves.items():
            level, say = kept.levels[key], "{:.1%}".format if key == "image" else number
            said = [
                f"at {budget} evaluations {verdict(points[0][1], points[-1][1], level)} "
                f"({say(points[0][1])} without, {say(points[-1][1])} with all of it)"
                for budget, points in sorted(curves.items())
            ]
            told.append(f"{FIELDS[key][:1].upper()}{FIELDS[key][1:]}: {'; '.join(said)}.")
        tiles = "".join(
            f'<figure class="dp-figure"><img src="{Media.url(token, f"noise-{place}-{budget}.png")}" '
            f'alt="pictures at η = {ETAS[place]:g}" loading="lazy"><figcaption>{budget} evaluations, '
            f"η = {ETAS[place]:g}</figcaption></figure>"
            for budget in sorted({b for _, b in kept.sheets})
        )
        plots = {
            noise_plots[key]: over_noise(curves, kept.levels[key], titles.get(key, "sliced W₂"), at, key == "image")
            for key, curves in kept.curves.items()
        }
        return plots | {
            noise_charts: gr.update(visible=True),
            noise_pictures: f"<div class='dp-figures'>{tiles}</div>",
            noise_said: lines(kept.of, *told, NOISE),
        }

    def measure_noise(
        request: gr.Request, solver: str, data: str, at: float, *values: Any
    ) -> Iterator[dict[Any, Any]]:
        curves: dict[str, dict[int, list[tuple[float, float]]]] = {}
        levels: dict[str, float] = {}
        try:
            recipe = recipe_of(values).but(solvers=(solver,), budgets=NOISE_BUDGETS, equal="nfe")
            schedule = backend.model(recipe.model).denoiser.schedule
            recipe.possible(schedule)
            yield {noise_token: "", noise_charts: gr.update(visible=False), noise_pictures: ""}  # of other settings
            for key in ("exact", "learned"):
                plane = PlaneComparison.make(
                    target=data, field=key, seed=recipe.seed, solvers=(solver,), budgets=NOISE_BUDGETS, etas=ETAS
                )
                found: PlaneCompared = yield from follow(plane, request, "noise", FIELDS[key], noise_said)
                curves[key] = {b: [(r.eta, r.marginal) for r in of_noise(found.rows, b)] for b in NOISE_BUDGETS}
                levels[key] = found.rows[0].floor
            truth = yield from follow(Cohort.converged(recipe), request, "noise", "converged solutions", noise_said)
            cohorts: dict[tuple[int, int], Drawn] = {}
            curves["image"] = {b: [] for b in NOISE_BUDGETS}
            for k, amount in enumerate(ETAS):
                for cell in recipe.but(eta=amount).cells(schedule):
                    name = f"image model, η = {amount:g}, {cell.evaluations} NFE"
                    cohort = Cohort.cell(recipe, cell, eta=amount)
                    cohorts[k, cell.budget] = drawn = yield from follow(cohort, request, "noise", name, noise_said)
                    row = backend.compute(partial(apart, drawn, truth, cell.budget))
                    curves["image"][cell.budget].append((amount, row.distance))
                    levels["image"] = max(levels.get("image", 0.0), row.chance)
            of = (
                f"{SOLVERS[solver].title}. Exact and learned field: {TARGET_TITLES[data]}, seed {recipe.seed}. "
                f"Image model: {settings_of(recipe, SEEDS, without=('eta',))}."
            )
            kept = Stirred(of, curves, levels, cohorts)
            token = shelf.add(request.session_hash, kept)
            yield {noise_token: token} | stirred_views(token, kept, at)
        except (PlaygroundError, TimeoutError) as problem:
            yield {noise_said: lines(str(problem) or LATE)}

    noisy = [*noise_plots.values(), noise_charts, noise_pictures, noise_said]
    noise_go.click(measure_noise, [stirred, stirred_target, eta, *controls], [noise_token, *noisy], **RUNNING)

    def other_noise(token: str, at: float) -> Any:
        kept = shelf.get(token)
        return stirred_views(token, kept, at) if isinstance(kept, Stirred) else gr.skip()

    eta.input(other_noise, [noise_token, eta], noisy, trigger_mode="always_last", **FAST)

    # --- buttons ----------------------------------------------------------------------------------------
    then_compare(dice.click(lambda: random.randrange(2**31), None, c["seed"], **FAST))
    usual = {name: getattr(default, name) for name in ("field", "solvers", "budgets", "equal", "grid")}

    def pressed(preset: dict[str, Any], *values: Any) -> list[Any]:
        """A preset beside the settings that it leaves as they are, and of its solvers those that can run there."""
        told = {k: list(v) if isinstance(v, tuple) else v for k, v in preset.items()}
        refused: dict[str, str] = {}
        try:
            recipe = recipe_of(tuple((dict(zip(NAMES, values, strict=True)) | told).values()))
            found = refusals_of(recipe, backend.model(recipe.model).denoiser.schedule)
            refused = found if len(found) < len(SOLVERS) else {}
        except (PlaygroundError, TimeoutError):
            pass  # what is wrong with the other settings is told by the run that follows
        told["solvers"] = offered(refused, told["solvers"])
        return [*told.values(), sorted(refused)]

    for name, button in presets.items():
        preset = usual | PRESETS[name]
        changed = [*(c[k] for k in preset), left_out]
        then_compare(button.click(partial(pressed, preset), controls, changed, **FAST))

    example, _ = taken_words(words, c["prompt"], c["prompt"])
    then_compare(example)

    # --- the same for programs --------------------------------------------------------------------------
    def compare_samplers(recipe: dict[str, Any], request: gr.Request) -> dict[str, Any]:
        """What every solver of a Comparison recipe costs at every budget, and how far it is from the solution."""
        # A slot of its own: calls of one client that run at the same time do not stop each other.
        visitor, slot = request.session_hash or "", api_slot(Comparison)
        with refusals(recipe):
            made = Comparison.make(**recipe)
            if made.field != "image":
                plane: PlaneCompared = backend.result(in_plane(made), visitor, slot)
                cells = [{k: None if v != v else v for k, v in asdict(row).items()} for row in plane.rows]
                cost = {"evaluations": plane.count.evaluations, "sample_forwards": plane.count.sample_forwards}
                return {"cells": cells, **cost, "link": "?" + urlencode(made.to_query())}
            result = backend.result(made, visitor, slot)
            references: dict[Kind, Converged] = {
                k: backend.result(one, visitor, slot) for k, one in made.references().items()
            }
        return {
            "cells": [
                {
                    "solver": m.cell.solver,
                    "steps": m.cell.steps,
                    "evaluations": m.cell.evaluations,
                    "error": m.error if m.known else None,
                    "spread": m.spread if m.known else None,
                    "compared_with": m.compares or None,
                }
                for m in measure(result, references)
            ],
            "tolerance": {kind: reference.tolerance for kind, reference in references.items()},
            "converged": {kind: reference.agrees for kind, reference in references.items()},
            **run_answer(made, result),
        }

    gr.api(compare_samplers, api_name="compare_samplers", concurrency_limit=None)

    # --- opening the page -------------------------------------------------------------------------------
    def restore(request: gr.Request) -> dict[Any, Any]:
        recipe, changed = Comparison.from_query(own_query(request, Comparison.tab))
        recipe, missing = known_here(recipe, backend)
        model = backend.model(recipe.model)
        schedule = model.denoiser.schedule
        refused = refusals_of(recipe, schedule)
        if len(refused) == len(SOLVERS):
            refused = {}  # the comparison says why it cannot run, and its settings stay
        if gone := [s for s in recipe.solvers if s in refused]:
            missing.append(f"Left out: {', '.join(SOLVERS[s].title for s in gone)}. {refused[gone[0]]}")
            kept = tuple(s for s in recipe.solvers if s not in refused) or default.solvers
            recipe = recipe.but(solvers=kept)
        budgets = sorted({*BUDGETS, *recipe.budgets})
        return {
            **{c[name]: getattr(recipe, name) for name in NAMES if name not in LISTS},
            c["solvers"]: offered(refused, recipe.solvers),
            c["budgets"]: gr.update(choices=[(str(b), b) for b in budgets], value=list(recipe.budgets)),
            words: word_list(model),
            left_out: sorted(refused),
            race: race_value(recipe, None, [], "", schedule),
            told: lines(*changed, *missing),
            **judged_here(recipe.model),
            **{k: v for k, v in place(recipe.field).items() if k is not c["target"]},
            c["target"]: gr.update(visible=recipe.field != "image", value=recipe.target),
        }

    judging = [quality_row, quality_said, what]
    opened = opens(restore, None, [*controls, words, race, told, left_out, *judging, *placed], **FAST)
    foretold_here = opened.then(foretold, [left_out, *controls], foretells, **FAST)

    def run_what_is_there(request: gr.Request, cost: str, distance: str, *values: Any) -> Iterator[dict[Any, Any]]:
        """A comparison takes a while: what opens the page only shows one that has been made before."""
        try:
            recipe = recipe_of(values)
            parts: list[Recipe] = [in_plane(recipe)] if recipe.field != "image" else []
            if recipe.field == "image":
                recipe = recipe.possible(backend.model(recipe.model).denoiser.schedule)
                parts = [recipe, *recipe.references().values()]
        except (PlaygroundError, TimeoutError) as problem:
            yield {error: lines(str(problem) or LATE)}
            return
        if all(backend.finished(r) is not None for r in parts):
            yield from run_chosen(request, cost, distance, *values)
        else:
            yield {status if recipe.field == "image" else plane_said: lines(f"Press {go.value} to run it.")}

    foretold_here.then(run_what_is_there, asking, shows, **RUNNING)

    def left(request: gr.Request) -> None:
        backend.forget(request.session_hash or "")
        shelf.forget(request.session_hash)
        for last in (begun, begun_in_plane):
            last.pop(request.session_hash or "", None)

    page.unload(left)
    return controls
