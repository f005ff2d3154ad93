import pytest
import torch

from playground.batches import Batches
from playground.errors import OutOfMemory, PlaygroundError


class Small:
    """A device that holds a few rows; notes the size of each call."""

    def __init__(self, room, error=torch.OutOfMemoryError):
        self.room, self.error, self.sizes = room, error, []

    def __call__(self, x, *more, **named):
        self.sizes.append(len(x))
        if len(x) > self.room:
            raise self.error("CUDA out of memory")
        return 2 * x


X = torch.arange(22.0).reshape(11, 2)


def test_everything_goes_in_one_call_while_it_fits():
    batches, device = Batches(), Small(100)
    assert torch.equal(batches(device, X), 2 * X)
    assert device.sizes == [11]
    assert batches.limit is None


@pytest.mark.parametrize("room", range(1, 11))
def test_result_is_the_same_in_any_size(room):
    assert torch.equal(Batches()(Small(room), X), 2 * X)


def test_size_is_halved_until_it_fits_and_remembered():
    batches, device = Batches(), Small(3)
    batches(device, X)
    assert device.sizes == [11, 5, 2, 2, 2, 2, 2, 1]
    assert batches.limit == 2
    device.sizes.clear()
    batches(device, X[:4])
    assert device.sizes == [2, 2]


def test_one_row_that_does_not_fit_is_one_sentence():
    with pytest.raises(OutOfMemory) as caught:
        Batches()(Small(0), X)
    assert isinstance(caught.value, PlaygroundError)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_named_tensors_are_cut_along():
    def call(x, named):
        if len(x) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert len(named["more"]) == len(x)
        return x + named["more"]

    assert torch.equal(Batches()(call, X, named={"more": 10 * X}), 11 * X)


def test_memory_of_a_processor_counts_as_well():
    def error(_):
        return RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        )

    assert torch.equal(Batches()(Small(3, error), X), 2 * X)
    assert torch.equal(Batches()(Small(3, MemoryError), X), 2 * X)


def test_other_errors_pass_through_at_once():
    device = Small(3, RuntimeError)
    with pytest.raises(RuntimeError, match="CUDA out of memory"):
        Batches()(device, X)
    assert device.sizes == [11]
