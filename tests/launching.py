"""Starts real processes for tests: with a timeout, an environment of their own, and their last lines when they fail."""

import contextlib
import io
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from unittest import mock

import pytest

from ds_trainer.job import main
from ds_trainer.rank_variables import without_ranks

ROOT = Path(__file__).parents[1]
uses_launcher = pytest.mark.usefixtures("port_of_launchers")
"""What users type takes port 29500: tests that start it as it is wait for each other."""


def deepspeed(num_ranks: int) -> list[str]:
    """The launcher, with a port of its own."""
    return ["deepspeed", "--master_port", str(free_port()), "--num_gpus", str(num_ranks)]


def torchrun(num_ranks: int, *flags: str) -> list[str]:
    """The launcher, with a port of its own."""
    return ["torchrun", "--master_port", str(free_port()), *flags, "--nproc_per_node", str(num_ranks)]


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without ranks, with one thread a process and the virtual environment's commands."""
    environment = without_ranks(os.environ)
    environment["OMP_NUM_THREADS"] = "1"
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"  # not another checkout that is installed
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return {**environment, **(extra or {})}


def run(
    command: Sequence[str | Path], cwd: Path = ROOT, timeout_s: float = 180, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; output and errors come back together in `stdout`."""
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=cwd,
        env=clean_environment(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output, _ = process.communicate()
        raise AssertionError(f"still running after {timeout_s} s: {command}\n{_last_lines(output)}") from None
    return subprocess.CompletedProcess(command, process.returncode, output)


def succeed(command: Sequence[str | Path], **options: object) -> str:
    """Run a command that must end with status 0; return its output."""
    finished = run(command, **options)  # type: ignore[arg-type]
    assert finished.returncode == 0, f"status {finished.returncode}: {command}\n{_last_lines(finished.stdout)}"
    return finished.stdout


def done_here(command: Callable[[Sequence[str]], int], *words: str | Path, status: int = 0) -> str:
    """Run a command's `main` within this process, to end with that status; return its output.

    For what is told and left: a process of its own would first spend seconds on what this one has imported.
    """
    output = io.StringIO()
    with mock.patch.dict(os.environ), contextlib.chdir(ROOT), contextlib.redirect_stdout(output):
        found = command([str(word) for word in words])
    assert found == status, f"status {found}: {words}\n{_last_lines(output.getvalue())}"
    return output.getvalue()


def train_here(*flags: str | Path) -> str:
    """Train within this process; return the log."""
    return done_here(main, *flags)


def train_on(num_ranks: int, *flags: str | Path, timeout_s: float = 180) -> str:
    """Train on so many ranks, one within this process; return the log."""
    if num_ranks == 1:
        return train_here(*flags)
    return succeed([*torchrun(num_ranks), "launch/train.py", *flags], timeout_s=timeout_s)


def val_losses(run_dir: Path) -> list[float]:
    """The validation loss of each epoch that a run recorded."""
    records = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [record["val_loss"] for record in records if record["kind"] == "epoch"]


def run_ranks(script: Path, world_size: int, arguments: Sequence[str | Path], timeout_s: float = 240) -> None:
    """Run `script` as so many ranks of one process group; all must end with status 0."""
    ended = ends_of_ranks(script, world_size, arguments, timeout_s)
    assert all(status == 0 for status, _ in ended), _by_rank([output for _, output in ended])


def ends_of_ranks(
    script: Path, world_size: int, arguments: Sequence[str | Path], timeout_s: float = 240, cwd: Path = ROOT
) -> list[tuple[int, str]]:
    """Run `script` as so many ranks of one process group; the status and the output of each."""
    port = str(free_port())
    processes = []
    for rank in range(world_size):
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
        processes.append(
            subprocess.Popen(
                [sys.executable, str(script), *map(str, arguments)],
                cwd=cwd,
                env=clean_environment({**ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        outputs = [process.communicate(timeout=timeout_s)[0] for process in processes]
    except subprocess.TimeoutExpired:
        for process in processes:
            process.kill()
        outputs = [process.communicate()[0] for process in processes]
        raise AssertionError(f"ranks hang after {timeout_s} s\n{_by_rank(outputs)}") from None
    return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]


def free_port() -> int:
    """A port on which nobody listened a moment ago, below those that connections get: another may have one at once."""
    while True:
        port = 20_000 + secrets.randbelow(9_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _by_rank(outputs: Sequence[str]) -> str:
    return "\n".join(f"--- rank {rank}\n{_last_lines(output)}" for rank, output in enumerate(outputs))


def _last_lines(output: str, limit: int = 40) -> str:
    return "\n".join(output.splitlines()[-limit:])
