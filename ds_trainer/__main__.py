"""`python -m ds_trainer` trains, as `launch/train.py` and `ds-train` do."""

import os
import sys
import tempfile

from ds_trainer.launcher_watch import launcher_of
from ds_trainer.stopping import hold_sigusr1_back


def main() -> int:
    """Train as the command line says; return the exit status of `job.main`."""
    hold_sigusr1_back()
    launcher_of(os.getpid())
    from ds_trainer.rank_variables import malformed_variables

    problems = [*malformed_variables(), *_nowhere_for_temporary_files()]
    if problems:
        from ds_trainer.errors import EXIT_USER_ERROR
        from ds_trainer.progress import complain

        complain(problems)  # there is no log yet: what it writes depends on the rank
        return EXIT_USER_ERROR
    from ds_trainer.job import main as train

    return train()


def _nowhere_for_temporary_files() -> list[str]:
    """What to tell where a container has a read-only disk alone, which torch._dynamo ends with a traceback."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        return [f"{error.strerror}, expected one that can be written; mount one at /tmp, or export TMPDIR=FOLDER"]
    return []


if __name__ == "__main__":
    sys.exit(main())
