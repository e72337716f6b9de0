"""Frames for batches: the same bits from the file and from a device's memory."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ds_trainer.tasks.sign.frames import Frames, fits, uploaded
from ds_trainer.tasks.sign.store import ClipStore
from ds_trainer.tasks.sign.store_writer import write_store

from .writers import grid, source

CPU = torch.device("cpu")


@pytest.fixture
def store(tmp_path: Path) -> ClipStore:
    write_store(tmp_path / "store", source(grid(signs=3, signers=2, repetitions=2)))
    return ClipStore.open(tmp_path / "store")


def some_frames(store: ClipStore) -> torch.Tensor:
    return torch.randint(len(store.frames), (4, 9), generator=torch.Generator().manual_seed(0))


def test_frames_come_by_their_numbers(store: ClipStore) -> None:
    frame_BF = some_frames(store)
    read_BFKC = Frames(store).read(frame_BF, CPU)
    np.testing.assert_array_equal(read_BFKC.numpy(), np.asarray(store.frames)[frame_BF.numpy()])


@pytest.mark.parametrize("at_once", [1, 7, 10_000])
def test_all_frames_are_uploaded_a_few_at_a_time(store: ClipStore, at_once: int) -> None:
    assert torch.equal(uploaded(store, CPU, at_once), torch.from_numpy(np.array(store.frames)))


def test_frames_that_would_leave_too_little_memory_do_not_fit() -> None:
    gib = 2**30
    assert fits(10 * gib, 78 * gib)  # KArSL-502 on an H100
    assert not fits(10 * gib, 22 * gib)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and there is none")
def test_the_gpu_reads_the_same_bits(store: ClipStore) -> None:
    frame_BF = some_frames(store)
    frames = Frames(store)
    before = torch.cuda.memory_allocated()
    assert torch.equal(frames.read(frame_BF, torch.device("cuda", 0)).cpu(), frames.read(frame_BF, CPU))
    assert torch.cuda.memory_allocated() - before >= store.frames.nbytes
