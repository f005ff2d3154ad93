"""Plotly figures. They are transparent, so that they sit on the light and on the dark page."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any, Literal, TypeVar

import numpy as np
import plotly.graph_objects as go

from components.theme import PALETTE, SOLVER_COLOURS
from playground.images.alignment import Alignment
from playground.images.cohorts import Apart, Quality
from playground.images.comparison import Compared, Measured, curvature, principal_paths, slopes
from playground.images.fidelity import Fidelity
from playground.images.models import Token
from playground.images.text_to_image import GuidanceNorms
from playground.images.tradeoff import Tradeoff
from playground.orders import fitted_slope
from playground.plane.metrics import ErrorRow, path_curves
from playground.plane.recipe import PlaneFlow
from playground.schedules import Schedule
from playground.solvers import SOLVERS

Row = TypeVar("Row", Apart, Quality)


def _figure(height: int = 300) -> go.Figure:
    grey = "rgba(127,133,142,0.25)"
    axis = {"gridcolor": grey, "zerolinecolor": grey, "linecolor": grey}
    return go.Figure(
        layout={
            "height": height,
            "margin": {"l": 48, "r": 48, "t": 8, "b": 40},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": PALETTE["noise"], "size": 12},
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            "xaxis": axis,
            "yaxis": axis,
        }
    )


def guidance_norms(norms: GuidanceNorms) -> go.Figure:
    """|eps_u|, |eps_c|, |D| and their cosine over the steps of a run, from noise (left) to data."""
    figure = _figure()
    steps = list(range(1, len(norms.t) + 1))
    hover = "step %{x}, t = %{customdata:.3f}: %{y:.4f}<extra>%{fullData.name}</extra>"
    for name, values, colour, dash in (
        ("|ε<sub>u</sub>|", norms.uncond, PALETTE["uncond"], "solid"),
        ("|ε<sub>c</sub>|", norms.cond, PALETTE["cond"], "solid"),
        ("|D| = |ε<sub>c</sub> − ε<sub>u</sub>|", norms.difference, PALETTE["guided"], "solid"),
        ("cos(ε<sub>c</sub>, ε<sub>u</sub>), right axis", norms.cosine, PALETTE["learned"], "dot"),
    ):
        # NaN (a branch that was not computed) becomes a gap.
        shown = [None if v != v else v for v in values]
        figure.add_scatter(
            x=steps,
            y=shown,
            customdata=norms.t,
            name=name,
            mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 2},
            marker={"size": 4},
            hovertemplate=hover,
            yaxis="y2" if "cos" in name else "y",
        )
    figure.update_layout(
        xaxis_title="step (noise → data)",
        yaxis_title="root mean square",
        yaxis2={"overlaying": "y", "side": "right", "showgrid": False, "title": "cosine"},
    )
    return figure


def guidance_parts(norms: GuidanceNorms) -> go.Figure:
    """The parts of D = x0_c - x0_u along and across x0_c, over the steps of a run."""
    figure = _figure(240)
    steps = list(range(1, len(norms.t) + 1))
    hover = "step %{x}, t = %{customdata:.3f}: %{y:.4f}<extra>%{fullData.name}</extra>"
    for name, values, colour, dash in (
        ("D<sub>∥</sub> (along x₀ of c)", norms.along, PALETTE["cond"], "solid"),
        ("D<sub>⊥</sub> (across it)", norms.across, PALETTE["guided"], "dash"),
    ):
        figure.add_scatter(
            x=steps,
            y=[None if v != v else v for v in values],
            customdata=norms.t,
            name=name,
            mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 2},
            marker={"size": 4},
            hovertemplate=hover,
        )
    figure.update_layout(xaxis_title="step (noise → data)", yaxis_title="root mean square, in x₀")
    return figure


def path_coefficients(recipe: PlaneFlow) -> go.Figure:
    """alpha, sigma, the log-SNR and the lengths of the steps over t, from noise (left) to data."""
    curves = path_curves(recipe)
    top = max(curves.sigma)
    sigma = ("σ", curves.sigma) if top <= 1.001 else (f"σ / {top:g}", [v / top for v in curves.sigma])
    figure = _figure(260)
    hover = "t = %{x:.3f}: %{y:.4g}<extra>%{fullData.name}</extra>"
    figure.add_bar(
        x=[t - h / 2 for t, h in zip(curves.grid, curves.step, strict=False)],
        y=curves.step,
        width=curves.step,
        name="step size in t",
        marker={"color": PALETTE["guided"], "opacity": 0.4, "line": {"width": 1, "color": PALETTE["guided"]}},
        hovertemplate=hover,
    )
    for name, y, colour, dash, axis in (
        ("α", curves.alpha, PALETTE["data"], "solid", "y"),
        (*sigma, PALETTE["noise"], "solid", "y"),
        ("log-SNR (right)", curves.log_snr, PALETTE["learned"], "dot", "y2"),
    ):
        line = {"color": colour, "dash": dash, "width": 2}
        figure.add_scatter(x=curves.t, y=y, name=name, mode="lines", line=line, yaxis=axis, hovertemplate=hover)
    figure.update_layout(
        xaxis={"title": "t, from noise to data", "autorange": "reversed"},
        yaxis2={"overlaying": "y", "side": "right", "showgrid": False, "zeroline": False},
        margin={"l": 32, "r": 32},
        bargap=0,
    )
    return figure


def errors_against_cost(rows: Sequence[ErrorRow], what: Literal["error", "marginal"]) -> go.Figure:
    """Errors of solvers against evaluations, both axes logarithmic, with fitted slopes and declared orders.

    Args:
        what: "error", the distance from where the exact flow ends; "marginal", that of the distributions.
    """
    figure = _figure(320)
    spare = cycle(PALETTE[name] for name in ("uncond", "guided", "noise", "cond"))
    for name in dict.fromkeys(row.solver for row in rows):
        own = [r for r in rows if r.solver == name and getattr(r, what) == getattr(r, what)]
        if not own:
            continue
        solver, x, y = SOLVERS[name], [r.evaluations for r in own], [getattr(r, what) for r in own]
        slope = fitted_slope(x, y)
        told = f": slope {slope:.2f} ({solver.told_order()})" if what == "error" and slope == slope else ""
        colour = SOLVER_COLOURS.get(name) or next(spare)
        figure.add_scatter(
            x=x,
            y=y,
            name=solver.title + told,
            mode="lines+markers",
            line={"color": colour, "width": 2},
            hovertemplate="%{x} evaluations: %{y:.3g}<extra>" + solver.title + "</extra>",
        )
    if what == "marginal" and rows:
        _chance(figure, rows[0].floor)
    title = "median distance from the exact end" if what == "error" else "sliced W₂ to exact draws at σ/α = 0.05"
    figure.update_layout(
        xaxis={"type": "log", "title": "evaluations (NFE)", "dtick": 1},
        yaxis={"type": "log", "title": title, "exponentformat": "power"},
        legend={"orientation": "v", "y": -0.25, "yanchor": "top", "x": 0},
        height=420,
        margin={"l": 60, "r": 16},
    )
    return figure


def training_loss(history: Sequence[tuple[int, float, float]]) -> go.Figure:
    """The learned field's loss over updates, and the exact field's on the same pairs: nothing goes below that."""
    figure = _figure(240)
    steps = [step for step, _, _ in history]
    for name, at, dash in (("learned", 1, "solid"), ("exact", 2, "dash")):
        figure.add_scatter(
            x=steps,
            y=[row[at] for row in history],
            name=f"{name} field",
            mode="lines",
            line={"color": PALETTE[name], "dash": dash, "width": 2},
            hovertemplate="update %{x}: %{y:.4f}<extra>%{fullData.name}</extra>",
        )
    figure.update_layout(xaxis_title="updates", yaxis_title="loss")
    return figure


def tradeoff_curve(curve: Tradeoff) -> go.Figure:
    """Mean distance to the guide over t0 with its spread over the seeds, and perceptually where it was measured."""
    figure, part = _figure(300), " in the masked part" if curve.masked else ""
    figure.add_scatter(
        x=curve.t0,
        y=curve.distance,
        error_y={"array": curve.spread, "color": PALETTE["data"], "thickness": 1.5, "width": 4},
        customdata=curve.spread,
        name=f"distance to the guide{part}, {curve.seeds} seeds (± standard deviation)",
        mode="lines+markers",
        line={"color": PALETTE["data"], "width": 2},
        hovertemplate="t₀ = %{x:g}: %{y:.1f} ± %{customdata:.1f}<extra>L2 in 1/255</extra>",
    )
    figure.update_layout(xaxis_title="t₀ (faithful → realistic)", yaxis_title="L2 to the guide, 1/255")
    if curve.perceptual:
        figure.add_scatter(
            x=curve.t0,
            y=curve.perceptual,
            name="perceptual (right)",
            mode="lines+markers",
            line={"color": PALETTE["learned"], "width": 2, "dash": "dash"},
            yaxis="y2",
            hovertemplate="t₀ = %{x:g}: %{y:.3g}<extra>verifier's layers</extra>",
        )
        figure.update_layout(
            yaxis2={"overlaying": "y", "side": "right", "showgrid": False, "title": "verifier's layers"}
        )
    return figure


def tradeoff_plane(curve: Tradeoff) -> go.Figure:
    """Distance to the guide, L2 and perceptual, against the distance to text to image; each point is a t0."""
    figure, part = _figure(320), " in the masked part" if curve.masked else ""
    for name, values, axis, colour, label in (
        ("L2 in 1/255 (scale below)", curve.distance, "x", PALETTE["data"], "top center"),
        ("perceptual (scale above)", curve.perceptual, "x2", PALETTE["learned"], "bottom center"),
    ):
        figure.add_scatter(
            x=values,
            y=curve.realism,
            xaxis=axis,
            customdata=curve.t0,
            text=[f"{t:g}" for t in curve.t0],
            textposition=label,
            textfont={"color": colour},
            cliponaxis=False,
            name=name,
            mode="lines+markers+text",
            line={"color": colour, "width": 2},
            hovertemplate="t₀ = %{customdata:g}: %{x:.3g}, realism %{y:.3g}<extra>" + name + "</extra>",
        )
    figure.update_layout(
        xaxis_title=f"distance to the guide{part} (faithful ←)",
        xaxis2={"overlaying": "x", "side": "top", "showgrid": False},
        yaxis_title="distance to text to image (realistic ↓)",
        legend={"y": -0.2, "yanchor": "top"},
        margin={"t": 28, "b": 70},
    )
    return figure


def fidelity_over_w(curve: Fidelity) -> go.Figure:
    """Fidelity and diversity over the guidance scale, with their standard errors."""
    figure = _figure(300)
    for name, values, errors, colour, axis in (
        ("fidelity", curve.fidelity, curve.fidelity_error, PALETTE["guided"], "y"),
        ("diversity (right)", curve.diversity, curve.diversity_error, PALETTE["data"], "y2"),
    ):
        # Two seeds tell nothing of the error of a distance between two.
        shown = [None if e != e else e for e in errors]
        figure.add_scatter(
            x=curve.w,
            y=values,
            error_y={"array": shown, "color": colour, "thickness": 1.5, "width": 4},
            name=name,
            mode="lines+markers",
            line={"color": colour, "width": 2, "dash": "solid" if axis == "y" else "dash"},
            yaxis=axis,
            hovertemplate="w = %{x:g}: %{y:.3f}<extra>" + name + "</extra>",
        )
    figure.update_layout(
        xaxis_title="guidance w",
        yaxis={"title": "fidelity", "range": [0, 1.05]},
        yaxis2={
            "title": "diversity, 1 at w = 1",
            "overlaying": "y",
            "side": "right",
            "showgrid": False,
            "rangemode": "tozero",
        },
    )
    return figure


def fidelity_against_diversity(curve: Fidelity) -> go.Figure:
    """The same as a trade-off: each point is a guidance scale."""
    figure = _figure(300)
    figure.add_scatter(
        x=curve.diversity,
        y=curve.fidelity,
        customdata=curve.w,
        text=[f"{w:g}" for w in curve.w],
        textposition="top center",
        textfont={"color": PALETTE["guided"]},
        cliponaxis=False,
        mode="lines+markers+text",
        line={"color": PALETTE["guided"], "width": 2},
        hovertemplate="w = %{customdata:g}: diversity %{x:.3f}, fidelity %{y:.3f}<extra></extra>",
    )
    figure.update_layout(xaxis_title="diversity, 1 at w = 1 (→ more)", yaxis_title="fidelity (↑ better); marks: w")
    return figure


def alignment_matrix(alignment: Alignment, source: Sequence[Token], target: Sequence[Token]) -> go.Figure:
    """The alignment of a prompt (columns) with its source (rows), without the padding."""
    rows = [i for i, t in enumerate(source) if t.kind != "padding"]
    columns = [j for j, t in enumerate(target) if t.kind != "padding"]
    # Plotly reads tags.
    before, after = ([html.escape(t.text) for t in tokens] for tokens in (source, target))
    # A token with attention of its own reads nobody.
    values = [[0.0 if alignment.own[j] else float(alignment.matrix[i, j]) for j in columns] for i in rows]
    figure = _figure(60 + 22 * len(rows))
    figure.add_heatmap(
        z=values,
        zmin=0,
        zmax=1,
        colorscale=[[0, "rgba(127,133,142,0.10)"], [1, PALETTE["cond"]]],
        showscale=False,
        xgap=2,
        ygap=2,
        customdata=[[[before[i], after[j]] for j in columns] for i in rows],
        hovertemplate="“%{customdata[1]}” reads “%{customdata[0]}”: %{z:.0%}<extra></extra>",
    )
    figure.update_layout(
        xaxis={
            "tickvals": list(range(len(columns))),
            "ticktext": [after[j] for j in columns],
            "side": "top",
            "tickangle": -45,
            "showgrid": False,
        },
        yaxis={
            "tickvals": list(range(len(rows))),
            "ticktext": [before[i] for i in rows],
            "autorange": "reversed",
            "showgrid": False,
        },
        margin={"l": 70, "r": 8, "t": 70, "b": 8},
    )
    return figure


def solver_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A line's colour, dash and marker for each solver: its own colour, or one that is left; never two alike."""
    used = {SOLVER_COLOURS[n] for n in names if n in SOLVER_COLOURS}
    left = [colour for colour in PALETTE.values() if colour not in used] or list(PALETTE.values())
    symbols = ("circle", "square", "diamond", "x", "triangle-up", "cross", "star", "triangle-down")
    styles: dict[str, dict[str, Any]] = {}
    others = [n for n in names if n not in SOLVER_COLOURS]
    for i, name in enumerate(names):
        again = others.index(name) // len(left) if name in others else 0
        colour = SOLVER_COLOURS.get(name) or left[others.index(name) % len(left)]
        styles[name] = {
            "line": {"color": colour, "width": 2, "dash": ("solid", "dot", "dash", "dashdot")[again % 4]},
            "marker": {"symbol": symbols[i % len(symbols)], "size": 7},
        }
    return styles


def comparison_errors(
    table: Sequence[Measured],
    cost: Literal["evaluations", "seconds"],
    what: Literal["error", "perceptual"] = "error",
) -> go.Figure:
    """Distance from the reference over cost, both axes logarithmic, with fitted slopes beside declared orders.

    Points that the reference cannot tell from 0 are hollow, and below its dashed line.

    Args:
        table: the comparison's.
        cost: what the horizontal axis counts.
        what: relative L2 distance of the latents, or distance in the verifier's layers.
    """
    figure = _figure(420)
    fitted = slopes(table) if what == "error" else {}
    names = list(dict.fromkeys(m.cell.solver for m in table))
    styles = solver_styles(names)
    for name in names:
        own = [m for m in table if m.cell.solver == name and m.known and getattr(m, what) > 0]
        if not own:
            continue
        solver, style = SOLVERS[name], styles[name]
        slope = f": slope {fitted[name]:.1f}" if name in fitted and fitted[name] == fitted[name] else ""
        symbols = [style["marker"]["symbol"] + ("" if m.resolved else "-open") for m in own]
        spread = [min(m.spread, 0.99 * m.error) for m in own]
        told = "%{y:.2%} off" if what == "error" else "%{y:.3g}"
        figure.add_scatter(
            x=[m.cell.evaluations if cost == "evaluations" else m.time for m in own],
            y=[getattr(m, what) for m in own],
            error_y={"array": spread, "width": 3, "thickness": 1} if what == "error" and any(spread) else None,
            customdata=[[m.cell.steps, "" if m.resolved else ", below what the reference can tell"] for m in own],
            name=f"{solver.title}{slope} ({solver.told_order()}{', SDE' if own[0].compares == 'sde' else ''})",
            mode="lines+markers",
            hovertemplate="%{customdata[0]} steps, %{x:.3g}: "
            + told
            + "%{customdata[1]}<extra>"
            + solver.title
            + "</extra>",
            line=style["line"],
            marker=style["marker"] | {"symbol": symbols},
        )
    if what == "error":
        floors = {m.compares: m.floor for m in table if m.known}
        for kind, dash in (("ode", "dash"), ("sde", "dot")):
            if kind in floors:
                costs = [m.cell.evaluations if cost == "evaluations" else m.time for m in table]
                figure.add_scatter(
                    x=[min(costs), max(costs)],
                    y=[floors[kind]] * 2,
                    name=f"reference of the {kind.upper()}, known to {100 * floors[kind]:.2g}%",
                    mode="lines",
                    line={"color": PALETTE["noise"], "dash": dash, "width": 1.5},
                    hoverinfo="skip",
                )
    alone = all(m.alone == m.alone for m in table)
    seconds = "seconds, each picture by itself" if alone else "seconds (share of the batched run)"
    told = "relative L2 distance of the latents" if what == "error" else "distance in the verifier's layers"
    figure.update_layout(
        xaxis={
            "type": "log",
            "title": "evaluations (NFE)" if cost == "evaluations" else seconds,
            "dtick": "D1" if cost == "evaluations" else None,
        },
        yaxis={"type": "log", "title": told, "exponentformat": "power"},
        legend={"orientation": "v", "y": -0.2, "yanchor": "top", "x": 0},
        height=520,
        margin={"l": 60, "r": 16},
    )
    return figure


def comparison_paths(result: Compared, rows: Sequence[int]) -> go.Figure:
    """The latents' paths on their principal plane, from noise to the picture."""
    paths, share = principal_paths(result)
    figure = _figure(420)
    styles = solver_styles([result.run_cells[k].solver for k in rows])
    for k in rows:
        cell, points = result.run_cells[k], paths[k]
        figure.add_scatter(
            x=points[:, 0].tolist(),
            y=points[:, 1].tolist(),
            name=SOLVERS[cell.solver].title,
            mode="lines+markers",
            line=styles[cell.solver]["line"],
            marker={"size": [9] + [4] * (len(points) - 2) + [10], "symbol": "circle"},
            hovertemplate="evaluation %{pointNumber}<extra>" + SOLVERS[cell.solver].title + "</extra>",
        )
    figure.update_layout(
        xaxis_title=f"the plane shows {share:.0%} of the variance of all points",
        legend={"orientation": "v", "y": -0.2, "yanchor": "top", "x": 0},
        height=480,
    )
    return figure


def comparison_steps(result: Compared, rows: Sequence[int], schedule: Schedule) -> go.Figure:
    """sigma/alpha at each evaluation, over the step that it belongs to: first ones at its start, others inside it
    or at its end."""
    figure = _figure(320)
    styles = solver_styles([result.run_cells[k].solver for k in rows])
    plan = result.recipe.plan(schedule)
    for k in rows:
        cell, row = result.run_cells[k], plan.rows[k]
        asked = [
            (i, t) for i, times in enumerate(row.queries(schedule)) for t in times if row.guidance.branches(t, i)
        ]
        # Times fall from step to step; np.interp wants them to rise. Churn asks at a noisier time than its step's.
        places = np.interp([t for _, t in asked], row.times[::-1], range(len(row.times) - 1, -1, -1))
        figure.add_scatter(
            x=[min(max(x, i), i + 1) for x, (i, _) in zip(places.tolist(), asked, strict=True)],
            y=[float(schedule.noise_ratio(t)) for _, t in asked],
            name=SOLVERS[cell.solver].title,
            mode="lines+markers",
            hovertemplate="step %{x:.3g}: σ/α = %{y:.3g}<extra>" + SOLVERS[cell.solver].title + "</extra>",
            **styles[cell.solver],
        )
    figure.update_layout(
        xaxis_title="steps taken",
        yaxis={"type": "log", "title": "σ/α", "exponentformat": "power"},
        legend={"orientation": "v", "y": -0.25, "yanchor": "top", "x": 0},
        height=420,
    )
    return figure


def comparison_curvature(result: Compared, rows: Sequence[int], schedule: Schedule) -> go.Figure:
    """How the path bends between evaluations, over t."""
    figure = _figure(320)
    styles = solver_styles([result.run_cells[k].solver for k in rows])
    for k in rows:
        cell, bends = result.run_cells[k], curvature(result, k, schedule)
        figure.add_scatter(
            x=[float(schedule.t_at_ratio(ratio)) for ratio, _ in bends],
            y=[angle for _, angle in bends],
            customdata=[f"σ/α = {ratio:.3g}" for ratio, _ in bends],
            name=SOLVERS[cell.solver].title,
            mode="lines+markers",
            hovertemplate="t = %{x:.3f}, %{customdata}: %{y:.1f}°<extra>" + SOLVERS[cell.solver].title + "</extra>",
            **styles[cell.solver],
        )
    figure.update_layout(
        xaxis={"autorange": "reversed", "title": "t (noise → data)"},
        yaxis_title="turn of ε, degrees per e-fold of σ/α",
        legend={"orientation": "v", "y": -0.25, "yanchor": "top", "x": 0},
        height=420,
    )
    return figure


def _over_cost(title: str) -> go.Figure:
    figure = _figure(420)
    figure.update_layout(
        xaxis={"type": "log", "title": "evaluations of a picture (NFE)", "dtick": "D1"},
        yaxis_title=title,
        legend={"orientation": "v", "y": -0.25, "yanchor": "top", "x": 0},
        margin={"l": 60, "r": 16},
    )
    return figure


def distributions_apart(rows: Sequence[Apart]) -> go.Figure:
    """How far solvers' pictures are from the converged ones as distributions, and what is chance."""
    figure = _over_cost("energy coefficient (0: the same)")
    for name, own, style in _per_solver(rows):
        figure.add_scatter(
            x=[r.evaluations for r in own],
            y=[r.distance for r in own],
            hovertemplate="%{x} evaluations: %{y:.2%}<extra>" + SOLVERS[name].title + "</extra>",
            **style,
        )
    _chance(figure, max((r.chance for r in rows), default=0.0))
    figure.update_layout(yaxis_tickformat=".1%")
    return figure


def _per_solver(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row], dict[str, Any]]]:
    """Each solver's rows by rising cost, and how its curve looks."""
    styles = solver_styles(names := list(dict.fromkeys(r.solver for r in rows)))
    for name in names:
        own = sorted((r for r in rows if r.solver == name), key=lambda r: r.evaluations)
        yield name, own, {"name": SOLVERS[name].title, "mode": "lines+markers", **styles[name]}


def _chance(figure: go.Figure, level: float) -> None:
    """The line that 95% of samples of one distribution stay below."""
    figure.add_hline(
        y=level,
        line={"color": PALETTE["noise"], "dash": "dash"},
        annotation_text="below: chance",
        annotation_position="bottom right",
        annotation_font_size=11,
    )


def quality_over_cost(rows: Sequence[Quality]) -> go.Figure:
    """The share of prompts that the verifier reads right, with its 95% interval."""
    figure = _over_cost("share of prompts read right")
    for name, own, style in _per_solver(rows):
        figure.add_scatter(
            x=[r.evaluations for r in own],
            y=[r.share for r in own],
            error_y={
                "array": [r.high - r.share for r in own],
                "arrayminus": [r.share - r.low for r in own],
                "thickness": 1,
                "width": 3,
            },
            customdata=[[r.nouns, r.prompts] for r in own],
            hovertemplate="%{x} evaluations: %{y:.0%} of %{customdata[1]} prompts, nouns %{customdata[0]:.0%}"
            f"<extra>{SOLVERS[name].title}</extra>",
            **style,
        )
    figure.update_layout(yaxis={"tickformat": ".0%", "rangemode": "tozero"})
    return figure


def over_noise(
    curves: Mapping[int, Sequence[tuple[float, float]]], level: float, title: str, at: float, share: bool = False
) -> go.Figure:
    """What noise does: a distance over eta, a line per budget.

    Args:
        curves: by budget, (eta, distance).
        level: what 95% of samples of the right distribution stay below.
        at: the eta that is looked at.
        share: whether distances are shares.
    """
    figure = _figure(300)
    colours = (PALETTE["guided"], PALETTE["exact"], PALETTE["data"], PALETTE["cond"])
    for (budget, points), colour in zip(sorted(curves.items()), cycle(colours), strict=False):
        figure.add_scatter(
            x=[eta for eta, _ in points],
            y=[value for _, value in points],
            name=f"{budget} evaluations",
            mode="lines+markers",
            line={"color": colour, "width": 2},
            hovertemplate=f"η = %{{x:g}}: %{{y:{'.2%' if share else '.3g'}}}<extra>%{{fullData.name}}</extra>",
        )
    _chance(figure, level)
    figure.add_vline(x=at, line={"color": PALETTE["noise"], "width": 1})
    figure.update_layout(
        xaxis={"title": "η (0: no noise)", "range": [-0.05, 1.05]},
        yaxis={"title": title, "rangemode": "tozero", "tickformat": ".1%" if share else None},
        margin={"l": 60, "r": 16},
    )
    return figure
