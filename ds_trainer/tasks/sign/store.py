"""The clip store: the one form in which training reads clips, whatever format they came in.

A folder with `frames.npy` (float32 [N, K, C], all frames of all clips), `index.npz` (one entry a clip, no pickle) and
`store.json` (names). Frames are memory-mapped, so opening takes milliseconds and ranks of one machine share the pages.
"""

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.layout import KeypointLayout

STORE_VERSION = 1
FRAMES_FILE, INDEX_FILE, NAMES_FILE = "frames.npy", "index.npz", "store.json"


@dataclass(frozen=True, eq=False)
class ClipStore:
    """Clips on disk and what is known of each. Clip i is `frames[offsets[i]:offsets[i + 1]]`.

    A missing keypoint has all coordinates exactly 0 (and confidence 0).

    Args:
        sign: for each clip an index into `sign_names`, from 0.
        signer: for each clip an index into `signer_names`.
        split: for each clip a position in `clips.SPLITS`; 0 where the data has none.
        sign_numbers: for each of `sign_names` the number that `--selected_signs_from` and `_to` mean, ascending.
        fingerprint: a hash of the content: equal stores have equal ones, on any machine.
        claims_unseen_signers: whether the data's own split promises that nobody in test is in train.
        source: where the clips were read from.
    """

    path: Path
    frames: NDArray[np.float32]
    offsets: NDArray[np.int64]
    sign: NDArray[np.int64]
    signer: NDArray[np.int64]
    split: NDArray[np.int8]
    clip_ids: NDArray[np.str_]
    sign_names: list[str]
    sign_numbers: list[int]
    signer_names: list[str]
    layout: KeypointLayout
    fps: float | None
    fingerprint: str
    claims_unseen_signers: bool
    source: str

    @classmethod
    def open(cls, path: Path) -> "ClipStore":
        """Open the store in the folder `path`; frames are read when they are used.

        Raises:
            DataError: it is no store, of another version, or damaged.
        """
        names = _load(path / NAMES_FILE, _load_json)
        if not isinstance(names, dict) or names.get("store_version") != STORE_VERSION:
            found = names.get("store_version") if isinstance(names, dict) else names
            raise DataError(
                f"{path / NAMES_FILE}: found store version {found}, expected {STORE_VERSION}; "
                "delete the folder and prepare the data again"
            )
        del names["store_version"]
        index = _load(path / INDEX_FILE, _load_arrays)
        frames = _load(path / FRAMES_FILE, lambda file: np.load(file, mmap_mode="r", allow_pickle=False))
        names["layout"] = KeypointLayout.from_dict(names["layout"])
        store = cls(path=path, frames=frames, **index, **names)
        expected = (int(store.offsets[-1]), store.layout.num_keypoints, store.layout.num_features)
        if store.frames.shape != expected:
            raise DataError(
                f"{path / FRAMES_FILE}: found shape {store.frames.shape}, expected {expected} by {INDEX_FILE}; "
                "delete the folder and prepare the data again"
            )
        return store

    def __len__(self) -> int:
        return len(self.sign)

    def __reduce__(self) -> tuple[Callable[[Path], "ClipStore"], tuple[Path]]:
        """Pickle the path alone: a process that loads clips maps the same file instead of getting a copy of it."""
        return ClipStore.open, (self.path,)

    def clip_frames(self, clip: int) -> NDArray[np.float32]:
        """The frames [T, K, C] of a clip, read-only."""
        return self.frames[self.offsets[clip] : self.offsets[clip + 1]]


def is_store(path: Path) -> bool:
    """Whether the folder `path` looks like a clip store."""
    return (path / NAMES_FILE).is_file() and (path / INDEX_FILE).is_file()


def _load(file: Path, load: Callable[[Path], Any]) -> Any:
    try:
        return load(file)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{file}: cannot be read ({error}), expected a file of a clip store; "
            "delete the folder and prepare the data again"
        ) from error


def _load_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _load_arrays(file: Path) -> dict[str, NDArray[Any]]:
    # Opened here: numpy leaves a file open that turns out to be damaged.
    with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return dict(arrays)
