"""The clip store: the one form in which training reads clips, whatever format they came in.

A folder with `frames.npy` (float32 [N, K, C], all frames of all clips), `index.npz` (one entry a clip, no pickle) and
`store.json` (names). Frames are memory-mapped, so opening takes milliseconds and ranks of one machine share the pages.

What is promised: opening notices any damage of the index and the names, by their hash, and frames that are more, fewer
or of another type than they should be. Changed bits within the frames are noticed where all of them are read:
`launch/prepare.py --data STORE` does.
"""

import hashlib
import json
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ds_trainer.errors import DataError
from ds_trainer.paths import is_file
from ds_trainer.problems import reason_of, shown
from ds_trainer.tasks.sign.clips import SPLITS, frames_at
from ds_trainer.tasks.sign.content import frames_hasher
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.readers.npz_file import Archive
from ds_trainer.text_file import check_regular, is_plain, read_text

STORE_VERSION = 4
FRAMES_FILE, INDEX_FILE, NAMES_FILE = "frames.npy", "index.npz", "store.json"

MAX_NAMES_BYTES = 2**26
_ARRAYS = {"offsets": "i8", "sign": "i8", "signer": "i8", "split": "i1", "clip_ids": "U", "content": "u8"}
_ABOUT = ("source", "frames_hash", "store_version", "fingerprint")  # of store.json: does not identify the content


@dataclass(frozen=True, eq=False)
class ClipStore:
    """Clips on disk and what is known of each. Clip i is `frames[offsets[i]:offsets[i + 1]]`.

    A missing keypoint has all coordinates exactly 0 (and confidence 0).

    Args:
        sign: for each clip an index into `sign_names`, from 0.
        signer: for each clip an index into `signer_names`.
        split: for each clip a position in `clips.SPLITS`; 0 where the data has none.
        content: for each clip a hash of its frames, by which the same recording is known under another name; 0 for one
            in which nothing was found.
        sign_numbers: for each of `sign_names` the number that `--selected_signs_from` and `_to` mean, ascending.
        fingerprint: a hash of the content: equal stores have equal ones, on any machine.
        frames_hash: of all frames in their order.
        claims_unseen_signers: whether the data's own split promises that nobody in test is in train.
    """

    path: Path
    frames: NDArray[np.float32]
    offsets: NDArray[np.int64]
    sign: NDArray[np.int64]
    signer: NDArray[np.int64]
    split: NDArray[np.int8]
    clip_ids: NDArray[np.str_]
    content: NDArray[np.uint64]
    sign_names: list[str]
    sign_numbers: list[int]
    signer_names: list[str]
    layout: KeypointLayout
    fingerprint: str
    frames_hash: str
    claims_unseen_signers: bool

    @classmethod
    def open(cls, path: Path | str) -> "ClipStore":
        """Open the store in the folder `path`; frames are read when they are used.

        Raises:
            DataError: it is no store, of another version, or damaged.
        """
        path = Path(path)
        names = _load(path / NAMES_FILE, _load_json)
        if not isinstance(names, dict) or names.get("store_version") != STORE_VERSION:
            found = shown(names.get("store_version") if isinstance(names, dict) else names)
            raise DataError(
                f"{path / NAMES_FILE}: found store version {found}, expected {STORE_VERSION}; "
                "delete the folder and prepare the data again"
            )
        index = _load(path / INDEX_FILE, _load_arrays)
        frames = _load(path / FRAMES_FILE, _map_frames)
        store: ClipStore = _load(path / NAMES_FILE, lambda _: _build(path, names, index, frames))
        expected = (int(store.offsets[-1]), store.layout.num_keypoints, store.layout.num_features)
        if store.frames.shape != expected:
            raise DataError(
                f"{path / FRAMES_FILE}: found shape {store.frames.shape}, expected {expected} by {INDEX_FILE}; "
                "delete the folder and prepare the data again"
            )
        return store

    def check_frames(self) -> None:
        """Read all frames.

        Raises:
            DataError: they are not those that were written.
        """
        frames_hash = frames_hasher()
        for clip in range(len(self)):
            frames_hash.update(self.clip_frames(clip).data)
        if frames_hash.hexdigest() != self.frames_hash:
            raise DataError(
                f"{self.path / FRAMES_FILE}: found other frames than were written, whose hash is {self.frames_hash}; "
                "the disk may be failing: delete the folder and prepare the data again"
            )

    def __len__(self) -> int:
        return len(self.sign)

    def __reduce__(self) -> tuple[Callable[[Path], "ClipStore"], tuple[Path]]:
        """Pickle the path alone: a process that loads clips maps the same file instead of getting a copy of it."""
        return ClipStore.open, (self.path,)

    def copies(self, clips: NDArray[np.int64]) -> list[str]:
        """Those of these clips that are copies of others of them, frame for frame, by name: "again of first"."""
        known = clips[self.content[clips] != 0]
        _, first, kind = np.unique(self.content[known], return_index=True, return_inverse=True)
        firsts = known[first][kind]
        again = known != firsts
        pairs = zip(self.clip_ids[known[again]], self.clip_ids[firsts[again]], strict=True)
        return [f"{clip} of {other}" for clip, other in pairs]

    def read_evenly(self, clips: NDArray[np.int64], num_frames: int) -> NDArray[np.float32]:
        """So many frames of each of these clips, from its first to its last: [clips, num_frames, K, C]."""
        numbers = np.linspace(self.offsets[clips], self.offsets[clips + 1] - 1, num_frames, axis=1)
        return self.read(numbers.round().astype(np.int64))

    def read(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """A copy of the frames of these numbers, [..., K, C]."""
        return frames_at(self.frames, numbers)

    def clip_frames(self, clip: int) -> NDArray[np.float32]:
        """The frames [T, K, C] of a clip, read-only."""
        return self.frames[self.offsets[clip] : self.offsets[clip + 1]]


def is_store(path: Path) -> bool:
    """Whether the folder `path` looks like a clip store."""
    return is_file(path / NAMES_FILE) and is_file(path / INDEX_FILE)


def fingerprint_of(names: Mapping[str, Any], index: Mapping[str, NDArray[Any]]) -> str:
    """The fingerprint of a store, by which damage is noticed.

    Args:
        names: what stands in `store.json`, with the hash of the frames.
        index: the arrays of `index.npz`.
    """
    digest = hashlib.blake2b(names["frames_hash"].encode(), digest_size=16)
    for name in _ARRAYS:
        digest.update(index[name].tobytes())
    identifying = {name: value for name, value in names.items() if name not in _ABOUT}
    digest.update(json.dumps(identifying, sort_keys=True).encode())
    return digest.hexdigest()


def _build(path: Path, names: dict[str, Any], index: dict[str, Any], frames: NDArray[np.float32]) -> ClipStore:
    if fingerprint_of(names, index) != names["fingerprint"]:
        raise ValueError(f"it and {INDEX_FILE} have not the hash with which they were written")
    for name, kind in _ARRAYS.items():
        if index[name].ndim != 1 or not index[name].dtype.str[1:].startswith(kind):
            raise ValueError(f"{name} in {INDEX_FILE} is {index[name].dtype} of shape {index[name].shape}")
    known = {**names, **index, "layout": KeypointLayout.from_dict(names["layout"])}
    del known["store_version"], known["source"]
    store = ClipStore(path=path, frames=frames, **known)
    _check_names(store)
    _check_index(store)
    return store


def _check_names(store: ClipStore) -> None:
    """Raise `ValueError` for names and numbers that are none: the hash tells damage, but a store may be made up."""
    numbers, names = store.sign_numbers, (*store.sign_names, *store.signer_names)
    if not all(isinstance(name, str) and is_plain(name) for name in names):
        raise ValueError("it has names that are no text in one line")
    if any(type(number) is not int or number < 1 for number in numbers) or numbers != sorted(set(numbers)):
        raise ValueError("the numbers of its signs do not rise from 1")
    if len(store.sign_names) != len(numbers):
        raise ValueError("it has not as many names of signs as numbers")


def _check_index(store: ClipStore) -> None:
    """Raise `ValueError` for an index that leads nowhere."""
    letters = store.clip_ids.astype(store.clip_ids.dtype.newbyteorder("<"), copy=False).view("<u4")
    if letters.max(initial=0) > sys.maxunicode:
        raise ValueError(f"clip_ids in {INDEX_FILE} hold what is no text")
    of_clips = (store.sign, store.signer, store.split, store.clip_ids, store.content)
    lengths = {len(array) for array in (store.offsets[1:], *of_clips)}
    if lengths != {len(store)} or not len(store):
        raise ValueError(f"the arrays in {INDEX_FILE} are of different lengths, or empty")
    if store.offsets[0] != 0 or (store.offsets[1:] <= store.offsets[:-1]).any():
        raise ValueError(f"the offsets in {INDEX_FILE} do not rise from 0")
    for codes, names in ((store.sign, store.sign_names), (store.signer, store.signer_names), (store.split, SPLITS)):
        if codes.min() < 0 or codes.max() >= len(names):
            raise ValueError(f"clips in {INDEX_FILE} have signs, signers or splits that it does not name")


def _load(file: Path, load: Callable[[Path], Any]) -> Any:
    try:
        return load(file)
    except Exception as error:  # a damaged file fails in many ways, each with a type of its own
        is_barred = isinstance(error, PermissionError)
        remedy = "ask for the right to read it" if is_barred else "delete the folder and prepare the data again"
        found = f"cannot be read ({reason_of(error)})"
        raise DataError(f"{file}: {found}, expected a file of a clip store; {remedy}") from error


def _load_json(file: Path) -> Any:
    return json.loads(read_text(file, MAX_NAMES_BYTES))


def _load_arrays(file: Path) -> dict[str, NDArray[Any]]:
    check_regular(file)
    with zipfile.ZipFile(file) as zip_file:
        archive = Archive(zip_file)
        return {name: archive[name] for name in archive.names}


def _map_frames(file: Path) -> NDArray[np.float32]:
    check_regular(file)
    frames = np.lib.format.open_memmap(file, mode="r")
    if frames.dtype != np.dtype("<f4") or not frames.flags.c_contiguous:
        raise ValueError(f"it holds {frames.dtype}, not float32 in C order")
    num_bytes = frames.offset + frames.nbytes  # type: ignore[attr-defined]  # of a memmap
    if file.stat().st_size != num_bytes:
        raise ValueError(f"it is not {num_bytes} bytes long, as its header says")
    return frames
