"""Batches that shrink when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from playground.errors import OutOfMemory, is_out_of_memory


class Batches:
    """Calls a function on rows, all at once if they fit and in halves of halves if not.

    The function must be pure, so that a failed call can be repeated. A size that failed is remembered, until not
    even a single row fits.

    Attributes:
        limit: rows in one call at most; None while everything fitted.
    """

    def __init__(self) -> None:
        self.limit: int | None = None

    def __call__(
        self, call: Callable[..., Tensor], *tensors: Tensor, named: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """call(*tensors, named) on B rows.

        Args:
            call: maps tensors of b rows (and a dict of such tensors, if `named` is given) to b rows.
            tensors: each [B, ...].

        Raises:
            OutOfMemory: when not even one row fits.
        """
        size = len(tensors[0])
        while True:
            step = min(self.limit or size, size)
            parts = []
            try:
                for i in range(0, size, step):
                    part = [a[i : i + step] for a in tensors]
                    if named is not None:
                        part.append({k: v[i : i + step] for k, v in named.items()})  # type: ignore[arg-type]
                    parts.append(call(*part))
                return parts[0] if len(parts) == 1 else torch.cat(parts)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # Outside the except block: the traceback held the failed call's tensors until here.
            parts.clear()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            elif torch.backends.mps.is_available():
                torch.mps.empty_cache()
            if step == 1:
                # Not even one row: that tells of this moment, and nothing of how many fit when it is over.
                self.limit = None
                raise OutOfMemory(
                    "The device has too little free memory for a single picture of this size; "
                    "choose a smaller model, or try again when it is less busy."
                )
            self.limit = step // 2
