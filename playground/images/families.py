"""Families of text-to-image models: what differs between Stable Diffusion 1.x, 2.x, XL and 3.

A family says which pipeline of diffusers reads the files, which networks it has, how its text encoders are read
together, and what the denoiser is told. To add one, write one class here and put it into `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from playground.devices import Device
from playground.errors import ModelError
from playground.fields import Condition
from playground.images.models import Autoencoder, Denoiser, Text, TextEncoder, Token


class TextEncoders:
    """Several text encoders that read the same prompt.

    Attributes:
        encoders: all of them; the first one's tokens are shown.
    """

    def __init__(self, *encoders: TextEncoder):
        self.encoders = encoders

    def tokens(self, prompt: str) -> list[Token]:
        """The tokens of the first encoder."""
        return self.encoders[0].tokens(prompt)

    def notes(self, prompt: str) -> list[str]:
        """What an encoder cannot read; encoders that say the same are quoted once."""
        return list(dict.fromkeys(note for e in self.encoders for note in e.notes(prompt)))

    @property
    def summary(self) -> str:
        raise NotImplementedError

    def condition(self, prompts: Sequence[str]) -> Condition:
        raise NotImplementedError


class SDXLText(TextEncoders):
    """Two CLIP encoders read the same 77 tokens (Podell et al. 2023, section 2.1).

    Their penultimate layers stand side by side, 768 + 1280 numbers a token, and the second one's projection of
    the whole prompt is told beside the time.

    Args:
        no_prompt_is_zero: whether the model was trained with zeros, not with an empty text, where the prompt was
            dropped. Then the empty prompt is zeros, in both branches. diffusers' pipeline encodes an empty prompt
            as a text, and an empty negative one, too; only no negative prompt is zeros there. Here one space is
            that empty text.
    """

    def __init__(self, first: TextEncoder, second: TextEncoder, no_prompt_is_zero: bool):
        super().__init__(first, second)
        self.no_prompt_is_zero = no_prompt_is_zero

    @property
    def summary(self) -> str:
        a, b = self.encoders
        return (
            f"Two encoders read the same {a.length} tokens, which become {a.length} × ({a.width} + {b.width}) "
            f"numbers, and {b.network.config.projection_dim} for the whole prompt."
            + (" No prompt is zeros, as in training; one space is an empty text." if self.no_prompt_is_zero else "")
        )

    def condition(self, prompts: Sequence[str]) -> Condition:
        states = torch.cat([e.encode(prompts) for e in self.encoders], dim=-1)
        vector = self.encoders[1].pooled(prompts)
        if self.no_prompt_is_zero:
            said = torch.tensor([p != "" for p in prompts], device=states.device, dtype=states.dtype)
            states, vector = states * said[:, None, None], vector * said[:, None]
        return {"encoder_hidden_states": states, "text_embeds": vector}


class SD3Text(TextEncoders):
    """Two CLIP encoders and, if it is there, T5 (Esser et al. 2024, section 4 and appendix B).

    The CLIP states stand side by side, padded with zeros to T5's width, and T5's states follow as further
    tokens; without T5 these are zeros. The two CLIP projections together are told beside the time.

    Args:
        width: of the states the transformer reads.
    """

    T5_LENGTH: ClassVar[int] = 256

    def __init__(self, first: TextEncoder, second: TextEncoder, t5: TextEncoder | None, width: int):
        super().__init__(*(e for e in (first, second, t5) if e is not None))
        self.t5, self.width = t5, width

    @property
    def summary(self) -> str:
        a, b = self.encoders[:2]
        return (
            f"Two encoders read the same {a.length} tokens, which become {a.length} × ({a.width} + {b.width}) "
            f"numbers, and {a.network.config.projection_dim + b.network.config.projection_dim} for the whole prompt"
            + (f"; T5 reads {self.t5.length} tokens of its own, shown last." if self.t5 else "; T5 is not loaded.")
        )

    def condition(self, prompts: Sequence[str]) -> Condition:
        first, second = self.encoders[:2]
        clip = torch.cat([first.encode(prompts), second.encode(prompts)], dim=-1)
        clip = torch.nn.functional.pad(clip, (0, self.width - clip.shape[-1]))
        nothing = clip.new_zeros(len(prompts), self.T5_LENGTH, self.width)
        t5 = self.t5.encode(prompts) if self.t5 else nothing
        return {
            "encoder_hidden_states": torch.cat([clip, t5], dim=-2),
            "pooled_projections": torch.cat([first.pooled(prompts), second.pooled(prompts)], dim=-1),
        }


class SDXLDenoiser(Denoiser):
    """A UNet that is also told the picture's size and how it was cropped (Podell et al. 2023, section 2.2).

    Attributes:
        sizes: height and width before and the top and left of cropping, then height and width of the picture, in
            pixels; here the picture's own size, uncropped.
    """

    sizes: tuple[int, ...]

    def encode(self, conditions: Sequence[object]) -> Condition:
        told = super().encode(conditions)
        like = told["text_embeds"]
        sizes = torch.tensor([self.sizes] * len(conditions), dtype=like.dtype, device=like.device)
        return {**told, "time_ids": sizes}

    def _told(self, condition: Condition) -> Mapping[str, Any]:
        more: dict[str, Tensor] = {name: condition[name] for name in ("text_embeds", "time_ids")}
        rest = {name: value for name, value in condition.items() if name not in more}
        return {**rest, "added_cond_kwargs": more}


class Family:
    """One family of models.

    Class attributes:
        pipeline_name: the pipeline of diffusers that reads it, as model_index.json says.
        title: for people.
        networks: its networks' folders.
    """

    pipeline_name: ClassVar[str]
    title: ClassVar[str]
    networks: ClassVar[tuple[str, ...]]

    @classmethod
    def pipeline(cls) -> Any:
        """diffusers' class."""
        import diffusers

        return getattr(diffusers, cls.pipeline_name)

    @classmethod
    def options(cls, index: Mapping[str, Any], file: str | None) -> dict[str, Any]:
        """What else the pipeline is told when it loads a folder with this model_index.json, or a single file."""
        return {}

    @classmethod
    def text(cls, parts: Any, device: Device) -> Text:
        raise NotImplementedError

    @classmethod
    def denoiser(cls, parts: Any, text: Text, device: Device, name: str) -> Denoiser:
        return Denoiser(parts.unet, dict(parts.scheduler.config), text, device, name)

    @classmethod
    def autoencoder(cls, parts: Any, device: Device) -> Autoencoder:
        return Autoencoder(parts.vae, device)


class SD(Family):
    """Stable Diffusion 1.x and 2.x (Rombach et al. 2022): one CLIP encoder, a UNet, four latent channels."""

    pipeline_name, title = "StableDiffusionPipeline", "Stable Diffusion 1.x or 2.x"
    networks = ("unet", "vae", "text_encoder")

    @classmethod
    def options(cls, index, file):
        # A single file's configuration may ask for the checker, which the file does not hold.
        return {"safety_checker": None} | ({"feature_extractor": None} if file else {})

    @classmethod
    def text(cls, parts, device):
        return TextEncoder(parts.tokenizer, parts.text_encoder, device)


class SDXL(Family):
    """Stable Diffusion XL (Podell et al. 2023): two CLIP encoders, a UNet that is told sizes."""

    pipeline_name, title = "StableDiffusionXLPipeline", "Stable Diffusion XL"
    networks = ("unet", "vae", "text_encoder", "text_encoder_2")

    @classmethod
    def text(cls, parts, device):
        return SDXLText(
            TextEncoder(parts.tokenizer, parts.text_encoder, device, layer=-2),
            TextEncoder(parts.tokenizer_2, parts.text_encoder_2, device, layer=-2),
            bool(parts.config.force_zeros_for_empty_prompt),
        )

    @classmethod
    def denoiser(cls, parts, text, device, name):
        denoiser = SDXLDenoiser(parts.unet, dict(parts.scheduler.config), text, device, name)
        size = tuple(n * parts.vae_scale_factor for n in denoiser.shape[1:])
        denoiser.sizes = (*size, 0, 0, *size)
        return denoiser

    @classmethod
    def autoencoder(cls, parts, device):
        return Autoencoder(parts.vae, device, overflows=bool(parts.vae.config.force_upcast))


class SD3(Family):
    """Stable Diffusion 3 (Esser et al. 2024): flow matching, a transformer, two CLIP encoders and T5 if wanted."""

    pipeline_name, title = "StableDiffusion3Pipeline", "Stable Diffusion 3"
    networks = ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")

    @classmethod
    def options(cls, index, file):
        # T5 is as large as all the rest, and many folders and files come without it.
        there = (index.get("text_encoder_3") or [None])[0] is not None
        if there and file is not None:
            from safetensors import safe_open

            with safe_open(file, "pt") as tensors:
                there = any("t5xxl" in name for name in tensors.keys())  # noqa: SIM118
        return {} if there else {"text_encoder_3": None, "tokenizer_3": None}

    @classmethod
    def text(cls, parts, device):
        t5 = None
        if parts.text_encoder_3 is not None:
            length = SD3Text.T5_LENGTH
            t5 = TextEncoder(parts.tokenizer_3, parts.text_encoder_3, device, length=length, reader="T5")
        return SD3Text(
            TextEncoder(parts.tokenizer, parts.text_encoder, device, layer=-2, reader="CLIP"),
            TextEncoder(parts.tokenizer_2, parts.text_encoder_2, device, layer=-2, reader="CLIP"),
            t5,
            int(parts.transformer.config.joint_attention_dim),
        )

    @classmethod
    def denoiser(cls, parts, text, device, name):
        return Denoiser(parts.transformer, dict(parts.scheduler.config), text, device, name)


FAMILIES: dict[str, type[Family]] = {f.pipeline_name: f for f in (SD, SDXL, SD3)}
"""The families by the pipeline that model_index.json names."""


def family_of(index: Mapping[str, Any], name: str) -> type[Family]:
    """The family of a model_index.json.

    Raises:
        ModelError: for another family, and for noise levels that are not known here.
    """
    stated = str(index["_class_name"])
    if stated not in FAMILIES:
        raise ModelError(f"The model {name!r} is a {stated[:60]}, which cannot be used here yet.")
    scheduler = index.get("scheduler")
    if isinstance(scheduler, list | tuple) and any("EDM" in str(part) for part in scheduler):
        raise ModelError(f"The model {name!r} was trained on EDM's noise levels, which cannot be used here yet.")
    return FAMILIES[stated]
