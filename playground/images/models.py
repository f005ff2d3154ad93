"""Text-to-image models as three visible parts: text encoder, denoiser, autoencoder.

The families are in `families.py`: Stable Diffusion 1.x and 2.x, XL and 3. A model is a folder in diffusers'
layout (the bundled one is), a single file of weights beside such a folder's configuration, or a name on the hub.
Networks and weights are diffusers' and transformers'; the sampling around them is ours.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.overrides import TorchFunctionMode

from playground.batches import Batches
from playground.devices import Device, choose_device, quickest, side_by_side, threads, usual_threads
from playground.errors import ModelError, TooLarge, is_out_of_memory
from playground.fields import Condition, Field, Kind
from playground.images.prepacked import MOST_BYTES, forget, nbytes, prepack
from playground.schedules import Discrete, Linear, schedule_of_checkpoint

ASSETS = Path(__file__).resolve().parent.parent / "assets"
BUNDLED = "emoji"
REMEMBERED = 2**25
"""Bytes that the token states of prompts seen lately take at most, for each text encoder."""

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
    """Prompt to token states [L, D], by a CLIP or T5 text model; the last prompts are remembered.

    Args:
        layer: which hidden states are the token states; None: the last layer's, after its norm.
        length: L, where the tokenizer does not say it.
        reader: who reads, in the sentences of `notes`.

    Attributes:
        length: L, the number of tokens the model reads, special ones included.
        width: D.
        encoders: all encoders of the model; here only this one.
    """

    def __init__(
        self,
        tokenizer: Any,
        network: Any,
        device: Device,
        remember: int = 256,
        layer: int | None = None,
        length: int | None = None,
        reader: str = "the model",
    ):
        self.tokenizer, self.network, self.device = tokenizer, network, device
        self.length = length or min(int(tokenizer.model_max_length), int(network.config.max_position_embeddings))
        self.reader = reader
        self._layer, self._remember = layer, remember
        # A fast tokenizer keeps its padding as state, and the page reads words while the worker encodes.
        self._tokenizing = threading.Lock()
        self._cache: OrderedDict[str, tuple[Tensor, Tensor | None]] = OrderedDict()

    @property
    def width(self) -> int:
        return int(self.network.config.hidden_size)

    @property
    def encoders(self) -> tuple[TextEncoder, ...]:
        return (self,)

    @property
    def summary(self) -> str:
        """What becomes of a prompt, in a sentence."""
        return f"{self.length} tokens become {self.length} × {self.width} numbers."

    def _context(self, prompt: str, **options: Any) -> Any:
        """The tokenizer's answer for the model's context: padded, and cut off where it ends."""
        with self._tokenizing:
            return self.tokenizer(prompt, padding="max_length", truncation=True, max_length=self.length, **options)

    def count(self, prompt: str) -> int:
        """Tokens of a whole prompt, special ones and those past the model's context included."""
        with self._tokenizing:
            return len(self.tokenizer(prompt)["input_ids"])

    def tokens(self, prompt: str) -> list[Token]:
        """All tokens of the prompt's context, padding included; what does not fit is cut off."""
        out = self._context(prompt, return_offsets_mapping=True)
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
                f"{self.reader[:1].upper()}{self.reader[1:]} does not know the word{'' if one else 's'} {shown} "
                f"and reads {'it' if one else 'them'} as “unknown”."
            )
        full = self.count(prompt)
        special = self.tokenizer.num_special_tokens_to_add()
        if full > self.length:
            notes.append(
                f"The prompt has {full - special} tokens, of which {self.reader} reads {self.length - special}."
            )
        return notes

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Token states [B, L, D] of B prompts; only prompts not seen lately are computed."""
        return torch.stack([states for states, _ in self._read(prompts)])

    def pooled(self, prompts: Sequence[str]) -> Tensor:
        """One vector for each whole prompt [B, P], of encoders that have it."""
        return torch.stack([vector for _, vector in self._read(prompts) if vector is not None])

    def condition(self, prompts: Sequence[str]) -> Condition:
        """What the denoiser is told of B prompts."""
        return {"encoder_hidden_states": self.encode(prompts)}

    @torch.no_grad()
    def _read(self, prompts: Sequence[str]) -> list[tuple[Tensor, Tensor | None]]:
        for prompt in dict.fromkeys(prompts):
            if prompt in self._cache:
                self._cache.move_to_end(prompt)
                continue
            self._forget(prompts)
            ids = self._context(prompt, return_tensors="pt").input_ids
            # One prompt a call: a prompt's states then do not depend on its neighbours, not even by rounding.
            more = {} if self._layer is None else {"output_hidden_states": True}
            out = self.network(ids.to(self.device.where), **more)
            states = out[0] if self._layer is None else out.hidden_states[self._layer]
            vector = getattr(out, "text_embeds", None)
            dtype = self.device.dtype
            self._cache[prompt] = states[0].to(dtype), None if vector is None else vector[0].to(dtype)
        return [self._cache[p] for p in prompts]

    def _forget(self, but: Sequence[str]) -> None:
        """Make room for one more prompt: those that were read longest ago go first. What is asked for now stays,
        however much it is: a run asks for the same prompts in every step."""
        held = float(sum(part.nbytes for read in self._cache.values() for part in read if part is not None))
        room = held / max(1, len(self._cache))  # all prompts take the same
        for old in [p for p in self._cache if p not in but]:
            if len(self._cache) < self._remember and held + room <= REMEMBERED:
                break
            del self._cache[old]
            held -= room


class Text(Protocol):
    """What the denoiser and the page want of a model's text encoders, however many they are."""

    @property
    def encoders(self) -> tuple[TextEncoder, ...]: ...

    @property
    def summary(self) -> str: ...

    def tokens(self, prompt: str) -> list[Token]: ...

    def notes(self, prompt: str) -> list[str]: ...

    def condition(self, prompts: Sequence[str]) -> Condition: ...


def readings(text: Text, prompt: str) -> list[list[Token]]:
    """A prompt's tokens as each encoder reads them; encoders that read the same words and pieces are shown once."""
    shown: dict[tuple[tuple[str, str], ...], list[Token]] = {}
    for encoder in text.encoders:
        tokens = encoder.tokens(prompt)
        # Encoders may differ in what they pad with, and read the same.
        shown.setdefault(tuple((t.text, t.kind) for t in tokens if t.kind != "padding"), tokens)
    return list(shown.values())


class Denoiser(Field):
    """A UNet or transformer as a Field: latents [B, C, H, W], a time and token states give its raw output.

    Args:
        network: diffusers' UNet2DConditionModel or SD3Transformer2DModel.
        config: the checkpoint's scheduler configuration, which tells path and output kind.
        text: encodes the prompts of `encode`.

    Attributes:
        compiled: whether the network is compiled, which happens at its first call with each number of rows. Rows
            that are computed side by side count by part.
        tell: is told in a sentence when that begins, and None when it has ended.
        row_threads: with how many CPU threads the network is called for a single row; None: with all there are.
        apart: whether the rows of a batch are computed side by side, in as many parts as there are CPU threads.
    """

    def __init__(self, network: Any, config: dict[str, Any], text: Text, device: Device, name: str):
        super().__init__()
        self.network, self.text, self.device, self.name = network, text, device, name
        try:
            self.schedule = schedule_of_checkpoint(config)
        except ValueError as problem:
            raise ModelError(f"The model {name!r} cannot be sampled: {problem}") from None
        self._levels = int(config.get("num_train_timesteps", 1000))
        flow = isinstance(self.schedule, Linear)
        stated = str(config.get("prediction_type") or ("flow_prediction" if flow else "epsilon"))
        if stated not in _KINDS:
            raise ModelError(f"The model {name!r} predicts {stated!r}, which is not known here.")
        self.kind = _KINDS[stated]
        size = network.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        self.shape = (network.config.in_channels, height, width)
        self.compiled = False
        self.tell: Callable[[str | None], None] = lambda said: None
        self._compiled_for: set[tuple[int, int]] = set()  # numbers of rows and of threads
        self.row_threads: int | None = None
        self.apart = False
        self._fingerprint = "".join(map(_fingerprint, (network, *(e.network for e in text.encoders))))

    @property
    def identity(self) -> str:
        # In another way the results are the same within rounding only.
        how = f"{self.row_threads or 'all'} threads{', rows apart' * self.apart}{', compiled' * self.compiled}"
        return f"{self._fingerprint}/{self.schedule.identity}/{self.kind}/{self.device}/{how}"

    def encode(self, conditions: Sequence[object]) -> Condition:
        """Prompts as the text encoders read them; None is the empty prompt."""
        return self.text.condition([str(c or "") for c in conditions])

    def timestep(self, t: Tensor) -> Tensor:
        """What the network is told for the times t [B]: the table index, or T t for flow models."""
        if isinstance(self.schedule, Discrete):
            return self.schedule.index(t).float()
        return (self._levels * t).float()

    def _told(self, condition: Condition) -> Mapping[str, Any]:
        """The condition as the network's arguments."""
        return condition

    def evaluate(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        # A control that looks inside the network takes its compiled form away while it does.
        takes_part = self.compiled and self.network._compiled_call_impl is not None
        parts, each = self._parts(len(x))
        new = {(part.stop - part.start, each) for part in parts} - self._compiled_for
        if not (takes_part and new):
            return self._call(x, t, condition)
        most = max(size for size, _ in new)
        many = f"{most} sample-forwards" if most > 1 else "one sample-forward"
        self.tell(
            f"The denoiser is being compiled for {many} at once, which can take minutes; the next call of this "
            "size is quick."
        )
        try:
            for size, _ in new:  # one after the other: the compiler does not work on two at once
                with threads(each):
                    self._forward(x[:size], t[:size], {name: value[:size] for name, value in condition.items()})
                self._compiled_for.add((size, each))
        finally:
            self.tell(None)
        return self._call(x, t, condition)

    @torch.no_grad()
    def choose_threads(self) -> None:
        """Measure how the CPU's threads are used best: by a single row, and by two.

        Each layer wakes the other threads and waits for them, which in a small network can take longer than they
        save; parts of a batch that are computed side by side wait for each other once. How much it matters depends
        on the network and the machine. The results are the same within rounding.
        """
        usual = usual_threads()
        if usual == 1:
            return
        x, t = torch.zeros(2, *self.shape), torch.full((2,), 0.5)
        condition = self.encode(["", ""])

        def rows(count: int, **how: Any) -> Callable[[], object]:
            def call() -> None:
                vars(self).update(how)
                self._call(x[:count], t[:count], {name: value[:count] for name, value in condition.items()})

            return call

        self.row_threads = quickest({n: rows(1, row_threads=n) for n in (usual, 1)})
        self.apart = quickest({apart: rows(2, apart=apart) for apart in (False, True)})
        forget(self.network)  # what was packed for the slower ways

    def _parts(self, rows: int) -> tuple[list[slice], int]:
        """The parts of a batch that are computed side by side, and with how many CPU threads each is."""
        usual = usual_threads()
        if rows < 2:
            return [slice(0, rows)], self.row_threads or usual
        # A control that looks inside the network must see all rows at once.
        if not self.apart or torch.is_grad_enabled() or vars(self.network).get("looked_into"):
            return [slice(0, rows)], usual
        count = min(rows, usual)
        return [slice(rows * k // count, rows * (k + 1) // count) for k in range(count)], usual // count

    def _call(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        parts, each = self._parts(len(x))
        if len(parts) == 1:
            with threads(each):
                return self._forward(x, t, condition)

        def call(part: slice) -> Tensor:
            return self._forward(x[part], t[part], {name: value[part] for name, value in condition.items()})

        return torch.cat(side_by_side(call, parts, each))

    def _forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        timestep = self.timestep(t).to(x.device)
        told = self._told(condition)
        out = self.network(x.to(self.device.dtype), timestep=timestep, **told, return_dict=False)[0]
        # Steps are computed in x's precision (float32): half-precision weights must not round the solver.
        return out.to(x.dtype)


class Autoencoder:
    """Latents to pictures and back: diffusers' AutoencoderKL or AutoencoderTiny.

    Pictures are [B, 3, H, W] in [-1, 1]; latents are in the scale the denoiser works in.

    Args:
        overflows: whether its numbers are too large for float16; it then works in float32.
    """

    def __init__(self, network: Any, device: Device, overflows: bool = False):
        self.network, self.device = network, device
        self._dtype = torch.float32 if overflows and device.dtype == torch.float16 else device.dtype
        network.to(self._dtype)
        self.batches = Batches()
        self._scale = float(network.config.get("scaling_factor") or 1.0)
        self._shift = float(network.config.get("shift_factor") or 0.0)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in [-1, 1] of latents [B, C, h, w]."""

        def call(z: Tensor) -> Tensor:
            return self.network.decode(z, return_dict=False)[0].float()

        scaled = latents / self._scale + self._shift
        return self.batches(call, scaled.to(self.device.where, self._dtype)).clamp(-1, 1)

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Latents [B, C, h, w] of pictures [B, 3, H, W]: the mean, without the autoencoder's own noise."""

        def call(x: Tensor) -> Tensor:
            out = self.network.encode(x)
            return (out.latent_dist.mode() if hasattr(out, "latent_dist") else out.latents).float()

        latents = self.batches(call, pictures.to(self.device.where, self._dtype))
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
    text: Text
    denoiser: Denoiser
    autoencoder: Autoencoder
    device: Device
    vocabulary: dict[str, list[str]] | None = None
    examples: tuple[str, ...] = ()

    @property
    def picture_size(self) -> tuple[int, int]:
        """(width, height) of its pictures."""
        _, height, width = self.denoiser.shape
        factor = 2 ** (len(self.autoencoder.network.config.block_out_channels) - 1)
        return factor * width, factor * height


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


def needs_hub(path_or_id: str) -> bool:
    """Whether a model, or the configuration of a single file, is named on the hub."""
    return any(map(is_hub_id, path_or_id.split(FROM)))


def model_list(paths_or_ids: Sequence[str]) -> dict[str, str]:
    """Names for the models that an operator offers, the bundled one last unless it is the only one.

    Raises:
        ModelError: when one of them cannot be what it should be, before anything is loaded.
    """
    named: dict[str, str] = {}
    for given in [*paths_or_ids, BUNDLED]:
        name = base = _name(locate(given))
        number = 2
        while name in named and named[name] != given:
            name, number = f"{base} ({number})", number + 1
        named[name] = given
    return named


FROM = "@"
"""Between a single file and the folder or hub id that its configuration comes from."""


def _name(where: str) -> str:
    """A model's name in recipes, from what `locate` returned."""
    if is_hub_id(where):
        return where
    file = _single_file(where)
    return Path(file[0]).stem if file else Path(where).name


def _single_file(where: str) -> tuple[str, str] | None:
    """A single file and where its configuration is ("" if that is not said), from what `locate` returned."""
    if Path(where).is_file():
        return where, ""
    file, _, config = where.rpartition(FROM)
    return (file, config) if file and Path(file).is_file() else None


def locate(path_or_id: str, bundled: Path = ASSETS) -> str:
    """The folder or file of a model (or the hub id, as it is), after checks that need no loading.

    Args:
        path_or_id: a bundled model's name, a folder in diffusers' layout, "owner/name" on the hub, or a
            .safetensors file, which may be followed by "@" and the folder or hub id of its configuration.

    Raises:
        ModelError: if there is nothing loadable, in one sentence.
    """
    try:
        if re.fullmatch(r"[\w-]+", path_or_id) and (bundled / path_or_id).is_dir():
            return str(bundled / path_or_id)
        path = Path(path_or_id).expanduser()
        if not path.exists() and FROM in path_or_id:
            file, config = path_or_id.rsplit(FROM, 1)
            path = Path(file).expanduser()
            if path.is_file():
                return f"{_checkpoint(path)}{FROM}{config if is_hub_id(config) else _folder(Path(config))}"
        path.stat()
    except FileNotFoundError:
        pass
    except ModelError:
        raise
    except (OSError, RuntimeError, ValueError):
        raise ModelError(f"There is no model at {path_or_id[:80]!r}.") from None
    if path.is_file():
        return str(_checkpoint(path))
    if path.is_dir():
        return str(_folder(path))
    if is_hub_id(path_or_id):
        return path_or_id
    raise ModelError(f"There is no model at {path_or_id[:80]!r}.")


def _checkpoint(path: Path) -> Path:
    """A single file of weights.

    Raises:
        ModelError: for a pickle, and for what is no file of tensors.
    """
    if path.suffix in {".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle"}:
        raise ModelError(f"{path.name} is a pickle, which can run code when opened: only safetensors are loaded.")
    if path.suffix != ".safetensors":
        raise ModelError(
            f"{path.name} is a file: a model is a .safetensors file or a folder with a model_index.json "
            "(diffusers' layout)."
        )
    return path


def _folder(path: Path) -> Path:
    """A folder in diffusers' layout.

    Raises:
        ModelError: when it is none.
    """
    folder = path.expanduser()
    if not (folder / "model_index.json").is_file():
        raise ModelError(f"The folder {folder.name!r} is not a model: it has no model_index.json.")
    return folder


def load_model(
    path_or_id: str = BUNDLED,
    device: Device | None = None,
    name: str | None = None,
    compiled: bool = False,
) -> TextToImageModel:
    """Load a text-to-image model.

    Args:
        path_or_id: "emoji" for the bundled one, a folder in diffusers' layout, a hub id, or a .safetensors
            file, as "FILE@FOLDER" or "FILE@ID" with where its configuration is. A folder of configurations
            and tokenizers without weights is enough for that; without one, the configuration of the family
            that diffusers guesses is looked for among the hub's models on this machine.
        device: where and in what precision; chosen if not given.
        name: its name in recipes; by default the folder's or file's.
        compiled: whether to torch.compile the denoiser (the first call of each shape is then slow).

    Raises:
        ModelError: in one sentence, if it is missing, not a model, of a family not supported or a pickle.
    """
    device = device or choose_device()
    try:
        with _default_dtype_left_alone():
            model = _load(path_or_id, device, name, compiled)
        # Outside of it, where every call of torch by this thread takes a detour.
        return _settled(model, locate(path_or_id), compiled)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    raise TooLarge(
        f"The model {name or _name(locate(path_or_id))!r} does not fit into the memory of {device.title}: close "
        "other programs, choose a half precision (--dtype) or, on a GPU, --offload."
    )


# Two loads at once would each take the other's replacement for the original.
_loading = threading.Lock()


class _OwnDefaultDtype(TorchFunctionMode):
    """The default dtype of one thread, for the functions that networks make their parameters with."""

    MAKES = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn)

    def __init__(self) -> None:
        super().__init__()
        self.dtype = torch.get_default_dtype()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self.MAKES and kwargs.get("dtype") is None:
            kwargs = {**kwargs, "dtype": self.dtype}
        return func(*args, **kwargs)


@contextmanager
def _default_dtype_left_alone() -> Iterator[None]:
    """What diffusers and transformers set as the default dtype holds in this thread alone.

    They set it to the dtype of the weights while they build a network, and torch knows only one for the whole
    process: what other threads compute meanwhile, such as the noise of a picture, would be in half precision.
    """
    with _loading, _OwnDefaultDtype() as own:
        original, here = torch.set_default_dtype, threading.get_ident()

        def set_default_dtype(dtype: torch.dtype) -> None:
            if threading.get_ident() == here:
                own.dtype = dtype
            else:
                original(dtype)

        torch.set_default_dtype = set_default_dtype
        try:
            yield
        finally:
            torch.set_default_dtype = original


def _load(path_or_id: str, device: Device, name: str | None, compiled: bool) -> TextToImageModel:
    _quiet()
    from playground.images.families import family_of

    where = locate(path_or_id)
    name = name or _name(where)
    offline = os.environ.get("HF_HUB_OFFLINE") == "1"
    try:
        if file := _single_file(where):
            family, parts = _from_single_file(*file, device, name, offline)
            folder = None
        else:
            folder = Path(where) if Path(where).is_dir() else None
            index = _index(where, offline)
            family = family_of(index, name)
            if folder:
                _check_weights(folder, family.networks, name)
                _check_stated(folder, index, family.networks, name)
            parts = family.pipeline().from_pretrained(
                where,
                dtype=device.dtype,
                use_safetensors=True,
                variant=_variant(folder, family.networks) if folder else None,
                local_files_only=folder is not None or offline,
                **family.options(index, None),
            )
    except Exception as error:
        raise _failed(where, error) from None
    try:
        text = family.text(parts, device)
        denoiser = family.denoiser(parts, text, device, name)
        autoencoder = family.autoencoder(parts, device)
        vocabulary, examples = _vocabulary(folder, parts.tokenizer) if folder else (None, ())
        # Without the package accelerate, diffusers leaves a transformer in float32 whatever it was asked for.
        denoiser.network.to(device.dtype)
        networks = [denoiser.network, *(e.network for e in text.encoders)]
        for network in (*networks, parts.vae):
            network.eval().requires_grad_(False)
            if not device.offload:
                network.to(device.where)
        if device.offload:
            take_turns([*networks, parts.vae], device.where)
            _in_tiles(parts.vae)
        if not compiled:
            prepack(denoiser.network)
            prepack(parts.vae)
    except Exception as error:
        raise _failed(where, error) from None
    return TextToImageModel(name, text, denoiser, autoencoder, device, vocabulary, examples)


def _settled(model: TextToImageModel, where: str, compiled: bool) -> TextToImageModel:
    """The same with the quickest use of this machine's threads, and compiled if that was asked for."""
    denoiser, device = model.denoiser, model.device
    if device.where.type == "cpu" and nbytes(denoiser.network) <= MOST_BYTES:
        try:
            denoiser.choose_threads()
        except Exception as error:
            raise _failed(where, error) from None
    if compiled:
        # With frozen weights the compiler lays them out for its kernels; each shape has kernels of its own.
        frozen = {"freezing": True} if device.where.type == "cpu" else None
        # Beyond its limit the compiler would leave further numbers of rows as they are, without a word on the page.
        torch._dynamo.config.recompile_limit = COMPILED_SIZES
        denoiser.network.compile(dynamic=False, options=frozen)
        denoiser.compiled = True
    return model


COMPILED_SIZES = 64
"""Numbers of rows for which a denoiser is compiled: those of a run, a sweep or a comparison, with both branches."""


TILE = 64
"""Latents a side beyond which an offloaded autoencoder works in tiles of so many, which overlap and are blended."""


def _in_tiles(autoencoder: Any) -> None:
    """Let an autoencoder work on a part of a large picture at a time: 1024 pixels in float32 take more memory than
    any denoiser. Pictures of one tile are as without."""
    # The tiny one has tiles of its own, which take every size for eight times its latents'.
    if hasattr(autoencoder, "tiled_decode"):
        autoencoder.enable_tiling()
        autoencoder.tile_latent_min_size = TILE
        autoencoder.tile_sample_min_size = TILE * 2 ** (len(autoencoder.config.block_out_channels) - 1)


class TakeTurns:
    """Networks that are on the device one at a time, each brought there when it is called.

    The weights of models whose parts do not fit together wait in the main memory. A run calls the text
    encoders first, then the denoiser and at its end the autoencoder, so it moves each once, and twice more for
    every preview.
    """

    def __init__(self, device: torch.device):
        self.device = device
        # The one that is there, as long as its model is kept.
        self._present: Callable[[], torch.nn.Module | None] = lambda: None

    def join(self, networks: Sequence[torch.nn.Module]) -> None:
        """Take networks in."""
        for network in networks:
            network.to("cpu")
            network.register_forward_pre_hook(self._called)
            # An autoencoder is not called as a whole.
            for half in {"encode", "decode"} & set(dir(network)):
                setattr(network, half, partial(self._half, network, getattr(network, half)))

    def _half(self, network: torch.nn.Module, half: Callable[..., Any], *args: Any, **options: Any) -> Any:
        self._called(network, None)
        return half(*args, **options)

    def _called(self, network: torch.nn.Module, _: Any) -> None:
        present = self._present()
        if network is not present:
            if present is not None:
                present.to("cpu")
            self._present = lambda: None
            try:
                network.to(self.device)
            except BaseException:
                network.to("cpu")  # it did not fit, and a part of it was there
                raise
            self._present = weakref.ref(network)


@cache
def _turns(device: torch.device) -> TakeTurns:
    return TakeTurns(device)


def take_turns(networks: Sequence[torch.nn.Module], device: torch.device) -> None:
    """Let networks take turns on a device, with those of all other models that do."""
    _turns(device).join(networks)


def _quiet() -> None:
    """No progress bars, and no advice about pipelines and image processors that are not used here."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # some are logged during the import
    import diffusers
    import transformers

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def _index(where: str, offline: bool) -> dict[str, Any]:
    """The model_index.json of a folder or of a model on the hub.

    Raises:
        ModelError: when it cannot be read.
    """
    if not Path(where).is_dir():
        from diffusers import DiffusionPipeline

        return dict(DiffusionPipeline.load_config(where, local_files_only=offline))
    try:
        index = json.loads((Path(where) / "model_index.json").read_text("utf-8"))
        return {**index, "_class_name": str(index["_class_name"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ModelError(
            f"The model {Path(where).name!r} cannot be read: its model_index.json is damaged."
        ) from None


def _check_weights(folder: Path, networks: Sequence[str], name: str) -> None:
    """Refuse, with the reason, what from_pretrained would refuse with a page of text."""
    for part in networks:
        if (folder / part).is_dir() and any((folder / part).glob("*.safetensors")):
            continue
        # A part that the index leaves out (T5 of Stable Diffusion 3) has no folder.
        if part.startswith("text_encoder_") and not (folder / part).is_dir():
            continue
        pickled = any((folder / part).glob("*.bin"))
        raise ModelError(
            f"The model {name!r} has {'only pickled weights' if pickled else 'no weights'} for its {part}: "
            "only safetensors are loaded."
        )


def _check_stated(folder: Path, index: Mapping[str, Any], networks: Sequence[str], name: str) -> None:
    """Refuse what a folder states and no program can load, before anything of it is.

    Raises:
        ModelError: naming the part that is missing, or the schedule that is not known.
    """
    readers = [part.replace("text_encoder", "tokenizer") for part in networks if part.startswith("text_encoder")]
    for part in ("scheduler", *networks, *readers):
        # T5 of Stable Diffusion 3 may be left out.
        if part in index and index[part] in (None, [None, None]) and not part.endswith("_3"):
            raise ModelError(f"The model {name!r} has no {part}: its model_index.json says that there is none.")
    file = folder / "scheduler" / "scheduler_config.json"
    try:
        schedule_of_checkpoint(json.loads(file.read_text("utf-8")))
    except OSError:
        pass  # said when it is loaded
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        why = str(problem) if "is not known here" in str(problem) else "its scheduler_config.json is damaged."
        raise ModelError(f"The model {name!r} cannot be sampled: {why}") from None


def _variant(folder: Path, networks: Sequence[str]) -> str | None:
    """The kind of weights a folder has, if it has only one of a special kind (as "fp16")."""
    files = [f.name for part in networks for f in (folder / part).glob("*.safetensors")]
    return "fp16" if files and all(".fp16" in f for f in files) else None


def _guessed_config(file: str) -> str:
    """The hub id of a family's configuration, guessed by diffusers from the names of a file's tensors."""
    from diffusers.loaders.single_file_utils import fetch_diffusers_config, load_single_file_checkpoint

    return fetch_diffusers_config(load_single_file_checkpoint(file))["pretrained_model_name_or_path"]


@contextmanager
def _missing_weights() -> Iterator[list[str]]:
    """The weights that loading leaves at random: it fills a network with what a single file happens to have."""
    plain = torch.nn.Module.load_state_dict
    missing: list[str] = []

    def noted(network: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        result = plain(network, *args, **kwargs)
        missing.extend(result.missing_keys)
        return result

    torch.nn.Module.load_state_dict = noted  # type: ignore[method-assign, assignment]
    try:
        yield missing
    finally:
        torch.nn.Module.load_state_dict = plain  # type: ignore[method-assign]


def _from_single_file(file: str, config: str, device: Device, name: str, offline: bool) -> tuple[Any, Any]:
    """The family and the parts of a single file.

    Raises:
        ModelError: when the file lacks weights, or is of another family.
    """
    from playground.images.families import family_of

    config = config or _guessed_config(file)
    index = _index(config, offline)
    family = family_of(index, name)
    lacks = ModelError(f"The file of the model {name!r} lacks weights that its configuration asks for.")
    try:
        with _missing_weights() as missing:
            parts = family.pipeline().from_single_file(
                file,
                config=config,
                dtype=device.dtype,
                local_files_only=offline or Path(config).is_dir(),
                **family.options(index, file),
            )
    except (KeyError, NotImplementedError) as error:
        # A name that a conversion looks for; or a weight without a value, which accelerate leaves and cannot move.
        logging.getLogger(__name__).info("loading failed", exc_info=error)
        raise lacks from None
    networks = [network for part in family.networks if (network := getattr(parts, part)) is not None]
    if missing or any(p.is_meta for network in networks for p in network.parameters()):
        raise lacks
    return family, parts


def _failed(where: str, error: Exception) -> Exception:
    """What is raised for an error while loading: a sentence, but for short memory, which others take care of."""
    if isinstance(error, ModelError) or is_out_of_memory(error):
        return error
    logging.getLogger(__name__).info("loading failed", exc_info=error)
    return ModelError(_why_not(where, error))


def _why_not(where: str, error: Exception) -> str:
    if file := _single_file(where):
        if not file[1] and isinstance(error, OSError):
            return (
                f"{Path(file[0]).name} holds weights alone: pass where its configuration is, as FILE@FOLDER with a "
                "folder in diffusers' layout, or as FILE@OWNER/NAME with a model of its kind on the hub."
            )
        return f"The model {_name(where)!r} could not be loaded ({type(error).__name__})."
    if not Path(where).is_dir():
        return f"The model {where!r} is neither a folder here nor could it be fetched from the hub."
    return f"The model {Path(where).name!r} could not be loaded ({type(error).__name__})."


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
