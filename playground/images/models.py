"""Text-to-image models as three visible parts: text encoder, denoiser, autoencoder.

Stable Diffusion 1.x and 2.x folders in diffusers' layout, and the bundled model, which has the same layout.
Networks and weights are diffusers' and transformers'; the sampling around them is ours.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from playground.batches import Batches
from playground.devices import Device, choose_device
from playground.errors import ModelError
from playground.fields import Condition, Field, Kind
from playground.schedules import Discrete, Linear, schedule_of_checkpoint

ASSETS = Path(__file__).resolve().parent.parent / "assets"
BUNDLED = "emoji"

_KINDS: dict[str, Kind] = {
    "epsilon": "eps",
    "v_prediction": "v",
    "sample": "x0",
    "flow_prediction": "velocity",
}


@dataclass(frozen=True)
class Token:
    """One token as the text encoder reads it.

    Attributes:
        text: the characters it stands for.
        id: its number in the vocabulary.
        kind: "unknown" where the vocabulary has no such word.
        start, end: character span in the prompt; equal for tokens that stand for no characters.
    """

    text: str
    id: int
    kind: Literal["word", "special", "padding", "unknown"]
    start: int
    end: int


class TextEncoder:
    """Prompt to token states [L, D], by a CLIP text model; the last prompts are remembered.

    Attributes:
        length: L, the number of tokens the model reads, special ones included.
    """

    def __init__(self, tokenizer: Any, network: Any, device: Device, remember: int = 256):
        self.tokenizer, self.network, self.device = tokenizer, network, device
        self.length = min(int(tokenizer.model_max_length), int(network.config.max_position_embeddings))
        self._cache: OrderedDict[str, Tensor] = OrderedDict()
        self._remember = remember

    def tokens(self, prompt: str) -> list[Token]:
        """All tokens of the prompt's context, padding included; what does not fit is cut off."""
        out = self.tokenizer(
            prompt,
            padding="max_length",
            truncation=True,
            max_length=self.length,
            return_offsets_mapping=True,
        )
        special = set(self.tokenizer.all_special_ids)
        unknown = self.tokenizer.unk_token_id
        tokens: list[Token] = []
        ended = False
        for id_, (start, end) in zip(out["input_ids"], out["offset_mapping"], strict=True):
            kind: Literal["word", "special", "padding", "unknown"] = "word"
            # CLIP's vocabulary pads with, and calls "unknown", its end token: position decides.
            if start == end and id_ in special:
                kind = "padding" if ended else "special"
                ended = ended or id_ == self.tokenizer.eos_token_id
            elif id_ == unknown:
                kind = "unknown"
            text = prompt[start:end] if end > start else self.tokenizer.convert_ids_to_tokens(id_)
            tokens.append(Token(text, int(id_), kind, start, end))
        return tokens

    def notes(self, prompt: str) -> list[str]:
        """What the model cannot read in a prompt: unknown words, and words past the end of its context."""
        notes = []
        unknown = list(
            dict.fromkeys(
                t.text for t in self.tokens(prompt) if t.kind == "unknown" and any(c.isalnum() for c in t.text)
            )
        )
        if unknown:
            shown = ", ".join(f"“{w[:24]}”" for w in unknown[:6]) + (" and more" if len(unknown) > 6 else "")
            one = len(unknown) == 1
            notes.append(
                f"The model does not know the word{'' if one else 's'} {shown} and reads "
                f"{'it' if one else 'them'} as “unknown”."
            )
        full = len(self.tokenizer(prompt)["input_ids"])
        special = self.tokenizer.num_special_tokens_to_add()
        if full > self.length:
            notes.append(
                f"The prompt has {full - special} tokens, of which the model reads {self.length - special}."
            )
        return notes

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Token states [B, L, D] of B prompts; only prompts not seen lately are computed."""
        for prompt in dict.fromkeys(prompts):
            if prompt in self._cache:
                self._cache.move_to_end(prompt)
                continue
            ids = self.tokenizer(
                prompt,
                padding="max_length",
                truncation=True,
                max_length=self.length,
                return_tensors="pt",
            ).input_ids
            # One prompt a call: a prompt's states then do not depend on its neighbours, not even by rounding.
            states = self.network(ids.to(self.device.where))[0]
            self._cache[prompt] = states[0].to(self.device.dtype)
        result = torch.stack([self._cache[p] for p in prompts])
        while len(self._cache) > self._remember:
            self._cache.popitem(last=False)
        return result


class Denoiser(Field):
    """A UNet as a Field: latents [B, C, H, W], a time and token states give its raw output.

    Args:
        network: diffusers' UNet2DConditionModel.
        config: the checkpoint's scheduler configuration, which tells path and output kind.
        text: encodes the prompts of `encode`.
    """

    def __init__(self, network: Any, config: dict[str, Any], text: TextEncoder, device: Device, name: str):
        super().__init__()
        self.network, self.text, self.device, self.name = network, text, device, name
        self.schedule = schedule_of_checkpoint(config)
        self._levels = int(config.get("num_train_timesteps", 1000))
        flow = isinstance(self.schedule, Linear)
        stated = str(config.get("prediction_type") or ("flow_prediction" if flow else "epsilon"))
        if stated not in _KINDS:
            raise ModelError(f"The model {name!r} predicts {stated!r}, which is not known here.")
        self.kind = _KINDS[stated]
        size = network.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        self.shape = (network.config.in_channels, height, width)
        self._fingerprint = _fingerprint(network) + _fingerprint(text.network)

    @property
    def identity(self) -> str:
        return f"{self._fingerprint}/{self.schedule.identity}/{self.kind}/{self.device}"

    def encode(self, conditions: Sequence[object]) -> Condition:
        """Prompts as token states; None is the empty prompt."""
        return {"encoder_hidden_states": self.text.encode([str(c or "") for c in conditions])}

    def timestep(self, t: Tensor) -> Tensor:
        """What the network is told for the times t [B]: the table index, or T t for flow models."""
        if isinstance(self.schedule, Discrete):
            return self.schedule.index(t).float()
        return (self._levels * t).float()

    def evaluate(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        timestep = self.timestep(t).to(x.device)
        out = self.network(x.to(self.device.dtype), timestep, **condition, return_dict=False)[0]
        # Steps are computed in x's precision (float32): half-precision weights must not round the solver.
        return out.to(x.dtype)


class Autoencoder:
    """Latents to pictures and back: diffusers' AutoencoderKL or AutoencoderTiny.

    Pictures are [B, 3, H, W] in [-1, 1]; latents are in the scale the denoiser works in.
    """

    def __init__(self, network: Any, device: Device):
        self.network, self.device = network, device
        self.batches = Batches()
        self._scale = float(network.config.get("scaling_factor") or 1.0)
        self._shift = float(network.config.get("shift_factor") or 0.0)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in [-1, 1] of latents [B, C, h, w]."""

        def call(z: Tensor) -> Tensor:
            return self.network.decode(z, return_dict=False)[0].float()

        scaled = latents / self._scale + self._shift
        return self.batches(call, scaled.to(self.device.where, self.device.dtype)).clamp(-1, 1)

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Latents [B, C, h, w] of pictures [B, 3, H, W]: the mean, without the autoencoder's own noise."""

        def call(x: Tensor) -> Tensor:
            out = self.network.encode(x)
            return (out.latent_dist.mode() if hasattr(out, "latent_dist") else out.latents).float()

        latents = self.batches(call, pictures.to(self.device.where, self.device.dtype))
        return (latents - self._shift) * self._scale


@dataclass
class TextToImageModel:
    """A text-to-image model: the three parts, and what the page says about it.

    Attributes:
        name: its name in recipes.
        text, denoiser, autoencoder: the parts.
        vocabulary: words by group for a model that knows a fixed list; None if it reads any text.
        examples: prompts that show what it can do.
    """

    name: str
    text: TextEncoder
    denoiser: Denoiser
    autoencoder: Autoencoder
    device: Device
    vocabulary: dict[str, list[str]] | None = None
    examples: tuple[str, ...] = ()


def to_uint8(pictures: Tensor) -> np.ndarray:
    """Pictures [B, 3, H, W] in [-1, 1] as [B, H, W, 3] bytes, rounded as diffusers does."""
    scaled = (pictures / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1) * 255
    return scaled.round().to(torch.uint8).cpu().numpy()


def to_images(pictures: Tensor) -> list[Image.Image]:
    """Pictures [B, 3, H, W] in [-1, 1] as PIL images."""
    return [Image.fromarray(p) for p in to_uint8(pictures)]


def _fingerprint(network: torch.nn.Module) -> str:
    """A short hash of a network's weights: every tensor's name, shape, and a spread of its values."""
    digest = blake2b(digest_size=8)
    for name, value in network.state_dict().items():
        flat = value.detach().flatten()
        spread = flat[:: max(1, len(flat) // 256)].float().cpu().numpy()
        digest.update(f"{name}{tuple(value.shape)}".encode() + spread.tobytes())
    return digest.hexdigest()


def is_hub_id(path_or_id: str) -> bool:
    """Whether this names a model on the hub and nothing on this machine."""
    return (
        bool(re.fullmatch(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", path_or_id, re.ASCII))
        and not Path(path_or_id).exists()
    )


def model_list(paths_or_ids: Sequence[str]) -> dict[str, str]:
    """Names for the models that an operator offers, the bundled one last unless it is the only one.

    Raises:
        ModelError: when one of them cannot be what it should be, before anything is loaded.
    """
    named: dict[str, str] = {}
    for given in [*paths_or_ids, BUNDLED]:
        name = base = Path(locate(given)).name if not is_hub_id(given) else given
        number = 2
        while name in named and named[name] != given:
            name, number = f"{base} ({number})", number + 1
        named[name] = given
    return named


def locate(path_or_id: str, bundled: Path = ASSETS) -> str:
    """The folder of a model (or the hub id, as it is), after checks that need no loading.

    Args:
        path_or_id: a bundled model's name, a folder in diffusers' layout, or "owner/name" on the hub.

    Raises:
        ModelError: if there is nothing loadable, in one sentence.
    """
    try:
        if re.fullmatch(r"[\w-]+", path_or_id) and (bundled / path_or_id).is_dir():
            return str(bundled / path_or_id)
        path = Path(path_or_id).expanduser()
        path.stat()
    except FileNotFoundError:
        pass
    except (OSError, RuntimeError, ValueError):
        raise ModelError(f"There is no model at {path_or_id[:80]!r}.") from None
    if path.is_file():
        if path.suffix in {".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle"}:
            raise ModelError(
                f"{path.name} is a pickle, which can run code when opened: only safetensors are loaded."
            )
        raise ModelError(f"{path.name} is a file: a model is a folder with a model_index.json (diffusers' layout).")
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise ModelError(f"The folder {path.name!r} is not a model: it has no model_index.json.")
        return str(path)
    if is_hub_id(path_or_id):
        return path_or_id
    raise ModelError(f"There is no model at {path_or_id[:80]!r}.")


def load_model(
    path_or_id: str = BUNDLED,
    device: Device | None = None,
    name: str | None = None,
    compiled: bool = False,
) -> TextToImageModel:
    """Load a text-to-image model.

    Args:
        path_or_id: "emoji" for the bundled one, a folder in diffusers' layout, or a hub id.
        device: where and in what precision; chosen if not given.
        name: its name in recipes; by default the folder's.
        compiled: whether to torch.compile the denoiser (the first call of each shape is then slow).

    Raises:
        ModelError: in one sentence, if it is missing, not a model, of a family not supported or a pickle.
    """
    _quiet()
    from diffusers import StableDiffusionPipeline

    device = device or choose_device()
    where = locate(path_or_id)
    name = name or Path(where).name
    local = Path(where).is_dir()
    if local:
        _check_folder(Path(where), name)
    try:
        parts = StableDiffusionPipeline.from_pretrained(
            where,
            dtype=device.dtype,
            use_safetensors=True,
            safety_checker=None,
            local_files_only=local or os.environ.get("HF_HUB_OFFLINE") == "1",
        )
    except Exception as error:
        logging.getLogger(__name__).info("loading failed", exc_info=error)
        raise ModelError(_why_not(path_or_id, local, error)) from None
    for network in (parts.text_encoder, parts.unet, parts.vae):
        network.to(device.where).eval().requires_grad_(False)
    if compiled:
        parts.unet.compile()
    text = TextEncoder(parts.tokenizer, parts.text_encoder, device)
    try:
        denoiser = Denoiser(parts.unet, dict(parts.scheduler.config), text, device, name)
        vocabulary, examples = _vocabulary(Path(where), parts.tokenizer) if local else (None, ())
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(_why_not(path_or_id, local, error)) from None
    return TextToImageModel(name, text, denoiser, Autoencoder(parts.vae, device), device, vocabulary, examples)


def _quiet() -> None:
    """No progress bars, and no advice about pipelines and image processors that are not used here."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # some are logged during the import
    import diffusers
    import transformers

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def _check_folder(folder: Path, name: str) -> None:
    """Refuse, with the reason, what from_pretrained would refuse with a page of text."""
    try:
        index = json.loads((folder / "model_index.json").read_text("utf-8"))
        family = str(index["_class_name"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ModelError(f"The model {name!r} cannot be read: its model_index.json is damaged.") from None
    if family != "StableDiffusionPipeline":
        raise ModelError(f"The model {name!r} is a {family[:60]}, which cannot be used here yet.")
    for part in ("unet", "vae", "text_encoder"):
        if not any((folder / part).glob("*.safetensors")):
            pickled = any((folder / part).glob("*.bin"))
            raise ModelError(
                f"The model {name!r} has {'only pickled weights' if pickled else 'no weights'} for its {part}: "
                "only safetensors are loaded."
            )


def _why_not(path_or_id: str, local: bool, error: Exception) -> str:
    if not local:
        return f"The model {path_or_id!r} is neither a folder here nor could it be fetched from the hub."
    return f"The model {Path(path_or_id).name!r} could not be loaded ({type(error).__name__})."


def _vocabulary(folder: Path, tokenizer: Any) -> tuple[dict[str, list[str]] | None, tuple[str, ...]]:
    """What a model says about its own words, in `vocabulary.json`; else the list of a word-level tokenizer."""
    file = folder / "vocabulary.json"
    if file.is_file():
        stated = json.loads(file.read_text("utf-8"))
        return stated["words"], tuple(stated.get("examples", ()))
    # A vocabulary of pieces (byte pairs, as CLIP's) can spell anything: there is no list to show.
    if type(tokenizer.backend_tokenizer.model).__name__ != "WordLevel":
        return None, ()
    words = [w for w in tokenizer.get_vocab() if w not in tokenizer.all_special_tokens]
    return {"words": sorted(words)}, ()
