"""What the fuzz tests share: how much to try, what may come of it, and ways to damage a file."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from ds_trainer.errors import UserError
from ds_trainer.text_file import is_plain

T = TypeVar("T")
_SLOWEST_S = 10  # of computing: a machine may be busy with other things; pytest-timeout ends what only waits


def examples(number: int) -> settings:
    """A decorator: so many examples, always the same; or as many as the environment asks for, others each time."""
    asked = os.environ.get("FUZZ_EXAMPLES")
    return settings(
        max_examples=int(asked) if asked else number,
        derandomize=asked is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def told(read: Callable[[], T]) -> T | None:
    """What `read` gives; None where it raises an error that a user can mend. Any other exception fails the test."""
    began = time.process_time()
    content, problems = None, None
    try:
        content = read()
    except UserError as error:
        problems = error.problems
    assert time.process_time() - began < _SLOWEST_S, "as good as a hang"
    assert problems is None or 1 <= len(problems) <= 30, "a page at most"
    for problem in problems or ():
        assert is_plain(problem), f"not one legible line: {problem!r}"
        assert 10 < len(problem) < 1500, problem
        assert "Traceback" not in problem
    return content


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.trace),)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` with one to three kinds of damage, each as a disk, a cable or an editor may do it."""
    for _ in range(draw(st.integers(1, 3))):
        content = draw(st.sampled_from(_DAMAGES))(draw, content)
    return content


def _place(draw: st.DrawFn, content: bytes) -> int:
    """Somewhere; half of the time near the beginning or the end, where headers and directories are."""
    last = max(len(content) - 1, 0)
    near = min(last, 300)
    return draw(st.integers(0, last) | st.integers(0, near) | st.integers(last - near, last))


def _truncate(draw: st.DrawFn, content: bytes) -> bytes:
    return content[: _place(draw, content)]


def _flip_bit(draw: st.DrawFn, content: bytes) -> bytes:
    return _put(content, _place(draw, content), lambda byte: byte ^ (1 << draw(st.integers(0, 7))))


def _set_byte(draw: st.DrawFn, content: bytes) -> bytes:
    return _put(content, _place(draw, content), lambda _: draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 0x22, 0x2E])))


def _put(content: bytes, place: int, change: Callable[[int], int]) -> bytes:
    return content[:place] + bytes([change(byte) for byte in content[place : place + 1]]) + content[place + 1 :]


def _overwrite(draw: st.DrawFn, content: bytes) -> bytes:
    place, junk = _place(draw, content), draw(st.binary(min_size=1, max_size=16))
    return content[:place] + junk + content[place + len(junk) :]


def _insert(draw: st.DrawFn, content: bytes) -> bytes:
    place = _place(draw, content)
    return content[:place] + draw(st.binary(min_size=1, max_size=16)) + content[place:]


def _cut_out(draw: st.DrawFn, content: bytes) -> bytes:
    place = _place(draw, content)
    return content[:place] + content[place + draw(st.integers(1, 64)) :]


def _repeat(draw: st.DrawFn, content: bytes) -> bytes:
    place = _place(draw, content)
    return content[:place] + content[place : place + draw(st.integers(1, 64))] + content[place:]


def _zeros(draw: st.DrawFn, content: bytes) -> bytes:
    place, length = _place(draw, content), draw(st.sampled_from([4, 512, 4096]))
    return content[:place] + bytes(min(length, len(content) - place)) + content[place + length :]


def _other_file(draw: st.DrawFn, content: bytes) -> bytes:
    return draw(
        st.binary(max_size=64) | st.sampled_from([b"", b"\x00" * 1000, b"PK\x05\x06" + bytes(18), b"\xef\xbb\xbf"])
    )


_DAMAGES = (_truncate, _flip_bit, _flip_bit, _set_byte, _overwrite, _insert, _cut_out, _repeat, _zeros, _other_file)

NASTY = (
    *(
        "",
        " ",
        "auto",
        "nan",
        "-inf",
        "1e-1",
        "1e400",
        "0x10",
        "1_000",
        "None",
        "null",
        "true",
        "\x00",
        "\ud800",
        "a\nb",
    ),
    *("--", "-", "=", "../../etc", "/dev/zero", "/dev/null", "~", "é", "🤟", "x" * 300, "9" * 300, "[" * 300),
)
TEXTS = st.text(max_size=20) | st.sampled_from(NASTY)
NUMBERS = st.integers() | st.floats() | st.sampled_from([2**31, 2**63, -(2**63), 10**400, 0, -1, 1e308, 5e-324])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | st.just("x" * 5000),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXTS, values, max_size=3),
    max_leaves=8,
)
"""Anything that JSON can hold, and a little more."""


@st.composite
def with_changes(draw: st.DrawFn, tree: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested dictionaries in which keys are dropped, renamed, added, or hold anything."""
    copy = {
        key: draw(with_changes(value)) if isinstance(value, dict) and value else value for key, value in tree.items()
    }
    if draw(st.integers(0, 2)):
        return copy
    key = draw(st.sampled_from(sorted(copy))) if copy else ""
    action = draw(st.sampled_from(["drop", "rename", "change", "add"]))
    if action in ("drop", "rename"):
        value = copy.pop(key, None)
        return {**copy, draw(TEXTS): value} if action == "rename" else copy
    return {**copy, (key if action == "change" else draw(TEXTS)): draw(VALUES)}
