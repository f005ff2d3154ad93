"""The benchmark for GPUs, with tiny shapes and without one."""

from __future__ import annotations

import json

import torch

from benchmarks import gpu
from playground.devices import choose_device

ROW = {"model", "pixels", "batch", "side", "pictures_per_second", "share_of_peak"}


def last_line(capsys) -> dict:
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_without_a_gpu_it_says_so_in_one_line(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main([])
    assert capsys.readouterr().out == "There is no GPU here, so there is nothing to measure.\n"


def test_tiny_models_of_both_families_agree_with_diffusers_and_are_measured(capsys):
    gpu.main(["--tiny", "--eager"])
    found = last_line(capsys)
    assert [(r["model"], r["side"]) for r in found["measured"]] == [
        (family, side) for family in ("sd15", "sdxl") for side in ("diffusers", "ours")
    ]
    for row in found["measured"]:
        assert set(row) == ROW and row["pictures_per_second"] > 0
    assert found["peak_teraflops"] > 0


def test_operations_are_those_of_the_shapes(tmp_path):
    device = choose_device("cpu")
    shape = gpu.Shape("sd15", 16, tiny=True)
    eager = gpu.Eager(gpu.write(shape, tmp_path / "m", torch.float32), device)
    # A row more is as many operations more, and the first convolution alone is 2 * 9 * 4 * 32 per pixel.
    assert eager.operations(2) == 2 * eager.operations(1) > 2 * 2 * 9 * 4 * 32 * shape.latents**2


def test_the_peak_is_that_of_a_product():
    assert 1e8 < gpu.peak(choose_device("cpu"), 128) < 1e15
