"""The optimiser: orthogonal updates, the right parameters in each half, exact resuming."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.muon import Muon, MuonAndAdam, orthogonalise


@pytest.mark.parametrize("shape", [(8, 8), (8, 40), (40, 8)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape):
    scales = torch.tensor([1e-3, 1.0, 50.0]).view(3, 1, 1)
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)) * scales
    made = orthogonalise(matrices)
    assert made.shape == matrices.shape
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.4
    assert values.max() < 1.3
    # The singular vectors stay: the product with the original is symmetric and positive.
    for one, matrix in zip(made, matrices, strict=True):
        product = one.T @ matrix
        torch.testing.assert_close(product, product.T, atol=0.05 * product.abs().max().item(), rtol=0)


@pytest.mark.parametrize("rank", [3, 24])
def test_the_iteration_on_gram_matrices_is_the_one_on_the_matrices(rank):
    generator = torch.Generator().manual_seed(0)
    rows, columns = (torch.randn(2, n, rank, generator=generator, dtype=torch.float64) for n in (24, 60))
    matrices = rows * torch.logspace(0, -3, rank) @ columns.mT
    expected = matrices / torch.linalg.matrix_norm(matrices, keepdim=True)
    for _ in range(5):
        gram = expected @ expected.mT
        expected = 3.4445 * expected + (-4.7750 * gram + 2.0315 * gram @ gram) @ expected
    torch.testing.assert_close(orthogonalise(matrices.float()).double(), expected, atol=1e-3, rtol=0)


def test_matrices_of_one_shape_are_updated_each_by_its_own_gradient():
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(shape, generator=generator) for shape in ((6, 9), (6, 9), (9, 6), (4, 2, 3, 3))]
    gradients = [torch.randn(start.shape, generator=generator) for start in starts]

    def updated(chosen: list[int]) -> list[torch.Tensor]:
        parameters = [nn.Parameter(starts[i].clone()) for i in chosen]
        for i, parameter in zip(chosen, parameters, strict=True):
            parameter.grad = gradients[i].clone()
        Muon(parameters, lr=0.05).step()
        return [parameter.detach() for parameter in parameters]

    for i, together in enumerate(updated([0, 1, 2, 3])):
        torch.testing.assert_close(together, updated([i])[0])


def test_muon_descends_on_a_badly_scaled_problem():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, 16, generator=generator) * torch.logspace(0, -2, 16)
    wanted = inputs @ torch.randn(16, 4, generator=generator)
    layer = nn.Linear(16, 4, bias=False)
    optimizer = Muon(layer.parameters(), lr=0.05)
    losses = []
    for _ in range(100):
        loss = (layer(inputs) - wanted).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 1, 3))


def test_hidden_matrices_go_to_muon_and_the_rest_to_adam():
    network = _network()
    both = MuonAndAdam(network.parameters(), [network[0].weight, network[3].weight], 0.02, 1e-3)
    muon, adam = ({id(p) for g in o.param_groups for p in g["params"]} for o in both.optimizers)
    assert muon == {id(network[2].weight)}
    assert muon | adam == {id(p) for p in network.parameters()}


def test_resumed_state_goes_on_as_before():
    def train(network: nn.Module, both: MuonAndAdam, steps: range) -> None:
        for step in steps:
            x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(step))
            network(x).square().mean().backward()
            both.step(0.5)

    whole, first, second = _network(), _network(), _network()
    optimizers = [MuonAndAdam(n.parameters(), [n[0].weight], 0.02, 1e-3) for n in (whole, first, second)]
    train(whole, optimizers[0], range(6))
    train(first, optimizers[1], range(3))
    second.load_state_dict(first.state_dict())
    optimizers[2].load_state_dict(optimizers[1].state_dict())
    train(second, optimizers[2], range(3, 6))
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
