"""Whether a job was launched on as many ranks as was meant, with the arguments that were written, the same on all.

A hostfile that does not exist is a warning to the `deepspeed` launcher, and the job trains on one host, with status 0
(seen with deepspeed 0.19.8). The launcher is then among the processes above this rank, and its command line says what
was meant.
"""

import socket
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import psutil
from pydantic_core import to_jsonable_python

from ds_trainer.batches import size_of
from ds_trainer.distributed import gathered
from ds_trainer.errors import SettingsError
from ds_trainer.hostfile import read_hostfile
from ds_trainer.launcher_watch import RUNNERS, is_runner
from ds_trainer.problems import shortened, shown
from ds_trainer.settings import RunSettings
from ds_trainer.task import Task, splits_of

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
        if is_runner(words):
            begin = next(place for place, name in enumerate(names) if name in RUNNERS)
            end = next((place for place, name in enumerate(names) if place > begin and name.endswith(".py")), None)
            yield words[begin + 1 : end], working_dir


def _value(arguments: Sequence[str], names: Sequence[str]) -> str | None:
    for place, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name in names:
            return value or next(iter(arguments[place + 1 : place + 2]), None)
    return None


def refuse_changed_arguments() -> None:
    """Do not train with other arguments than were written. Collective.

    Raises:
        SettingsError: on every rank, whichever of them sees it.
    """
    problems = [problem for of_rank in gathered(changed_arguments()) for problem in of_rank]
    if problems:
        raise SettingsError(list(dict.fromkeys(problems)))


def refuse_differing_ranks(settings: RunSettings, task: Task) -> None:
    """Do not train where a host has another recipe or other data than the master's, such as an older copy. Collective.

    Raises:
        SettingsError: on every rank, whichever of them differs.
    """
    paths = {name for name, value in settings if isinstance(value, Path)}  # which each host may call otherwise
    own = {f"--{name}": value for name, value in to_jsonable_python(settings, exclude=paths).items()}
    own |= {f"the {split} split": size_of(dataset) for split, dataset in splits_of(task).items()}
    own["the data's fingerprint"] = task.fingerprint()
    (_, expected), *others = gathered((socket.gethostname(), own))
    problems = [
        f"{name}: found {shown(found.get(name))} on {host} (rank {number}), expected {shown(expected.get(name))} as on "
        "rank 0; give all hosts the same files (python launch/check_hosts.py compares them)"
        for number, (host, found) in enumerate(others, start=1)
        for name in expected | found
        if found.get(name) != expected.get(name)
    ]
    if problems:
        raise SettingsError(shortened(problems))


def changed_arguments() -> list[str]:
    """What a shell made of this job's arguments on their way, as problems to tell; none where that cannot be seen.

    DeepSpeed hands them to pdsh, and this to a shell on each host, without quoting (seen with deepspeed 0.19.8). Where
    the launcher runs on a host of the job, which is the usual way, both ends can be compared.
    """
    arrived = _words_of(psutil.Process().parent())
    address = next((word for word in arrived if word.startswith("--master_port=")), None)
    if "deepspeed.launcher.launch" not in arrived or address is None:
        return []
    job = {word for word in arrived if word.startswith(("--world_info=", "--master_"))}
    came = arrived[arrived.index(address) + 1 :]
    candidates = [words for words in map(_words_of, psutil.process_iter()) if _is_pdsh(words) and job <= set(words)]
    sent = [list(map(_without_quotes, words[words.index(address) + 1 :])) for words in candidates]
    if not sent or came in sent:
        return []
    pairs = zip_longest(sent[-1], came)
    written, found = next((old, new) for old, new in pairs if old != new)
    return [
        f"the argument {written!r} arrived as {found!r}: the shell on each host changed it; expected arguments without "
        f"quotes, $, ~, *, ; and the like over pdsh; write the setting into a recipe (--config)"
    ]


def _words_of(process: psutil.Process | None) -> list[str]:
    try:
        return [] if process is None else process.cmdline()
    except psutil.Error:
        return []  # gone, or another user's


def _is_pdsh(words: Sequence[str]) -> bool:
    return any(Path(word).name == "pdsh" for word in words[:3])  # Debian's is a program, others' may be a script


def _without_quotes(argument: str) -> str:
    """An argument as it was written: DeepSpeed puts those with a space in double quotes."""
    return argument[1:-1].replace('\\"', '"') if " " in argument and argument[:1] == '"' == argument[-1] else argument
