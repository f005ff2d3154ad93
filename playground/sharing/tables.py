"""Runs as numbers for other programs: arrays as NPZ, curves as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from playground.images.models import to_uint8
from playground.images.prompt_to_prompt import Prompted, attention_arrays
from playground.images.sdedit import Edited
from playground.plane.density import density
from playground.plane.metrics import path_curves
from playground.plane.views import DENSITY_TIMES, FlowViews, view_times
from playground.recipes import Recipe
from playground.sharing.comparisons import ComparisonViews
from playground.sharing.png import record_of
from playground.sharing.prompts import PromptViews
from playground.sharing.views import RunViews
from playground.solvers import SOLVERS

Arrays = Mapping[str, tuple[Any, str]]
"""By name: values, and a line about what they are."""


def to_npz(recipe: Recipe, arrays: Arrays) -> bytes:
    """One compressed file for `numpy.load`: the arrays, "recipe" (JSON) and "about" (a line for each array)."""
    buffer = io.BytesIO()
    values = {k: v.numpy() if isinstance(v, Tensor) else np.asarray(v) for k, (v, _) in arrays.items()}
    about = "\n".join(f"{k} {list(values[k].shape)}: {text}" for k, (_, text) in arrays.items())
    np.savez_compressed(
        buffer,
        allow_pickle=False,
        recipe=np.array(json.dumps(record_of(recipe))),
        about=np.array(about),
        **values,
    )
    return buffer.getvalue()


def flow_arrays(views: FlowViews) -> Arrays:
    """Trajectories, the solver's own states, and the exact density over time."""
    flow, recipe = views.flow, views.flow.recipe
    exact = density(recipe, None, view_times(recipe, DENSITY_TIMES), label=recipe.label)
    return {
        "times": (flow.times, "times t of the frames, 1 is noise"),
        "frames": (flow.frames, "particles at these times [time, particle, coordinate]"),
        "solver_times": (flow.solver_times, "times of the solver's grid"),
        "states": (flow.states, "what the solver computed there, of the first particles"),
        "labels": (flow.labels, "class of the component that each particle ends at"),
        "density_times": (exact.times, "times of the density"),
        "density": (
            exact.values,
            "closed-form p_t on a grid of cells, the mean over each (of stretched components the value at its "
            "middle); on the plane row 0 is the lowest y",
        ),
        "density_reach": (exact.box * exact.zoom, "the grid's cells fill [-reach, reach] at each of its times"),
    }


def run_arrays(views: RunViews) -> Arrays:
    """Pictures, latents, and what every step saw."""
    result = views.result
    arrays: dict[str, tuple[Any, str]] = {
        "pictures": (to_uint8(result.pictures), "finished pictures [row, y, x, RGB]"),
        "latents": (result.latents, "where sampling ended [row, channel, y, x]"),
    }
    for name, text in (
        ("t", "times [step, row]; NaN where a row has fewer steps"),
        ("x", "latents x_t [step, row, channel, y, x]"),
        ("uncond", "x0 as predicted without the prompt; NaN where guidance did not need it"),
        ("cond", "x0 as predicted with the prompt"),
        ("guided", "x0 as guidance combines the two"),
        ("eps_uncond", "the first of these as noise"),
        ("eps_cond", "the second as noise"),
    ):
        if result.trace:
            arrays[name] = torch.stack([getattr(record, name) for record in result.trace]), text
    if isinstance(result, Edited) and result.guide is not None and result.starts is not None:
        arrays["guide"] = result.guide, "the guide as it entered, in [-1, 1] [RGB, y, x]"
        arrays["starts"] = result.starts, "where the last pass started, x_t0 [row, channel, y, x]"
        if result.free is not None:
            arrays["free"] = result.free, "1 where the picture was made anew"
    if isinstance(views, PromptViews):
        arrays |= _attention(views)
    return arrays


def _attention(views: PromptViews) -> Arrays:
    assert isinstance(views.result, Prompted)
    if not views.result.trace:
        return {}
    text = "cross-attention [step, row, place, token], averaged over the layers of this grid"
    maps = attention_arrays(views.result, views.tokens)
    return {f"attention_{name.replace(' ', '_')}": (values, text) for name, values in maps.items()}


def comparison_arrays(views: ComparisonViews) -> Arrays:
    """The table of the measurements, the ends, and what every evaluation saw."""
    result, table = views.result, views.table

    def by_seed(values: Any) -> Any:
        return values.reshape(-1, len(table), *values.shape[1:])

    arrays: dict[str, tuple[Any, str]] = {
        "solver": ([m.cell.solver for m in table], "of each row"),
        "steps": ([m.cell.steps for m in table], "of each row"),
        "evaluations": ([m.cell.evaluations for m in table], "model calls (NFE) of each row"),
        "error": ([m.error for m in table], "relative L2 distance of the latents from the converged solution"),
        "pictures": (by_seed(to_uint8(result.pictures)), "finished pictures [seed, row, y, x, RGB]"),
        "latents": (by_seed(result.latents), "where sampling ended [seed, row, channel, y, x]"),
    }
    for k, seen in enumerate(result.seen):
        arrays[f"t_{k}"] = np.array(seen.t), f"times of the evaluations of row {k}"
        if seen.t:
            arrays[f"x_{k}"] = torch.stack(seen.x), f"latents x_t of row {k} [evaluation, channel, y, x]"
            arrays[f"x0_{k}"] = torch.stack(seen.x0), f"x0 as row {k} predicted it"
    return arrays


def to_csv(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> bytes:
    """A table as UTF-8 CSV; what was not computed (NaN, None) is empty."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(header)
    for row in rows:
        writer.writerow(["" if v is None or v != v else v for v in row])
    return buffer.getvalue().encode()


def flow_csv(views: FlowViews) -> bytes:
    """The path's coefficients, the steps, and a learned field's loss: one line for each point of a curve."""
    recipe = views.flow.recipe
    curves = path_curves(recipe)
    rows: list[tuple[str, str, float, float]] = []
    for name in ("alpha", "sigma", "log_snr"):
        rows += [(name, "t", t, v) for t, v in zip(curves.t, getattr(curves, name), strict=True)]
    rows += [("step_size", "t", t, h) for t, h in zip(curves.grid, curves.step, strict=False)]
    for step, learned, exact in views.flow.history:
        rows += [("loss_learned", "update", step, learned), ("loss_exact", "update", step, exact)]
    return to_csv(("curve", "along", "at", "value"), rows)


def run_csv(views: RunViews) -> bytes:
    """The two predictions step by step, of every picture."""
    header = (
        "picture",
        "step",
        "t",
        "rms_eps_uncond",
        "rms_eps_cond",
        "rms_difference",
        "cosine",
        "rms_d_along",
        "rms_d_across",
    )
    rows = []
    for row in range(len(views.result.pictures)):
        n = views.result.norms(row)
        columns = zip(n.t, n.uncond, n.cond, n.difference, n.cosine, n.along, n.across, strict=True)
        rows += [(row + 1, step + 1, *values) for step, values in enumerate(columns)]
    return to_csv(header, rows)


def comparison_csv(views: ComparisonViews) -> bytes:
    """Cost and distances of every cell, with how its path turns on average."""
    header = (
        "solver",
        "order",
        "budget",
        "steps",
        "evaluations",
        "seconds_of_the_batch",
        "seconds_alone",
        "error",
        "error_spread",
        "reference_floor",
        "compared_with",
        "perceptual",
        "mean_turn_degrees",
    )
    rows = []
    for k, m in enumerate(views.table):
        turned = views.result.seen[k].turned
        mean = sum(turned) / len(turned) if turned else None
        cell, order = m.cell, SOLVERS[m.cell.solver].order
        cost = (cell.evaluations, m.seconds, m.alone)
        distances = (m.error, m.spread, m.floor, m.compares, m.perceptual, mean)
        rows.append((cell.solver, order, cell.budget, cell.steps, *cost, *distances))
    return to_csv(header, rows)
