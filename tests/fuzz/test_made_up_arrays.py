"""Arrays and archives that somebody made up: of other shapes and types, with paths and bombs in them."""

import struct
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sign_data.writers import packed_arrays

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.readers.parquet_file import read_parquet
from ds_trainer.tasks.sign.unlabelled import clips_in

from .formats import laid_out, npy, npz, objects, prepared
from .strategies import TEXTS, VALUES, examples, told

DTYPES = (
    hnp.scalar_dtypes()
    | hnp.byte_string_dtypes()
    | hnp.unicode_string_dtypes()
    | hnp.array_dtypes()
    | st.sampled_from([np.dtype(code) for code in ("i1", "u1", "u8", "f2", "f4", ">f4", "c8", "M8[s]", "U0", "S0")])
)
USUAL_SHAPES = st.sampled_from([(3,), (4,), (9, 20, 3), (9, 20, 0), ()])
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9) | USUAL_SHAPES
ARRAYS = SHAPES.flatmap(lambda shape: hnp.arrays(DTYPES, shape)) | st.lists(VALUES, max_size=3).map(objects)
NAMES = ("frames", "offsets", "y", "label_names", "signer", "ids", "split", "fps", "claims_unseen_signers")


@examples(80)
@given(changed=st.dictionaries(st.sampled_from(NAMES), ARRAYS | st.binary(max_size=40), min_size=1, max_size=2))
def test_other_arrays_in_packed_clips(changed: dict[str, Any]) -> None:
    with laid_out({"clips.npz": npz({**packed_arrays(), **changed})}) as path:
        told(lambda: prepared(path))


def whole_numbers(expected: st.SearchStrategy[int], min_size: int, max_size: int) -> st.SearchStrategy[np.ndarray]:
    """Arrays of any width, signed or not, of as many bits of the numbers as they hold."""
    numbers = st.lists(expected | st.integers(), min_size=min_size, max_size=max_size)
    return st.builds(_wrapped, numbers, st.sampled_from(["i1", "u1", "i4", "i8", "u8"]))


def _wrapped(numbers: list[int], code: str) -> np.ndarray:
    bits = 8 * np.dtype(code).itemsize
    return np.array([number % 2**bits for number in numbers], dtype=f"u{bits // 8}").view(code)


@examples(120)
@given(whole_numbers(st.integers(-1, 10), 3, 5), whole_numbers(st.integers(-1, 4), 3, 3))
def test_offsets_and_labels_are_taken_as_they_are_or_told(offsets: np.ndarray, labels: np.ndarray) -> None:
    with laid_out({"clips.npz": npz(packed_arrays(label_names=None, offsets=offsets, y=labels))}) as path:
        store = told(lambda: prepared(path))
    if store is not None:
        assert store.offsets.tolist() == offsets.tolist()
        assert [store.sign_numbers[sign] - 1 for sign in store.sign] == labels.tolist()


@pytest.mark.parametrize("offsets", [[0, 5, 2, 9], [0, 2**64 - 1, 5, 9], [0, 2**63, 2**63 - 1, 9]])
def test_unsigned_offsets_that_fall_are_told(offsets: list[int]) -> None:
    arrays = packed_arrays(offsets=np.array(offsets, dtype=np.uint64))
    with laid_out({"clips.npz": npz(arrays)}) as path, pytest.raises(DataError, match="offsets: expected to rise"):
        prepared(path)


PATHS = TEXTS.map(lambda text: text.encode(errors="replace").decode().split("\x00")[0])
LEADING_OUT = ("../outside", "/tmp/ds_trainer_outside", "a/../../../outside", "..\\outside")


@examples(100)
@given(arrays=st.dictionaries(PATHS | st.sampled_from(LEADING_OUT), ARRAYS, min_size=1, max_size=3))
def test_other_arrays_and_names_in_karsl(arrays: dict[str, Any]) -> None:
    with laid_out({"01-train/0001.npz": npz({f"{name}.npy": array for name, array in arrays.items()})}) as path:
        told(lambda: prepared(path))
        _assert_nothing_beside(path)


@pytest.mark.parametrize("name", LEADING_OUT)
def test_names_that_lead_out_of_an_archive_lead_nowhere(name: str) -> None:
    with laid_out({"01-train/0001.npz": npz({f"{name}.npy": np.ones((2, 20, 3))})}) as path:
        assert prepared(path).clip_ids.tolist() == [f"01-train/0001/{name}"]
        _assert_nothing_beside(path)


def _assert_nothing_beside(path: Path) -> None:
    """Nothing is written but the store and its lock."""
    scratch = path.parent
    assert {found.relative_to(scratch).parts[0] for found in scratch.rglob("*")} <= {"data", "stores"}
    stores = [found for found in (scratch / "stores").glob("*") if found.suffix != ".lock"]
    assert all({file.name for file in store.iterdir()} == {"frames.npy", "index.npz", "store.json"} for store in stores)
    assert len(stores) <= 1
    assert not list(Path("/tmp").glob("ds_trainer_outside*"))


def test_archive_that_unpacks_to_much_more_than_it_is_refused() -> None:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("frames.npy", npy(np.zeros((300 * 2**14, 4, 4), dtype=np.float32)))
    for files in ({"clips.npz": file.getvalue()}, {"01-train/0001.npz": file.getvalue()}):
        with laid_out(files) as path, pytest.raises(DataError, match="it would unpack to 314572928 bytes"):
            prepared(path)


ABSURD = [(10**15,), (2**62, 4), (-1, 20, 3), (2, -20, -3), (10**9, 20, 3), (2**40, 2**40, 2**40)]


@pytest.mark.parametrize("shape", ABSURD)
def test_header_that_claims_an_absurd_size(shape: tuple[int, ...]) -> None:
    file = BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    raw = file.getvalue() + bytes(100)
    for files in ({"clips.npz": npz({**packed_arrays(), "frames": raw})}, {"01-train/0001.npz": npz({"a": raw})}):
        with laid_out(files) as path, pytest.raises(DataError, match="100 bytes, not the"):
            prepared(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archive_in_a_form_that_numpy_never_writes_is_refused(method: int) -> None:
    """Of these `zipfile` unpacks all that 1,729 bytes hold, 2 GiB, before it looks at the size that is announced."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, array in packed_arrays().items():
            archive.writestr(f"{name}.npy", npy(array))
    with laid_out({"clips.npz": file.getvalue()}) as path, pytest.raises(DataError, match="neither stored nor defl"):
        prepared(path)


@pytest.mark.parametrize("descr", ["<U0", "|S0", "|V0", []])
@pytest.mark.parametrize("name", ["label_names", "signer", "frames"])
def test_header_that_claims_many_entries_of_no_bytes(descr: Any, name: str) -> None:
    """A list of them fills any memory: 2 KB of `label_names` did."""
    file = BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": (10**9,)})
    raw = npz({**packed_arrays(), name: file.getvalue()})
    with laid_out({"clips.npz": raw}) as path, pytest.raises(DataError, match=f"{name} has entries of no bytes"):
        prepared(path)


def test_directory_that_claims_an_absurd_size() -> None:
    raw = bytearray(npz(packed_arrays()))
    for place in [place for place in range(len(raw)) if raw[place : place + 4] == b"PK\x01\x02"]:
        struct.pack_into("<I", raw, place + 24, 0xFFFFFFF0)  # the size when unpacked
    with laid_out({"clips.npz": bytes(raw)}) as path, pytest.raises(DataError, match="it would unpack to"):
        prepared(path)


def test_array_that_stands_twice_is_refused() -> None:
    raw = npz({**packed_arrays(), "z": np.array([1, 1, 0])})
    raw = raw.replace(b"z\x93NUMPY", b"y\x93NUMPY").replace(b"z", b"y")
    with laid_out({"clips.npz": raw}) as path, pytest.raises(DataError, match="two arrays of the same name"):
        prepared(path)


def test_array_that_is_missing_from_the_directory_is_not_left_out_in_silence() -> None:
    """A longer comment of one member swallows the next: `zipfile` finds one less and says nothing."""
    raw = bytearray(npz(packed_arrays()))
    entries = [place for place in range(len(raw)) if raw[place : place + 4] == b"PK\x01\x02"]
    struct.pack_into("<H", raw, entries[-2] + 32, len(raw) - 22 - entries[-1])
    with (
        laid_out({"clips.npz": bytes(raw)}) as path,
        pytest.raises(DataError, match="5 arrays are found, and 6 announced"),
    ):
        prepared(path)


@pytest.mark.parametrize("folder", ["01-Train", "02-dev", "01-train-old"])
def test_folder_of_an_unknown_split_is_not_left_out_in_silence(folder: str) -> None:
    clips = npz({"a": np.ones((2, 20, 3))})
    files = {"01-train/0001.npz": clips, f"{folder}/0001.npz": clips}
    with laid_out(files) as path, pytest.raises(DataError, match=f"found the folder '{folder}', expected"):
        prepared(path)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("of_clips", [{"offsets": np.zeros(10**7 + 1, np.uint8), "y": np.zeros(10**7, np.uint8)}, {}])
def test_millions_of_clips_in_a_few_kilobytes_are_told(of_clips: dict[str, Any], tmp_path: Path) -> None:
    frames = np.zeros((1, 3, 3) if of_clips else (10**7, 1, 1, 1), np.uint8)
    np.savez_compressed(tmp_path / "clips.npz", frames=frames, **of_clips)
    assert (tmp_path / "clips.npz").stat().st_size < 30_000
    assert told(lambda: prepared(tmp_path / "clips.npz")) is None
    ((_, found),) = clips_in(tmp_path / "clips.npz")
    assert isinstance(found, DataError)


@pytest.mark.parametrize("column", ["type", "frame", "x"])
def test_parquet_of_one_long_name_in_all_rows_does_not_fill_memory(tmp_path: Path, column: str) -> None:
    """90 kB became 40 GB."""
    import pyarrow
    from pyarrow import parquet

    num_rows = 2**22
    number = pyarrow.array(np.zeros(num_rows, np.int16))
    names = pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(num_rows, np.int32)), ["x" * 10_000])
    columns = {name: number for name in ("frame", "landmark_index", "x", "y", "z")}
    table = pyarrow.table({**columns, "type": names, column: names})
    parquet.write_table(table, tmp_path / "clip.parquet", store_schema=False)
    if column == "type":
        assert read_parquet(tmp_path / "clip.parquet").shape == (1, num_rows, 3)
    else:
        with pytest.raises(DataError, match=f"found no numbers in {column}"):
            read_parquet(tmp_path / "clip.parquet")
