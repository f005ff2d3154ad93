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


def test_a_device_that_was_full_for_a_moment_is_asked_for_everything_again():
    batches, device = Batches(), Small(0)
    with pytest.raises(OutOfMemory):
        batches(device, X)
    device.room = 100
    device.sizes.clear()
    assert torch.equal(batches(device, X), 2 * X)
    assert device.sizes == [11]


def test_named_tensors_are_cut_along():
    def call(x, named):
        if len(x) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert len(named["more"]) == len(x)
        return x + named["more"]

    assert torch.equal(Batches()(call, X, named={"more": 10 * X}), 11 * X)


# What torch says on its devices.
FULL = {
    "cpu": "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
    "windows": "[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
    "mps": "MPS backend out of memory (MPS allocated: 9 GB, other allocations: 1 GB, max allowed: 9 GB).",
    "cuda": "CUDA error: out of memory",
    "cublas": "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
}


@pytest.mark.parametrize("said", FULL.values(), ids=FULL)
def test_every_device_has_its_own_words_for_full(said):
    batches = Batches()
    assert torch.equal(batches(Small(3, lambda _: RuntimeError(said)), X), 2 * X)
    assert batches.limit == 2


def test_memory_of_python_counts_as_well():
    assert torch.equal(Batches()(Small(3, MemoryError), X), 2 * X)


OTHERS = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (9x3 and 4x5)"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    ValueError("out of memory is only a word here"),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("error", OTHERS, ids=lambda error: str(error)[:24] or type(error).__name__)
def test_other_errors_pass_through_at_once(error):
    batches, device = Batches(), Small(3, lambda _: error)
    with pytest.raises(type(error)) as caught:
        batches(device, X)
    assert caught.value is error
    assert device.sizes == [11]
    assert batches.limit is None
