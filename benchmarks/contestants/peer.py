"""What the peers share: the plain model with the weights of the case, and a loader of clips made in numpy."""

import os
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from benchmarks.case import Case
from benchmarks.pace import Totals
from benchmarks.plain_data import ClipDataset, layout_of
from benchmarks.plain_model import PlainModel

WORLD_SIZE = int(os.environ.get("WORLD_SIZE", "1"))
IS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if IS_GPU else torch.device("cpu")

Loader = DataLoader[tuple[Tensor, int]]  # collated: tuple[Tensor, Tensor]


def model_of(case: Case) -> PlainModel:
    """The network, with the weights that all contestants begin with."""
    layout = layout_of(case.store)
    parts = list(layout["parts"].values())
    model = PlainModel(parts, len(layout["features"]), case.num_signs, case.num_frames, case.size, case.dropout)
    model.load_state_dict(torch.load(case.folder / "weights.pt"))
    return model.to(DEVICE).train()


def loader_of(case: Case, num_replicas: int = 1, rank: int = 0) -> Loader:
    """Shuffled clips; the workers are those that a reference would start: none on a CPU that trains itself."""
    with np.load(case.folder / "clips.npz") as clips:
        dataset = ClipDataset(case.store, clips["clip"], clips["sign_class"], case.num_frames)
    sampler: DistributedSampler[tuple[Tensor, int]] | None = None
    if num_replicas > 1:
        sampler = DistributedSampler(dataset, num_replicas, rank)
    return DataLoader(
        dataset,
        batch_size=case.micro_batch,
        sampler=sampler,
        shuffle=sampler is None,
        drop_last=True,
        num_workers=4 if IS_GPU else 0,
        pin_memory=IS_GPU,
    )


def without_end(loader: Loader) -> Iterator[tuple[Tensor, Tensor]]:
    """Epoch after epoch, on the device."""
    while True:
        for clips, signs in loader:
            yield clips.to(DEVICE, non_blocking=True), signs.to(DEVICE, non_blocking=True)


class Learning:
    """Sums the losses that a loop reads after each step."""

    def __init__(self) -> None:
        self._loss, self._num_clips = 0.0, 0.0

    def add(self, loss: float, num_clips: int) -> None:
        self._loss += loss * num_clips
        self._num_clips += num_clips

    def totals(self) -> Totals:
        return self._loss, self._num_clips
