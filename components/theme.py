"""How the page looks: one palette, Gradio's theme and a style sheet. Nothing comes from the network."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from gradio.themes.utils import colors, sizes

# One colour, one meaning, on every tab. The hues are those of Okabe and Ito (2008), with lightnesses that
# keep them apart for colour-blind readers too. Each has a contrast of at least 3 to 1 on the light and on the
# dark page, because a plotly figure is coloured in Python, which does not know its background.
PALETTE: dict[str, str] = {
    "noise": "#8a9099",
    "data": "#009e73",
    "uncond": "#3a96cf",
    "cond": "#1163c4",
    "guided": "#b54708",
    "exact": "#bf8400",
    "learned": "#c957b5",
}

# The style sheet does know, and is brighter on the dark page.
PALETTE_DARK: dict[str, str] = {
    "noise": "#c3c9d1",
    "data": "#1fbd90",
    "uncond": "#7cc6f2",
    "cond": "#4a8ff0",
    "guided": "#e0661a",
    "exact": "#f2b52e",
    "learned": "#c878c0",
}

# By the solver's name in a recipe. Solvers are compared with one another, never with what lends the colour.
SOLVER_HUES = {"ddim": "cond", "euler": "exact", "heun": "learned", "dpmpp_2m": "data"}
SOLVER_COLOURS: dict[str, str] = {name: PALETTE[hue] for name, hue in SOLVER_HUES.items()}

SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Arial", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")


def theme() -> gr.themes.Base:
    """Gradio's variables in light and dark. Indigo is the page's own colour: no quantity has it."""
    return gr.themes.Base(
        primary_hue=colors.indigo,
        secondary_hue=colors.indigo,
        neutral_hue=colors.slate,
        text_size=sizes.text_md,
        radius_size=sizes.radius_lg,
        spacing_size=sizes.spacing_md,
        font=SANS,
        font_mono=MONO,
    ).set(
        color_accent="*primary_600",
        color_accent_soft_dark="*primary_900",
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        background_fill_secondary="*neutral_100",
        background_fill_secondary_dark="*neutral_800",
        body_text_color="*neutral_900",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="0px",
        block_label_text_color="*neutral_700",
        block_title_text_color="*neutral_800",
        block_title_text_weight="600",
        block_padding="*spacing_md *spacing_lg",
        input_background_fill="white",
        input_background_fill_dark="*neutral_950",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_700",
        input_border_color_focus="*primary_500",
        input_border_color_focus_dark="*primary_400",
        input_border_width="1px",
        input_padding="*spacing_md",
        input_placeholder_color="*neutral_500",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_secondary_background_fill="white",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        button_secondary_text_color="*neutral_800",
        link_text_color="*primary_600",
        link_text_color_dark="*primary_400",
        link_text_color_active="*primary_600",
        link_text_color_active_dark="*primary_400",
        link_text_color_hover="*primary_700",
        link_text_color_hover_dark="*primary_300",
        link_text_color_visited="*primary_600",
        link_text_color_visited_dark="*primary_400",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
        layout_gap="*spacing_lg",
    )


def css() -> str:
    """The style sheet of the page, the palette in front."""
    return f"{palette()}\n{Path(__file__).with_suffix('.css').read_text('utf-8')}"


def palette() -> str:
    """The palette as variables: `--noise`, `--solver-heun` and so on."""
    solvers = {f"solver-{name.replace('_', '-')}": f"var(--{hue})" for name, hue in SOLVER_HUES.items()}
    return f"{_variables(':root', PALETTE | solvers)}\n{_variables('.dark', PALETTE_DARK | solvers)}"


def _variables(selector: str, values: dict[str, str]) -> str:
    return f"{selector} {{ {' '.join(f'--{name}: {value};' for name, value in values.items())} }}"
