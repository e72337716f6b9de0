"""A small data set in each format, as the bytes of its files, to be damaged."""

import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from sign_data.writers import (
    frames,
    packed_arrays,
    person,
    write_frames,
    write_index,
    write_karsl,
    write_karsl_packed,
    write_parquet,
)

from ds_trainer.tasks.sign.prepare import resolve_store
from ds_trainer.tasks.sign.readers.pose_file import _FACE_POINTS, _POSE_POINTS
from ds_trainer.tasks.sign.store import ClipStore

Files = Mapping[str, bytes]


def _karsl(folder: Path) -> None:
    write_karsl(folder, {("01", "train", 1): [1, 2], ("01", "test", 2): [2], ("02", "train", 2): [1]})


def _karsl_packed(folder: Path) -> None:
    write_karsl_packed(folder, "train", {1: {1: [1, 2], 2: [np.int64(1)]}, 2: {1: [2]}})
    write_karsl_packed(folder, "test", {2: {1: np.array([2, 1])}})  # type: ignore[dict-item]  # as in the wild


def _packed(folder: Path) -> None:
    np.savez(folder / "clips.npz", **packed_arrays(split=np.array(["train", "val", "test"]), fps=25.0))


def _packed_and_compressed(folder: Path) -> None:
    np.savez_compressed(folder / "clips.npz", **packed_arrays())


def _poses(folder: Path) -> None:
    for number, version in enumerate((0.1, 0.2)):
        (folder / f"{number}.pose").write_bytes(pose_bytes(num_frames=2 + number, version=version))
    rows = [{"path": f"{number}.pose", "sign": name, "signer": "ann", "split": ""} for number, name in enumerate("ab")]
    write_index(folder / "index.csv", rows)


def _table(folder: Path) -> None:
    rows = [{"path": f"{name}.{suffix}", "gloss": name, "signer": "ann"} for name, suffix in _SUFFIXES.items()]
    write_index(folder / "signs.csv", rows)
    np.savez(folder / "several.npz", one=frames(2), two=frames(3))
    np.savez(folder / "packed.npz", **packed_arrays())
    np.save(folder / "single.npy", frames(2, seed=1))


_SUFFIXES = {"several": "npz", "packed": "npz", "single": "npy"}


def _contest(folder: Path) -> None:
    for number in range(2):
        write_parquet(folder / f"{number}.parquet", frames(2 + number, (6, 3), seed=number))
    rows = [{"path": f"{number}.parquet", "sign": name, "participant_id": "7"} for number, name in enumerate("ab")]
    write_index(folder / "train.csv", rows)


def _sign_folders(folder: Path) -> None:
    for number, (signer, sign) in enumerate((signer, sign) for signer in ("ann", "bob") for sign in ("bye", "hello")):
        (folder / signer / sign).mkdir(parents=True)
        np.savez(folder / signer / sign / "1.npz", frames(2, seed=2 * number))
        np.savez(folder / signer / sign / "2.npz", frames(3, seed=2 * number + 1))


def _openpose(folder: Path) -> None:
    for number, sign in enumerate(("bye", "hello")):
        write_frames(folder / sign / "1", [[person(frame)] for frame in frames(2 + number, (67, 3), seed=number)])


def pose_bytes(num_frames: int, version: float = 0.2, value: float = 0.5, confidence: float = 1.0) -> bytes:
    """A .pose file of one person with the landmarks that are read, written by hand as its format asks."""
    hand = tuple(f"landmark_{number}" for number in range(21))
    components = {"POSE_LANDMARKS": _POSE_POINTS, "FACE_LANDMARKS": _FACE_POINTS}
    components |= {"LEFT_HAND_LANDMARKS": hand, "RIGHT_HAND_LANDMARKS": hand}
    parts = [np.float32(version).tobytes(), _shorts(640, 480, 0), _shorts(len(components))]
    for name, points in components.items():
        parts += [_text(name), _text("XYZC"), _shorts(len(points), 0, 0), *map(_text, points)]
    parts.append(
        _shorts(25, num_frames) if version < 0.15 else np.float32(25).tobytes() + np.uint32(num_frames).tobytes()
    )
    num_points = sum(len(points) for points in components.values())
    coordinates = np.random.default_rng(0).uniform(0, 640, (num_frames, 1, num_points, 3)).astype("<f4")
    confidences = np.full((num_frames, 1, num_points), 1.0, dtype="<f4")
    coordinates[-1, 0, 0, 0], confidences[-1, 0, 0] = 640 * value, confidence
    return b"".join([*parts, _shorts(1), coordinates.tobytes(), confidences.tobytes()])


def _shorts(*numbers: int) -> bytes:
    return np.array(numbers, dtype="<u2").tobytes()


def _text(text: str) -> bytes:
    return _shorts(len(text)) + text.encode()


_WRITERS: dict[str, Callable[[Path], None]] = {
    "karsl": _karsl,
    "karsl packed": _karsl_packed,
    "packed": _packed,
    "packed and compressed": _packed_and_compressed,
    "poses": _poses,
    "table": _table,
    "contest": _contest,
    "sign folders": _sign_folders,
    "openpose": _openpose,
}
FORMATS = tuple(_WRITERS)


@cache
def files_of(name: str) -> Files:
    """The files of a format, undamaged."""
    with tempfile.TemporaryDirectory() as folder:
        _WRITERS[name](Path(folder))
        paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@contextmanager
def laid_out(files: Files) -> Iterator[Path]:
    """A folder with `files`, and what `--data` is for them: the folder, or its only .npz file."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "data"
        folder.mkdir()
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        yield folder / "clips.npz" if "clips.npz" in files else folder


def prepared(data: Path, labels: Path | None = None) -> ClipStore:
    """The store that preparing gives, read in full and found to be in order."""
    stores_dir = data.parents[1 if data.name == "clips.npz" else 0] / "stores"
    store = ClipStore.open(resolve_store(data, labels, stores_dir, None))
    store.check_frames()
    assert np.isfinite(store.frames).all()
    assert (np.diff(store.offsets) > 0).all()
    assert len(store.sign_names) == len(store.sign_numbers) > store.sign.max()
    return store


@cache
def fingerprint_of(name: str) -> str:
    """The fingerprint of a format's undamaged files."""
    with laid_out(files_of(name)) as data:
        return prepared(data).fingerprint


def npz(arrays: Mapping[str, Any]) -> bytes:
    """An .npz file of any arrays, pickled where they have to be, or of raw bytes."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            archive.writestr(name, array if isinstance(array, bytes) else npy(array))
    return file.getvalue()


def npy(array: Any) -> bytes:
    """An .npy file of any array, pickled where it has to be."""
    file = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of field names that only a newer version of the format can hold
        np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=True)
    return file.getvalue()


def objects(values: Sequence[Any]) -> np.ndarray:
    """An array that has to be pickled."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def single(value: Any) -> bytes:
    """An .npy file of one pickled object, as `numpy.save` writes a dictionary."""
    array = np.empty((), dtype=object)
    array[()] = value
    return npy(array)
