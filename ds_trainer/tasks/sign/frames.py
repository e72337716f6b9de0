"""Frames of a store for the batches of a device: from its own memory where they fit, else from the mapped file.

A GPU trains on clips faster than a host can gather them: KArSL-502 fills 10 GB, and a host copies a few GB/s. They stay
float32, so that batches are the same bits wherever they are read.

Axes: B clips, F frames of each, N frames of the store, K keypoints, C features.
"""

import torch
from torch import Tensor

from ds_trainer.progress import log
from ds_trainer.tasks.sign.store import ClipStore

_MOST_OF_FREE_MEMORY = 0.4
_FRAMES_AT_ONCE = 16_384
"""48 MB of 184 keypoints: what uploading takes of the host's memory."""


class Frames:
    """Reads frames by their numbers; on a GPU all are brought there when the first are read, if they fit."""

    def __init__(self, store: ClipStore):
        self._store = store
        self._resident_NKC: dict[torch.device, Tensor | None] = {}

    def read(self, frame_BF: Tensor, device: torch.device) -> Tensor:
        """float32[B, F, K, C] on the device, of the frames of these numbers, int64[B, F] on the CPU."""
        if device.type == "cpu":
            return self._from_file(frame_BF)
        if device not in self._resident_NKC:
            self._resident_NKC[device] = self._brought_to(device)
        resident_NKC = self._resident_NKC[device]
        if resident_NKC is None:
            return _sent(self._from_file(frame_BF), device)
        return resident_NKC[_sent(frame_BF, device)]

    def _from_file(self, frame_BF: Tensor) -> Tensor:
        return torch.from_numpy(self._store.read(frame_BF.numpy()))

    def _brought_to(self, device: torch.device) -> Tensor | None:
        needed, free = self._store.frames.nbytes, torch.cuda.mem_get_info(device)[0]
        gib = f"{needed / 2**30:.1f} GiB of frames"
        if not fits(needed, free):
            log.info(f"{gib} are read from the file: {free / 2**30:.1f} GiB of {device} are free")
            return None
        log.info(f"{gib} are kept on {device}")
        return uploaded(self._store, device)


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copied to a GPU while it goes on: from memory that may be paged out, that waits for all before it."""
    return tensor.pin_memory().to(device, non_blocking=True)


def fits(needed: int, free: int) -> bool:
    """Whether so many bytes leave a device, of which `free` are, enough for training."""
    return needed <= _MOST_OF_FREE_MEMORY * free


def uploaded(store: ClipStore, device: torch.device, at_once: int = _FRAMES_AT_ONCE) -> Tensor:
    """All frames of a store, float32[N, K, C] on the device.

    Args:
        at_once: frames that are in the host's memory at a time.
    """
    frames_NKC = torch.empty(store.frames.shape, dtype=torch.float32, device=device)
    for numbers in torch.arange(len(frames_NKC)).split(at_once):
        begin = int(numbers[0])
        frames_NKC[begin : begin + len(numbers)] = torch.from_numpy(store.read(numbers.numpy()))
    return frames_NKC
