"""What torch says where memory or the compiler fails, as a person reads it."""

import errno
import os
import signal
from collections.abc import Callable

import numpy as np
import pytest
import torch
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler

from ds_trainer.batches import BatchLoader, ShardedSampler
from ds_trainer.errors import MemoryLimitError, NonFiniteLossError, SettingsError
from ds_trainer.torch_errors import mendable_errors_told

TOO_MUCH = 2**50


@pytest.mark.parametrize("allocate", [torch.empty, np.empty])
def test_too_little_memory_of_the_host_is_told_with_the_remedy(allocate: object) -> None:
    words = r"out of memory: .*allocate .*; lower train_micro_batch"
    with pytest.raises(MemoryLimitError, match=words) as told, mendable_errors_told():
        allocate(TOO_MUCH)  # type: ignore[operator]
    assert len(str(told.value)) < 280, "the watch cuts what it tells of other ranks"


class Fetched(torch.utils.data.Dataset[torch.Tensor]):
    """Whose fetching process does as `act` says."""

    def __init__(self, act: Callable[[], object]):
        self.act = act

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> torch.Tensor:
        self.act()
        return torch.zeros(1_000_000)


def find_shared_memory_full() -> None:
    """As torch 2.13.0 does in a container with 8 MB of it."""
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_9_1_0>: No space left on device (28)")


def crash_in_full_shared_memory() -> None:
    """As where the memory is reserved, and not there when it is written to."""
    os.kill(os.getpid(), signal.SIGBUS)


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    ("act", "words"),
    [
        (find_shared_memory_full, r"out of shared memory \(/dev/shm\).*--shm-size=2g.*num_workers lower"),
        (crash_in_full_shared_memory, r"out of shared memory \(/dev/shm\).*--shm-size=2g.*num_workers lower"),
        (be_killed, r"killed by SIGKILL, as the kernel does where memory is short; .*--mem.*num_workers lower"),
    ],
)
def test_too_little_memory_of_a_process_that_fetches_data_is_told(act: Callable[[], object], words: str) -> None:
    with pytest.raises(MemoryLimitError, match=words) as told, mendable_errors_told():
        list(
            BatchLoader(Fetched(act), ShardedSampler(1, 1), lambda items, device, draw: ((items,), None), num_workers=1)
        )
    assert len(str(told.value)) < 280, "the watch cuts what it tells of other ranks"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("can't start new thread"),
        RuntimeError("Resource temporarily unavailable"),
        BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)),
    ],
    ids=["Python", "gloo", "fork"],
)
def test_no_further_thread_is_told_with_the_remedy(error: Exception) -> None:
    words = r"no further thread or process can be started.*ulimit -u; docker run --pids-limit.*OMP_NUM_THREADS=1"
    with pytest.raises(SettingsError, match=words), mendable_errors_told():
        raise error


def test_too_little_memory_of_the_device_is_told_by_the_type_of_the_error() -> None:
    words = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.19 GiB of which 1 MiB"
    with pytest.raises(MemoryLimitError, match=r"out of memory: CUDA out of memory\. Tried to"), mendable_errors_told():
        raise torch.OutOfMemoryError(words)


def test_no_loss_scale_left_for_fp16_is_told_with_the_remedy() -> None:
    scaler = DynamicLossScaler(1, scale_window=10, min_scale=1, delayed_shift=1, consecutive_hysteresis=False)
    with pytest.raises(NonFiniteLossError, match=r"smallest loss scale.*bf16\.json"), mendable_errors_told():
        scaler.update_scale(overflow=True)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"), mendable_errors_told():
        torch.ones(2, 3) @ torch.ones(2, 3)


@pytest.mark.parametrize(
    "meet",
    [
        lambda half: torch.ones(2, 2) @ half,
        lambda half: torch.nn.Linear(2, 2)(half),
        lambda half: torch.linalg.svd(half),
        lambda half: torch.nn.functional.scaled_dot_product_attention(torch.ones(1, 2, 2), half[None], half[None]),
    ],
)
def test_what_16_bits_do_not_fit_gets_a_note_with_the_remedy(meet: Callable[[torch.Tensor], object]) -> None:
    with pytest.raises(RuntimeError) as told, mendable_errors_told(), mendable_errors_told():
        meet(torch.ones(2, 2, dtype=torch.bfloat16))
    (note,) = told.value.__notes__
    assert "dtype=x.dtype" in note
    assert "ds_configs/torch_autocast.json" in note


def test_weight_that_zero_3_has_taken_away_gets_a_note_with_the_remedy() -> None:
    weight = torch.ones(3, requires_grad=True)
    whole = weight.expand_as(weight)  # as ZeRO-3 holds on to where a gradient goes, before it takes the weight away
    weight.data = torch.empty(0)
    penalty = weight.pow(2).sum() + 0 * whole.sum()
    with pytest.raises(RuntimeError, match="invalid gradient") as told, mendable_errors_told():
        penalty.backward()
    (note,) = told.value.__notes__
    assert "layer.weight" in note


def test_other_mistakes_get_no_note(encoder: torch.nn.TransformerEncoder) -> None:
    with pytest.raises(RuntimeError) as told, mendable_errors_told(), torch.no_grad():
        encoder(torch.ones(2, 3, 9))
    assert not hasattr(told.value, "__notes__")
    for one, other in ((torch.ones(2, 3), torch.ones(2, 3)), (torch.ones(2, 2), torch.ones(2, 2).double())):
        with pytest.raises(RuntimeError) as told, mendable_errors_told():
            one @ other
        assert not hasattr(told.value, "__notes__")


def test_class_that_the_model_does_not_score_gets_a_note_with_the_remedy() -> None:
    with pytest.raises(IndexError, match="Target 3 is out of bounds") as told, mendable_errors_told():
        torch.nn.functional.cross_entropy(torch.ones(1, 3), torch.tensor([3]))
    (note,) = told.value.__notes__
    assert "number them from 0" in note


@pytest.fixture
def encoder() -> torch.nn.TransformerEncoder:
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return torch.nn.TransformerEncoder(layer, num_layers=1).eval()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_fast_path_of_torchs_encoder_under_autocast_gets_a_note_with_its_own_remedy(
    encoder: torch.nn.TransformerEncoder,
) -> None:
    is_padding_BT = torch.tensor([[False, False, True], [False, False, False]])
    told_of_16_bits = pytest.raises(RuntimeError, match="expected scalar type")
    with told_of_16_bits as told, mendable_errors_told(), torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        encoder(torch.ones(2, 3, 8), src_key_padding_mask=is_padding_BT)
    (note,) = told.value.__notes__
    assert "enable_nested_tensor=False" in note
    assert "torch_autocast.json" not in note, "with which it is trained"


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_fast_path_of_torchs_encoder_at_stage_3_gets_a_note_with_the_remedy(
    encoder: torch.nn.TransformerEncoder,
) -> None:
    """There hooks stand around the attention, and its query, key and value are no longer one tensor."""
    frames = torch.nested.nested_tensor([torch.ones(2, 8), torch.ones(3, 8)])
    with pytest.raises(AssertionError, match="NestedTensor") as told, mendable_errors_told(), torch.no_grad():
        encoder.layers[0].self_attn(frames, frames.clone(), frames.clone())
    (note,) = told.value.__notes__
    assert "enable_nested_tensor=False" in note
