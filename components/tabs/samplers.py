"""The tab Samplers: many solvers on one problem, from one noise, at equal cost."""

from __future__ import annotations

import html
import random
from collections.abc import Iterator, Mapping
from typing import Any

import gradio as gr

from components.charts import (
    comparison_errors,
    comparison_paths,
    comparison_steps,
    comparison_turning,
    errors_against_cost,
)
from components.controls import control, link_script, listed, own_query
from components.media import Media
from components.pictures import FAST, RUNNING, follow_rule, known_here, more_settings, taken_words
from components.programs import refusals, run_answer
from components.readouts import LATEX, lines, number, rule_panel, said, word_list
from components.saving import save_value
from components.standalone import ROOM, Part, Sheet, fitted, views_files
from components.widgets import Filmstrip, Race, Save, Words
from playground.backend import Backend, Failed, Preview, Queued, Result, Stopped
from playground.errors import PlaygroundError, RecipeError
from playground.images.comparison import (
    Compared,
    Comparison,
    Measured,
    measure,
    summary,
    tolerance,
)
from playground.plane.metrics import errors_against_nfe
from playground.plane.recipe import PlaneFlow
from playground.schedules import Schedule
from playground.sharing.comparisons import TILE, ComparisonViews, cell_text
from playground.solvers import SOLVERS

TITLE = "Samplers"
WITHOUT = ("sweep", "across", "values", "pictures", "weak_model", "solver", "steps")
NAMES = [name for name in Comparison.model_fields if name not in WITHOUT]
LISTS = ("solvers", "budgets")
BUDGETS = (3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48)

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
}

EQUATION = r"""
All solvers approximate one solution: of the probability-flow ODE

$$\frac{\mathrm d (x/\alpha)}{\mathrm d(\sigma/\alpha)} = \hat\epsilon(x, t)$$

from one noise. What a picture costs is the number of calls of the denoiser (**NFE**), not of steps: Heun and 2S
call it twice in a step. A method of order $p$ has an error that falls like $\text{NFE}^{-p}$ once steps are small;
with few steps the order says little, and guidance makes the ODE stiffer.

The distance in each cell is measured: $\lVert z - z^\star\rVert / \lVert z^\star\rVert$ of the latents, where
$z^\star$ is the converged solution, computed with many more steps. How far two refinements of it are apart is the
dashed line: below it nothing can be told.

Solvers of the SDE add fresh noise, so each picture is another one. Ancestral and Euler–Maruyama run on **one
Brownian path** here, the same at every number of steps, and have a solution of their own to converge to. The others
draw noise of their own in every step and have none: compare their distributions in the plane.
"""


def recipe_of(values: tuple[Any, ...]) -> Comparison:
    """The recipe that the controls describe."""
    told = dict(zip(NAMES, values, strict=True))
    lists = {k: told[k] if isinstance(told[k], list | tuple) else listed(told[k]) for k in LISTS}
    if not lists["solvers"]:
        raise RecipeError("Choose at least one solver.")
    if not lists["budgets"]:
        raise RecipeError("Choose at least one budget.")
    return Comparison.make(**told | lists)


def about(solver: str) -> str:
    """What a solver is, in a few words."""
    kind = SOLVERS[solver]
    calls = "1 call" if kind.evaluations == 1 else f"{kind.evaluations} calls"
    return f"order {kind.order}, {calls} a step{', draws noise' if kind.stochastic else ''}"


def solver_choices(refused: dict[str, str]) -> list[tuple[str, str]]:
    """All that can run, with what they are."""
    return [(f"{s.title} ({about(name)})", name) for name, s in SOLVERS.items() if name not in refused]


def refused_lines(refused: dict[str, str]) -> str:
    """Those that cannot, and why; solvers with one reason share a line."""
    reasons: dict[str, list[str]] = {}
    for name, why in refused.items():
        reasons.setdefault(why.replace(SOLVERS[name].title, "It"), []).append(SOLVERS[name].title)
    return lines(*(f"✕ {', '.join(names)}: {why}" for why, names in reasons.items()))


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
            text = "not one step"
        elif measured is None:
            text = f"{cell.steps} steps · {cell.evaluations} NFE"
        else:
            waits = measured.compares and measured.error != measured.error
            text = f"{cell.evaluations} NFE · {measured.seconds:.2f} s" if waits else cell_text(measured)
        known = measured is not None and measured.error == measured.error
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


def build(page: gr.Blocks, opens: Any, backend: Backend, media: Media) -> list[Any]:
    """Lay out the tab and connect it; returns the controls in the order of `NAMES`.

    Args:
        page: which tells when a visitor leaves.
        opens: the event of the tab's being on show for the first time.
        backend, media: who runs, and who serves what was made.
    """
    default = Comparison(model=next(iter(backend.models)))
    shelf = media.shelf(Comparison.tab)
    shown = gr.State("")  # the token of the comparison on show
    refused_now = default.refused(backend.model(default.model).denoiser.schedule)

    # --- layout ---------------------------------------------------------------------------------------
    with gr.Row(elem_classes="dp-columns"):
        with gr.Column(elem_classes="dp-card dp-controls"):
            c: dict[str, Any] = {}
            c["prompt"] = control(Comparison, "prompt", lines=2)
            words = Words(elem_id="samplers-words")
            c["solvers"] = gr.CheckboxGroup(
                solver_choices(refused_now),
                value=list(default.solvers),
                label="solvers",
                info="each runs at each budget, all from one noise",
                elem_id="samplers-solvers",
            )
            refused_note = gr.HTML(refused_lines(refused_now), elem_classes="dp-note", elem_id="samplers-refused")
            c["budgets"] = gr.CheckboxGroup(
                [(str(b), b) for b in BUDGETS],
                value=list(default.budgets),
                label="budgets",
                info="from few to many",
                elem_id="samplers-budgets",
            )
            c["equal"] = control(Comparison, "equal")
            c["w"] = control(Comparison, "w")
            both = gr.HTML(said(default), elem_classes="dp-readout", elem_id="samplers-conventions")
            with gr.Row():
                c["seed"] = control(Comparison, "seed", scale=3)
                dice = gr.Button("🎲", scale=1, min_width=44, elem_id="samplers-dice", elem_classes="dp-dice")
            more = more_settings(Comparison, c, backend, pictures=False)
            go = gr.Button("Compare", variant="primary", elem_id="samplers-go")
            expected = gr.HTML(elem_classes="dp-readout", elem_id="samplers-expected")
        with gr.Column(elem_classes="dp-picture dp-wide"):
            told = gr.HTML(elem_classes="dp-note", elem_id="samplers-link-notes")
            error = gr.HTML(elem_classes="dp-error", elem_id="samplers-error")
            with gr.Column(elem_classes="dp-card"):
                gr.Markdown("#### The race: every picture after as many model calls")
                race = Race(elem_id="samplers-race")
                with gr.Row():
                    status = gr.HTML(elem_classes="dp-readout", elem_id="samplers-status")
                    stop = gr.Button("Stop", size="sm", scale=0, min_width=80, elem_id="samplers-stop")
                save = Save(elem_id="samplers-save")
            with gr.Column(elem_classes="dp-card"):
                gr.Markdown("#### What was measured")
                summed = gr.HTML(elem_classes="dp-readout", elem_id="samplers-summary")
            with gr.Column(elem_classes="dp-card"):
                gr.Markdown("#### Filmstrip of a cell: click one above")
                strip = Filmstrip(elem_id="samplers-film")
        with gr.Column(elem_classes="dp-card dp-explain"):
            gr.Markdown("#### What you see")
            gr.Markdown(EQUATION, latex_delimiters=LATEX)
            formula = gr.Markdown(rule_panel(default.rule), latex_delimiters=LATEX, elem_id="samplers-formula")
            gr.Markdown("#### Try")
            with gr.Row(elem_classes="dp-presets"):
                presets = {name: gr.Button(name, size="sm", min_width=130) for name in PRESETS}
            gr.Markdown("#### Step 10 of 20 is not a 10-step run")
            halfway = gr.HTML(elem_classes="dp-readout", elem_id="samplers-halfway")
    with gr.Row(elem_classes="dp-halves", visible=False) as charts:
        with gr.Column(elem_classes="dp-card"):
            gr.Markdown("#### Error against cost")
            axis = gr.Radio(
                [("evaluations", "evaluations"), ("seconds", "seconds")],
                value="evaluations",
                label="cost",
                elem_id="samplers-axis",
            )
            errors = gr.Plot(show_label=False, elem_id="samplers-errors")
            gr.Markdown("#### Where the steps are")
            steps = gr.Plot(show_label=False, elem_id="samplers-steps")
        with gr.Column(elem_classes="dp-card"):
            gr.Markdown("#### The latents' paths, at the largest budget")
            paths = gr.Plot(show_label=False, elem_id="samplers-paths")
            gr.Markdown("#### How the path turns")
            turns = gr.Plot(show_label=False, elem_id="samplers-turns")
    with gr.Column(elem_classes="dp-card"):
        gr.Markdown("#### The same solvers in the plane, where the solution is known")
        with gr.Row():
            target = gr.Dropdown(
                [("two moons", "moons"), ("eight Gaussians", "eight"), ("checkerboard", "checkerboard")],
                value="moons",
                label="target",
                elem_id="samplers-target",
            )
            where = gr.Radio(
                [("exact field", "exact"), ("learned field (trained now)", "learned")],
                value="exact",
                label="field",
                elem_id="samplers-field",
            )
            noise = gr.Slider(0, 1, 1, step=0.1, label="stochasticity η", elem_id="samplers-eta-plane")
        plane_go = gr.Button("Compare in the plane", size="sm", elem_id="samplers-plane-go")
        plane_said = gr.HTML(elem_classes="dp-readout", elem_id="samplers-plane-said")
        with gr.Row(elem_classes="dp-halves", visible=False) as plane_charts:
            plane_errors = gr.Plot(show_label=False, elem_id="samplers-plane-errors")
            plane_marginals = gr.Plot(show_label=False, elem_id="samplers-plane-marginals")

    controls = [c[name] for name in NAMES]
    tables: dict[str, tuple[list[Measured], float]] = {}  # by token, for the charts' axis

    def views_of(result: Compared, table: list[Measured]) -> ComparisonViews:
        return ComparisonViews(result, table, lambda make: backend.call(make, result.recipe.model))

    # --- a comparison, from values to views -----------------------------------------------------------
    def outcome(
        result: Compared, references: dict[str, Compared], visitor: str | None, cost: str
    ) -> dict[Any, Any]:
        """Everything that can be shown of a comparison with the references that are there."""
        assert isinstance(result.recipe, Comparison)
        schedule = backend.model(result.recipe.model).denoiser.schedule
        table = measure(result, references)
        token = shelf.add(visitor, views_of(result, table))
        floor = tolerance(references["ode"]) if "ode" in references else 0.0
        n = result.count
        update: dict[Any, Any] = {
            shown: token,
            race: race_value(result.recipe, result, table, token, schedule),
            status: lines(
                f"{n.evaluations} model calls (batched) · {n.sample_forwards} sample-forwards · "
                f"{result.seconds:.2f} s for all {len(result.pictures)} pictures"
            ),
            save: save_value(token, result.recipe),
            halfway: halfway_value(result, token, schedule),
        }
        if references:
            told_of = [*summary(table, floor)]
            for kind, reference in references.items():
                name = {"ode": "ODE", "sde": "SDE on this Brownian path"}[kind]
                told_of.append(
                    f"Reference of the {name}: {reference.count.evaluations} evaluations; two refinements agree "
                    f"to {tolerance(reference):.2%}."
                )
            if own := [SOLVERS[m.cell.solver].title for m in table if not m.compares]:
                told_of.append(
                    f"Own noise in each step, no solution to compare with: {', '.join(dict.fromkeys(own))}."
                )
            longest = max(m.cell.budget for m in table)
            rows = [k for k, m in enumerate(table) if m.cell.budget == longest]
            while len(tables) > 50:
                tables.pop(next(iter(tables)))
            tables[token] = table, floor
            update |= {
                summed: lines(*told_of),
                charts: gr.update(visible=True),
                errors: comparison_errors(table, floor, "seconds" if cost == "seconds" else "evaluations"),
                paths: comparison_paths(result, rows),
                steps: comparison_steps(result, rows, schedule),
                turns: comparison_turning(result, rows, schedule),
            }
        return update

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

    def run_comparison(request: gr.Request, cost: str, *values: Any) -> Iterator[dict[Any, Any]]:
        visitor = request.session_hash or ""
        try:
            recipe = recipe_of(values)
            recipe = recipe.possible(backend.model(recipe.model).denoiser.schedule)
            yield {error: "", summed: ""}
            result: Compared | None = None
            for event in backend.run(recipe, visitor, Comparison.tab):
                if isinstance(event, Result):
                    result = event.value
                elif update := progress(event, "comparing"):
                    yield update
            if result is None:
                return
            references: dict[str, Compared] = {}
            yield outcome(result, references, request.session_hash, cost)
            for kind, reference in recipe.references().items():
                for event in backend.run(reference, visitor, f"{Comparison.tab}/reference"):
                    if isinstance(event, Result):
                        references[kind] = event.value
                    elif update := progress(event, "reference"):
                        yield update
            yield outcome(result, references, request.session_hash, cost)
        except PlaygroundError as problem:
            yield {error: lines(str(problem))}

    shows = [race, status, save, error, summed, shown, halfway, charts, errors, paths, steps, turns]

    def then_compare(event: Any) -> None:
        event.then(None, controls, None, js=write_link, **FAST)
        event.then(run_comparison, [axis, *controls], shows, **RUNNING)

    write_link = link_script(Comparison, NAMES)
    gr.on([x.change for x in controls], None, controls, None, js=write_link, **FAST)
    go.click(run_comparison, [axis, *controls], shows, **RUNNING)
    follow_rule(c, more, formula, backend)

    def stop_mine(request: gr.Request) -> None:
        backend.stop(request.session_hash or "")

    stop.click(stop_mine, None, None, **FAST)

    def foretold(*values: Any) -> dict[Any, Any]:
        """What a comparison will take, before it is run, and what cannot take part."""
        try:
            recipe = recipe_of(values)
            schedule = backend.model(recipe.model).denoiser.schedule
            refused = recipe.refused(schedule)
        except PlaygroundError as problem:
            return {error: lines(str(problem))}
        about_them = {
            both: said(recipe),
            refused_note: refused_lines(refused),
            c["solvers"]: gr.CheckboxGroup(
                choices=solver_choices(refused), value=[s for s in recipe.solvers if s not in refused]
            ),
        }
        try:
            cost = recipe.possible(schedule).plan(schedule).cost(schedule)
        except PlaygroundError as problem:
            return about_them | {error: lines(str(problem)), expected: ""}
        seconds = cost.sample_forwards * backend.pace(recipe.model)
        return about_them | {
            error: "",
            expected: lines(f"{cost.sample_forwards} sample-forwards, about {seconds:.0f} s here"),
        }

    touched = [x.change for x in controls]
    foretells = [expected, both, refused_note, c["solvers"], error]
    gr.on(touched, foretold, controls, foretells, trigger_mode="always_last", **FAST)

    # --- looking closer ---------------------------------------------------------------------------------
    def pick(token: str, event: gr.EventData) -> Any:
        kept = shelf.get(token)
        row = event._data["row"]
        if not isinstance(kept, ComparisonViews) or not isinstance(row, int) or row >= len(kept.result.seen):
            return gr.skip()
        return film_value(kept.result, row, token, backend.model(kept.result.recipe.model).denoiser.schedule)

    race.pick(pick, shown, strip, **FAST)

    def other_axis(token: str, cost: str) -> Any:
        if token not in tables:
            return gr.skip()
        table, floor = tables[token]
        return comparison_errors(table, floor, "seconds" if cost == "seconds" else "evaluations")

    axis.input(other_axis, [shown, axis], errors, **FAST)

    # --- in the plane -----------------------------------------------------------------------------------
    def compare_plane(request: gr.Request, kind: str, data: str, eta: float, solvers: list[str]) -> Any:
        done: list[Any] = []
        able = [s for s in solvers if not SOLVERS[s].needs_table]
        try:
            if not able:
                raise RecipeError("None of these solvers runs on a continuous path.")
            recipe = PlaneFlow.make(target=data, field=kind, eta=eta)
            field = None
            if kind == "learned":
                for event in backend.run(recipe, request.session_hash or "", f"{Comparison.tab}/plane"):
                    if isinstance(event, Preview):
                        yield {plane_said: lines(f"training the field: update {event.step} of {event.steps}")}
                    elif isinstance(event, Result):
                        field = event.value.field
                    elif isinstance(event, Failed):
                        raise RecipeError(event.text)
                if field is None:
                    raise RecipeError("The training was stopped.")
            pending = errors_against_nfe(recipe, able, field=field)
            while (row := backend.compute(lambda: next(pending, None), timeout=120)) is not None:
                done.append(row)
                yield {
                    plane_charts: gr.update(visible=True),
                    plane_errors: errors_against_cost(done, "error"),
                    plane_marginals: errors_against_cost(done, "marginal"),
                    plane_said: lines(f"{len(done)} of {5 * len(able)} runs"),
                }
            left_out = [SOLVERS[s].title for s in solvers if s not in able]
            what = "of the exact" if kind == "exact" else "of the learned"
            yield {
                plane_said: lines(
                    f"Left: distance from the converged flow {what} field. Right: sliced W₂ to the data; the "
                    "dashed line is what as many exact draws give. A learned field keeps a distance that no "
                    "step removes, and fresh noise can repair.",
                    f"Only on a checkpoint's table: {', '.join(left_out)}." if left_out else "",
                )
            }
        except (PlaygroundError, TimeoutError) as problem:
            yield {plane_said: lines(str(problem) or "That took too long.")}

    on_plane = [plane_said, plane_charts, plane_errors, plane_marginals]
    plane_go.click(compare_plane, [where, target, noise, c["solvers"]], on_plane, **RUNNING)

    # --- buttons ----------------------------------------------------------------------------------------
    then_compare(dice.click(lambda: random.randrange(2**31), None, c["seed"], **FAST))
    usual = {name: getattr(default, name) for name in ("solvers", "budgets", "equal", "grid")}
    for name, button in presets.items():

        def press(wanted: dict[str, Any] = usual | PRESETS[name]) -> list[Any]:
            return [list(v) if isinstance(v, tuple) else v for v in wanted.values()]

        then_compare(button.click(press, None, [c[k] for k in usual | PRESETS[name]], **FAST))

    example, _ = taken_words(words, c["prompt"], c["prompt"])
    then_compare(example)

    # --- the same for programs --------------------------------------------------------------------------
    def compare_samplers(recipe: dict[str, Any], request: gr.Request) -> dict[str, Any]:
        """What every solver of a Comparison recipe costs at every budget, and how far it is from the solution."""
        visitor, slot = request.session_hash or "", f"{Comparison.tab}/api"
        with refusals(recipe):
            made = Comparison.make(**recipe)
            result = backend.result(made, visitor, slot)
            references = {k: backend.result(one, visitor, slot) for k, one in made.references().items()}
        return {
            "cells": [
                {
                    "solver": m.cell.solver,
                    "steps": m.cell.steps,
                    "evaluations": m.cell.evaluations,
                    "error": None if m.error != m.error else m.error,
                    "compared_with": m.compares or None,
                }
                for m in measure(result, references)
            ],
            "tolerance": {kind: tolerance(reference) for kind, reference in references.items()},
            **run_answer(made, result),
        }

    gr.api(compare_samplers, api_name="compare_samplers", concurrency_limit=None)

    # --- opening the page -------------------------------------------------------------------------------
    def restore(request: gr.Request) -> dict[Any, Any]:
        recipe, changed = Comparison.from_query(own_query(request, Comparison.tab))
        recipe, missing = known_here(recipe, backend)
        model = backend.model(recipe.model)
        schedule = model.denoiser.schedule
        refused = recipe.refused(schedule)
        if gone := [s for s in recipe.solvers if s in refused]:
            missing.append(f"Left out: {', '.join(SOLVERS[s].title for s in gone)}. {refused[gone[0]]}")
            kept = tuple(s for s in recipe.solvers if s not in refused) or default.solvers
            recipe = recipe.but(solvers=kept)
        budgets = sorted({*BUDGETS, *recipe.budgets})
        return {
            **{c[name]: getattr(recipe, name) for name in NAMES if name not in LISTS},
            c["solvers"]: gr.CheckboxGroup(choices=solver_choices(refused), value=list(recipe.solvers)),
            c["budgets"]: gr.CheckboxGroup(choices=[(str(b), b) for b in budgets], value=list(recipe.budgets)),
            words: word_list(model),
            race: race_value(recipe, None, [], "", schedule),
            told: lines(*changed, *missing),
        }

    opened = opens(restore, None, [*controls, words, race, told], **FAST)
    opened.then(run_comparison, [axis, *controls], shows, **RUNNING)

    def left(request: gr.Request) -> None:
        backend.forget(request.session_hash or "")
        shelf.forget(request.session_hash)

    page.unload(left)
    return controls
