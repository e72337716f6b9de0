"""`python launch/check_hosts.py --hostfile hosts`: one table, one verdict, the remedy beside each problem."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from ds_trainer.command import command
from ds_trainer.errors import SettingsError
from ds_trainer.hostfile import read_hostfile
from ds_trainer.preflight.asking import Answer, Question, ask_hosts
from ds_trainer.preflight.judging import Problem, problems_of
from ds_trainer.problems import shown
from ds_trainer.progress import log
from ds_trainer.text_file import shipped

_COLUMNS = ("host", "slots", "devices", "python", "torch", "deepspeed", "address", "interface", "clock", "free", "runs")


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Look at every host; return 0 if a job can start there, else 2."""
    arguments = _parser().parse_args(argv)
    slots_of = read_hostfile(arguments.hostfile)
    files = [shipped(path) for path in (arguments.deepspeed_config, arguments.config) if path is not None]
    question = Question(files, arguments.runs_dir, arguments.data, _words(arguments.ssh_args))
    answers = ask_hosts(slots_of, question)
    problems = problems_of(answers)
    for line in report(answers, problems):
        log.info(line)
    return 2 if any(problem.is_fatal for problem in problems) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hostfile", type=Path, required=True, help="lines such as `node1 slots=8`")
    parser.add_argument("--deepspeed_config", type=Path, default=Path("ds_configs/bf16.json"), help="the engine config")
    parser.add_argument("--config", type=Path, help="the recipe, if the job has one")
    parser.add_argument("--data", type=Path, help="a file or folder of data that all hosts must have")
    parser.add_argument("--runs_dir", type=Path, default=Path("runs"), help="where run directories are made")
    parser.add_argument("--ssh_args", default="", help="more arguments of ssh, such as '-p 2222'")
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
    return [*lines, f"{num_fatal} problems: do not start yet" if num_fatal else good]


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
