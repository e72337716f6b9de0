"""Linux namespaces that last as long as the process that made them, and leave nothing behind."""

import subprocess
from collections.abc import Sequence
from pathlib import Path


class Namespaces:
    """Namespaces of some kinds, kept by a process that ends as soon as its standard input closes.

    The kernel closes it when this process ends, also by SIGKILL, and takes back what was made in the namespaces.

    Args:
        kinds: as unshare(1) and nsenter(1) name them: "net", "pid", "mount", "uts", "ipc".
        keeper: a command that says "ready" and stays until its standard input closes.
    """

    def __init__(self, kinds: Sequence[str], keeper: Sequence[str]):
        self._flags = [f"--{kind}" for kind in kinds]
        own_proc = ["--mount-proc"] if "pid" in kinds else []
        # In a session of its own: Ctrl-C in the terminal of the tests is not for the keeper.
        self._process = subprocess.Popen(
            ["unshare", *self._flags, *own_proc, "--fork", "--kill-child", *keeper],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            start_new_session=True,
        )
        self.pid = 0

    def wait_until_ready(self) -> None:
        """Wait for the keeper's word; from then on `pid` is its number outside of the namespaces."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line == "ready\n", f"namespaces were not made: {line!r}, status {self._process.poll()}"
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self.pid = int(children[0])

    def inside(self, command: Sequence[str], cwd: Path | str = "/") -> list[str]:
        """The command that runs `command` in the namespaces."""
        return ["nsenter", "--target", str(self.pid), *self._flags, f"--wd={cwd}", *command]

    def call(self, *command: str) -> str:
        """Run a short command inside; return what it says."""
        return subprocess.run(
            self.inside(command), check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=30
        ).stdout

    def close(self) -> None:
        """End the keeper, and with it all processes inside if their numbers are of this namespace."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()
