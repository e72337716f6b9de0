"""What a person sees: commands end with status 2 and a line that names the file, and show no traceback.

What depends on a process, as names that are not UTF-8 do, is asked of a real one.
"""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from launching import ROOT, done_here, run
from sign_data.writers import packed_arrays

from ds_trainer.job import main as train
from ds_trainer.tasks.sign.prepare import main as prepare
from ds_trainer.tasks.sign.prepare import resolve_store

from .formats import files_of, npz
from .strategies import Bomb

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

CONFIG = ROOT / "ds_configs" / "fp32.json"
Case = Callable[[Path], Sequence[str | Path]]


def is_refused_here(command: Callable[[Sequence[str]], int], words: Sequence[str | Path], named: str) -> None:
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        told = done_here(command, *words, status=2)
    is_told(named, told, errors.getvalue())


def is_refused(command: Sequence[str | Path], named: str) -> None:
    finished = run([sys.executable, *command], timeout_s=60)
    assert finished.returncode == 2, finished.stdout
    is_told(named, finished.stdout)


def is_told(named: str, told: str, errors: str = "") -> None:
    for shown in (told, errors):
        assert "Traceback" not in shown, shown
        assert "Logging error" not in shown, shown
    assert "error: " in told
    assert named in told, told


def _recipe(text: str) -> Case:
    def case(folder: Path) -> Sequence[str | Path]:
        (folder / "the_file").write_bytes(text.encode())
        return ["--deepspeed_config", CONFIG, "--task", "toy", "--config", folder / "the_file"]

    return case


def _engine_json(raw: bytes) -> Case:
    def case(folder: Path) -> Sequence[str | Path]:
        (folder / "the_file").write_bytes(raw)
        return ["--task", "toy", "--deepspeed_config", folder / "the_file"]

    return case


def _flags(*flags: str) -> Case:
    return lambda folder: ["--deepspeed_config", CONFIG, "--task", "toy", *flags]


TRAINING: dict[str, tuple[Case, str]] = {
    "circular recipe": (_recipe("seed: &x [*x]"), "the_file"),
    "name twice": (_recipe("seed: 1\nseed: 2"), "the_file:2: seed: stands in line 1 already"),
    "date for a name": (_recipe("2001-01-01: 3"), "the_file"),
    "deep engine config": (_engine_json(b'{"bf16": ' + b"[" * 10**5), "the_file"),
    "engine config with a surrogate": (_engine_json(b'{"bf16": "\\ud800"}'), "the_file"),
    "engine config in UTF-16": (_engine_json('{"bf16": {}}'.encode("utf-16")), "the_file"),
    "device for an engine config": (lambda folder: ["--task", "toy", "--deepspeed_config", "/dev/zero"], "/dev/zero"),
    "value behind a switch": (_flags("--dry_run=yes"), "--dry_run: found 'yes' behind it"),
    "seed of 30 digits": (_flags("--seed", "9" * 30), "--seed: found 9"),
}


@pytest.mark.parametrize(("case", "named"), TRAINING.values(), ids=TRAINING.keys())
def test_training_on_bad_settings(tmp_path: Path, case: Case, named: str) -> None:
    is_refused_here(train, [*case(tmp_path), "--runs_dir", tmp_path / "runs"], named)
    assert not (tmp_path / "runs").exists()


def test_training_under_a_name_that_is_not_utf8() -> None:
    is_refused(["launch/train.py", "--deepspeed_config", CONFIG, "--task", "toy", "--runs_dir", "\udcff"], r"\udcff")


def _truncated(folder: Path) -> Path:
    (folder / "the_file.npz").write_bytes(files_of("packed")["clips.npz"][:-500])
    return folder / "the_file.npz"


def _not_a_number(folder: Path) -> Path:
    arrays = packed_arrays()
    arrays["frames"][6] = np.nan
    np.savez(folder / "the_file.npz", **arrays)
    return folder / "the_file.npz"


def _with_a_pickle(folder: Path) -> Path:
    bombs = np.array([Bomb(folder / "trace")] * 3, dtype=object)
    (folder / "the_file.npz").write_bytes(npz({**packed_arrays(), "signer": bombs}))
    return folder / "the_file.npz"


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "the_file.npz")
    return folder / "the_file.npz"


def _too_long(folder: Path) -> Path:
    return folder / f"the_file{'x' * 300}"


def _damaged_store(folder: Path) -> Path:
    (folder / "the_file.npz").write_bytes(files_of("packed")["clips.npz"])
    store_dir = resolve_store(folder / "the_file.npz", None, folder, None)
    raw = bytearray((store_dir / "frames.npy").read_bytes())
    raw[-1] ^= 1
    (store_dir / "frames.npy").write_bytes(raw)
    return store_dir


DATA = [_truncated, _not_a_number, _with_a_pickle, _pipe, _too_long, _damaged_store]


@pytest.mark.parametrize("case", DATA)
def test_preparing_bad_data(tmp_path: Path, case: Callable[[Path], Path]) -> None:
    is_refused_here(prepare, ["--data", case(tmp_path), "--stores_dir", tmp_path / "stores"], "the_file")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("flag", ["--data", "--labels", "--layout", "--stores_dir"])
def test_preparing_under_a_name_that_is_not_utf8(flag: str) -> None:
    is_refused(["launch/prepare.py", "--data", "default", flag, "\udcff"], r"found '\udcff'")


@pytest.mark.parametrize("case", [_truncated, _not_a_number])
def test_training_on_bad_data(tmp_path: Path, case: Callable[[Path], Path]) -> None:
    folders = ["--stores_dir", tmp_path / "stores", "--runs_dir", tmp_path / "runs"]
    is_refused_here(train, ["--deepspeed_config", CONFIG, "--data", case(tmp_path), *folders], "the_file")
    assert not (tmp_path / "runs").exists()
