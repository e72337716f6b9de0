"""Unit: text files of unknown origin."""

import os
import sys
import zipfile
from pathlib import Path

import pytest
from launching import ROOT, succeed

from ds_trainer.engine.config import load_engine_config
from ds_trainer.errors import SettingsError
from ds_trainer.recipe import load_recipe
from ds_trainer.text_file import is_plain, read_text, shipped


def test_text_comes_with_one_kind_of_line_end(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes("é\r\nb\rc\n".encode())
    assert read_text(tmp_path / "text") == "é\nb\nc\n"


def test_what_is_no_text_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin").write_bytes(b"\xe9")
    with pytest.raises(ValueError, match="it is a folder"):
        read_text(tmp_path)
    for endless in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match="it is no regular file"):
            read_text(endless)
    with pytest.raises(ValueError, match="larger than 3 bytes"):
        read_text(Path(__file__), max_bytes=3)
    with pytest.raises(ValueError, match="can't decode"):
        read_text(tmp_path / "latin")
    with pytest.raises(ValueError, match="null"):
        read_text(Path("a\x00b"))
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "absent")


@pytest.mark.parametrize(
    ("text", "expected"), [("é 🤟", True), ("", True), ("a\tb", False), ("\x7f", False), ("\udcff", False)]
)
def test_plain_text(text: str, expected: bool) -> None:
    assert is_plain(text) is expected


def test_configs_come_with_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (
        "ds_configs/bf16.json",
        "ds_configs/recipes/unseen_signers.yaml",
        "ds_configs/layouts/openpose_137.yaml",
    ):
        assert shipped(Path(path)).read_text() == (ROOT / path).read_text()
    for path in ("ds_configs/mine.json", "other/bf16.json", "ds_configs/../text_file.py", "/ds_configs/bf16.json"):
        assert shipped(Path(path)) == Path(path)
    (tmp_path / "ds_configs").mkdir()
    (tmp_path / "ds_configs/bf16.json").write_text("{}")
    assert load_engine_config(Path("ds_configs/bf16.json")) == {}, "one's own goes before"
    assert load_recipe(Path("ds_configs/recipes/unseen_signers.yaml"))["num_members"] == 3


def test_unknown_config_is_told_with_those_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"no such file; did you mean .*'fp32.json'"):
        load_engine_config(Path("ds_configs/fp31.json"))
    with pytest.raises(SettingsError, match=r"^--config .*: no such file; did you mean 'unseen_signers.yaml'"):
        load_recipe(Path("ds_configs/recipes/unseen_signer.yaml"))


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "ds_configs").glob("*.json")))
def test_engine_config_as_a_recipe_is_told(name: str) -> None:
    with pytest.raises(SettingsError, match="this is an engine config: give it with --deepspeed_config") as caught:
        load_recipe(Path("ds_configs", name))
    assert len(str(caught.value)) < 300


def test_recipe_as_an_engine_config_is_told() -> None:
    with pytest.raises(SettingsError, match=r"found YAML, expected .* an engine config; give a recipe with --config$"):
        load_engine_config(Path("ds_configs/recipes/unseen_signers.yaml"))


@pytest.mark.slow
def test_an_installed_package_has_all_that_it_reads(tmp_path: Path) -> None:
    succeed([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT], cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    configs = {path.relative_to(ROOT) for path in (ROOT / "ds_configs").rglob("*") if path.suffix in (".json", ".yaml")}
    templates = {path.relative_to(ROOT) for path in (ROOT / "ds_trainer/report/templates").iterdir()}
    assert len(configs) > 8
    assert {f"ds_trainer/{path}" for path in configs} | {str(path) for path in templates} <= packed
