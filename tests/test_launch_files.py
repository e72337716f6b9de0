"""The files of `launch` that are no Python: an example that is read, a script that a shell can parse."""

import subprocess

from launching import ROOT

from ds_trainer.hostfile import read_hostfile


def test_hostfile_example_is_a_hostfile() -> None:
    assert read_hostfile(ROOT / "launch/hostfile.example") == {"worker-1": 4, "worker-2": 4}


def test_batch_script_is_one() -> None:
    script = ROOT / "launch/slurm.sbatch"
    subprocess.run(["bash", "-n", script], check=True, timeout=30)
    lines = script.read_text().splitlines()
    directives = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    first_command = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert max(directives) < first_command, "Slurm reads none behind the first command"
