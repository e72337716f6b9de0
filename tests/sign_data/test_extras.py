"""What an optional extra would bring is named by the error that misses it."""

import sys
from pathlib import Path

import pytest

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.prepare import resolve_store


@pytest.mark.parametrize("package", ["spoken_to_signed", "pose_format"])
def test_default_data_without_its_extra(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)  # what `import` finds where the package is not installed
    with pytest.raises(DataError, match=r"pip install ds-trainer\[demo\]"):
        resolve_store("default", None, tmp_path, None)
    assert not any(path.is_dir() for path in tmp_path.iterdir()), "nothing half-written stays"
