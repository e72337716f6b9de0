"""Whatever stands in a hostfile: what DeepSpeed reads there too, or told."""

from pathlib import Path

import pytest
from deepspeed.launcher.runner import fetch_hostfile
from hypothesis import given
from hypothesis import strategies as st

from ds_trainer.hostfile import read_hostfile

from .strategies import damaged, examples, told

HOSTFILE = (
    "# the cluster\nworker-1 slots=4\nworker-2 slots=08  # half\n\n10.0.0.3\tslots=1\nann@node.example slots=16\n"
)
WORDS = (
    "a",
    "b",
    "worker-1",
    "slots=",
    "slots",
    "=",
    "4",
    "0",
    "-1",
    "٤",
    "4x",
    " ",
    "\t",
    "\n",
    "\r",
    "\x0b",
    "\x1c",
    "#",
)


@examples(200)
@given(
    st.lists(st.sampled_from((*WORDS, "\u2028", "\x85", "é", ";")), max_size=20).map("".join).map(str.encode)
    | damaged(HOSTFILE.encode())
)
def test_any_hostfile(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "hostfile"
    path.write_bytes(raw)
    hosts = told(lambda: read_hostfile(path))
    if hosts is not None:
        assert hosts
        assert list(hosts.items()) == list(fetch_hostfile(str(path)).items())


def test_undamaged(tmp_path: Path) -> None:
    (tmp_path / "hostfile").write_text(HOSTFILE)
    assert read_hostfile(tmp_path / "hostfile") == {"worker-1": 4, "worker-2": 8, "10.0.0.3": 1, "ann@node.example": 16}
