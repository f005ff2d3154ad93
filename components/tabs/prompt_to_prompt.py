"""The tab Prompt-to-prompt: edit the words, keep the picture, and see where every word attends."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from difflib import SequenceMatcher
from math import ceil
from typing import Any, Literal

import gradio as gr

from components.arrivals import Arrivals
from components.charts import alignment_matrix
from components.controls import control, listed, mark_script, own_query
from components.media import Media
from components.pictures import (
    BESIDE_THE_PAGE,
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
from components.readouts import LATEX, cost_line, film, lines, rule_panel, said, window_lines, word_list
from components.saving import save_value
from components.standalone import ROOM, Part, Sheet, fitted, options, views_files
from components.widgets import Attention, Compare, Edits, Filmstrip, Save, Stage, Sweep, Words
from playground.backend import Backend, Result
from playground.errors import PlaygroundError, RecipeError
from playground.images.alignment import Alignment, Method, Word, align, changes, words_of
from playground.images.attention import MOST_BYTES, SHOWN_GRID, shown_grid
from playground.images.models import Text, TextToImageModel, Token
from playground.images.prompt_to_prompt import Prompted, PromptToPrompt, blend_masks, edits_of
from playground.sharing.prompts import PromptViews, shown_tokens

TITLE = "Prompt-to-prompt"
WITHOUT = ("sweep", "across", "values", "pictures", "weak_model", "crosses", "selves")
NAMES = [name for name in PromptToPrompt.model_fields if name not in WITHOUT]
HIDDEN = ("weights", "own_cross", "blend")  # made by the words' sliders, not typed
LISTS = ("edits", *HIDDEN)

GRID = (0.0, 0.4, 0.8, 1.0)
"""The fractions of the grid, on both axes."""

PLAIN: dict[str, Any] = {
    name: PromptToPrompt.model_fields[name].default for name in NAMES if name not in ("model", "prompt", "edits")
}
"""What a preset leaves as it is at first, so that it shows the same whatever was tried before."""
PRESETS: dict[str, dict[str, Any]] = {
    "Swap a word: the bicycle becomes a car": {
        "prompt": "a cat riding a bicycle on the grass",
        "edits": ("a cat riding a car on the grass",),
        "own_cross": ((1, 4, 0.3),),
    },
    "Swap a word: the cat becomes a dog": {
        "prompt": "a cat on the grass",
        "edits": ("a dog on the grass",),
    },
    "Refine by place": {
        "prompt": "a castle",
        "edits": ("a castle in the snow", "a castle at sunset"),
    },
    "Refine by style": {
        "prompt": "a castle next to a river",
        "edits": ("a children's drawing of a castle next to a river", "a watercolour of a castle next to a river"),
        "cross": 0.5,
        "self_fraction": 0.2,
    },
    "More and less red": {
        "prompt": "a red car on the beach",
        "edits": ("a red car on the beach", "a red car on the beach"),
        "weights": ((1, 1, -2.0), (2, 1, 3.0)),
    },
    "More and less snow": {
        "prompt": "a house in the snowy mountains",
        "edits": ("a house in the snowy mountains", "a house in the snowy mountains"),
        "weights": ((1, 4, -1.0), (2, 4, 2.0)),
    },
    "More and less stars": {
        "prompt": "a rocket on a starry night",
        "edits": ("a rocket on a starry night", "a rocket on a starry night"),
        "weights": ((1, 4, -1.0), (2, 4, 2.0)),
    },
    "More and less rain": {
        "prompt": "a car in the rainy city",
        "edits": ("a car in the rainy city", "a car in the rainy city"),
        "weights": ((1, 4, -1.0), (2, 4, 2.0)),
    },
    "Only there: local blend": {
        "prompt": "a cat on the beach",
        "edits": ("a dog on the beach",),
        "self_fraction": 0.2,
        "blend": ((0, 1), (1, 1)),
    },
    "Several words at once": {
        "prompt": "a red car next to a house in the desert",
        "edits": ("a blue bus next to a castle in the desert",),
    },
    "The prompt alone, nothing shared": {
        "prompt": "a cat on the grass",
        "edits": ("a dog on the grass",),
        "cross": 0.0,
        "self_fraction": 0.0,
    },
}

EQUATIONS = r"""
In every layer, a place $i$ of the picture asks the words: $A_{ij} = \operatorname{softmax}_j\!\big(q_i \cdot k_j /
\sqrt d\,\big)$ says how much of word $j$ it takes; $q_i$ and $k_j$ are learnt vectors, $d$ numbers long.
Where words attend decides where things are, so the edited picture keeps its layout if it attends where the source
did (Hertz et al. 2022):

$$A^*_t = \begin{cases} A^{\text{source}}_t M & \text{in the first steps} \\
A^{\text{edit}}_t & \text{in the others} \end{cases}$$

How many are the first is the cross-attention fraction. $M$ says which source token an edited token reads. Words
that are new keep their own attention (refine). A word's weight $a_j$ scales its attention in all steps,
$A^*_{ij} \leftarrow a_j A^*_{ij}$. Self-attention, place to place, can be the source's as well: it holds layout and
shape. With a **local blend** the edit stays the source wherever neither's chosen words attend; their maps are
averaged over the steps so far, and it acts after the first fifth.
"""


def known_presets(backend: Backend) -> list[str]:
    """The presets of which the page's first model knows all words: with an unknown one they would show nothing."""
    text = backend.model(next(iter(backend.models))).text
    return [n for n, preset in PRESETS.items() if not any(map(text.notes, (preset["prompt"], *preset["edits"])))]


def recipe_of(values: tuple[Any, ...]) -> PromptToPrompt:
    """The recipe that the controls describe."""
    told = dict(zip(NAMES, values, strict=True))
    return PromptToPrompt.make(**told | {name: listed(told[name]) for name in LISTS})


def shown_value(name: str, value: Any) -> Any:
    """A field's value as its control shows it."""
    if name == "edits":
        return "\n".join(value)
    return (json.dumps(value) if value else "") if name in HIDDEN else value


def words_in(prompts: list[str], model: TextToImageModel) -> list[list[Word]]:
    """The words of each prompt that the model reads."""
    reader = model.text.encoders[0]
    return [words_of(prompt, reader.tokens(prompt)) for prompt in prompts]


def followed(before: list[list[str]], after: list[list[str]]) -> dict[int, int]:
    """Where each prompt is after they were typed anew: the source stays the source, and where lines were added or
    taken away, an edit follows its words."""
    if len(before) == len(after):
        return {i: i for i in range(len(after))}
    found = {0: 0}
    pairs = [
        (SequenceMatcher(None, old, new, autojunk=False).ratio(), -abs(i - j), i, j)
        for i, old in enumerate(before[1:], 1)
        for j, new in enumerate(after[1:], 1)
    ]
    for _, _, i, j in sorted(pairs, reverse=True):
        if i not in found and j not in found.values():
            found[i] = j
    return found


def carried(entries: list[Any], before: list[list[str]], after: list[list[str]]) -> list[Any]:
    """(prompt, word, ...) entries for prompts that were typed anew: each follows its word, or goes with it."""
    lines_now, kept = followed(before, after), []
    for prompt, word, *rest in entries:
        line = lines_now.get(prompt)
        if line is None or prompt >= len(before) or word >= len(before[prompt]):
            continue
        places = [i for i, text in enumerate(after[line]) if text == before[prompt][word]]
        if places:
            kept.append([line, min(places, key=lambda i: abs(i - word)), *rest])
    return kept


def fitting(recipe: PromptToPrompt, words: list[list[Word]]) -> PromptToPrompt:
    """Without what is said of words that the prompts, in the middle of being typed, do not have."""

    def there(entries: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(e for e in entries if e[0] < len(words) and e[1] < len(words[e[0]]))

    return recipe.but(**{name: there(getattr(recipe, name)) for name in HIDDEN})


def edits_value(recipe: PromptToPrompt, words: list[list[Word]], text: Text) -> dict[str, Any]:
    """The value of the words' sliders."""
    titles = ["source", *(f"edit {i}" for i in range(1, len(words)))]
    fresh = [[], *(new_words(recipe.prompt, edit, recipe.method, text) for edit in recipe.edits)]
    return {
        "prompts": [
            {"title": t, "words": [w.text for w in own], "fresh": new}
            for t, own, new in zip(titles, words, fresh, strict=True)
        ],
        "weights": recipe.weights,
        "fractions": recipe.own_cross,
        "blend": recipe.blend,
    }


def new_words(source: str, target: str, method: Method | Literal["auto"], text: Text) -> list[int]:
    """The words of an edited prompt that read nothing of the source, whatever their fraction."""
    try:
        alignment = align(source, target, text, method)
    except RecipeError:
        return []  # the run says what is wrong
    return [k for k, word in enumerate(alignment.target) if bool(alignment.own[list(word.tokens)].all())]


def row_titles(recipe: PromptToPrompt) -> list[str]:
    """The names of a run's pictures."""
    titles = []
    for i, (number, _, _) in enumerate(recipe.lines()):
        titles.append("source" if i == 0 else f"edit {number}" if number else "source, weighted")
    return titles


def of_words(values: tuple[Any, ...]) -> PromptToPrompt:
    """Of what the controls describe, the model and all that is said of words: known whatever else is wrong."""
    told = dict(zip(NAMES, values, strict=True))
    lists = {name: listed(told[name]) for name in LISTS}
    return PromptToPrompt.make(**{n: told[n] for n in ("model", "prompt", "method")} | lists)


def readings(alignment: Alignment, source: list[Token]) -> dict[int, str]:
    """For each token of an edited prompt's words, in words, what it reads."""
    told = {}
    for token, read in alignment.pairs():
        if not read:
            told[token] = "new: keeps its own attention"
        else:
            names = [f"“{source[i].text}”" + (f" ({share:.0%})" if share < 1 else "") for i, share in read]
            told[token] = "reads " + " + ".join(names)
    return told


def alignment_chips(alignment: Alignment, source: list[Token], target: list[Token]) -> str:
    """Which token reads which, as HTML; tokens are escaped."""
    told = readings(alignment, source)
    chips = []
    for token, what in told.items():
        fresh = what.startswith("new")
        same = what == f"reads “{target[token].text}”"
        kind = "new" if fresh else "same" if same else "other"
        arrow = "new" if fresh else "=" if same else "← " + what.removeprefix("reads ")
        chips.append(
            f'<span class="dp-chip dp-chip-{kind}" title="{html.escape(what)}"><b>{html.escape(target[token].text)}'
            f"</b> {html.escape(arrow)}</span>"
        )
    read = {i for _, pairs in alignment.pairs() for i, _ in pairs}
    gone = [source[i].text for word in alignment.source for i in word.tokens if i not in read]
    left = f"<p>No longer read: {html.escape(', '.join(gone))}.</p>" if gone else ""
    done = sorted(changes(alignment.source, alignment.target), reverse=True)
    words = f"words were {' and '.join(done)}" if done else "the words are the same"
    return f'<p>{alignment.method}: {words}.</p><div class="dp-chips">{"".join(chips)}</div>{left}'


def attention_value(result: Prompted, model: TextToImageModel, token: str) -> dict[str, Any]:
    """The attention viewer's value."""
    reader = model.text.encoders[0]
    tokens = [reader.tokens(prompt) for prompt in result.recipe.prompts()]
    edits = edits_of(result.recipe, model.text)
    rows = []
    for i, (title, own) in enumerate(zip(row_titles(result.recipe), tokens, strict=True)):
        told = readings(edits[i - 1].alignment, tokens[0]) if i else {}
        chips: list[dict[str, Any]] = [{"text": t.text, "kind": t.kind} for t in own if t.kind != "padding"]
        for k, what in told.items():
            chips[k] |= {"fresh": what.startswith("new"), "reads": what}
            if not chips[k]["fresh"]:
                chips[k]["until"] = int(edits[i - 1].cross_steps[k])
        url = Media.url(token, f"picture-{i}.png")
        rows.append({"title": f"{title}: {result.recipe.prompts()[i]}", "url": url, "tokens": chips})
    note = f"{silent(result)} The run and its maps take {result.nbytes / 2**20:.1f} MB of memory."
    cut = left_out(result, model)
    if cut:
        note += (
            f" Maps of {cut} places are not kept: for all steps they would take more than {MOST_BYTES >> 20} MB."
        )
    masks = blend_masks(result)
    return {
        "url": Media.url(token, "attention.bin"),
        "steps": len(result.trace),
        "of": len(result.trace),
        "grids": [f"{h}x{w}" for h, w in result.grids],
        "mask": "" if masks is None else f"{masks.shape[2]}x{masks.shape[3]}",
        "rows": rows,
        "note": note.strip(),
    }


def silent(result: Prompted) -> str:
    """How many steps have no maps, if any."""
    steps = len(result.trace)
    missing = sum(not result.maps(k).before for k in range(steps))
    return f"{missing} of {steps} steps did not ask the prompt and have no maps." if missing else ""


def left_out(result: Prompted, model: TextToImageModel) -> str:
    """The finest grid that would be kept, if a run of so many pictures and steps did not take too much memory."""
    _, height, width = model.denoiser.shape
    kept = shown_grid(len(result.trace), len(result.pictures), model.text.encoders[0].length)
    while height * width > SHOWN_GRID:
        height, width = ceil(height / 2), ceil(width / 2)
    return f"{height} × {width}" if result.grids and height * width > kept else ""


def difference_value(result: Prompted, token: str, number: int) -> dict[str, Any]:
    """The value of the comparison of an edit, from 1, with the source."""
    prompts = result.recipe.prompts()
    apart = float((result.pictures[number] - result.pictures[0]).abs().mean()) * 127.5
    return {
        "pictures": [
            {
                "name": "difference",
                "url": Media.url(token, f"difference-{number}.png"),
                "help": "white: most",
            },
            {"name": "source", "url": Media.url(token, "picture-0.png"), "help": prompts[0]},
            {"name": row_titles(result.recipe)[number], "url": Media.url(token, f"picture-{number}.png")}
            | {"help": prompts[number]},
        ],
        "before": 1,
        "caption": f"mean absolute difference from the source: {apart:.1f}/255",
    }


def sheet(views: PromptViews, backend: Backend, query: Mapping[str, str]) -> Sheet:
    """The pictures with the attention of every word, and an edit beside its source, as a file of their own."""
    result, recipe = views.result, views.result.recipe
    model = backend.model(recipe.model)
    value = attention_value(result, model, "run")
    maps, count, grids = views.packed(ROOM // 2)
    steps = len(result.trace)
    value["steps"], of_maps = count, [silent(result)]
    if count < steps:
        of_maps.append(
            f"To keep the file small, each of its {count} maps is a mean over {steps / count:.3g} steps."
        )
    if len(grids) < len(value["grids"]):
        of_maps.append("Maps of finer grids are left out.")
    value |= {"note": " ".join(filter(None, of_maps)), "grids": [f"{h}x{w}" for h, w in grids]}
    parts = [Part("Where every word attends", Attention, value)]
    urls = {row["url"] for row in value["rows"]}
    if result.alignments:
        number = min(max(options(query)["row"], 1), len(result.alignments))
        beside_source = difference_value(result, "run", number)
        urls |= {p["url"] for p in beside_source["pictures"]}
        parts.append(Part("Source, edit, difference", Compare, beside_source))
    pictures, _, note = fitted(views_files(views, sorted(urls)), ROOM - ROOM // 2, result.pictures.shape[-1])
    return Sheet(
        " → ".join(dict.fromkeys(recipe.prompts())),
        recipe,
        [html.unescape(said(recipe)), cost_line(result, model, False), note],
        parts,
        pictures | {Media.url("run", "attention.bin"): maps},
    )


def grid_tiles(recipe: PromptToPrompt, token: str | None = None) -> dict[str, Any]:
    """The grid's value: cross-attention fraction from left to right, self-attention fraction downwards."""
    tiles = []
    for i, (s, c) in enumerate((s, c) for s in GRID for c in GRID):
        url = Media.url(token, f"picture-{i + 1}.png") if token else None
        tiles.append({"value": {"cross": c, "self_fraction": s}, "label": f"cross {c:g} · self {s:g}", "url": url})
    return {
        "axis": "fractions of cross- and self-attention",
        "tiles": tiles,
        "columns": len(GRID),
        "selected": {"cross": recipe.cross, "self_fraction": recipe.self_fraction},
        "caption": "",
    }


def quick(recipe: PromptToPrompt, pace: float) -> PromptToPrompt:
    """What runs while a hand moves: as many steps as fit into a quarter of a second.

    Args:
        pace: seconds per sample-forward, as measured in earlier runs.
    """
    steps = max(4, min(8, round(0.25 / (2 * len(recipe.lines()) * pace))))
    return recipe.but(steps=min(recipe.steps, steps))


def build(page: gr.Blocks, opens: Any, backend: Backend, media: Media) -> list[Any]:
    """Lay out the tab and connect it; returns the controls in the order of `NAMES`.

    Args:
        page: which tells when a visitor leaves.
        opens: the event of the tab's being on show for the first time.
        backend, media: who runs, and who serves what was made.
    """
    default = PromptToPrompt(model=next(iter(backend.models)))
    shelf = media.shelf(PromptToPrompt.tab)
    shown = gr.State("")  # the token of the run on show
    typed = gr.State([])  # the words that the sliders stand for

    # --- layout ---------------------------------------------------------------------------------------
    with gr.Row(elem_classes="dp-columns"):
        with gr.Column(elem_classes="dp-card dp-controls"):
            c: dict[str, Any] = {}
            c["prompt"] = control(PromptToPrompt, "prompt", lines=2)
            c["edits"] = control(
                PromptToPrompt,
                "edits",
                value=shown_value("edits", default.edits),
                lines=3,
                max_lines=3,
                max_length=3000,
                info="one per line, three at most; each is a picture beside the source",
            )
            words = Words(elem_id="p2p-words")
            c["cross"] = control(PromptToPrompt, "cross")
            c["self_fraction"] = control(PromptToPrompt, "self_fraction")
            gr.Markdown("## Words")
            sliders = Edits(elem_id="p2p-edits")
            c["threshold"] = control(PromptToPrompt, "threshold")
            c["renormalise"] = control(PromptToPrompt, "renormalise")
            c["method"] = control(PromptToPrompt, "method")
            for name in HIDDEN:
                c[name] = control(PromptToPrompt, name, value="", visible="hidden")
            c["w"] = control(PromptToPrompt, "w")
            both = gr.HTML(said(default), elem_classes="dp-readout", elem_id="p2p-conventions")
            dice = seed_row(PromptToPrompt, c)
            c["steps"] = control(PromptToPrompt, "steps")
            solver_choice(PromptToPrompt, c)
            more = more_settings(PromptToPrompt, c, backend, pictures=False, weak=False)
        with gr.Column(elem_classes="dp-picture"):
            told = gr.HTML(elem_classes="dp-note", elem_id="p2p-link-notes")
            error = gr.HTML(elem_classes="dp-error", elem_id="p2p-error")
            stage = Stage(elem_id="p2p-stage")
            with gr.Row():
                status = gr.HTML(elem_classes="dp-readout", elem_id="p2p-status")
                stop = gr.Button("Stop", size="sm", scale=0, min_width=80, elem_id="p2p-stop")
            save = Save(elem_id="p2p-save")
            notes = gr.HTML(elem_classes="dp-note", elem_id="p2p-notes")
            with gr.Column(elem_classes="dp-card"):
                gr.Markdown("## Where every word attends")
                attention = Attention(elem_id="p2p-attention")
            with gr.Column(elem_classes="dp-card"):
                gr.Markdown("## Source, edit, difference")
                look = gr.Slider(1, 3, 1, step=1, label="edit", visible=False, elem_id="p2p-look")
                compare = Compare(elem_id="p2p-compare")
        with gr.Column(elem_classes="dp-card dp-explain"):
            gr.Markdown("## What you see")
            gr.Markdown(EQUATIONS, latex_delimiters=LATEX)
            formula = gr.Markdown(rule_panel(default.rule), latex_delimiters=LATEX, elem_id="p2p-formula")
            step = gr.Markdown(default_step(backend), latex_delimiters=LATEX, elem_id="p2p-step")
            gr.Markdown("## Try")
            with gr.Row(elem_classes="dp-presets"):
                presets = {name: gr.Button(name, size="sm", min_width=130) for name in known_presets(backend)}
            gr.Markdown("## Which token reads which")
            aligned = gr.HTML(elem_classes="dp-readout", elem_id="p2p-alignment")
            matrix = gr.Plot(show_label=False, elem_id="p2p-matrix")
    with gr.Row(elem_classes="dp-halves"):
        with gr.Column(elem_classes="dp-card"):
            gr.Markdown("## How much of the attention: cross against self")
            grid = Sweep(grid_tiles(default), elem_id="p2p-grid")
            grid_button = gr.Button("Run the grid with these settings", size="sm", elem_id="p2p-grid-run")
        with gr.Column(elem_classes="dp-card"):
            gr.Markdown("## Filmstrip: what every step believed")
            row = gr.Slider(1, 5, 1, step=1, label="picture", elem_id="p2p-row")
            strip = Filmstrip(elem_id="p2p-film")

    controls = [c[name] for name in NAMES]

    def views_of(result: Prompted) -> PromptViews:
        recipe = result.recipe
        shown_now = shown_tokens(recipe, backend.model(recipe.model))
        return PromptViews(result, lambda make: backend.call(make, recipe.model), shown_now)

    # --- one run, from values to views ----------------------------------------------------------------
    def aligned_now(prompts: list[str], number: int, alignment: Alignment, text: Text) -> dict[Any, Any]:
        """How one row of a run, from 1, reads the source."""
        source, target = (text.encoders[0].tokens(prompt) for prompt in (prompts[0], prompts[number]))
        return {
            aligned: alignment_chips(alignment, source, target),
            matrix: alignment_matrix(alignment, source, target),
        }

    def of_edit(result: Prompted, token: str, number: int) -> dict[Any, Any]:
        """What is shown of one edit, beside the source."""
        if not result.alignments:
            return {compare: {}}
        return {compare: difference_value(result, token, min(max(number, 1), len(result.alignments)))}

    def reaching(most: int, now: float, **options: Any) -> gr.Slider:
        """A slider over the pictures of a run. What is beyond them is taken back; what is not stays in its hand."""
        if now > most:
            options["value"] = most
        return gr.Slider(maximum=max(2, most), **options)

    def nothing_aligned(why: str) -> dict[Any, Any]:
        return {aligned: lines(why), matrix: None}

    def show(event: Result, recipe: PromptToPrompt, visitor: str, row_now: float, number: float) -> dict[Any, Any]:
        result, model = event.value, backend.model(recipe.model)
        token = shelf.add(visitor, views_of(result))
        titles = row_titles(recipe)
        pictures = [{"url": Media.url(token, f"picture-{i}.png"), "label": title} for i, title in enumerate(titles)]
        index = min(int(row_now), len(titles)) - 1
        noted = [note for text in recipe.texts() for note in model.text.notes(text)]
        return {
            stage: {"pictures": pictures, "live": False, "caption": " → ".join(recipe.prompts()[:2])},
            status: lines(cost_line(result, model, event.reused)),
            notes: lines(*dict.fromkeys(noted)),
            shown: token,
            save: save_value(token, recipe, int(number)),
            attention: attention_value(result, model, token),
            look: reaching(
                max(1, len(titles) - 1),
                number,
                visible=len(titles) > 2,
                label="edit" + (" (the last is the source, weighted)" if "weighted" in titles[-1] else ""),
            ),
            row: reaching(len(titles), row_now),
            strip: film(token, result, model, index, False),
            **of_edit(result, token, int(number)),
        }

    def read(values: tuple[Any, ...]) -> tuple[PromptToPrompt, dict[Any, Any]]:
        """The recipe, and what can be said of it before it has run."""
        recipe = recipe_of(values)
        told_now: dict[Any, Any] = {both: said(recipe)}
        if recipe.model in backend.models:
            model = backend.model(recipe.model)
            recipe = fitting(recipe, words_in([recipe.prompt, *recipe.edits], model))
            schedule = model.denoiser.schedule
            told_now[more.window] = lines(*window_lines(recipe, recipe.plan(schedule), schedule))
        return recipe, told_now

    runs = Runs(
        backend,
        PromptToPrompt,
        c,
        NAMES,
        Screen(stage, status, error, notes, save),
        read,
        show,
        quick,
        [both, more.window, shown, save, attention, look, row, strip, compare],
        more=[row, look],
        hidden=HIDDEN,
    )
    follow_rule(c, more, formula, backend)
    follow_step(c, step, backend)
    stop.click(runs.stop, None, None, **FAST)

    # --- the words and what is done to them ---------------------------------------------------------------
    def retyped(before: list[list[str]], *values: Any) -> dict[Any, Any]:
        """The prompts have changed: what was said of a word goes with it."""
        try:
            recipe = of_words(values)
            words_now = words_in([recipe.prompt, *recipe.edits], backend.model(recipe.model))
        except PlaygroundError:
            return gr.skip()  # the run says what is wrong
        texts = [[w.text for w in own] for own in words_now]
        if texts == before:
            return gr.skip()
        kept = {name: carried([list(e) for e in getattr(recipe, name)], before, texts) for name in HIDDEN}
        recipe = recipe.but(**kept)
        return {
            typed: texts,
            sliders: edits_value(recipe, words_now, backend.model(recipe.model).text),
            **{c[name]: shown_value(name, getattr(recipe, name)) for name in HIDDEN},
        }

    about_words = [typed, sliders, *(c[name] for name in HIDDEN)]
    prompts_changed = [c["prompt"].change, c["edits"].change, c["model"].change]
    runs.then_move(
        gr.on(prompts_changed, retyped, [typed, *controls], about_words, trigger_mode="always_last", **FAST)
    )

    def realigned(*values: Any) -> Any:
        """Which words are new depends on how the prompts are aligned, and on the model's tokens."""
        try:
            recipe = of_words(values)
            model = backend.model(recipe.model)
            return edits_value(recipe, words_in([recipe.prompt, *recipe.edits], model), model.text)
        except PlaygroundError:
            return gr.skip()

    gr.on([c["method"].change, c["model"].change], realigned, controls, sliders, **FAST)

    def align_now(number: float, *values: Any) -> dict[Any, Any]:
        """How the prompts are aligned is known before anything has run, and for prompts that cannot run."""
        try:
            recipe = of_words(values)
            text = backend.model(recipe.model).text
            rows = recipe.lines()
            if len(rows) < 2:
                return nothing_aligned("There is no edited prompt yet.")
            row = min(max(int(number), 1), len(rows) - 1)
            prompts = recipe.prompts()
            alignment = align(prompts[0], prompts[row], text, recipe.method if rows[row][0] else "replace")
            return aligned_now(prompts, row, alignment, text)
        except PlaygroundError as problem:
            return nothing_aligned(str(problem))

    reread = [*prompts_changed, c["method"].change, look.input, look.release]
    gr.on(reread, align_now, [look, *controls], [aligned, matrix], trigger_mode="always_last", **FAST)

    touches = Arrivals()

    def edited(request: gr.Request, event: gr.EventData) -> Any:
        """A slider of a word has moved. What a browser sends is not trusted: the recipe reads it."""
        data = event._data
        if not touches.note(request.session_hash, data.get("number")):
            return gr.skip()
        sent = {"weights": data.get("weights"), "own_cross": data.get("fractions"), "blend": data.get("blend")}
        return {c[name]: json.dumps(value) if value else "" for name, value in sent.items()}

    touched = sliders.edited(edited, None, [c[name] for name in HIDDEN], trigger_mode="multiple", **FAST)
    runs.then_move(touched)

    for event in taken_words(words, c["prompt"], c["edits"]):
        runs.then_start(event)

    # --- buttons ----------------------------------------------------------------------------------------
    runs.then_start(dice)
    for name, button in presets.items():

        def press(model: str, wanted: dict[str, Any] = PLAIN | PRESETS[name]) -> dict[Any, Any]:
            recipe = default.but(model=model, **wanted)
            words_now = words_in([recipe.prompt, *recipe.edits], backend.model(model))
            return {
                typed: [[w.text for w in own] for own in words_now],
                sliders: edits_value(recipe, words_now, backend.model(model).text),
                **{c[field]: shown_value(field, value) for field, value in wanted.items()},
            }

        fields = [c[field] for field in PLAIN | PRESETS[name]]
        runs.then_start(button.click(press, c["model"], [typed, sliders, *fields], **FAST))

    # --- the grid of fractions, a run of its own --------------------------------------------------------
    def run_grid(request: gr.Request, number: float, *values: Any):
        try:
            recipe = read(values)[0]
            recipe = recipe.only(min(int(number), len(recipe.edits))).but(crosses=GRID, selves=GRID)
        except PlaygroundError as problem:
            yield {error: lines(str(problem))}
            return

        def made(result: Prompted) -> dict[Any, Any]:
            tiles = grid_tiles(recipe, shelf.add(request.session_hash, views_of(result)))
            n = result.count
            tiles["caption"] = (
                f"“{recipe.prompt}” → “{recipe.edits[0]}”: {n.evaluations} model calls, {n.sample_forwards} "
                f"sample-forwards, {result.seconds:.2f} s for all {len(tiles['tiles'])} and the source"
            )
            fractions = ("cross", "self_fraction")
            tiles["of"] = {n: v for n, v in zip(NAMES, values, strict=True) if n not in fractions}
            tiles["of"]["look"] = number
            return {grid: tiles}

        yield from beside(backend, recipe, request, "grid", grid_button, error, made)

    ran = grid_button.click(run_grid, [look, *controls], [grid, grid_button, error], **RUNNING)

    def pick(event: gr.EventData) -> Any:
        """The fractions of a tile that was clicked."""
        taken = event._data["value"]
        numbers = [taken.get(k) for k in ("cross", "self_fraction")] if isinstance(taken, dict) else []
        return numbers if all(isinstance(v, int | float) for v in numbers) and numbers else gr.skip()

    pair = [c["cross"], c["self_fraction"]]
    runs.then_start(grid.pick(pick, None, pair, **(FAST | {"trigger_mode": "multiple"})))
    settings, mark = [*controls, look], mark_script([*NAMES, "look"])
    gr.on([x.change for x in settings], None, [*settings, grid], grid, js=mark, **FAST)
    ran.then(None, [*settings, grid], grid, js=mark, **FAST)  # they may have moved while it was made

    # --- looking closer at a finished run ---------------------------------------------------------------
    def look_at(token: str, row_now: float, number: float) -> Any:
        kept = shelf.get(token)
        if not isinstance(kept, PromptViews):
            return gr.skip()
        result, model = kept.result, backend.model(kept.result.recipe.model)
        index = min(int(row_now), len(result.pictures)) - 1
        return {
            save: save_value(token, result.recipe, int(number)),
            strip: film(token, result, model, index, False),
            **of_edit(result, token, int(number)),
        }

    looked = [look.input, look.release, row.input, row.release]
    gr.on(looked, look_at, [shown, row, look], [save, strip, compare], **FAST)

    # --- the same for programs --------------------------------------------------------------------------
    def prompt_to_prompt(recipe: dict[str, Any], request: gr.Request) -> dict[str, Any]:
        """The source's picture and its edits', as base64 PNG, from the fields of a PromptToPrompt recipe."""
        with refusals(recipe):
            made = PromptToPrompt.make(**recipe)
            result = backend.result(made, request.session_hash or "", api_slot(PromptToPrompt))
            answer = pictures_answer(made, result, views_of(result))
            return answer | {"rows": row_titles(made), "reused_steps": result.taken_over}

    gr.api(prompt_to_prompt, api_name="prompt_to_prompt", concurrency_limit=None)

    # --- opening the page -------------------------------------------------------------------------------
    def restore(request: gr.Request) -> dict[Any, Any]:
        recipe, changed = PromptToPrompt.from_query(own_query(request, PromptToPrompt.tab))
        recipe, missing = known_here(recipe, backend)
        if recipe.crosses or recipe.selves:
            missing.append(f"The link is of a grid of fractions. {BESIDE_THE_PAGE}")
        model = backend.model(recipe.model)
        words_now = words_in([recipe.prompt, *recipe.edits], model)
        return {
            **{c[name]: shown_value(name, getattr(recipe, name)) for name in NAMES},
            typed: [[w.text for w in own] for own in words_now],
            sliders: edits_value(recipe, words_now, model.text),
            words: word_list(model),
            told: lines(*changed, *missing),
        }

    opened = opens(restore, None, [*controls, typed, sliders, words, told], **FAST)
    runs.then_open(opened)
    opened.then(align_now, [look, *controls], [aligned, matrix], **FAST)
    c["model"].input(lambda name: word_list(backend.model(name)), c["model"], words, **FAST)

    def left(request: gr.Request) -> None:
        runs.live.forget(request.session_hash or "")
        shelf.forget(request.session_hash)
        touches.forget(request.session_hash)

    page.unload(left)
    return controls
