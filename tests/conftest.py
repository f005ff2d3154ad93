"""Tiny random-weight models in the layout of Stable Diffusion, written once per session."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import string
from pathlib import Path

import pytest
import torch

# The networks here are tiny: threads that wait for one another would cost more than they compute.
torch.set_num_threads(1)

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


def _write(folder: Path, tokenizer, scheduler, autoencoder: str, seed: int) -> Path:
    from diffusers import AutoencoderKL, AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
    )
    with torch.no_grad():
        for name, value in unet.named_parameters():
            if "attn2.to_out.0.weight" in name or "attn2.to_v" in name:
                value *= 6  # so that the prompt matters
    if autoencoder == "kl":
        vae = AutoencoderKL(
            block_out_channels=(8, 8),
            norm_num_groups=4,
            latent_channels=4,
            scaling_factor=0.18215,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
        )
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


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Folders by family: "sd1" (eps), "sd2" (v), "flow" (velocity)."""
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    root = tmp_path_factory.mktemp("models")
    sd1 = diffusers.PNDMScheduler(**SD_TABLE, skip_prk_steps=True, steps_offset=1)
    sd2 = diffusers.DDIMScheduler(
        **SD_TABLE, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    flow = diffusers.FlowMatchEulerDiscreteScheduler()
    return {
        "sd1": _write(root / "sd1", _subword_tokenizer(), sd1, "kl", 0),
        "sd2": _write(root / "sd2", _word_tokenizer(), sd2, "tiny", 1),
        "flow": _write(root / "flow", _word_tokenizer(), flow, "tiny", 2),
    }


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
