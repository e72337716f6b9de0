"""`python launch/check_hosts.py --hostfile hosts`: one table, one verdict, the remedy beside each problem."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from ds_trainer.command import command
from ds_trainer.engine.config import load_engine_config
from ds_trainer.errors import EXIT_USER_ERROR, SettingsError
from ds_trainer.hostfile import read_hostfile
from ds_trainer.preflight.asking import Answer, Question, ask_hosts
from ds_trainer.preflight.judging import Problem, problems_of
from ds_trainer.problems import shown
from ds_trainer.progress import log
from ds_trainer.recipe import load_recipe
from ds_trainer.text_file import shipped

_COLUMNS = ("host", "slots", "devices", "python", "torch", "deepspeed", "address", "interface", "clock", "free", "runs")

_DEFAULT_DATA = Path("default")
"""As in launch/train.py: it comes with the package."""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Look at every host; return 0 if a job can start there, else 2."""
    arguments = _parser().parse_args(argv)
    slots_of = read_hostfile(arguments.hostfile)
    load_engine_config(arguments.deepspeed_config)  # what cannot be read here is no better for being the same there
    if arguments.config is not None:
        load_recipe(arguments.config)
    files = [shipped(path) for path in (arguments.deepspeed_config, arguments.config) if path is not None]
    data = None if arguments.data == _DEFAULT_DATA else arguments.data
    question = Question(files, arguments.runs_dir, data, _words(arguments.ssh_args))
    answers = ask_hosts(slots_of, question)
    problems = problems_of(answers)
    for line in report(answers, problems):
        log.info(line)
    return EXIT_USER_ERROR if any(problem.is_fatal for problem in problems) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hostfile", type=Path, required=True, help="lines such as `node1 slots=8`")
    parser.add_argument(
        "--deepspeed_config",
        type=Path,
        default=Path("ds_configs/bf16.json"),
        help="the engine config (default: %(default)s)",
    )
    parser.add_argument("--config", type=Path, help="the recipe, if the job has one (default: none)")
    parser.add_argument(
        "--data",
        type=Path,
        default=_DEFAULT_DATA,
        help="a file or folder of data that all hosts must have (default: %(default)s, which comes with the package)",
    )
    parser.add_argument(
        "--runs_dir", type=Path, default=Path("runs"), help="where run directories are made (default: %(default)s)"
    )
    parser.add_argument("--ssh_args", default="", help="more arguments of ssh, such as '-p 2222' (default: none)")
    return parser


def _words(ssh_args: str) -> list[str]:
    try:
        return shlex.split(ssh_args)
    except ValueError as error:
        reason = str(error)[0].lower() + str(error)[1:]
        raise SettingsError(
            f"--ssh_args: found {shown(ssh_args)} ({reason}), expected words as a shell reads them, such as '-p 2222'"
        ) from error


def report(answers: Sequence[Answer], problems: Sequence[Problem]) -> list[str]:
    """The table, the problems, the verdict."""
    rows = [list(_COLUMNS), *(_row(answer) for answer in answers)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for problem in problems:
        mark = "problem" if problem.is_fatal else "note"
        lines.append(f"{mark}: {problem.host}: {problem.what}; {problem.remedy}")
    num_fatal = sum(problem.is_fatal for problem in problems)
    ranks = sum(answer.slots for answer in answers)
    hosts = "1 host is" if len(answers) == 1 else f"{len(answers)} hosts are"
    good = f"{hosts} ready for {ranks} {'rank' if ranks == 1 else 'ranks'}"
    bad = f"{num_fatal} {'problem' if num_fatal == 1 else 'problems'}: do not start yet"
    return [*lines, bad if num_fatal else good]


def _row(answer: Answer) -> list[str]:
    says = answer.says
    if not says:
        return [answer.host, str(answer.slots), "no answer", *[""] * (len(_COLUMNS) - 3)]
    versions = {package: version or "missing" for package, version in says["versions"].items()}
    return [
        answer.host,
        str(answer.slots),
        f"{says['gpus']} GPUs" if says["gpus"] else f"{says['cores']} cores",
        versions["python"],
        versions["torch"],
        versions["deepspeed"],
        says["route"]["address"] or "none",
        says["route"]["interface"] or "none",
        f"{answer.clock_offset_s:+.1f} s",
        f"{says['free_bytes'] / 2**30:.1f} GiB",
        "shared" if says["sees_token"] else "its own",
    ]
