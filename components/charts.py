"""Plotly figures. They are transparent, so that they sit on the light and on the dark page."""

from __future__ import annotations

import plotly.graph_objects as go

from components.theme import PALETTE
from playground.images.text_to_image import GuidanceNorms


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
