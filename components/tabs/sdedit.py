"""The tab SDEdit: a guide picture, noised to t0 and denoised under a prompt."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import gradio as gr
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from components.arrivals import Arrivals
from components.charts import tradeoff_curve, tradeoff_plane
from components.controls import control, mark_script, marks, own_query
from components.media import Media, data_url, read_data
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
from components.readouts import (
    LATE,
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
from components.standalone import Part, Sheet, film_sheet, options
from components.widgets import Clouds, Compare, Filmstrip, Paint, Save, Stage, Sweep, Words
from playground.backend import Backend, Failed, Note, Preview, Queued, Result, Stopped
from playground.backend.runners import guide_of
from playground.errors import PlaygroundError, RecipeError
from playground.guidance import RULES
from playground.images.examples import EXAMPLES, example, pasted, stroked
from playground.images.guides import fit_both, prepare
from playground.images.models import TextToImageModel
from playground.images.sdedit import Edited, Level, SDEdit, level
from playground.images.strengths import CONVENTIONS, level_of, nearest, same_point, settings
from playground.images.tradeoff import LEVELS as MEASURED
from playground.images.tradeoff import SEEDS, Tradeoff, has_verifier, judged, parts, tradeoff, verifier_of
from playground.images.verifier import Verifier
from playground.plane.sdedit import PARTS, TARGET, edit_points, strokes
from playground.recipes import TextToImage
from playground.schedules import Schedule
from playground.sharing.edits import EditViews
from playground.sharing.views import RunViews
from playground.uploads import open_picture

TITLE = "SDEdit"
NAMES = [name for name in SDEdit.model_fields if name not in ("sweep", "across", "values", "strip")]
HIDDEN = ("guide", "mask")  # made on the board, not typed

STRIP = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
MOST_SEEDS = 4
"""Rows of the strip."""

STROKES = "castle"
"""The stroke painting among the presets: the same one at each level, so that nothing else differs."""
LEVELS = (0.4, 0.6, 0.8)
SCENES = {
    "Stroke edit with a mask": ("a house on the grass", "a yellow moon above a house on the grass"),
    "Compositing": ("a castle at sunset", "a cat next to a castle at sunset"),
}
"""Presets that start from pictures of the model: the prompt of the picture, and the prompt of the edit."""
PATCH_SIZE = (512, 512)
"""A second picture that is brought is made to fit into this: it is scaled on the board, by hand."""
PATCH = "a cat on the grass"
"""What is pasted in the preset of compositing."""
PATCH_WIDTH = 0.42
"""Its width, as a part of the picture's."""

EQUATION = r"""
The guide $x^{\text{guide}}$ gets noise up to the level $t_0$, and sampling starts there:

$$x_{t_0} = \alpha(t_0)\, x^{\text{guide}} + \sigma(t_0)\, \epsilon, \qquad t_0 \to 0$$

Noise hides details first: it is equally strong at all scales, and pictures are weak at the fine ones. What it hides
at $t_0$ is made anew, what still shows stays. A small $t_0$ is **faithful** to the guide, a large one is
**realistic**. Meng et al. (2022) go on with the reverse SDE (here: DDPM or Euler–Maruyama); the solver chosen at
first follows the ODE instead, which adds no further noise.

Here $t$ runs from 1, noise, to 0, data; many texts on flow matching write $1-t$. The model works on latents: the
guide goes through the encoder, the result through the decoder.
"""

MASKED = r"""
With a mask $m$ (1 where the picture is made anew) the rest is put back after every step at the step's own level
$s$, and at the end the guide itself shows through:

$$x_s \leftarrow m\, x_s + (1-m)\,\big(\alpha(s)\, x^{\text{guide}} + \sigma(s)\, \epsilon\big)$$

Repeats $K$ noise the result to $t_0$ again, with fresh noise.
"""

MEASURE = (
    f"Runs the settings at t₀ = {', '.join(f'{t:g}' for t in MEASURED)} for {SEEDS} seeds each, "
    f"{len(MEASURED) * SEEDS} pictures. Faithful means near the guide; realistic means near pictures that the "
    "model makes of the prompt alone."
)

JUDGED = (
    "The verifier's layers give the perceptual distance to the guide, its features realism: the Fréchet distance "
    f"to {SEEDS} text-to-image pictures of the same prompt, with independent components."
)
MASK_JUDGED = (
    "All of it is of the part that the mask marks: distances over its pixels and the places of the verifier's "
    "layers that lie there; realism compares the mean of its two coarsest layers there with the same part of the "
    "text-to-image pictures."
)
MASK_MEASURED = "The distance is over the pixels that the mask marks."
UNJUDGED = (
    "Perceptual distance and realism are not measured: they need the scene verifier, and none lies beside this "
    "model."
)

IN_A_FILE = "No link carries a picture, but the PNG and HTML files of the run do: dropped here, they open it whole."

PLANE = (
    "Every point of a hasty drawing gets noise up to t₀ and follows the exact flow back (linear path, α = 1 − t₀, "
    "σ = t₀; grey: the data). A point is two numbers and forgets sooner than a picture, whose layout many latents "
    "carry."
)


def recipe_of(values: tuple[Any, ...], **more: Any) -> SDEdit:
    """The recipe that the controls describe."""
    return SDEdit.make(**dict(zip(NAMES, values, strict=True)), **more)


def quick(recipe: SDEdit, pace: float) -> SDEdit:
    """What runs while a hand moves: as many steps as fit into a quarter of a second, from the same t0.

    Args:
        pace: seconds per sample-forward, as measured in earlier runs.
    """
    pictures = min(recipe.pictures, 2)
    runs = max(3, min(8, round(0.25 / (2 * pictures * pace))))
    steps = max(1, round(runs / max(recipe.t0, 0.05)))
    return recipe.but(steps=min(recipe.steps, steps), pictures=pictures, repeats=1)


def level_lines(at: Level, recipe: SDEdit, schedule: Schedule) -> list[str]:
    """A noise level in all the words for it."""
    size = getattr(schedule, "size", 0)
    k = f" · timestep {max(0, round(at.t0 * size) - 1)} of {size}" if size else ""
    snr = "∞" if at.snr == float("inf") else number(at.snr)
    again = f", K = {at.passes} times" if at.passes > 1 else ""
    told = [
        f"t = {at.t0:.3f} (flow matching: 1 − t = {1 - at.t0:.3f}){k}",
        f"α = {at.alpha:.3f} · σ = {at.sigma:.3f} · SNR = α²/σ² = {snr}",
        f"k = {at.runs} of {at.steps} steps are run{again} · NFE = {at.evaluations}",
    ]
    if recipe.t0 == 0:
        told.append("t₀ = 0: no noise, no step. The guide comes back through the autoencoder: encoded and decoded.")
    elif at.noise_only:
        inside = "inside the mask it starts from noise alone; outside, the guide is put back after each step"
        told.append(
            "From here it is text to image: "
            + (inside if recipe.mask else "sampling starts from noise alone, and the guide plays no part")
            + (f" (noised to this level it would leave a trace of {at.alpha:.3f})." if at.alpha > 1e-4 else ".")
        )
        if at.t0 < schedule.t_max - 1e-9:
            told.append(f"This grid starts at t = {at.t0:.3f}, below t_max: see its first step.")
        if at.passes > 1:
            alone = "" if recipe.mask else ", so only the last one counts"
            told.append(f"Each of the K passes starts from noise of its own{alone}.")
    elif at.passes > 1:
        told.append(f"Every pass after the first noises the result of the one before it to t = {at.t0:.3f}.")
    return told


def elsewhere(recipe: SDEdit, schedule: Schedule) -> list[str]:
    """The nearest level that three programs can start from, in their words."""
    told = []
    for setting in settings(recipe.t0, recipe.steps, recipe.grid, schedule):
        word = "denoise" if setting.program == "ComfyUI" else "strength"
        if setting.strength is None:
            told.append(f"{setting.program}: cannot start there")
            continue
        there = f"{setting.program}: {word} {setting.strength:g} with {setting.steps} steps"
        if setting.runs == 0:
            told.append(f"{there} runs none of them; this is the nearest point (t₀ = {recipe.t0:g} here)")
            continue
        start = f"t = {setting.t0:.3f}"
        if abs(setting.t0 - recipe.t0) > 5e-4:
            start = f"the nearest point, {start}, not {recipe.t0:g}"
        told.append(f"{there} runs {setting.runs} of them from {start}")
    at = nearest(recipe.t0, recipe.steps, recipe.grid, schedule)
    same = same_point("ComfyUI", at.runs, recipe.steps)
    if same is not None and at.runs < recipe.steps:
        told.append(
            f"ComfyUI with denoise {same:g} and {at.runs} step{'s' * (at.runs != 1)} runs just what diffusers does."
        )
    if recipe.t0 >= schedule.t_max:
        told.append("All of them add the noise to the guide even there; here t₀ = 1 leaves the guide out.")
    return told


def strength_in(program: str, recipe: SDEdit, schedule: Schedule) -> float | None:
    """What one program calls the strength of its point that is nearest to this level."""
    all_of_them = settings(recipe.t0, recipe.steps, recipe.grid, schedule)
    return next(s.strength for s in all_of_them if s.program == program)


def about(guide: Image.Image, mask: Image.Image | None) -> list[str]:
    """What is worth knowing about a guide and its mask before they are run."""
    told = []
    if guide.getcolors(1) is not None:
        told.append("The guide is blank: one colour is all that it gives.")
    if mask is not None:
        marked = np.asarray(mask.convert("L")) > 127
        if marked.all():
            told.append("The mask covers everything: nothing of the guide is kept as it is.")
    return told


def picture_url(picture: Image.Image) -> str:
    return data_url(np.asarray(picture.convert("RGB")))


def board(guide: Image.Image | None, mask: Image.Image | None, size: tuple[int, int]) -> dict[str, Any]:
    """The board's value: a guide, made to fit, and its mask."""
    return {
        "id": secrets.token_hex(6),
        "size": list(size),
        "picture": picture_url(prepare(guide, size)[0]) if guide else None,
        "mask": picture_url(prepare(mask.convert("RGB"), size)[0]) if mask else None,
        "patch": None,
    }


def example_tiles(selected: str) -> dict[str, Any]:
    tiles = [
        {"value": name, "label": e.title.removeprefix("a "), "url": picture_url(e.picture((96, 96)))}
        for name, e in EXAMPLES.items()
    ]
    return {"axis": "example guides", "tiles": tiles, "selected": selected, "caption": ""}


def strip_tiles(result: Edited | None, token: str, row: int, selected: tuple[float, int]) -> dict[str, Any]:
    """One seed's pictures over t0, and the one marked whose (t0, seed) is selected."""
    seed = result.recipe.seed + row if result else 0
    distances = result.distances.tolist() if result else []
    tiles = []
    for i, t0 in enumerate(STRIP):
        at = row * len(STRIP) + i
        label = f"{t0:g} · {distances[at]:.0f}" if result else f"t₀ = {t0:g}"
        url = Media.url(token, f"picture-{at}.png") if result else None
        tiles.append({"value": {"t0": t0, "seed": seed} if result else {"t0": t0}, "label": label, "url": url})
    caption = ""
    if result:
        recipe = result.recipe
        where = ", in the masked part" if result.free is not None else ""
        passes = f", K = {recipe.repeats} passes each" if recipe.repeats > 1 else ""
        caption = (
            f"“{recipe.prompt}”, w = {number(recipe.w)}, {recipe.steps} steps, seed {seed}{passes}: t₀ · "
            f"distance to the guide (L2{where}, 1/255)"
        )
    chosen = {"t0": selected[0], "seed": selected[1]} if result else {"t0": selected[0]}
    common = {n: getattr(result.recipe, n) for n in NAMES if n not in ("t0", "seed", "pictures")} if result else {}
    axis = f"t0, seed {seed}" if result else "t0"
    return {"axis": axis, "tiles": tiles, "selected": chosen, "caption": caption, "of": common}


def filmed(token: str, result: Edited, model: TextToImageModel, row: int, everything: bool) -> dict[str, Any]:
    """The filmstrip of one picture; where there are several passes each step says of which it is."""
    value, passes = film(token, result, model, row, everything), result.recipe.repeats
    for i, column in enumerate(value["columns"] if passes > 1 else ()):
        column["level"] = f"pass {i * passes // len(value['columns']) + 1} of {passes} · {column['level']}"
    return value


def stages(token: str, result: Edited, row: int) -> dict[str, Any]:
    """Guide, noised start and result of one picture."""
    distance = float(result.distances[row])
    where = " in the masked part" if result.free is not None else ""
    last = result.recipe.repeats
    return {
        "pictures": [
            {"name": "guide", "url": Media.url(token, "guide.png"), "help": "as it entered"},
            {
                "name": f"start at t₀ = {result.recipe.t0:g}" + (f", pass {last} of {last}" if last > 1 else ""),
                "url": Media.url(token, f"start-{row}.png"),
                "help": "x_t0, decoded" + (f": the result of pass {last - 1}, noised" if last > 1 else ""),
            },
            {"name": "result", "url": Media.url(token, f"picture-{row}.png"), "help": "what was made of it"},
        ],
        "before": 0,
        "caption": f"distance to the guide{where}: {distance:.1f}/255 (L2, root mean square per value)",
    }


def sheet(views: EditViews, backend: Backend, query: Mapping[str, str]) -> Sheet:
    """An edit and its filmstrip as a file of their own, with the guide and the mask that somebody has brought."""
    row = min(options(query)["row"], len(views.result.pictures) - 1)
    edge = Part("Guide, noised start, result", Compare, stages("run", views.result, row))
    return film_sheet(views, backend, row, [edge], views.attached(row))


@lru_cache(maxsize=256)
def plane_clouds(t0: float, seed: int) -> dict[str, Any]:
    """The experiment in the plane at one level."""

    def flat(points: Tensor) -> list[int]:
        return (1000 * points).round().int().flatten().tolist()

    guide, own = strokes()
    made = edit_points(guide, t0, seed)
    noised = "noised to t₀" if t0 < 1 else "noise alone"
    return {
        "clouds": [
            {"name": "guide", "points": flat(made.guide)},
            {"name": noised, "points": flat(made.noised)},
            {"name": "taken back", "points": flat(made.result)},
        ],
        "parts": own.tolist(),
        "names": list(PARTS),
        "behind": flat(TARGET.data().sample(500, torch.Generator().manual_seed(0))),
        "reach": 3.3,
        "caption": f"t₀ = {t0:g}: distance to the guide {made.to_guide:.2f} (root mean square) · "
        f"{made.typical:.0%} of the points are as probable as 99% of the data · NFE {made.count.evaluations}",
    }


def build(page: gr.Blocks, opens: Any, backend: Backend, media: Media) -> list[Any]:
    """Lay out the tab and connect it; returns the controls in the order of `NAMES`.

    Args:
        page: which tells when a visitor leaves.
        opens: the event of the tab's being on show for the first time.
        backend, media: who runs, and who serves what was made.
    """
    default = SDEdit(model=next(iter(backend.models)))
    shelf = media.shelf(SDEdit.tab)
    shown = gr.State("")  # the token of the run on show

    # --- layout ---------------------------------------------------------------------------------------
    with gr.Row(elem_classes="dp-columns"):
        with gr.Column(elem_classes="dp-card dp-controls"):
            c: dict[str, Any] = {}
            c["prompt"] = control(SDEdit, "prompt", lines=2)
            words = Words(elem_id="sdedit-words")
            c["t0"] = control(SDEdit, "t0")
            gr.HTML(marks(SDEdit, "t0", (0.0, "0"), (0.3, "faithful"), (0.7, "realistic"), (1.0, "1")))
            levels = gr.HTML(elem_classes="dp-readout", elem_id="sdedit-level")
            with gr.Accordion("Strength in other programs", open=False, elem_id="sdedit-elsewhere-fold"):
                gr.HTML(
                    "<p>Each of them starts at points of a grid only: this is the nearest one at this number of "
                    "steps and on this kind of grid. ComfyUI runs all of its steps whatever the strength: it takes "
                    "them from a longer grid. A strength that you type moves t₀ to the very point where that "
                    "program starts.</p>",
                    elem_classes="dp-help",
                )
                others = gr.HTML(elem_classes="dp-readout", elem_id="sdedit-elsewhere")
                program = gr.Radio(
                    list(CONVENTIONS), value="diffusers", label="type a strength of", elem_id="sdedit-program"
                )
                strength = gr.Number(
                    label="strength there (the nearest, if it has no such point)",
                    info="moves t₀ to where that program starts",
                    elem_id="sdedit-strength",
                )
                unlike = gr.HTML(elem_classes="dp-error", elem_id="sdedit-unlike")
            c["w"] = control(SDEdit, "w")
            both = gr.HTML(said(default), elem_classes="dp-readout", elem_id="sdedit-conventions")
            dice = seed_row(SDEdit, c)
            c["steps"] = control(SDEdit, "steps")
            c["repeats"] = control(SDEdit, "repeats")
            solver_choice(SDEdit, c)
            more = more_settings(SDEdit, c, backend)
            for name in HIDDEN:
                c[name] = control(SDEdit, name, visible=False)
        with gr.Column(elem_classes="dp-picture"):
            told = gr.HTML(elem_classes="dp-note", elem_id="sdedit-link-notes")
            error = gr.HTML(elem_classes="dp-error", elem_id="sdedit-error")
            with gr.Row(elem_id="sdedit-pair"):
                with gr.Column(elem_classes="dp-card", min_width=280):
                    gr.Markdown("## Guide: paint, upload, or choose")
                    paint = Paint(elem_id="sdedit-paint")
                    refused = gr.HTML(elem_classes="dp-error", elem_id="sdedit-refused")
                with gr.Column(elem_classes="dp-card", min_width=280):
                    gr.Markdown("## Result")
                    stage = Stage(elem_id="sdedit-stage")
                    status = gr.HTML(elem_classes="dp-readout", elem_id="sdedit-status")
                    stop = gr.Button("Stop", size="sm", elem_id="sdedit-stop")
                    save = Save(elem_id="sdedit-save")
                    guide_notes = gr.HTML(elem_classes="dp-note", elem_id="sdedit-guide-notes")
                    notes = gr.HTML(elem_classes="dp-note", elem_id="sdedit-notes")
            with gr.Column(elem_classes="dp-card"):
                gr.Markdown("## Example guides")
                examples = Sweep(example_tiles(default.guide), elem_id="sdedit-examples")
                last = gr.Button("Take my last picture from Text to image", size="sm", elem_id="sdedit-last")
            with gr.Column(elem_classes="dp-card"):
                gr.Markdown("## Guide, noised start, result")
                compare = Compare(elem_id="sdedit-compare")
            with gr.Column(elem_classes="dp-card"):
                gr.Markdown("## Eight strengths, in one batch")
                rows = [Sweep(elem_id=f"sdedit-strip-{i}", visible=i == 0) for i in range(MOST_SEEDS)]
                with gr.Row():
                    seeds = gr.Slider(1, MOST_SEEDS, 2, step=1, label="seeds", elem_id="sdedit-seeds")
                    strip_button = gr.Button(
                        "Run the strip with these settings", size="sm", elem_id="sdedit-strip-run"
                    )
        with gr.Column(elem_classes="dp-card dp-explain"):
            gr.Markdown("## What you see")
            gr.Markdown(EQUATION, latex_delimiters=LATEX)
            gr.Markdown(MASKED, latex_delimiters=LATEX)
            formula = gr.Markdown(rule_panel(default.rule), latex_delimiters=LATEX, elem_id="sdedit-formula")
            step = gr.Markdown(default_step(backend), latex_delimiters=LATEX, elem_id="sdedit-step")
            gr.Markdown("## Try")
            presets: list[tuple[str, float, gr.Button]] = []
            with gr.Column(elem_id="sdedit-presets"):
                for kind in ("Stroke painting to image", *SCENES):
                    gr.Markdown(kind)
                    with gr.Row(elem_classes="dp-presets"):
                        for t0 in LEVELS:
                            presets.append((kind, t0, gr.Button(f"t₀ = {t0:g}", size="sm", min_width=70)))
    with gr.Row(elem_classes="dp-halves"):
        with gr.Column(elem_classes="dp-card", min_width=340):
            gr.Markdown("## Faithful or realistic: measured")
            measure = gr.Button(f"Measure eight t₀ over {SEEDS} seeds", size="sm", elem_id="sdedit-measure")
            gr.HTML(f"<p>{MEASURE}</p>", elem_classes="dp-help")
            measured = gr.HTML(elem_classes="dp-readout", elem_id="sdedit-measured")
            curve = gr.Plot(show_label=False, visible=False, elem_id="sdedit-curve")
            faithful = gr.Plot(show_label=False, visible=False, elem_id="sdedit-faithful")
        with gr.Column(elem_classes="dp-card", min_width=340):
            gr.Markdown("## The same in the plane, where the field is exact")
            plane = Clouds(elem_id="sdedit-plane")
            gr.HTML(f"<p>{PLANE}</p>", elem_classes="dp-help")
    with gr.Column(elem_classes="dp-card"):
        gr.Markdown("## Filmstrip: what every step believed")
        look = gr.Slider(1, 8, 1, step=1, label="picture", visible=False, elem_id="sdedit-look")
        strip = Filmstrip(elem_id="sdedit-film")
        everything = gr.Checkbox(
            label="also compute the branches that guidance skipped",
            info="costs model calls that the run did not need; they are counted apart",
            elem_id="sdedit-everything",
        )

    controls = [c[name] for name in NAMES]

    def size_of(model: str) -> tuple[int, int]:
        return backend.model(model if model in backend.models else default.model).picture_size

    def edit_views(result: Edited) -> EditViews:
        recipe = result.recipe
        weak = (lambda: backend.model(recipe.weak_model)) if RULES[recipe.rule].weak else None
        return EditViews(result, lambda make: backend.call(make, recipe.model), weak, brought=backend.guides.get)

    # --- one run, from values to views ----------------------------------------------------------------
    def show(event: Result, recipe: SDEdit, visitor: str, everything: bool) -> dict[Any, Any]:
        result, model = event.value, backend.model(recipe.model)
        token = shelf.add(visitor, edit_views(result))
        many = len(result.pictures) > 1
        pictures = [
            {"url": Media.url(token, f"picture-{i}.png"), "label": f"seed {recipe.seed + i}" if many else ""}
            for i in range(len(result.pictures))
        ]
        texts = (note for text in recipe.texts() for note in model.text.notes(text))
        return {
            stage: {"pictures": pictures, "live": False, "caption": recipe.prompt or "(no prompt)"},
            status: lines(cost_line(result, model, event.reused)),
            notes: lines(result.told, *texts),
            shown: token,
            save: save_value(token, recipe),
            strip: filmed(token, result, model, 0, everything),
            look: gr.Slider(maximum=max(2, len(result.pictures)), value=1, visible=many),
            compare: stages(token, result, 0),
        }

    def read(values: tuple[Any, ...]) -> tuple[SDEdit, dict[Any, Any]]:
        """The recipe, and what can be said of it before it has run."""
        recipe = recipe_of(values)
        told_now: dict[Any, Any] = {both: said(recipe)}
        if recipe.model in backend.models:
            model = backend.model(recipe.model)
            schedule, plan = model.denoiser.schedule, recipe.plan(model.denoiser.schedule)
            told_now[levels] = lines(*level_lines(level(recipe, schedule), recipe, schedule))
            told_now[others] = lines(*elsewhere(recipe, schedule))
            steps = len(plan.rows[0].times) - 1
            acting = window_lines(recipe.model_copy(update={"steps": steps}), plan, schedule) if steps else []
            told_now[more.window] = lines(*acting)
            told_now[guide_notes] = lines(*about(*guide_of(recipe, backend.guides, model.picture_size)))
        return recipe, told_now

    runs = Runs(
        backend,
        SDEdit,
        c,
        NAMES,
        Screen(stage, status, error, notes, save),
        read,
        show,
        quick,
        [both, levels, others, more.window, shown, save, guide_notes, strip, look, compare],
        more=[everything],
        hidden=HIDDEN,
    )
    follow_rule(c, more, formula, backend)
    follow_step(c, step, backend)

    # --- the same in the plane --------------------------------------------------------------------------
    def in_the_plane(t0: float | None, seed: float | None) -> Any:
        try:
            return plane_clouds(float(t0 or 0), int(seed or 0) % 2**31)
        except PlaygroundError:
            return gr.skip()  # a number that is no level: the run says so

    gr.on(
        [c["t0"].change, c["seed"].change],
        in_the_plane,
        [c["t0"], c["seed"]],
        plane,
        **(FAST | {"trigger_mode": "always_last"}),
    )

    # --- strength in other programs ---------------------------------------------------------------------
    def converted(program: str, strength: float | None, *values: Any) -> Any:
        try:
            recipe = recipe_of(values)
            path = backend.model(recipe.model).denoiser.schedule
            if strength is not None and level_of(program, strength, recipe.steps, recipe.grid, path) == recipe.t0:
                return gr.skip()  # that is what was typed
            return strength_in(program, recipe, path)
        except PlaygroundError:
            return gr.skip()

    def typed(program: str, strength: float | None, *values: Any) -> Any:
        try:
            recipe = recipe_of(values)
            schedule = backend.model(recipe.model).denoiser.schedule
            if strength is None:
                return gr.skip()
            return {c["t0"]: level_of(program, float(strength), recipe.steps, recipe.grid, schedule), unlike: ""}
        except (PlaygroundError, TypeError) as problem:
            return {unlike: lines(str(problem))}

    level_moved = [c["t0"].change, c["steps"].change, c["grid"].change, program.input]
    gr.on(level_moved, converted, [program, strength, *controls], strength, trigger_mode="always_last", **FAST)
    runs.then_start(strength.input(typed, [program, strength, *controls], [c["t0"], unlike], **FAST))

    # --- the guide --------------------------------------------------------------------------------------
    mine = [c["guide"], c["mask"], guide_notes, refused, examples]

    def with_guide(values: tuple[Any, ...], guide: str, mask: str) -> tuple[Any, ...]:
        """The controls' values with another guide."""
        made = dict(zip(NAMES, values, strict=True)) | {"guide": guide, "mask": mask}
        return tuple(made[name] for name in NAMES)

    paintings = Arrivals()

    def painted(request: gr.Request, event: gr.EventData, *values: Any) -> Any:
        """What is on the board becomes the guide, and its mask."""
        visitor, number = request.session_hash or "", event._data.get("number")
        paintings.note(visitor, number)
        try:
            picture, _ = open_picture(read_data(event._data["picture"]))
            data = event._data["mask"]
            mask = open_picture(read_data(data))[0].convert("L") if data else None
            size = size_of(dict(zip(NAMES, values, strict=True))["model"])
            if picture.size != size or (mask and mask.size != size):
                # No board of ours sends that; what is kept here is bounded by the model's size all the same.
                picture, mask, _ = fit_both(picture, mask, size)
        except PlaygroundError as problem:
            return {refused: lines(str(problem))}
        guide_name = backend.guides.put(picture, visitor)
        mask_name = backend.guides.put(mask, visitor) if mask else ""
        if not paintings.current(visitor, number):
            return gr.skip()  # a newer painting is on its way
        runs.announce(request, with_guide(values, guide_name, mask_name))
        return {
            c["guide"]: guide_name,
            c["mask"]: mask_name,
            guide_notes: lines(*about(picture, mask)),
            refused: "",
            examples: example_tiles(""),
        }

    drawn = paint.painted(painted, controls, mine, **(FAST | {"trigger_mode": "multiple"}))
    runs.then_move(drawn)

    def taken(picture: Image.Image, mask: Image.Image | None, model: str, visitor: str) -> dict[Any, Any]:
        """A whole picture becomes the guide, made to fit where it can be seen."""
        size = size_of(model)
        fitted, done = prepare(picture, size)
        return {
            c["guide"]: backend.guides.put(fitted, visitor),
            c["mask"]: backend.guides.put(mask, visitor) if mask else "",
            paint: board(fitted, mask, size),
            told: lines(done),
            refused: "",
            examples: example_tiles(""),
        }

    taking = [c["guide"], c["mask"], paint, told, refused, examples]

    def brought(request: gr.Request, model: str, event: gr.EventData) -> dict[Any, Any]:
        """A file: the guide, or a second picture to be laid on it."""
        try:
            picture, said_of = open_picture(read_data(event._data["data"]))
        except PlaygroundError as problem:
            return {refused: lines(str(problem))}
        if event._data["use"] == "patch":
            brought_as = f"{picture.width} × {picture.height}"
            picture.thumbnail(PATCH_SIZE, Image.Resampling.LANCZOS)
            now = f"{picture.width} × {picture.height}"
            done = f"The second picture was {brought_as} scaled to {now}." if now != brought_as else ""
            patch = {"id": secrets.token_hex(6), "url": picture_url(picture)}
            return {paint: {"patch": patch}, told: lines(*said_of, done), refused: ""}
        update = taken(picture, None, model, request.session_hash or "")
        return update | {told: lines(*said_of) + update[told]}

    filed = paint.brought(brought, c["model"], taking, **FAST)
    runs.then_start(filed)

    def take_last(request: gr.Request, model: str) -> dict[Any, Any]:
        made_there = media.shelf(TextToImage.tab)
        kept = made_there.newest(
            request.session_hash, lambda kept: isinstance(kept, RunViews) and not kept.result.recipe.sweep
        )
        if not isinstance(kept, RunViews):
            return {refused: lines("There is no picture of yours on the tab Text to image yet.")}
        update = taken(kept.result.images[0], None, model, request.session_hash or "")
        return update | {c["prompt"]: kept.result.recipe.prompt}

    runs.then_start(last.click(take_last, c["model"], [*taking, c["prompt"]], **FAST))

    def take_example(model: str, event: gr.EventData) -> dict[Any, Any]:
        name = str(event._data["value"])
        try:
            return example_of(name, model) | {c["prompt"]: example(name).prompt}
        except PlaygroundError as problem:
            return {refused: lines(str(problem))}

    def example_of(name: str, model: str) -> dict[Any, Any]:
        size = size_of(model)
        return {
            c["guide"]: name,
            c["mask"]: "",
            paint: board(example(name).picture(size), None, size),
            told: "",
            refused: "",
            examples: example_tiles(name),
        }

    runs.then_start(examples.pick(take_example, c["model"], [*taking, c["prompt"]], **FAST))

    # --- buttons ----------------------------------------------------------------------------------------
    runs.then_start(dice)

    def scene(prompt: str, model: str, visitor: str) -> Image.Image:
        """A picture of the model's own, from its prompt alone."""
        made = backend.result(TextToImage(model=model, prompt=prompt), visitor, f"{SDEdit.tab}/scene")
        return made.images[0]

    def preset(kind: str, t0: float, model: str, request: gr.Request) -> dict[Any, Any]:
        visitor = request.session_hash or ""
        if kind not in SCENES:
            return example_of(STROKES, model) | {c["prompt"]: example(STROKES).prompt, c["t0"]: t0}
        first, prompt = SCENES[kind]
        try:
            base = scene(first, model, visitor)
            done = ""
            if kind == "Compositing":
                patch = scene(PATCH, model, visitor)
                guide, mask = pasted(base, patch, (0.24, 0.72), PATCH_WIDTH)
                done = f"The second picture is an ellipse of “{PATCH}”, scaled to {PATCH_WIDTH:.0%}."
            else:
                guide, mask = stroked(base, (252, 214, 60), (0.8, 0.2), 0.11)
        except PlaygroundError as problem:
            return {refused: lines(str(problem))}
        update = taken(guide, mask, model, visitor)
        return update | {c["prompt"]: prompt, c["t0"]: t0, told: lines(done) + update[told]}

    for kind, t0, button in presets:

        def press(model: str, request: gr.Request, kind: str = kind, t0: float = t0) -> dict[Any, Any]:
            return preset(kind, t0, model, request)

        runs.then_start(button.click(press, c["model"], [*taking, c["prompt"], c["t0"]], **RUNNING))

    for event in taken_words(words, c["prompt"], c["prompt"]):
        runs.then_start(event)

    stop.click(runs.stop, None, None, **FAST)

    # --- the strip, a run of its own --------------------------------------------------------------------
    def run_strip(request: gr.Request, seeds: float, *values: Any):
        try:
            recipe = recipe_of(values).but(strip=STRIP, pictures=int(seeds))
        except PlaygroundError as problem:
            yield {error: lines(str(problem))}
            return

        def made(result: Edited) -> dict[Any, Any]:
            token, n = shelf.add(request.session_hash, edit_views(result)), result.count
            update: dict[Any, Any] = {}
            for i, row in enumerate(rows):
                there = i < recipe.pictures
                tiles = strip_tiles(result, token, i, (recipe.t0, recipe.seed)) if there else {}
                if i == recipe.pictures - 1:
                    tiles["caption"] += (
                        f" · {n.evaluations} model calls, {n.sample_forwards} sample-forwards, "
                        f"{result.seconds:.2f} s for all {len(result.pictures)}"
                    )
                update[row] = gr.update(value=tiles, visible=there)
            return update

        yield from beside(backend, recipe, request, "strip", strip_button, error, made)

    strip_button.click(run_strip, [seeds, *controls], [*rows, strip_button, error], **RUNNING)

    def pick(event: gr.EventData) -> dict[Any, Any]:
        """Level and seed of a tile that was clicked; what a browser sends is not trusted."""
        taken = event._data["value"]
        numbers = {k: v for k, v in taken.items() if k in ("t0", "seed")} if isinstance(taken, dict) else {}
        return {c[k]: v for k, v in numbers.items() if isinstance(v, int | float)} or gr.skip()

    on_strip = [c["t0"], c["seed"]]
    for row in rows:
        runs.then_start(row.pick(pick, None, on_strip, **(FAST | {"trigger_mode": "multiple"})))
    gr.on([x.change for x in controls], None, [*controls, *rows], rows, js=mark_script(NAMES), **FAST)

    # --- faithful or realistic --------------------------------------------------------------------------
    def run_measure(request: gr.Request, *values: Any):
        visitor, slot = request.session_hash or "", f"{SDEdit.tab}/measure"
        done: list[Edited] = []
        try:
            runs = parts(recipe_of(values))
            judge = backend.compute(lambda: verifier_of(backend.models[runs[0].model]))
            for i, part in enumerate(runs):
                for event in backend.run(part, visitor, slot):
                    if isinstance(event, Preview):
                        text = f"seeds {8 * i + 1} to {8 * i + part.pictures}: step {event.step} of {event.steps}"
                        yield {measure: gr.Button(text, interactive=False)}
                    elif isinstance(event, Queued):
                        yield {measure: gr.Button(f"waiting: {event.ahead} ahead of yours", interactive=False)}
                    elif isinstance(event, Note) and not event.of_words:
                        yield {measured: lines(event.text)}
                    elif isinstance(event, Result):
                        done.append(event.value)
                    elif isinstance(event, Failed):
                        raise RecipeError(event.text)
                    elif isinstance(event, Stopped):
                        raise RecipeError("The measurement was stopped.")
            if judge:
                yield {measured: lines("the verifier looks at the pictures …")}
            result = look_at_realism(done, judge, visitor, slot) if judge else tradeoff(done)
            against = gr.Plot(tradeoff_plane(result), visible=True) if result.realism else gr.Plot(visible=False)
            of = done[0].recipe
            told_of = [
                f"“{of.prompt}”, w = {number(of.w)}, {of.steps} steps, the guide of that moment:",
                f"Spearman correlation of t₀ and mean distance: {number(result.correlation)}, "
                f"{result.seeds} seeds.",
                JUDGED if result.realism else UNJUDGED,
                judge.told() if judge else "",
            ]
            if result.masked:
                told_of.append(MASK_JUDGED if result.realism else MASK_MEASURED)
            figure = gr.Plot(tradeoff_curve(result), visible=True)
            yield {measured: lines(*told_of), curve: figure, faithful: against, error: ""}
        except (PlaygroundError, TimeoutError) as problem:
            # Nor stay the charts of an earlier one, whose caption this was.
            hidden = gr.Plot(visible=False)
            yield {error: lines(str(problem) or LATE), measured: "", curve: hidden, faithful: hidden}
        # Not in a `finally`: a visitor who leaves closes the generator, which must not yield then.
        yield {measure: gr.Button(f"Measure eight t₀ over {SEEDS} seeds", interactive=True)}

    def look_at_realism(done: list[Edited], verifier: Verifier, visitor: str, slot: str) -> Tradeoff:
        """The curve, with what the verifier sees."""
        recipe, curve = done[0].recipe, tradeoff(done)
        fields = {n: getattr(recipe, n) for n in TextToImage.model_fields}
        real = []
        for first in range(0, SEEDS, 8):
            plain = TextToImage.make(**fields).but(pictures=8, seed=(recipe.seed + 1000 + first) % 2**31)
            real.append(backend.result(plain, visitor, slot).pictures)
        return backend.compute(lambda: judged(curve, done, real, verifier))

    measure.click(run_measure, controls, [measure, measured, curve, faithful, error], **RUNNING)

    # --- looking closer at a finished run ---------------------------------------------------------------
    def look_at(token: str, row: float, everything: bool) -> Any:
        kept = shelf.get(token)
        if not isinstance(kept, EditViews):
            return gr.skip()
        result, model = kept.result, backend.model(kept.result.recipe.model)
        index = min(int(row), len(result.pictures)) - 1
        return {
            save: save_value(token, result.recipe, index),
            strip: filmed(token, result, model, index, everything),
            compare: stages(token, result, index),
        }

    gr.on(
        [look.input, look.release, everything.input],
        look_at,
        [shown, look, everything],
        [save, strip, compare],
        **FAST,
    )

    # --- the same for programs --------------------------------------------------------------------------
    def sdedit(recipe: dict[str, Any], guide: str, mask: str, request: gr.Request) -> dict[str, Any]:
        """Pictures as base64 PNG, from the fields of an SDEdit recipe, and its guide and mask: image files in
        base64, or "" where the recipe names an example, or has no mask."""
        visitor = request.session_hash or ""
        with refusals(recipe):
            # Checked with the names it came with, which pictures that are sent along replace.
            made = SDEdit.make(**recipe)
            done: list[str] = []
            size = size_of(made.model)
            picture, _ = guide_of(made.but(mask=""), backend.guides, size) if not guide and mask else (None, None)
            if guide:
                picture, done = open_picture(read_data(guide))
            if picture is not None:
                marked = open_picture(read_data(mask))[0].convert("L") if mask else None
                # Kept as they enter the run: what is kept is bounded by the model's size, whatever was sent.
                fitted, marked, fit = fit_both(picture, marked, size)
                done.append(fit)
                if guide:
                    made = made.but(guide=backend.guides.put(fitted, visitor))
                if marked is not None:
                    made = made.but(mask=backend.guides.put(marked, visitor))
            result = backend.result(made, visitor, api_slot(SDEdit))
            answer = pictures_answer(made, result, edit_views(result))
            told_of = " ".join(filter(None, [*done, result.told]))
            return answer | {"distances": result.distances.tolist(), "told": told_of}

    gr.api(sdedit, api_name="sdedit", concurrency_limit=None)

    # --- opening the page -------------------------------------------------------------------------------
    def restore(request: gr.Request) -> dict[Any, Any]:
        recipe, changed = SDEdit.from_query(own_query(request, SDEdit.tab))
        recipe, missing = known_here(recipe, backend)
        changed += missing
        if recipe.strip:
            changed.append(f"The link is of a strip of levels. {BESIDE_THE_PAGE}")
        if recipe.guide and recipe.guide not in EXAMPLES and backend.guides.get(recipe.guide) is None:
            changed.append(
                "The link's guide is not on this installation: its prompt and settings are kept, choose a guide. "
                + IN_A_FILE
            )
            recipe = recipe.but(guide="", mask="")
        elif recipe.mask and backend.guides.get(recipe.mask) is None:
            changed.append(f"The link's mask is not on this installation: everything is made anew. {IN_A_FILE}")
            recipe = recipe.but(mask="")
        size = size_of(recipe.model)
        guide, mask = guide_of(recipe, backend.guides, size) if recipe.guide else (None, None)
        try:
            there = strength_in("diffusers", recipe, backend.model(recipe.model).denoiser.schedule)
        except PlaygroundError:
            there = None  # a grid that this model does not have: the run says so
        return {
            **{c[name]: getattr(recipe, name) for name in NAMES},
            words: word_list(backend.model(recipe.model)),
            paint: board(guide, mask, size),
            examples: example_tiles(recipe.guide),
            rows[0]: strip_tiles(None, "", 0, (recipe.t0, recipe.seed)),
            strength: there,
            told: lines(*changed),
            plane: plane_clouds(recipe.t0, recipe.seed),
            measured: "" if has_verifier(backend.models[recipe.model]) else lines(UNJUDGED),
        }

    opening = [*controls, words, paint, examples, rows[0], strength, told, plane, measured]
    opened = opens(restore, None, opening, **FAST)
    runs.then_open(opened)

    def other_model(name: str, guide: str, mask: str) -> dict[Any, Any]:
        """The board has the new model's size; a guide that is not an example keeps its own pixels."""
        size = size_of(name)
        picture = EXAMPLES[guide].picture(size) if guide in EXAMPLES else backend.guides.get(guide)
        gone = "The mask was dropped: it belonged to the other model's picture." if mask else ""
        return {
            words: word_list(backend.model(name)),
            paint: board(picture, None, size),
            c["mask"]: "",
            told: lines(gone, prepare(picture, size)[1] if picture else ""),
            measured: "" if has_verifier(backend.models[name]) else lines(UNJUDGED),
        }

    chosen = [c["model"], c["guide"], c["mask"]]
    runs.then_start(c["model"].input(other_model, chosen, [words, paint, c["mask"], told, measured], **FAST))

    def left(request: gr.Request) -> None:
        runs.live.forget(request.session_hash or "")
        shelf.forget(request.session_hash)
        paintings.forget(request.session_hash)

    page.unload(left)
    return controls
