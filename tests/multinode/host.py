"""A host of the lab: what runs on it, and how to start and end it."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Any, NamedTuple

from launching import clean_environment

from multinode.namespaces import Namespaces

_BOOT = Path(__file__).with_name("boot_host.sh")


class Process(NamedTuple):
    """A process on a host: its number as this machine counts, and its command."""

    pid: int
    command: str


class Host:
    """A host: network, process numbers, mounts and name of its own; files are this machine's, as over NFS.

    Args:
        own_dirs: folders that this host has for itself: what others write there is not seen here.
    """

    def __init__(self, name: str, address: str, lab_dir: Path, own_dirs: Sequence[Path] = ()):
        self.name, self.address = name, address
        self._own = {place: lab_dir / name / f"own-{number}" for number, place in enumerate(own_dirs)}
        for place, folder in self._own.items():
            place.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        mounts = [str(path) for place, folder in self._own.items() for path in (folder, place)]
        boot = ["sh", str(_BOOT), name, str(lab_dir), *mounts]
        self.namespaces = Namespaces(["net", "pid", "mount", "uts", "ipc"], boot)
        self._started: list[subprocess.Popen[bytes]] = []
        self.is_on = True

    def wait_until_up(self) -> None:
        """Wait until it can be used."""
        self.namespaces.wait_until_ready()

    def own(self, path: Path) -> Path:
        """Where a path of this host is found from outside: elsewhere, if it is in a folder of its own."""
        for place, folder in self._own.items():
            if path.is_relative_to(place):
                return folder / path.relative_to(place)
        return path

    def start(
        self, command: Sequence[str | Path], cwd: Path | str, log: Path, env: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        """Start a command, as a person logged in there would; its output goes to the end of `log`."""
        with log.open("ab") as file:
            process = subprocess.Popen(
                self.namespaces.inside([str(word) for word in command], cwd),
                env=clean_environment(env),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self._started.append(process)
        return process

    def call(
        self,
        command: Sequence[str | Path],
        timeout_s: float = 30,
        cwd: Path | str = "/",
        env: Mapping[str, str] | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end; output and errors come back together in `stdout`."""
        return subprocess.run(
            self.namespaces.inside([str(word) for word in command], cwd),
            env=clean_environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
        )

    def run(self, command: Sequence[str | Path], **options: Any) -> str:
        """Run a command that must end with status 0; return its output. Options are those of `call`."""
        ended = self.call(command, **options)
        assert ended.returncode == 0, f"{self.name}: status {ended.returncode}: {command}\n{ended.stdout}"
        return ended.stdout

    def processes(self, *words: str) -> list[Process]:
        """What runs there but for process 1, and has all of `words` in its command."""
        if not self.is_on:
            return []
        namespace = os.readlink(f"/proc/{self.namespaces.pid}/ns/pid")
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it may end meanwhile
                if os.readlink(folder / "ns/pid") == namespace and int(folder.name) != self.namespaces.pid:
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found.append(Process(int(folder.name), command))
        return sorted(each for each in found if all(word in each.command for word in words))

    def kill(self, *words: str, number: Signals = SIGKILL) -> Process:
        """Send a signal to the one process with `words` in its command."""
        (process,) = self.processes(*words)
        os.kill(process.pid, number)
        return process

    def power_off(self) -> None:
        """End all at once. Pull its cable or make it a black hole before: the kernel says farewell to connections."""
        if self.is_on:
            self.is_on = False
            self.namespaces.close()
            for process in self._started:
                process.wait(timeout=30)
