"""Muon (Jordan et al. 2024): momentum whose matrices are orthogonalised, for convolutions and linear layers alike.

Each update of a weight matrix has all its singular values near one, so directions that the gradient hardly shows
are learnt as fast as the dominant ones. Everything that is not a hidden matrix (biases, norms, embeddings, first
and last layers) is left to AdamW.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import nn


def orthogonalise(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Matrices [B, m, n] with the singular vectors of the given ones and singular values near one.

    Newton-Schulz iteration with the quintic coefficients of Jordan et al. 2024: they end between 0.7 and 1.2.

    Each step is x <- P x with P = a + b G + c G^2 and G = x x^T, and turns G into P G P: so all steps work on the
    small m x m matrices, and the wide x is multiplied twice instead of ten times: thrice as fast at n = 9 m.
    In half precision the rounding of G would show, in single precision it does not.
    """
    x = matrices.float()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)
    gram, product = x @ x.mT, None
    for step in range(steps):
        polynomial = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        polynomial.diagonal(dim1=1, dim2=2).add_(3.4445)
        product = polynomial if product is None else polynomial @ product
        if step + 1 < steps:
            gram = polynomial @ gram @ polynomial
    x = product @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Muon for parameters of two or more dimensions; a convolution counts as the matrix [out, in * kh * kw].

    Args:
        parameters: the matrices.
        lr: the size of an update in units of the orthogonal matrix, times sqrt(out / in) where that exceeds one.
        momentum: of the gradient's average (Nesterov).
        weight_decay: share of each weight that is taken away per unit of ``lr``.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                average = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                wanted = parameter.grad.lerp(average, group["momentum"]).flatten(1)
                alike[wanted.shape].append((parameter, wanted))
            # Matrices of one shape together: one by one they are too small to keep two cores busy.
            for (rows, columns), pairs in alike.items():
                directions = orthogonalise(torch.stack([wanted for _, wanted in pairs]))
                for (parameter, _), direction in zip(pairs, directions, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(
                        direction.reshape(parameter.shape), alpha=-group["lr"] * max(1, rows / columns) ** 0.5
                    )


class MuonAndAdam:
    """Muon for the hidden matrices of networks and AdamW for everything else, as one optimiser.

    Args:
        parameters: everything to train.
        outer: first and last layers and embeddings, which are matrices but not hidden ones.
        muon_rate, adam_rate: learning rates.
        weight_decay: of the hidden matrices and of the rest.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        outer: Iterable[nn.Parameter],
        muon_rate: float,
        adam_rate: float,
        weight_decay: float = 0.01,
    ) -> None:
        everything, outside = list(parameters), {id(p) for p in outer}
        hidden = [p for p in everything if p.ndim >= 2 and id(p) not in outside]
        inside = {id(p) for p in hidden}
        rest = [p for p in everything if id(p) not in inside]
        self.rates = (muon_rate, adam_rate)
        self.optimizers = (
            Muon(hidden, muon_rate, weight_decay=weight_decay),
            torch.optim.AdamW(rest, adam_rate, betas=(0.9, 0.99), weight_decay=weight_decay),
        )

    def step(self, scale: float = 1.0) -> None:
        """One update with both learning rates times ``scale``; the gradients are forgotten afterwards."""
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict]:
        """The states of both."""
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: list[dict]) -> None:
        """Inverse of :meth:`state_dict`."""
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)
