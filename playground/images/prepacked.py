"""Weights in the order that the CPU's kernels read them, put so once instead of in every call.

oneDNN computes convolutions and products with blocked weights, and torch's eager modules hand it plain ones: each
call first rearranges them. In a small network that is a sixth of the time (`python -m benchmarks.single`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

DTYPES = (torch.float32, torch.bfloat16)
MOST_BYTES = 2**28
"""Of a network's weights: those of a larger one are not kept several times."""
MOST_KINDS = 4
"""Kept of one layer: the best order depends on the input's shape and on the number of threads."""


def prepack(network: nn.Module) -> bool:
    """Let a network's convolutions and linear layers keep their weights as the CPU reads them.

    The results are the same within rounding, and depend on the shape of the input and the number of threads alone.
    The network is for inference from then on; its weights may still be replaced.

    Returns:
        Whether it was done: only on a CPU with oneDNN that calculates in this precision, and for networks that may
        be kept twice.
    """
    weights, fits = list(network.parameters()), nbytes(network) <= MOST_BYTES
    here = all(p.device.type == "cpu" and p.dtype in DTYPES for p in weights)
    if not (fits and here and torch.backends.mkldnn.is_available()):
        return False
    half = any(p.dtype == torch.bfloat16 for p in weights)
    if half and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False  # on older processors torch's own modules emulate it, and these operators refuse
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for module in network.modules():
        # By exact type: a subclass has a forward of its own. The plain weights stay where they are.
        if type(module) is nn.Conv2d and module.padding_mode == "zeros" and module.groups == 1:
            module.__class__ = Convolution
        elif type(module) is nn.Linear:
            module.__class__ = Linear
    return True


def nbytes(network: nn.Module) -> int:
    """Bytes of its weights."""
    return sum(p.nbytes for p in network.parameters())


def forget(network: nn.Module) -> None:
    """Let go of the packed weights of a network; those that are needed are packed again."""
    for module in network.modules():
        if isinstance(module, _Prepacked):
            module._packed = None


class _Prepacked(nn.Module):
    """What both kinds share: the packed weights by the threads and the shape that they were packed for."""

    weight: Tensor
    _packed: tuple[tuple[int, int], dict[tuple[int, ...], Tensor]] | None
    """Of which weights, and these. Several threads may call the layer, so both change together."""

    def _state(self, x: Tensor) -> dict[tuple[int, ...], Tensor] | None:
        """The packed weights, empty when others have taken their place; None where plain ones are needed."""
        weight = self.weight
        if x.dtype != weight.dtype or not len(x) or (torch.is_grad_enabled() and x.requires_grad):
            return None
        these = id(weight), _version(weight)
        of, packed = self.__dict__.get("_packed") or (None, {})
        if of != these:
            if weight.device.type != "cpu" or weight.dtype not in DTYPES or weight.requires_grad:
                return None
            packed = {}
            self._packed = these, packed
        elif len(packed) > MOST_KINDS:
            packed.clear()
        return packed

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._packed = None  # another device or precision
        return super()._apply(*args, **kwargs)


def _version(weight: Tensor) -> int:
    """Counts how often it was written to."""
    return 0 if weight.is_inference() else weight._version


class Convolution(_Prepacked, nn.Conv2d):
    """A convolution with prepacked weights."""

    def forward(self, x: Tensor) -> Tensor:
        packed = self._state(x) if x.dim() == 4 and not isinstance(self.padding, str) else None
        if packed is None:
            return super().forward(x)
        # What is best for two rows is so for many, and not for one.
        shape = (min(len(x), 2), *x.shape[1:])
        kind = (torch.get_num_threads(), *shape)
        padding, stride, dilation = list(self.padding), list(self.stride), list(self.dilation)
        weight = packed.get(kind)
        if weight is None:
            make = torch.ops.mkldnn._reorder_convolution_weight
            weight = packed[kind] = make(self.weight, padding, stride, dilation, 1, list(shape))
        call = torch.ops.mkldnn._convolution_pointwise
        return call(x, weight, self.bias, padding, stride, dilation, 1, "none", [], "")


class Linear(_Prepacked, nn.Linear):
    """A linear layer with prepacked weights."""

    def forward(self, x: Tensor) -> Tensor:
        packed = self._state(x) if x.dim() > 1 else None
        if packed is None:
            return super().forward(x)
        tokens = min(len(x), 2) * x.shape[1:-1].numel()
        kind = (torch.get_num_threads(), tokens)
        weight = packed.get(kind)
        if weight is None:
            weight = packed[kind] = torch.ops.mkldnn._reorder_linear_weight(self.weight, tokens)
        return torch.ops.mkldnn._linear_pointwise(x, weight, self.bias, "none", [], "")
