"""What tabs that make pictures say about a recipe and its run, in words and as values of widgets."""

from __future__ import annotations

import html
from typing import Any

from components.media import Media
from playground.backend import Backend
from playground.fields import Count
from playground.guidance import RULES, CFGPlusPlus, rest_of
from playground.images.models import TextToImageModel
from playground.images.text_to_image import Generated
from playground.plan import Plan, Row
from playground.recipes import TextToImage, rule_fields, title
from playground.schedules import Schedule
from playground.solvers import SOLVERS, VARIABLES, Solver

PARAMETERS = {field: rule for rule in RULES for field in rule_fields(rule).values()}
"""The controls of rules' own parameters, and whose they are."""

VARIABLE_TITLES = {"auto": "the solver's own", **{name: v.title for name, v in VARIABLES.items()}}
"""What the control "written in" offers."""

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


LATE = "That took too long; try again in a moment."


def lines(*sentences: str) -> str:
    """Sentences as HTML; they may quote what a visitor typed."""
    return "".join(f"<p>{html.escape(s)}</p>" for s in sentences if s)


def number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def signed(value: float) -> str:
    """A number as a further term of a sum: its sign, a space and its size."""
    return f"{'−' if value < 0 else '+'} {number(abs(value))}"


def _steps(indices: list[int]) -> str:
    """Steps without a gap, counted from one."""
    first, last = indices[0] + 1, indices[-1] + 1
    return f"Step {first}" if first == last else f"Steps {first} to {last}"


def window_lines(recipe: TextToImage, plan: Plan, schedule: Schedule) -> list[str]:
    """Which steps guidance acts in, in words."""
    row = plan.rows[0]
    needed = [[row.guidance.branches(t, i) for t in times] for i, times in enumerate(row.queries(schedule))]
    steps = [i for i, asked in enumerate(needed) if any(len(branches) == 2 for branches in asked)]
    total = len(needed)
    told = []
    still = sum(not any(asked) for asked in needed)
    if still:
        told.append(f"The velocity is 0 in the first {still} of {total} steps; they cost nothing.")
    if recipe.w == 1 or recipe.rule == "none":
        if rest_of(row.cond):
            return ["Every step follows c alone, which is composed of its parts and u."]
        return ["Every step follows c alone: u is not computed."]
    without = [i for i, asked in enumerate(needed) if ("uncond",) in asked]
    if without:  # w = 0
        alone = "the weak model" if row.guidance.weak else "u"
        if all(branches == ("uncond",) for asked in needed for branches in asked):
            return [f"Every step follows {alone} alone: c is not computed."]
        return [f"{_steps(without)} of {total} follow {alone} alone, the others c alone."]
    if still == total:
        return ["The velocity is 0 in all steps: nothing is asked, and the picture is the noise. Take more steps."]
    if not steps:
        other = " other" if still else ""
        return [*told, f"The window holds no{other} step: c alone, no guidance anywhere."]
    told.append(f"Guidance acts in {_steps(steps).lower()} of {total}.")
    for i in steps:
        inside = sum(len(branches) == 2 for branches in needed[i])
        if inside < len(needed[i]):
            told.append(f"In step {i + 1} it acts in {inside} of {len(needed[i])} evaluations.")
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
        f"ε̂ = u {signed(w)} (c − u) &nbsp;=&nbsp; {number(w)} c {signed(1 - w)} u"
        f" &nbsp;&nbsp;(s = w − 1 = {number(w - 1)})"
    )


def rule_panel(rule: str) -> str:
    """A rule's formula, who has introduced it, and what it is about."""
    made = RULES[rule]
    source = f" ({made.source})" if made.source else ""
    return f"$${made.formula}$$\n\n{made.title[:1].upper()}{made.title[1:]}{source}. {made.about}"


OUTPUTS = {
    "eps": r"$\epsilon$",
    "v": r"$v = \alpha_t \epsilon - \sigma_t x_0$ (Salimans & Ho 2022)",
    "x0": "$x_0$",
    "velocity": r"$\mathrm d x/\mathrm d t$",
}
"""What models predict, in Markdown with LaTeX."""


def display(formula: str) -> str:
    """LaTeX on lines of its own, which are separated by two backslashes."""
    return rf"$$\begin{{gathered}}{formula}\end{{gathered}}$$"


PUTS_BACK = r"Where CFG++ acts, the noise that is put back is $u$: it takes the place of $\hat\epsilon$ here."


def step_panel(row: Row, model: TextToImageModel) -> str:
    """The path of a model, the equation that a row's solver follows on it, and one step of the solver."""
    field = model.denoiser
    solver = SOLVERS[row.solver](field.schedule, row.variable, row.eta)
    told = [
        r"The path is $x_t = \alpha_t x_0 + \sigma_t \epsilon$; $t$ runs from 1, noise, to 0, data (many texts on "
        f"flow matching write $1-t$). This model predicts {OUTPUTS[field.kind]} on",
        display(field.schedule.formula),
    ]
    noisy = solver.stochastic and row.eta > 0
    if solver.reverse_sde and noisy:
        told.append(r"The solver follows the reverse SDE ($\rho$ falls, $\hat\epsilon$ is the guided prediction):")
    elif not solver.jumps:
        told.append(
            r"The solver follows the probability-flow ODE along the guided prediction $\hat\epsilon$; at $w = 1$ "
            "its solutions have the path's distributions at every $t$:"
        )
    if not solver.jumps:
        told.append(display(solver.equation))
    if noisy:
        told.append(solver.noise_told)
    told.append(f"**{solver.title}** ({solver.source}), {solver.told_order()}. {solver_step(SOLVERS[row.solver])}")
    return "\n\n".join(part for part in told if part)


def solver_step(solver: type[Solver]) -> str:
    """One step of a solver as a formula, and what its symbols mean."""
    formula = f"One step from $t$ to $s$:\n\n{display(solver.formula)}"
    return f"{formula}\n\n({solver.where}.)" if solver.where else formula


def cost_line(result: Generated, model: TextToImageModel, reused: bool) -> str:
    count = result.count
    again = " (kept from an equal run)" if reused else ""
    over = f"reused {result.taken_over} steps · " if result.taken_over else ""
    return (
        f"{over}{count.evaluations} model calls (NFE) · {count.sample_forwards} sample-forwards · "
        f"{result.seconds:.2f} s · {model.device.title}{again}"
    )


def film(
    token: str,
    result: Generated,
    model: TextToImageModel,
    row: int,
    everything: bool = False,
    extra: Count | None = None,
) -> dict[str, Any]:
    """The filmstrip's value for one row of a run.

    Args:
        everything: whether branches that guidance skipped are shown too.
        extra: what those took, where they have been computed.
    """
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
    if missing and extra is not None:
        note = (
            f"{extra.evaluations} model calls ({extra.sample_forwards} sample-forwards) that the run did not need "
            "were made for you to look at; they are not in its NFE."
        )
    elif missing and everything:
        note = f"{missing} branches that the run did not need are computed when you look, and not in its NFE."
    elif missing:
        note = f"{missing} branches were not needed and not computed."
    film_rows = [dict(row) for row in FILM_ROWS]
    if RULES[result.recipe.rule].weak:
        film_rows[1] |= {"name": "x₀ of the weak model", "help": "the picture that the weak model believes in"}
    return {"tile": result.pictures.shape[-1], "rows": film_rows, "columns": columns, "note": note}


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
