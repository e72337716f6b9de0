"""A minimal DeepSpeed script for `deepspeed`: raw_script.py CASE_DIR DONE writes the file DONE after its first step."""

import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.case import Case
from benchmarks.contestants.raw_deepspeed import train
from benchmarks.pace import Totals


def main(case_dir: str, done: str) -> None:
    """Train until killed."""

    def after_step(totals: Callable[[], Totals]) -> None:
        Path(done).touch()

    train(Case.load(Path(case_dir)), after_step)


if __name__ == "__main__":
    main(*sys.argv[-2:])  # the launcher puts --local_rank before
