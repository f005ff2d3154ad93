"""Models of the tests as single files, with the names that the checkpoints of their authors have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Weights = dict[str, Tensor]


def weights_of(folder: Path, part: str) -> Weights:
    return load_file(next((folder / part).glob("*.safetensors")))


def renamed(weights: Weights, rules: list[tuple[str, str]], prefix: str) -> Weights:
    """All rules (regular expressions) applied to every name, in order."""
    result = {}
    for name, value in weights.items():
        for old, new in rules:
            name = re.sub(old, new, name)
        result[prefix + name] = value
    return result


def unet(weights: Weights, layers: int = 1) -> Weights:
    """LDM's names: blocks counted through, inputs and outputs, with `layers` residual blocks a level."""

    def down(i: str, j: str) -> int:
        return int(i) * (layers + 1) + int(j) + 1

    result = {}
    for name, value in weights.items():
        for old, new in [
            (r"time_embedding\.linear_1", "time_embed.0"),
            (r"time_embedding\.linear_2", "time_embed.2"),
            (r"add_embedding\.linear_1", "label_emb.0.0"),
            (r"add_embedding\.linear_2", "label_emb.0.2"),
            (r"^conv_in\.", "input_blocks.0.0."),
            (r"^conv_norm_out\.", "out.0."),
            (r"^conv_out\.", "out.2."),
            (r"mid_block\.resnets\.0", "middle_block.0"),
            (r"mid_block\.attentions\.0", "middle_block.1"),
            (r"mid_block\.resnets\.1", "middle_block.2"),
        ]:
            name = re.sub(old, new, name)
        name = re.sub(
            r"down_blocks\.(\d)\.(resnets|attentions)\.(\d)",
            lambda m: f"input_blocks.{down(m[1], m[3])}.{int(m[2] == 'attentions')}",
            name,
        )
        name = re.sub(
            r"down_blocks\.(\d)\.downsamplers\.0\.conv", lambda m: f"input_blocks.{down(m[1], layers)}.0.op", name
        )
        name = re.sub(
            r"up_blocks\.(\d)\.(resnets|attentions)\.(\d)",
            lambda m: f"output_blocks.{down(m[1], m[3]) - 1}.{int(m[2] == 'attentions')}",
            name,
        )
        name = re.sub(
            r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"output_blocks.{down(m[1], layers) - 1}.2", name
        )
        if re.match(r"(input_blocks|output_blocks|middle_block)\.", name) and ".transformer_blocks." not in name:
            for old, new in [
                (r"\.norm1\.", ".in_layers.0."),
                (r"\.conv1\.", ".in_layers.2."),
                (r"\.norm2\.", ".out_layers.0."),
                (r"\.conv2\.", ".out_layers.3."),
                (r"\.time_emb_proj\.", ".emb_layers.1."),
                (r"\.conv_shortcut\.", ".skip_connection."),
            ]:
                name = re.sub(old, new, name)
        result["model.diffusion_model." + name] = value
    return result


def vae(weights: Weights) -> Weights:
    """LDM's names; its decoder counts levels from the finest, and its attention is a convolution."""
    levels = 1 + max(int(m[1]) for n in weights if (m := re.match(r"decoder\.up_blocks\.(\d)", n)))
    result = {}
    for name, value in weights.items():
        name = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", name)
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda m: f"up.{levels - 1 - int(m[1])}.block.", name)
        name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        if "mid_block.attentions.0" in name:
            if name.endswith("weight") and value.ndim == 2:
                value = value[:, :, None, None]
            name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
            name = re.sub(r"to_out\.0", "proj_out", re.sub(r"to_([qkv])", r"\1", name))
        result["first_stage_model." + name] = value.contiguous()
    return result


def clip(weights: Weights, prefix: str) -> Weights:
    """transformers' names, below `text_model`."""
    wrapped = ("text_model.", "text_projection.")
    return {prefix + (n if n.startswith(wrapped) else f"text_model.{n}"): v for n, v in weights.items()}


def open_clip(weights: Weights, prefix: str) -> Weights:
    """OpenCLIP's names: queries, keys and values in one matrix, the projection transposed."""
    result, packed = {}, {}
    for name, value in weights.items():
        name = name.removeprefix("text_model.")
        if name == "text_projection.weight":
            result[prefix + "text_projection"] = value.T.contiguous()
            continue
        for old, new in [
            (r"^embeddings\.position_embedding\.weight", "positional_embedding"),
            (r"^embeddings\.token_embedding", "token_embedding"),
            (r"^final_layer_norm", "ln_final"),
            (r"^encoder\.layers\.", "transformer.resblocks."),
            (r"layer_norm([12])", r"ln_\1"),
            (r"\.fc1\.", ".c_fc."),
            (r"\.fc2\.", ".c_proj."),
            (r"\.self_attn\.", ".attn."),
        ]:
            name = re.sub(old, new, name)
        if found := re.match(r"(.*\.attn)\.([qkv])_proj\.(weight|bias)", name):
            packed.setdefault((found[1], found[3]), {})[found[2]] = value
        else:
            result[prefix + name] = value
    for (block, kind), three in packed.items():
        result[f"{prefix}{block}.in_proj_{kind}"] = torch.cat([three[k] for k in "qkv"])
    return result


def transformer(weights: Weights) -> Weights:
    """The names of Stable Diffusion 3: queries, keys and values in one matrix; some scales before shifts."""
    result, packed = {}, {}
    last = max(int(m[1]) for n in weights if (m := re.match(r"transformer_blocks\.(\d+)", n)))

    def swapped(value: Tensor) -> Tensor:
        return torch.cat(value.chunk(2)[::-1])

    for name, value in weights.items():
        if re.match(rf"norm_out|transformer_blocks\.{last}\.norm1_context", name):
            value = swapped(value)
        for old, new in [
            (r"^pos_embed\.pos_embed", "pos_embed"),
            (r"^pos_embed\.proj", "x_embedder.proj"),
            (r"^time_text_embed\.timestep_embedder\.linear_1", "t_embedder.mlp.0"),
            (r"^time_text_embed\.timestep_embedder\.linear_2", "t_embedder.mlp.2"),
            (r"^time_text_embed\.text_embedder\.linear_1", "y_embedder.mlp.0"),
            (r"^time_text_embed\.text_embedder\.linear_2", "y_embedder.mlp.2"),
            (r"^proj_out", "final_layer.linear"),
            (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"),
            (r"^transformer_blocks\.(\d+)\.norm1\.linear", r"joint_blocks.\1.x_block.adaLN_modulation.1"),
            (
                r"^transformer_blocks\.(\d+)\.norm1_context\.linear",
                r"joint_blocks.\1.context_block.adaLN_modulation.1",
            ),
            (r"^transformer_blocks\.(\d+)\.attn\.to_([qkv])\.", r"joint_blocks.\1.x_block.attn.\2."),
            (r"^transformer_blocks\.(\d+)\.attn\.add_([qkv])_proj\.", r"joint_blocks.\1.context_block.attn.\2."),
            (r"^transformer_blocks\.(\d+)\.attn\.to_out\.0", r"joint_blocks.\1.x_block.attn.proj"),
            (r"^transformer_blocks\.(\d+)\.attn\.to_add_out", r"joint_blocks.\1.context_block.attn.proj"),
            (r"^transformer_blocks\.(\d+)\.ff\.net\.0\.proj", r"joint_blocks.\1.x_block.mlp.fc1"),
            (r"^transformer_blocks\.(\d+)\.ff\.net\.2", r"joint_blocks.\1.x_block.mlp.fc2"),
            (r"^transformer_blocks\.(\d+)\.ff_context\.net\.0\.proj", r"joint_blocks.\1.context_block.mlp.fc1"),
            (r"^transformer_blocks\.(\d+)\.ff_context\.net\.2", r"joint_blocks.\1.context_block.mlp.fc2"),
        ]:
            name = re.sub(old, new, name)
        if found := re.match(r"(.*\.attn)\.([qkv])\.(weight|bias)", name):
            packed.setdefault((found[1], found[3]), {})[found[2]] = value
        else:
            result[name] = value
    for (block, kind), three in packed.items():
        result[f"{block}.qkv.{kind}"] = torch.cat([three[k] for k in "qkv"])
    return {f"model.diffusion_model.{name}": value for name, value in result.items()}


def write(folder: Path, file: Path) -> Path:
    """A folder in diffusers' layout as a single file in its authors' layout."""
    if (folder / "transformer").is_dir():
        tensors = transformer(weights_of(folder, "transformer"))
        tensors |= clip(weights_of(folder, "text_encoder"), "text_encoders.clip_l.transformer.")
        tensors |= clip(weights_of(folder, "text_encoder_2"), "text_encoders.clip_g.transformer.")
        tensors.pop("text_encoders.clip_l.transformer.text_projection.weight")
        if (folder / "text_encoder_3").is_dir():
            t5 = weights_of(folder, "text_encoder_3")
            t5.setdefault("encoder.embed_tokens.weight", t5["shared.weight"].clone())
            tensors |= {f"text_encoders.t5xxl.transformer.{name}": value for name, value in t5.items()}
    elif (folder / "text_encoder_2").is_dir():
        tensors = unet(weights_of(folder, "unet"))
        tensors |= clip(weights_of(folder, "text_encoder"), "conditioner.embedders.0.transformer.")
        tensors |= open_clip(weights_of(folder, "text_encoder_2"), "conditioner.embedders.1.model.")
    else:
        tensors = unet(weights_of(folder, "unet"))
        encoder = {name.removeprefix("text_model."): v for name, v in weights_of(folder, "text_encoder").items()}
        if json.loads((folder / "unet" / "config.json").read_text())["use_linear_projection"]:
            # Stable Diffusion 2's has a projection of its encoder too, which is not used.
            width = encoder["final_layer_norm.weight"].numel()
            tensors |= open_clip(encoder | {"text_projection.weight": torch.eye(width)}, "cond_stage_model.model.")
        else:
            tensors |= clip(encoder, "cond_stage_model.transformer.")
    tensors |= vae(weights_of(folder, "vae"))
    save_file({name: value.contiguous() for name, value in tensors.items()}, file)
    return file
