"""Writes a clip store: each clip is checked, memory does not grow with their number, only a whole store appears."""

import json
import os
import secrets
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ds_trainer.errors import DataError
from ds_trainer.files import sync
from ds_trainer.problems import legible, shortened, shown
from ds_trainer.tasks.sign.clip_shapes import SeenShapes, remedy_for
from ds_trainer.tasks.sign.clips import (
    NOBODY,
    SPLITS,
    ClipSource,
    Progress,
    RawClip,
    as_float32,
    by_number,
    no_progress,
    plain_name,
    wrong_names,
)
from ds_trainer.tasks.sign.content import content_of, frames_hasher
from ds_trainer.tasks.sign.known_layouts import checked_layout
from ds_trainer.tasks.sign.store import (
    FRAMES_FILE,
    INDEX_FILE,
    NAMES_FILE,
    STORE_VERSION,
    fingerprint_of,
)
from ds_trainer.text_file import is_plain

_MAX_NAME = 1000
"""Names are kept in arrays whose entries are all as long as the longest."""


def write_store(store_dir: Path, source: ClipSource, progress: Progress = no_progress) -> None:
    """Write the clips of `source` as a clip store into the new folder `store_dir`.

    It is written aside and renamed when it is whole and on disk: whoever sees the folder sees a complete store.

    Raises:
        DataError: with the problems of all clips, or because the folder exists or cannot be written.
    """
    if store_dir.exists():
        raise DataError(f"{store_dir}: exists already, expected a new folder; delete it or choose another")
    partial_dir: Path | None = None
    try:
        store_dir.parent.mkdir(parents=True, exist_ok=True)
        partial_dir = store_dir.parent / f".{store_dir.name}.{secrets.token_hex(4)}.partial"
        partial_dir.mkdir()  # not mkdtemp, whose folder is private: a store may be shared, where its owner's files are
        _write_files(partial_dir, source, progress)
        sync(partial_dir)
        partial_dir.rename(store_dir)
        sync(store_dir.parent)
    except OSError as error:
        raise DataError(
            f"{store_dir}: the clip store cannot be written ({error}); expected a writable folder with enough space: "
            "free some, or choose another --stores_dir"
        ) from error
    finally:
        if partial_dir is not None:
            shutil.rmtree(partial_dir, ignore_errors=True)


class _Index:
    """What is kept of each clip while frames are streamed to disk: a few numbers and names."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.sign_numbers: list[int] = []
        self.signers: list[str] = []
        self.splits: list[int] = []
        self.clip_ids: list[str] = []
        self.content: list[int] = []

    def add(self, clip: RawClip, frames_TKC: NDArray[np.float32]) -> None:
        self.lengths.append(len(frames_TKC))
        self.content.append(content_of(frames_TKC))
        self.sign_numbers.append(clip.sign)
        self.signers.append(plain_name(clip.signer) or NOBODY)
        self.splits.append(SPLITS.index(clip.split))
        self.clip_ids.append(clip.clip_id)


class _FramesFile:
    """An .npy file that grows: numpy's header leaves room for its first length to be filled in at the end."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._hash = frames_hasher()
        self._num_frames = 0
        self.shape_KC: tuple[int, ...] | None = None

    def append(self, frames_TKC: NDArray[np.float32]) -> None:
        if self.shape_KC is None:
            self.shape_KC = frames_TKC.shape[1:]
            self._write_header()
        self._file.write(frames_TKC.data)
        self._hash.update(frames_TKC.data)
        self._num_frames += len(frames_TKC)

    def finish(self) -> str:
        """Fill in the header, bring the file to disk and give the hash of the frames."""
        self._file.seek(0)
        self._write_header()
        _flush(self._file)
        return self._hash.hexdigest()

    def _write_header(self) -> None:
        shape = (self._num_frames, *(self.shape_KC or ()))
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)


def _write_files(partial_dir: Path, source: ClipSource, progress: Progress) -> None:
    source = replace(source, sign_names=[*map(plain_name, source.sign_names)])
    index, problems, shapes = _Index(), wrong_names(source), SeenShapes()
    shape_KC: tuple[int, ...] | None = None
    with open(partial_dir / FRAMES_FILE, "wb") as file:
        frames_file = _FramesFile(file)
        for clip in progress(source.clips, source.num_clips, f"preparing {source.name}"):
            found = clip.problems if isinstance(clip, DataError) else _problems_of(clip, shape_KC, source)
            problems += found
            if isinstance(clip, RawClip):
                shapes.add(clip.frames.shape)
                shape_KC = clip.frames.shape[1:] if shape_KC is None and not found else shape_KC
            if not problems:
                frames_TKC = as_float32(clip.frames)
                frames_file.append(frames_TKC)
                index.add(clip, frames_TKC)
        if wrong_order := shapes.wrong_order() or (shapes.features_in_front() if source.layout is None else None):
            raise DataError(f"{source.name}: {wrong_order}")
        if problems:
            raise DataError(shortened(problems))
        if frames_file.shape_KC is None:
            raise DataError(f"{source.name}: found no clips, expected at least one; check that the data is complete")
        frames_hash = frames_file.finish()
    names, arrays = _index_of(index, source)
    frames_NKC = np.load(partial_dir / FRAMES_FILE, mmap_mode="r")
    names["layout"] = checked_layout(source, frames_NKC).to_dict()
    names |= {"source": source.name, "frames_hash": frames_hash, "store_version": STORE_VERSION}
    names["fingerprint"] = fingerprint_of(names, arrays)
    with open(partial_dir / INDEX_FILE, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # names that it has no argument of
        _flush(file)
    with open(partial_dir / NAMES_FILE, "wb") as file:
        file.write(json.dumps(names, ensure_ascii=False, indent=1).encode())
        _flush(file)


def _index_of(index: _Index, source: ClipSource) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The names and the arrays of a store; signs without a clip are left out."""
    sign_numbers, sign = np.unique(index.sign_numbers, return_inverse=True)
    given = source.sign_names
    signer_names = sorted(set(index.signers), key=by_number)
    place = {name: number for number, name in enumerate(signer_names)}
    names = {
        "sign_numbers": sign_numbers.tolist(),
        "sign_names": [given[n - 1] if given else str(n - 1 + source.first_number) for n in sign_numbers.tolist()],
        "signer_names": signer_names,
        "claims_unseen_signers": source.claims_unseen_signers,
    }
    arrays: dict[str, NDArray[Any]] = {
        "offsets": np.concatenate([[0], np.cumsum(index.lengths)]).astype(np.int64),
        "sign": sign.astype(np.int64),
        "signer": np.array([place[name] for name in index.signers], dtype=np.int64),
        "split": np.array(index.splits, dtype=np.int8),
        "clip_ids": np.array(index.clip_ids, dtype=np.str_),
        "content": np.array(index.content, dtype=np.uint64),
    }
    return names, arrays


def _problems_of(clip: RawClip, shape_KC: tuple[int, ...] | None, source: ClipSource) -> list[str]:
    """What is wrong with a clip.

    Args:
        shape_KC: the number of keypoints and features of the good clips before it; None for the first.
    """
    where = f"{clip.origin}: clip {legible(clip.clip_id)}"
    problems = []
    for name in (clip.signer, clip.clip_id):
        if not is_plain(name) or len(name) > _MAX_NAME:
            problems.append(f"{where}: found {shown(name)}, expected a short name without control characters; mend it")
    if not 1 <= clip.sign <= source.num_signs:
        problems.append(f"{where}: found sign {clip.sign}, expected 1..{source.num_signs}; mend its label")
    if clip.split not in SPLITS:
        problems.append(f"{where}: found split {shown(clip.split)}, expected train, val, test or none; mend its split")
    frames = clip.frames
    if frames.ndim != 3 or frames.dtype.kind not in "fiu" or 0 in frames.shape[1:]:
        found = f"{frames.dtype} of shape {frames.shape}"
        return [
            *problems,
            f"{where}: found {found}, expected numbers [frames, keypoints, features]; {remedy_for(frames)}",
        ]
    if len(frames) == 0:
        return [*problems, f"{where}: found 0 frames, expected at least one; remove the clip or extract it again"]
    if shape_KC is not None and frames.shape[1:] != shape_KC:
        found, expected = ("{} keypoints x {} features".format(*shape) for shape in (frames.shape[1:], shape_KC))
        return [*problems, f"{where}: found {found}, expected {expected} as in the clips before; extract it again"]
    return problems + _non_finite(where, as_float32(frames))


def _non_finite(where: str, frames: NDArray[np.float32]) -> list[str]:
    is_bad_T = ~np.isfinite(frames).all(axis=(1, 2))
    if not is_bad_T.any():
        return []
    num_bad = int((~np.isfinite(frames)).sum())
    return [
        f"{where}: found {num_bad} NaN or infinite numbers in {int(is_bad_T.sum())} of {len(frames)} frames, "
        f"first in frame {int(is_bad_T.argmax())}, expected finite ones; write 0 for a missing keypoint"
    ]


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
