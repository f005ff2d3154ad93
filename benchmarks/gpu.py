"""Random-weight models of real sizes on a GPU: eager diffusers, ours, and ours compiled.

    python -m benchmarks.gpu

One model with the shapes of Stable Diffusion 1.5 and one with those of SDXL, at 512 and 1024 pixels, batches of 1
and 8, float16, 20 steps of DPM-Solver++(2M) with guidance, decoder included. Random weights take the time of
trained ones, and the pictures are noise: that both sides agree is asserted on the latents. For each side: pictures
per second, and the share of the device's matrix peak (a large float16 product, measured here) that the denoiser's
multiplications, counted by torch, make use of in that time.

Where there is no GPU it says so in one line. `--tiny` runs all of it with tiny shapes, on the CPU as well: that is
a test of this file, and its figures mean nothing. `--eager` leaves out what is compiled.
"""

from __future__ import annotations

import argparse
import gc
import string
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import STEPS, a_backend, report
from playground.backend import Backend, Result
from playground.devices import Device
from playground.images.models import load_model
from playground.noise import start_noise
from playground.recipes import TextToImage

PROMPT, W = "a cat on the grass", 4.0
ROUNDS = 3
PEAK_SIDE = 8192
SEED = 999_000
"""Of the pictures that are compared."""


@dataclass(frozen=True)
class Shape:
    """A family at one size.

    Attributes:
        family: "sd15" or "sdxl".
        pixels: side of its pictures.
        tiny: whether channels and depth are those of a test.
    """

    family: str
    pixels: int
    tiny: bool

    @property
    def latents(self) -> int:
        return self.pixels // (2 if self.tiny else 8)


def _unet(shape: Shape) -> Any:
    from diffusers import UNet2DConditionModel

    common: dict[str, Any] = {"sample_size": shape.latents, "layers_per_block": 1 if shape.tiny else 2}
    if shape.family == "sd15":
        widths = (32, 32) if shape.tiny else (320, 640, 1280, 1280)
        return UNet2DConditionModel(
            block_out_channels=widths,
            down_block_types=("CrossAttnDownBlock2D",) * (len(widths) - 1) + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (len(widths) - 1),
            cross_attention_dim=32 if shape.tiny else 768,
            attention_head_dim=8,
            **common,
        )
    return UNet2DConditionModel(
        block_out_channels=(32, 32, 32) if shape.tiny else (320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64 if shape.tiny else 2048,
        attention_head_dim=(2, 2, 2) if shape.tiny else (5, 10, 20),
        transformer_layers_per_block=(1, 1, 1) if shape.tiny else (1, 2, 10),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8 if shape.tiny else 256,
        projection_class_embeddings_input_dim=6 * 8 + 32 if shape.tiny else 6 * 256 + 1280,
        **common,
    )


def _text(width: int, layers: int, heads: int, tokenizer: Any, projected: bool) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def _tokenizer() -> Any:
    """Letters only: what is read takes no time to speak of, whatever it is."""
    from transformers import CLIPTokenizer

    pieces = [*string.ascii_lowercase, *(c + "</w>" for c in string.ascii_lowercase)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={p: i for i, p in enumerate(pieces)}, merges=[], model_max_length=77)


def write(shape: Shape, folder: Path, dtype: torch.dtype) -> Path:
    """A model of a shape with random weights, as a folder in diffusers' layout."""
    import diffusers

    torch.manual_seed(0)
    tokenizer, tiny = _tokenizer(), shape.tiny
    widths = (32, 32) if tiny else (128, 256, 512, 512)
    vae = diffusers.AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=1 if tiny else 2,
        latent_channels=4,
        sample_size=shape.pixels,
        scaling_factor=0.18215,
        force_upcast=False,
    )
    scheduler = diffusers.DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        timestep_spacing="trailing",
        steps_offset=1,
    )
    if shape.family == "sd15":
        pipe: Any = diffusers.StableDiffusionPipeline(
            vae=vae,
            text_encoder=_text(32 if tiny else 768, 2 if tiny else 12, 2 if tiny else 12, tokenizer, False),
            tokenizer=tokenizer,
            unet=_unet(shape),
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    else:
        pipe = diffusers.StableDiffusionXLPipeline(
            vae=vae,
            text_encoder=_text(32 if tiny else 768, 2 if tiny else 12, 2 if tiny else 12, tokenizer, False),
            text_encoder_2=_text(32 if tiny else 1280, 2 if tiny else 32, 2 if tiny else 20, tokenizer, True),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            unet=_unet(shape),
            scheduler=scheduler,
            add_watermarker=False,
        )
    pipe.to(dtype=dtype).save_pretrained(folder)
    return folder


class Eager:
    """diffusers' own pipeline, warm, from the noise that our seeds mean."""

    def __init__(self, folder: Path, device: Device):
        from diffusers import DiffusionPipeline

        self.pipe: Any = DiffusionPipeline.from_pretrained(folder, dtype=device.dtype).to(device.where)
        self.pipe.set_progress_bar_config(disable=True)
        self.where, self.dtype = device.where, device.dtype

    def __call__(self, batch: int, seed: int, steps: int, output: str = "np") -> Any:
        config = self.pipe.unet.config
        shape = (config.in_channels, config.sample_size, config.sample_size)
        noise = torch.stack([start_noise(seed + i, shape) for i in range(batch)])
        self.pipe.scheduler.set_timesteps(steps)
        factor = float(self.pipe.scheduler.init_noise_sigma)
        alpha = self.pipe.scheduler.alphas_cumprod[self.pipe.scheduler.timesteps[0]]
        # Sampling starts from sigma eps on both sides.
        noise = noise * float((1 - alpha).sqrt()) / factor
        return self.pipe(
            [PROMPT] * batch,
            num_inference_steps=steps,
            guidance_scale=W,
            latents=noise.to(self.where, self.dtype),
            output_type=output,
        ).images

    def operations(self, batch: int) -> int:
        """Floating-point operations of the denoiser in one step of a batch with guidance, as torch counts them."""
        config, rows = self.pipe.unet.config, 2 * batch
        made = {"device": self.where, "dtype": self.dtype}
        x = torch.zeros(rows, config.in_channels, config.sample_size, config.sample_size, **made)
        told = torch.zeros(rows, 77, config.cross_attention_dim, **made)
        more: dict[str, Any] = {}
        if config.addition_embed_type:
            width = self.pipe.text_encoder_2.config.projection_dim
            more["added_cond_kwargs"] = {
                "text_embeds": torch.zeros(rows, width, **made),
                "time_ids": torch.zeros(rows, 6, **made),
            }
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.pipe.unet(x, timestep=torch.tensor(1, device=self.where), encoder_hidden_states=told, **more)
        return int(counter.get_total_flops())


def _waited(where: torch.device) -> None:
    if where.type == "cuda":
        torch.cuda.synchronize(where)


def peak(device: Device, side: int = PEAK_SIDE) -> float:
    """Floating-point operations a second of a product of two square matrices: the best of several."""
    a, b = (torch.randn(side, side, device=device.where).to(device.dtype) for _ in range(2))
    best = 0.0
    for _ in range(8):
        _waited(device.where)
        began = time.perf_counter()
        a @ b
        _waited(device.where)
        best = max(best, 2 * side**3 / (time.perf_counter() - began))
    return best


def seconds(work: Callable[[int], Any], where: torch.device, rounds: int) -> float:
    """The shortest of several calls, which are told their number; the first one warms up."""
    taken = []
    for i in range(rounds + 1):
        _waited(where)
        began = time.perf_counter()
        work(i)
        _waited(where)
        taken.append(time.perf_counter() - began)
    return min(taken[1:])


def _ours(backend: Backend, batch: int, seed: int, steps: int) -> Any:
    recipe = TextToImage(model="model", prompt=PROMPT, w=W, steps=steps, pictures=batch, seed=seed)
    for event in backend.run(recipe, visitor="benchmark"):
        if isinstance(event, Result):
            assert not event.reused and not event.value.taken_over, "a kept result was timed"
            return event.value
    raise RuntimeError(f"the run ended with {event}")


def measure(
    shape: Shape,
    batches: tuple[int, ...],
    device: Device,
    steps: int,
    rounds: int,
    most: float,
    compiled: bool = True,
) -> list[Any]:
    """Pictures per second of the three sides for each batch size, and their shares of the peak.

    Args:
        most: the device's matrix peak in operations a second.
        compiled: whether the compiled side is measured.
    """

    def timed(side: str, run: Callable[[int, int], Any], batch: int) -> dict[str, Any]:
        taken = seconds(lambda i: run(batch, 100 * i), device.where, rounds)
        row = {
            "model": shape.family,
            "pixels": shape.pixels,
            "batch": batch,
            "side": side,
            "pictures_per_second": round(batch / taken, 4),
            "share_of_peak": round(work[batch] / taken / most, 4),
        }
        print("  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
        return row

    with tempfile.TemporaryDirectory() as folder:
        written = write(shape, Path(folder) / "model", device.dtype)
        theirs = Eager(written, device)
        work = {batch: steps * theirs.operations(batch) for batch in batches}
        expected = {batch: theirs(batch, SEED, steps, "latent").float().cpu() for batch in batches}
        rows = [timed("diffusers", partial(theirs, steps=steps), batch) for batch in batches]
        del theirs
        for side in ("ours", "ours, compiled") if compiled else ("ours",):
            gc.collect()
            torch.cuda.empty_cache()
            with a_backend(models={"model": str(written)}, device=device, compiled=side != "ours") as backend:
                for batch in batches:
                    _agree(_ours(backend, batch, SEED, steps).latents, expected[batch], device.dtype)
                    rows.append(timed(side, partial(_ours, backend, steps=steps), batch))
    return rows


def _agree(ours: torch.Tensor, theirs: torch.Tensor, dtype: torch.dtype) -> None:
    """Both sides made the same latents, as far as their precision goes; theirs are kept in it between steps."""
    off = float((ours - theirs).norm() / theirs.norm())
    assert off < (1e-3 if dtype == torch.float32 else 0.1), f"the two sides differ by {off:.2%}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, on any device: a test of the benchmark")
    parser.add_argument("--eager", action="store_true", help="nothing is compiled")
    chosen = parser.parse_args(arguments)
    tiny = chosen.tiny
    gpu = torch.cuda.is_available()
    if not (gpu or tiny):
        print("There is no GPU here, so there is nothing to measure.")
        return
    load_model()  # silences the libraries
    where = torch.device("cuda" if gpu else "cpu")
    device = Device(where, torch.float16 if gpu else torch.float32)
    most = peak(device, 256 if tiny else PEAK_SIDE)
    sides, batches = ((16,), (2,)) if tiny else ((512, 1024), (1, 8))
    rows = []
    for family in ("sd15", "sdxl"):
        for pixels in sides:
            shape = Shape(family, pixels, tiny)
            steps, rounds = (2, 1) if tiny else (STEPS, ROUNDS)
            rows += measure(shape, batches, device, steps, rounds, most, not chosen.eager)
    report(device=device.title, peak_teraflops=round(most / 1e12, 3), measured=rows)


if __name__ == "__main__":
    main()
