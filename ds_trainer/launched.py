"""Whether a job was launched on as many ranks as was meant.

A hostfile that does not exist is a warning to the `deepspeed` launcher, and the job trains on one host, with status 0
(seen with deepspeed 0.19.8). The launcher is then among the processes above this rank, and its command line says what
was meant.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from ds_trainer.errors import SettingsError
from ds_trainer.hostfile import read_hostfile

_FILTERS = ("-i", "--include", "-e", "--exclude", "--num_nodes", "--num_gpus", "--num_accelerators", "--node_rank")


def refuse_other_world_size(expected: int, found: int) -> None:
    """Compare the number of ranks with what the user and the launcher's hostfile ask for.

    Args:
        expected: 0 for any.

    Raises:
        SettingsError: it is another, or the hostfile is missing or malformed.
    """
    if expected not in (0, found):
        raise SettingsError(
            f"--expect_world_size {expected}: found {found} ranks; look at the hostfile and at how the job was "
            f"launched (python launch/check_hosts.py --hostfile ...)"
        )
    for arguments, working_dir in _launchers():
        given = _value(arguments, ("-H", "--hostfile"))
        if given is None:
            continue
        path = working_dir / given
        if not path.exists():
            raise SettingsError(
                f"--hostfile {given}: no such file, so the launcher took this host alone, with {found} ranks; "
                f"correct the path, or leave it out to train on this host"
            )
        num_slots = sum(read_hostfile(path).values())
        is_filtered = any(argument.split("=")[0] in _FILTERS for argument in arguments)
        if num_slots != found and not is_filtered:
            raise SettingsError(f"--hostfile {given}: asks for {num_slots} ranks, found {found}")


def _launchers() -> Iterator[tuple[Sequence[str], Path]]:
    """The launcher's own arguments and its working directory, for each launcher above this process."""
    for process in psutil.Process().parents():
        try:
            words, working_dir = process.cmdline(), Path(process.cwd())
        except (psutil.Error, OSError):
            continue  # another user's, or gone
        names = [Path(word).name for word in words]
        begin = next((place for place, name in enumerate(names) if name in ("deepspeed", "ds")), None)
        if begin is not None:
            end = next((place for place, name in enumerate(names) if place > begin and name.endswith(".py")), None)
            yield words[begin + 1 : end], working_dir


def _value(arguments: Sequence[str], names: Sequence[str]) -> str | None:
    for place, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name in names:
            return value or next(iter(arguments[place + 1 : place + 2]), None)
    return None
