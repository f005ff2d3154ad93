"""Tiny random-weight models of every family, written once per session."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

# The networks here are tiny: threads that wait for one another would cost more than they compute.
torch.set_num_threads(1)

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

WORDS = ("a", "red", "green", "cat", "dog", "on", "the", "grass", "blue", "sky")
SD_TABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def _subword_tokenizer():
    """CLIP's own kind: byte pairs, padded with its end token, which also stands for the unknown."""
    from transformers import CLIPTokenizer

    merges = [("c", "a"), ("ca", "t</w>"), ("r", "e"), ("re", "d</w>")]
    pieces = [*string.ascii_lowercase, *(c + "</w>" for c in string.ascii_lowercase), *("".join(m) for m in merges)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={p: i for i, p in enumerate(pieces)}, merges=merges, model_max_length=16)


def _word_tokenizer():
    """One token per known word."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {w: i for i, w in enumerate(("<s>", "</s>", "<pad>", "<unk>", *WORDS))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=12, **names)


def _t5_tokenizer():
    """T5's own kind: pieces with probabilities, an end token, no beginning."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import T5TokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces += [(f"\u2581{w}", -3.0) for w in WORDS] + [(c, -6.0) for c in string.ascii_lowercase]
    unigram = Tokenizer(models.Unigram(pieces, unk_id=2))
    unigram.normalizer = normalizers.Lowercase()
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    unigram.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return T5TokenizerFast(tokenizer_object=unigram, model_max_length=300, extra_ids=0)


def _clip(tokenizer, width, layers=2, projection=None):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        projection_dim=projection or width,
        hidden_act="gelu" if projection else "quick_gelu",
    )
    return CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)


def _kl(channels, **more):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        **more,
    )


def write_sdxl(folder: Path, zeros: bool = True) -> Path:
    """Two encoders of widths 16 and 24, and a UNet that is told sizes."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    torch.manual_seed(3)
    tokenizer = _subword_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=40,
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 12,
    )
    _make_prompts_matter(unet)
    with torch.no_grad():
        for value in unet.add_embedding.parameters():
            value *= 6  # so that the sizes matter
    StableDiffusionXLPipeline(
        vae=_kl(4, scaling_factor=0.13025, force_upcast=True),
        text_encoder=_clip(tokenizer, 16),
        text_encoder_2=_clip(tokenizer, 24, layers=3, projection=12),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=EulerDiscreteScheduler(**SD_TABLE, steps_offset=1, timestep_spacing="leading"),
        force_zeros_for_empty_prompt=zeros,
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def write_sd3(folder: Path, t5: bool = True) -> Path:
    """Two CLIP encoders of widths 16 and 24, T5 if wanted, a transformer, and 16 latent channels."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(4)
    tokenizer, pieces = _subword_tokenizer(), _t5_tokenizer()
    first = _clip(tokenizer, 16, projection=16)
    with torch.no_grad():
        first.text_projection.weight.copy_(torch.eye(16))  # as in the real one
    third = T5EncoderModel(T5Config(vocab_size=len(pieces), d_model=48, d_kv=8, d_ff=32, num_layers=2, num_heads=2))
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=48,
        caption_projection_dim=16,
        pooled_projection_dim=16 + 12,
        out_channels=16,
        pos_embed_max_size=8,
    )
    with torch.no_grad():
        for name, value in transformer.named_parameters():
            if "context_embedder" in name or "text_embedder" in name or "proj_out" in name:
                value *= 6
    StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_kl(16, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=first,
        tokenizer=tokenizer,
        text_encoder_2=_clip(tokenizer, 24, projection=12),
        tokenizer_2=tokenizer,
        text_encoder_3=third if t5 else None,
        tokenizer_3=pieces if t5 else None,
    ).save_pretrained(folder)
    return folder


def _make_prompts_matter(unet) -> None:
    with torch.no_grad():
        for name, value in unet.named_parameters():
            if "attn2.to_out.0.weight" in name or "attn2.to_v" in name:
                value *= 6


def _write(folder: Path, tokenizer, scheduler, autoencoder: str, seed: int, **more) -> Path:
    from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(seed)
    text = _clip(tokenizer, 16)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        **more,
    )
    _make_prompts_matter(unet)
    if autoencoder == "kl":
        vae = _kl(4, scaling_factor=0.18215)
    else:
        vae = AutoencoderTiny(
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
            latent_channels=4,
        )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def _sd2_scheduler():
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        **SD_TABLE, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )


@pytest.fixture(scope="session")
def sd2_folder(tmp_path_factory) -> Path:
    """A folder laid out as Stable Diffusion 2's: its attention is projected by linear layers."""
    folder = tmp_path_factory.mktemp("models") / "sd2"
    return _write(folder, _subword_tokenizer(), _sd2_scheduler(), "kl", 3, use_linear_projection=True)


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Folders by family: "sd1" (eps), "sd2" (v), "flow" (velocity)."""
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    root = tmp_path_factory.mktemp("models")
    sd1 = diffusers.PNDMScheduler(**SD_TABLE, skip_prk_steps=True, steps_offset=1)
    sd2 = _sd2_scheduler()
    flow = diffusers.FlowMatchEulerDiscreteScheduler()
    return {
        "sd1": _write(root / "sd1", _subword_tokenizer(), sd1, "kl", 0),
        "sd2": _write(root / "sd2", _word_tokenizer(), sd2, "tiny", 1),
        "flow": _write(root / "flow", _word_tokenizer(), flow, "tiny", 2),
    }


@pytest.fixture(scope="module")
def backend(folders) -> Iterator[Any]:
    """A backend whose bundled model is the tiny one of Stable Diffusion 1's kind, one for a module's tests."""
    from playground.backend import Backend

    made = Backend({"emoji": str(folders["sd1"])})
    yield made
    made.close()


@pytest.fixture(scope="session")
def large_folders(tmp_path_factory) -> dict[str, Path]:
    """Folders of the families with several encoders: "sdxl", "sd3" and "sd3 without t5"."""
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    root = tmp_path_factory.mktemp("large-models")
    return {
        "sdxl": write_sdxl(root / "sdxl"),
        "sd3": write_sd3(root / "sd3"),
        "sd3 without t5": write_sd3(root / "sd3-small", t5=False),
    }


@pytest.fixture(scope="session")
def large_models(large_folders):
    """The same, loaded on the CPU."""
    from playground.devices import choose_device
    from playground.images.models import load_model

    return {name: load_model(str(folder), choose_device("cpu")) for name, folder in large_folders.items()}


@pytest.fixture(scope="session")
def large_pipelines(large_folders):
    """The same as diffusers' own pipelines."""
    from diffusers import DiffusionPipeline

    loaded = {}
    for name, folder in large_folders.items():
        # A folder that is silent about T5 has to be loaded with that said.
        more = {"text_encoder_3": None, "tokenizer_3": None} if name.endswith("without t5") else {}
        loaded[name] = DiffusionPipeline.from_pretrained(folder, **more)
        loaded[name].set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="session")
def models(folders):
    """The same, loaded on the CPU."""
    from playground.devices import choose_device
    from playground.images.models import load_model

    return {name: load_model(str(folder), choose_device("cpu")) for name, folder in folders.items()}


@pytest.fixture(scope="session")
def pipelines(folders):
    """The same folders as diffusers' own pipelines."""
    from diffusers import StableDiffusionPipeline

    loaded = {}
    for name, folder in folders.items():
        loaded[name] = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
        loaded[name].set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        pytest.skip("there is no chromium here")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield made
        made.close()
