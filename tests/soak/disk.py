"""A disk of a few MiB that a test can fill, free, and make read-only."""

import os
import subprocess
from pathlib import Path
from types import TracebackType

_SIZE = "8m"
_BLOCK_BYTES = 4096


class NotPossible(Exception):
    """This machine cannot do that; the message says why."""


class Disk:
    """A tmpfs, mounted while it is open. Needs root."""

    def __init__(self, path: Path):
        self.path = path
        self._ballast = path / "ballast"

    def __enter__(self) -> "Disk":
        if os.geteuid() != 0:
            raise NotPossible("a disk of limited size needs root, to mount one")
        self.path.mkdir(parents=True)
        self._mount("-t", "tmpfs", "-o", f"size={_SIZE}", "soak", str(self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)

    def fill(self) -> None:
        """Leave no room; what is freed after that is free, until the next call."""
        with self._ballast.open("ab", buffering=0) as file:
            while _has_written(file.fileno()):
                pass

    def free(self) -> None:
        """Make room again."""
        self._ballast.unlink()

    def is_read_only_now(self) -> bool:
        """Try to make it read-only, which is refused while a file is being written; whether it is."""
        return self._remount("ro")

    def make_writable(self) -> None:
        """Take that back."""
        assert self._remount("rw")

    def _remount(self, how: str) -> bool:
        command = ["mount", "-o", f"remount,{how}", str(self.path)]
        return subprocess.run(command, capture_output=True).returncode == 0

    def _mount(self, *words: str) -> None:
        mounted = subprocess.run(["mount", *words], capture_output=True, text=True)
        if mounted.returncode != 0:
            raise NotPossible(f"no disk of limited size: {mounted.stderr.strip()}")


def _has_written(descriptor: int) -> bool:
    try:
        return os.write(descriptor, bytes(_BLOCK_BYTES)) > 0
    except OSError:
        return False
