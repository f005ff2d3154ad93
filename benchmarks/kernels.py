"""The settings that the defaults are chosen from: attention kernel, memory format and threads, on this device.

    python -m benchmarks.kernels                    # --device cuda, --model FOLDER

Milliseconds of one call of the denoiser for 1, 2 and 16 rows, each the quickest of several in turns. "as chosen" is
the way that loading a model chose; default_over_best is its time over that of the quickest combination, the largest
of all numbers of rows: what the choice leaves on the table here.
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any

from benchmarks.common import report  # isort: skip  (before torch: it lets threads that wait sleep)

import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from playground.devices import choose_device, threads, usual_threads
from playground.images.models import BUNDLED, TextToImageModel, load_model

ROWS = (1, 2, 16)
ROUNDS = 7
ATTENTION = {"sdpa": AttnProcessor2_0, "explicit": AttnProcessor}
CHOSEN = ("loaded", "sdpa", 0)
"""As a page calls the denoiser: its rows and threads as loading chose them, whatever number of threads is named."""


def plain(model: TextToImageModel, memory_format: torch.memory_format) -> Any:
    """The denoiser's network as diffusers loads it, in a memory format."""
    kind, network = type(model.denoiser.network), model.denoiser.network
    made = kind.from_config(network.config)
    made.load_state_dict(network.state_dict())
    made = made.to(model.device.where, model.device.dtype, memory_format=memory_format)
    return made.eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description="Attention kernels, memory formats and threads.")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", default=BUNDLED)
    o = parser.parse_args()
    device = choose_device(o.device)
    model = load_model(o.model, device)
    denoiser, usual = model.denoiser, usual_threads()
    formats = {
        "loaded": denoiser.network,
        "channels last": plain(model, torch.channels_last),
        "contiguous": plain(model, torch.contiguous_format),
    }
    counts = sorted({1, usual}) if device.where.type == "cpu" else [usual]
    settings: list[tuple[str, str, int]] = [CHOSEN, *itertools.product(formats, ATTENTION, counts)]
    processors = {kind: {name: make() for name, make in ATTENTION.items()} for kind in formats}
    one_row = f"{denoiser.row_threads or usual} of {usual} threads"
    print(f"chosen: {one_row} for one row; rows {'apart' if denoiser.apart else 'together'}")
    table: dict[str, dict[str, float]] = {}
    left = 1.0

    def call(rows: int, kind: str, attention: str, count: int) -> float:
        x, t = torch.zeros(rows, *denoiser.shape, device=device.where), torch.full((rows,), 0.5)
        condition = denoiser.encode([""] * rows)
        denoiser.network = formats[kind]
        denoiser.network.set_attn_processor(processors[kind][attention])
        began = time.perf_counter()
        if (kind, attention, count) == CHOSEN:
            denoiser.evaluate(x, t, condition)
        else:
            with threads(count):
                denoiser._forward(x, t, condition)
        if device.where.type == "cuda":
            torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - began)

    with torch.no_grad():
        for rows in ROWS:
            taken: dict[tuple[str, str, int], list[float]] = {s: [] for s in settings}
            for _, one in itertools.product(range(ROUNDS + 1), settings):
                taken[one].append(call(rows, *one))
            best = {one: min(times[1:]) for one, times in taken.items()}
            table[f"{rows} rows"] = {
                "as chosen" if one == CHOSEN else "{}, {}, {} threads".format(*one): round(v, 1)
                for one, v in best.items()
            }
            left = max(left, best[CHOSEN] / min(best.values()))
            print(f"{rows} rows")
            for name, milliseconds in sorted(table[f"{rows} rows"].items(), key=lambda item: item[1]):
                print(f"    {milliseconds:8.1f} ms  {name}")
    report(default_over_best=round(left, 3), milliseconds=table)


if __name__ == "__main__":
    main()
