"""Weights in the order that the CPU's kernels read them, put so once instead of in every call.

oneDNN computes convolutions and products with blocked weights, and torch's eager modules hand it plain ones: each
call first rearranges them. In a small network that is a sixth of the time (`python -m benchmarks.single`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

DTYPES = (torch.float32, torch.bfloat16)
MOST_BYTES = 2**30
"""Of a network's weights: a larger one is not kept twice."""
MOST_SHAPES = 4
"""Kept of one layer."""


def prepack(network: nn.Module) -> bool:
    """Let a network's convolutions and linear layers keep their weights as the CPU reads them.

    The results are the same within rounding, and depend on the shape of the input alone. The network is for
    inference from then on; its weights may still be replaced.

    Returns:
        Whether it was done: only on a CPU with oneDNN, and for networks that may be kept twice.
    """
    weights = list(network.parameters())
    fits = sum(p.nbytes for p in weights) <= MOST_BYTES
    here = all(p.device.type == "cpu" and p.dtype in DTYPES for p in weights)
    if not (fits and here and torch.backends.mkldnn.is_available()):
        return False
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for module in network.modules():
        # By exact type: a subclass has a forward of its own. The plain weights stay where they are.
        if type(module) is nn.Conv2d and module.padding_mode == "zeros" and module.groups == 1:
            module.__class__ = Convolution
        elif type(module) is nn.Linear:
            module.__class__ = Linear
    return True


class _Prepacked(nn.Module):
    """What both kinds share: the packed weights by the shape they were packed for."""

    weight: Tensor
    _packed: dict[tuple[int, ...], Tensor] | None
    _packed_of: tuple[int, int]

    def _state(self, x: Tensor) -> dict[tuple[int, ...], Tensor] | None:
        """The packed weights, empty when others have taken their place; None where plain ones are needed."""
        weight = self.weight
        if x.dtype != weight.dtype or not len(x) or (torch.is_grad_enabled() and x.requires_grad):
            return None
        packed = self.__dict__.get("_packed")
        if packed is None or self._packed_of != (id(weight), _version(weight)):
            if weight.device.type != "cpu" or weight.dtype not in DTYPES or weight.requires_grad:
                return None
            self._packed_of = id(weight), _version(weight)
            packed = self._packed = {}
        elif len(packed) > MOST_SHAPES:
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
        padding, stride, dilation = list(self.padding), list(self.stride), list(self.dilation)
        if shape not in packed:
            make = torch.ops.mkldnn._reorder_convolution_weight
            packed[shape] = make(self.weight, padding, stride, dilation, 1, list(shape))
        call = torch.ops.mkldnn._convolution_pointwise
        return call(x, packed[shape], self.bias, padding, stride, dilation, 1, "none", [], "")


class Linear(_Prepacked, nn.Linear):
    """A linear layer with prepacked weights."""

    def forward(self, x: Tensor) -> Tensor:
        packed = self._state(x) if x.dim() > 1 else None
        if packed is None:
            return super().forward(x)
        shape = (min(len(x), 2) * x.shape[1:-1].numel(),)
        if shape not in packed:
            packed[shape] = torch.ops.mkldnn._reorder_linear_weight(self.weight, shape[0])
        return torch.ops.mkldnn._linear_pointwise(x, packed[shape], self.bias, "none", [], "")
