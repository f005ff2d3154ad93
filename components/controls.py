"""Controls from a recipe's fields: label, help line, range and step are written there, once."""

from __future__ import annotations

import json
from typing import Any, Literal, get_args, get_origin

import gradio as gr

from components.widgets.base import NoStub
from playground.recipes import LINK_LIMIT, VERSION, Recipe, bounds, title


class Slider(gr.Slider, metaclass=NoStub):
    """Gradio's slider, without its own check of typed numbers: the recipe says in a sentence what is wrong."""

    def preprocess(self, payload: float) -> float:
        return payload


class Number(gr.Number, metaclass=NoStub):
    """Gradio's number box, which hands on what was typed: were it rounded, picture and link would differ."""

    def preprocess(self, payload: float | None) -> float | None:
        return payload


class Dropdown(gr.Dropdown, metaclass=NoStub):
    """Gradio's list, without its own check: which choices there are depends on others, and a link may set all at
    once. The recipe says in a sentence what is wrong."""

    def preprocess(self, payload: Any) -> Any:
        return payload


class CheckboxGroup(gr.CheckboxGroup, metaclass=NoStub):
    """Gradio's boxes, without its own check: which choices there are depends on other settings, and values that are
    on their way while these change must not fail. The recipe says in a sentence what is wrong."""

    def preprocess(self, payload: Any) -> Any:
        return payload


def control(recipe: type[Recipe], name: str, **options: Any) -> gr.components.Component:
    """The Gradio control for a field: slider for bounded numbers, dropdown for choices, else text.

    Args:
        recipe: the recipe's class.
        name: the field.
        options: passed on to the component, over what the field says.
    """
    info = recipe.model_fields[name]
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    common: dict[str, Any] = {
        "label": title(recipe, name),
        "info": info.description,
        "value": info.default,
        "elem_id": f"{recipe.tab}-{name}",
    } | options
    if "choices" in options or get_origin(info.annotation) is Literal:
        return Dropdown(**{"choices": list(get_args(info.annotation))} | common)
    if info.annotation in (int, float):
        low, high = bounds(info)
        step = extra.get("step")
        if step is None:
            # Without Gradio's own bounds: the recipe says in a sentence what is wrong with a number.
            return Number(precision=0 if info.annotation is int else None, **common)
        return Slider(**{"minimum": low, "maximum": high, "step": step} | common)
    return gr.Textbox(**common)


def marks(recipe: type[Recipe], name: str, *at: tuple[float, str]) -> str:
    """HTML for marks under a slider's track, at (value, label)."""
    low, high = bounds(recipe.model_fields[name])
    spans = [f'<span style="left:{(value - low) / (high - low):.2%}">{label}</span>' for value, label in at]
    return f'<div class="dp-marks" aria-hidden="true">{"".join(spans)}</div>'


def link_script(recipe: type[Recipe], names: list[str]) -> str:
    """JavaScript that writes the controls' values into the address bar, as `Recipe.to_link` would.

    Runs in the browser alone: following a slider costs no call of the server. What is too long for a link stays
    with the page in the browser's history, from where `components/page.py` takes it when it is loaded again.
    """
    defaults = {n: recipe.model_fields[n].default for n in names}
    fixed = {"tab": recipe.tab, "v": str(VERSION)}
    return f"""(...values) => {{
        const names = {json.dumps(names)}, defaults = {json.dumps(defaults)};
        // A list is shown as JSON, or as one text per line (see `listed`).
        const listed = text => {{
            if (Array.isArray(text)) return text;
            try {{
                const list = JSON.parse(text);
                if (Array.isArray(list)) return list;
            }} catch {{ /* lines, then */ }}
            return String(text ?? "").split("\\n").map(line => line.trim()).filter(Boolean);
        }};
        const url = new URL(location.href);
        // What another tab has left there; Gradio's own settings begin with two underscores.
        for (const name of [...url.searchParams.keys()]) {{
            if (!name.startsWith("__")) url.searchParams.delete(name);
        }}
        for (const [name, value] of Object.entries({json.dumps(fixed)})) url.searchParams.set(name, value);
        names.forEach((name, i) => {{
            const value = values[i];
            if (value === null || value === undefined) return;
            let now = value, usual = defaults[name];
            if (Array.isArray(usual)) [now, usual] = [listed(value), usual].map(x => JSON.stringify(x));
            if (now !== usual) url.searchParams.set(name, now);
        }});
        const state = {{ ...history.state, dpWhole: url.search }}, left = [];
        while (url.search.length > {LINK_LIMIT}) {{
            const length = name => new URLSearchParams({{ [name]: url.searchParams.get(name) }}).toString().length;
            const set = names.filter(name => url.searchParams.has(name));
            left.push(set.reduce((a, b) => length(b) > length(a) ? b : a));
            url.searchParams.delete(left.at(-1));
            url.searchParams.set("left", left);
        }}
        if (left.length === 0) delete state.dpWhole;
        history.replaceState(state, "", url);
    }}"""


def mark_script(names: list[str]) -> str:
    """JavaScript, in the browser alone: strips of pictures (`Sweep`) mark the tile of the settings that the
    controls show, whatever moved them; where something else than a strip's axes has moved (its value's "of" says
    what the others were), they tell that their pictures are of other settings.

    Takes the controls' values, and behind them those of the strips, which it gives back.
    """
    return f"""(...values) => {{
        const now = Object.fromEntries({json.dumps(names)}.map((name, i) => [name, values[i]]));
        return values.slice({len(names)}).map(strip => {{
            if (!strip?.tiles?.length) return strip;
            const stale = Object.entries(strip.of ?? {{}}).some(([name, value]) => now[name] !== value);
            const axes = Object.keys(strip.tiles[0].value);
            const selected = stale ? null : Object.fromEntries(axes.map(axis => [axis, now[axis]]));
            return {{...strip, selected, stale}};
        }});
    }}"""


def listed(text: str | None) -> list[Any]:
    """A list that a text box holds: as JSON, or one text per line."""
    try:
        found = json.loads(text or "")
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, list) else [x.strip() for x in (text or "").splitlines() if x.strip()]


def own_query(request: gr.Request, tab: str) -> dict[str, str]:
    """The page's link as far as it concerns a tab: nothing of one that was made by another tab."""
    query = dict(request.query_params)
    return query if query.get("tab", tab) == tab else {}
