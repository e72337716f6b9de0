"""Pickles in data files: none is run, whatever it holds, and none is a hang or fills the memory."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sign_data.writers import packed_arrays

from .formats import files_of, laid_out, npy, npz, objects, prepared, single
from .strategies import TEXTS, VALUES, Bomb, examples, told
from .test_made_up_arrays import NAMES

LENGTHS_FILE = "train_X_map_samples_lens.npy"


@pytest.mark.parametrize("name", [*NAMES, "other"])
def test_no_pickle_in_packed_clips_is_run(tmp_path: Path, name: str) -> None:
    array = objects([Bomb(tmp_path / "trace")] * 3)
    with laid_out({"clips.npz": npz({**packed_arrays(), name: array})}) as path:
        assert told(lambda: prepared(path)) is None or name in ("fps", "other")
    assert not (tmp_path / "trace").exists()
    pickle.loads(pickle.dumps(Bomb(tmp_path / "trace")))
    assert (tmp_path / "trace").exists(), "it would have left a trace"


@pytest.mark.parametrize("name", ["01-train/0001.npz", "train_y.npz", "train_X_shape.npy", LENGTHS_FILE])
def test_no_pickle_in_karsl_is_run(tmp_path: Path, name: str) -> None:
    bomb = Bomb(tmp_path / "trace")
    for content in (npy(objects([bomb])), npz({"a": objects([bomb])}), single(bomb), pickle.dumps(bomb)):
        files = files_of("karsl" if name.endswith("0001.npz") else "karsl packed")
        with laid_out({**files, name: content}) as path:
            assert told(lambda path=path: prepared(path)) is None
    assert not (tmp_path / "trace").exists()


def try_lengths(raw: bytes) -> None:
    with laid_out({**files_of("karsl packed"), LENGTHS_FILE: raw}) as path:
        told(lambda: prepared(path))


KEYS = st.integers(1, 3) | TEXTS
OF_SIGNER = st.dictionaries(KEYS, st.lists(st.integers(-1, 3) | VALUES, max_size=3) | VALUES, max_size=3)


@examples(80)
@given(content=st.dictionaries(KEYS, OF_SIGNER | VALUES, max_size=3) | VALUES)
def test_other_lengths(content: Any) -> None:
    try_lengths(single(content))


NAMES_OF_INSTRUCTIONS = [name for name in pickle.__all__ if isinstance(getattr(pickle, name), bytes)]
PIECES = (
    st.sampled_from([getattr(pickle, name) for name in NAMES_OF_INSTRUCTIONS])
    | st.binary(max_size=5)
    | st.sampled_from(
        [b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"cnumpy._core.multiarray\nscalar\n", b"cos\nsystem\n"]
    )
    | st.sampled_from(
        [b"X\x02\x00\x00\x00i8", b"K\x01", b"C\x08" + bytes(8), b"r\xff\xff\xff\xff", b"cbuiltins\neval\n"]
    )
    | st.just(b"\x96" + b"\xff" * 5 + bytes(3))
)


@examples(80)
@given(pieces=st.lists(PIECES, max_size=30))
def test_any_program(pieces: list[bytes]) -> None:
    whole = files_of("karsl packed")[LENGTHS_FILE]
    header = whole[: whole.index(b"\n") + 1]
    try_lengths(header + b"\x80\x04" + b"".join(pieces) + b".")


def test_lists_that_are_shared_a_billion_times_are_no_hang() -> None:
    of_clips: Any = [1] * 1000
    of_signers = {signer: of_clips for signer in range(1, 1000)}
    try_lengths(single({sign: of_signers for sign in range(1, 1000)}))
    empty: list[int] = []
    of_signers = {signer: empty for signer in range(1, 1900)}
    try_lengths(single({sign: of_signers for sign in range(1, 1900)}))
    for _ in range(60):
        of_clips = [of_clips, of_clips]
    try_lengths(single({1: {1: of_clips}}))


NEST = b"K\x01" + b"2\x86" * 45
"""A tuple of two tuples, which are one, of two tuples, and so on: 2 to the 45 numbers to show, or to hash."""
NUMBER = b"\x8a\xff" + b"\x7f" * 255
LAUGHS = {
    "type": b"c%s\nscalar\ncnumpy\ndtype\n" + NEST + b"\x85RC\x01a\x86R",
    "shape": b"c%s\n_reconstruct\n)R(K\x01" + NEST + b"\x85N\x89]tb",
    "key": b"}" + NEST + b"K\x01s",
    "product": b"c%s\n_reconstruct\n)R(K\x01](" + NUMBER + b"q\x00" + b"h\x00" * 300_000 + b"eN\x89]tb",
    "wide": b"(" + b"K\x01" * 3000 + b"tq\x00(" + b"h\x00" * 3000 + b"t",
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("program", LAUGHS.values(), ids=LAUGHS.keys())
def test_programs_that_stand_for_more_than_they_are_long_are_no_hang(program: bytes) -> None:
    whole = files_of("karsl packed")[LENGTHS_FILE]
    header = whole[: whole.index(b"\n") + 1]
    try_lengths(header + b"\x80\x04" + program.replace(b"%s", b"numpy._core.multiarray") + b".")
