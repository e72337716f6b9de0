"""Who this process is among the ranks of a job, as launchers say it in environment variables: without mpi4py.

`deepspeed` and `torchrun` set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; MPI and Slurm have names of
their own.
"""

import base64
import contextlib
import itertools
import json
import logging
import os
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from ds_trainer.errors import SettingsError

log = logging.getLogger("ds_trainer")

ANY_PORT = "0"
"""Of a rank that is alone: it listens nowhere, so that no port can be another's."""

_RANK_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_OTHER_LAUNCHERS = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),  # MPICH and Intel MPI
    # Of the step that srun makes: SLURM_NTASKS and SLURM_PROCID stand in a batch script, too, which is one process.
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
)
"""Names for a rank, the world size, the rank on its node, and the ranks on its node: 4, or with Slurm 4(x2) or 4,3."""
_SIZES_ON_NODE = ("LOCAL_SIZE", "LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")
_STAYING_LAUNCHERS = ("CROSS_RANK", "TORCHELASTIC_RUN_ID", "SLURM_STEP_ID", "PMI_RANK")
_OF_LAUNCHERS = {
    *itertools.chain(_RANK_VARIABLES, _SIZES_ON_NODE, _STAYING_LAUNCHERS, *_OTHER_LAUNCHERS),
    "SLURM_NTASKS",
}


def without_ranks(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a program that is started by a rank and is none itself."""
    return {name: value for name, value in environ.items() if name not in _OF_LAUNCHERS}


def malformed_variables(environ: Mapping[str, str] = os.environ) -> list[str]:
    """What is wrong with variables that will be used, a line each.

    `docker run -e RANK=$RANK` sets an empty one; Kubernetes sets MASTER_PORT=tcp://... for a service called master.
    """
    names = [name for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK") if name in environ]
    if "MASTER_PORT" in environ and (
        {"RANK", "WORLD_SIZE"} <= {*names} or _names_of_other_launcher(environ) is not None
    ):
        names.append("MASTER_PORT")
    return [
        f"{name}: found {environ[name]!r} in the environment, expected a whole number, as launchers set it; export "
        "that, or unset it to train on one rank"
        for name in names
        if not environ[name].isdecimal()
    ]


def export_rank_variables(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT where the launcher did not.

    A plain `python` start is one rank, in a batch script of Slurm, too: the script runs once, however many tasks the
    job may have, and a rank that waited for the others would wait in vain.

    Raises:
        SettingsError: there are ranks on several nodes and nobody said where rank 0 listens.
    """
    if all(name in environ for name in _RANK_VARIABLES):
        return
    names = _names_of_other_launcher(environ)
    if names is not None:
        is_one_node = environ[names[1]] == environ[names[3]]
    elif "RANK" in environ and "WORLD_SIZE" in environ:
        # Clusters that start one process a node name no local rank; alone, each node would train by itself.
        names = _RANK_VARIABLES
        is_one_node = environ["WORLD_SIZE"] == "1"
        environ.setdefault("LOCAL_RANK", "0")
    else:
        _export_one_rank(environ)
        return
    environ.update({ours: environ[theirs] for ours, theirs in zip(_RANK_VARIABLES[:3], names, strict=False)})
    if "MASTER_ADDR" not in environ:
        if not is_one_node:
            raise SettingsError(
                f"found {environ['WORLD_SIZE']} ranks on several nodes and no MASTER_ADDR, expected the name of the "
                "node of rank 0; export it, or with `deepspeed` put MASTER_ADDR=NAME into .deepspeed_env"
            )
        environ["MASTER_ADDR"] = "127.0.0.1"
    environ.setdefault("MASTER_PORT", "29500")


def _names_of_other_launcher(environ: Mapping[str, str]) -> tuple[str, ...] | None:
    """What MPI or Slurm call the variables, if one of them started several ranks.

    MPI is asked first: within Slurm its own starters are tasks of Slurm, one a node.
    """
    for names in _OTHER_LAUNCHERS:
        if all(name in environ for name in names) and environ[names[1]] != "1":
            return names
    return None


def _export_one_rank(environ: MutableMapping[str, str]) -> None:
    environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=ANY_PORT)
    num_tasks = environ.get("SLURM_NTASKS", "1")
    if num_tasks != "1" and "SLURM_STEP_ID" not in environ:
        log.warning(f"this job of Slurm has {num_tasks} tasks, and one process trains: put srun before it to use all")


def has_launcher() -> bool:
    """Whether this rank was started by a program that stays as long as its ranks; a shell script need not."""
    return any(name in os.environ for name in _STAYING_LAUNCHERS)


def hosts_of_ranks() -> list[str]:
    """The host of each rank, as `deepspeed` told its launcher, which is the parent of this process; else nothing."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        words = Path(f"/proc/{os.getppid()}/cmdline").read_text().split("\0")
        told = next(word for word in words if word.startswith("--world_info=")).partition("=")[2]
        return [host for host, slots in json.loads(base64.urlsafe_b64decode(told)).items() for _ in slots]
    return []


def ranks_on_this_node(environ: Mapping[str, str] = os.environ) -> int:
    """As the launcher counts them; 1 if none did."""
    for name in _SIZES_ON_NODE:
        if name in environ:
            return int(environ[name])
    return _tasks_on_this_node(environ.get("SLURM_STEP_TASKS_PER_NODE", "1"), int(environ.get("SLURM_NODEID", "0")))


def _tasks_on_this_node(tasks_per_node: str, node: int) -> int:
    """Of `2(x3),1`, which is 2 on each of three nodes and 1 on the fourth."""
    counts: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", tasks_per_node):
        counts += [int(count)] * int(times or 1)
    return counts[node] if node < len(counts) else 1
