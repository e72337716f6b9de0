"""docs/your_own_task.md does what it says: its code is run as it stands there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from launching import ROOT, clean_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TEXT = (ROOT / "docs" / "your_own_task.md").read_text(encoding="utf-8")


def run_in(folder: Path, *command: str | Path) -> str:
    environment = clean_environment({"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])})
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_task_of_the_page_trains_evaluates_and_exports(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(code.splitlines()) < 60
    (tmp_path / "digits.py").write_text(code, encoding="utf-8")
    (flags,) = re.findall(r"deepspeed launch/train.py (.*)", TEXT)
    words = [str(ROOT / word) if word.startswith("ds_configs/") else word for word in flags.split()]
    output = run_in(tmp_path, ROOT / "launch" / "train.py", *words)
    (run_dir,) = (tmp_path / "runs").iterdir()
    status = json.loads((run_dir / "status.json").read_text())
    assert status["status"] == "finished"
    assert status["results"]["top1"] > 0.85, output
    assert {path.name for path in (run_dir / "diagnostics").iterdir()} >= {"confusion_matrix.png", "calibration.png"}
    task = ["--task", "digits:Digits"]
    scored = run_in(tmp_path, ROOT / "launch" / "evaluate.py", run_dir, *task, "--json", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["results"] == status["results"], scored
    assert "the same weights to the bit" in run_in(
        tmp_path, ROOT / "launch" / "export.py", run_dir, *task, "--to", "pth"
    )
    refused = subprocess.run(
        [sys.executable, ROOT / "launch" / "evaluate.py", run_dir],
        cwd=tmp_path, env=clean_environment({"PYTHONPATH": str(ROOT)}), capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "add --task digits:Digits" in refused.stdout
