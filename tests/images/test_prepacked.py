"""Prepacked weights give what plain ones give."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from playground.devices import threads
from playground.images.models import load_model
from playground.images.prepacked import MOST_KINDS, Convolution, Linear, forget, prepack

LAYERS = [
    nn.Conv2d(6, 10, 3, padding=1),
    nn.Conv2d(6, 10, 3, stride=2, padding=1),
    nn.Conv2d(6, 10, 1, bias=False),
    nn.Conv2d(6, 10, 3, padding="same"),
    nn.Conv2d(6, 10, 3, padding=1, padding_mode="reflect"),
    nn.Conv2d(6, 12, 3, groups=2),
    nn.Linear(9, 5),
    nn.Linear(9, 5, bias=False),
]


def frozen(layer):
    return nn.Sequential(copy.deepcopy(layer)).eval().requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [0, 1, 2, 5])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_layer_gives_what_the_plain_one_gives(layer, rows, dtype):
    plain = frozen(layer).to(dtype)
    packed = copy.deepcopy(plain)
    assert prepack(packed)
    x = torch.randn(rows, 6, 8, 9).to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(packed(x), plain(x), atol=tolerance, rtol=tolerance)
    assert packed.state_dict().keys() == plain.state_dict().keys()


def test_half_precision_stays_plain_where_the_kernels_refuse_it(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    for dtype, kind in ((torch.bfloat16, nn.Conv2d), (torch.float32, Convolution)):
        network = frozen(nn.Conv2d(6, 8, 3)).to(dtype)
        assert prepack(network) is (kind is Convolution) and type(network[0]) is kind


@pytest.mark.parametrize("layer", [LAYERS[0], LAYERS[6]], ids=str)
def test_weights_that_change_are_packed_anew(layer):
    packed, x = frozen(layer), torch.randn(2, 6, 8, 9)
    prepack(packed)
    packed(x)
    packed[0].weight.mul_(2)
    assert packed(x).equal(packed(x))
    torch.testing.assert_close(packed(x), type(layer).forward(packed[0], x))
    packed.load_state_dict({k: torch.randn_like(v) for k, v in packed.state_dict().items()})
    torch.testing.assert_close(packed(x), type(layer).forward(packed[0], x))
    packed.double()
    torch.testing.assert_close(packed(x.double()), type(layer).forward(packed[0], x.double()))


def test_the_result_depends_on_the_shape_of_the_input_alone():
    first, second = (frozen(LAYERS[0]) for _ in range(2))
    prepack(first)
    prepack(second)
    x = torch.randn(4, 6, 8, 8)
    for shape in [(1, 6, 8, 8), (3, 6, 4, 4), (7, 6, 16, 16)]:
        first(torch.randn(shape))
    assert first(x).equal(second(x))


def test_few_shapes_are_kept():
    packed = frozen(LAYERS[6])
    prepack(packed)
    for n in range(1, 20):
        packed(torch.randn(2, n, 9))
    assert len(packed[0]._packed[1]) <= MOST_KINDS + 1


@pytest.mark.parametrize("layer", [LAYERS[0], LAYERS[6]])
def test_each_number_of_threads_has_weights_of_its_own(layer):
    packed, alone = frozen(layer), frozen(layer)
    prepack(packed)
    prepack(alone)
    x = torch.randn(2, 6, 8, 8) if isinstance(layer, nn.Conv2d) else torch.randn(2, 5, 9)
    packed(x)
    assert len(packed[0]._packed[1]) == 1
    with threads(2):
        two = packed(x)
        assert two.equal(alone(x))  # whose weights were never packed for one
        assert len(packed[0]._packed[1]) == 2
    forget(packed)
    assert packed[0]._packed is None
    with threads(2):
        assert packed(x).equal(two)


def test_gradients_need_plain_weights():
    packed = frozen(LAYERS[0])
    prepack(packed)
    x = torch.randn(2, 6, 8, 8, requires_grad=True)
    packed(x).sum().backward()
    assert float(x.grad.abs().sum()) > 0


def test_double_precision_and_large_networks_stay_as_they_are(monkeypatch):
    layer = frozen(LAYERS[0])
    assert not prepack(layer.double()) and type(layer[0]) is nn.Conv2d
    monkeypatch.setattr("playground.images.prepacked.MOST_BYTES", 10)
    assert not prepack(layer.float()) and type(layer[0]) is nn.Conv2d


def test_a_loaded_model_has_its_denoiser_and_decoder_packed(folders):
    model = load_model(str(folders["sd1"]))
    for network in (model.denoiser.network, model.autoencoder.network):
        kinds = {type(m) for m in network.modules()}
        assert kinds & {Convolution, Linear} and not kinds & {nn.Conv2d, nn.Linear}
