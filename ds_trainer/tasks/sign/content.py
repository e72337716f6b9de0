"""By what a recording is known again, under whatever name: the bytes of its frames."""

import hashlib

import numpy as np
from numpy.typing import NDArray


def frames_hasher() -> hashlib.blake2b:
    """What the bytes of all frames, in their order, are hashed with."""
    return hashlib.blake2b(digest_size=16)


def content_of(frames: NDArray[np.float32]) -> int:
    """The hash by which a clip is known again, 1 or more; 0 if all is missing: such clips are alike and no copies."""
    if not frames.any():
        return 0
    digest = hashlib.blake2b(str(frames.shape).encode(), digest_size=8)
    digest.update(frames.data)
    return max(1, int.from_bytes(digest.digest(), "little"))


def in_both(content: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The contents of clips that occur in both, sorted; without 0, which is that of clips in which nothing is seen."""
    common: NDArray[np.uint64] = np.intersect1d(content, others)
    seen: NDArray[np.uint64] = common[common != 0]
    return seen
