"""`python -m ds_trainer` trains, as `launch/train.py` and `ds-train` do."""

import sys
import tempfile

from ds_trainer.stopping import hold_sigusr1_back


def main() -> int:
    """Train as the command line says; return the exit status of `job.main`."""
    hold_sigusr1_back()
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:  # which torch._dynamo, loaded below, would end in a traceback
        return _told_where_to_put_temporary_files(error)
    from ds_trainer.job import main as train

    return train()


def _told_where_to_put_temporary_files(error: FileNotFoundError) -> int:
    """Tell that a container has a read-only disk alone; return the exit status."""
    from ds_trainer.errors import EXIT_USER_ERROR
    from ds_trainer.progress import start_log, tell_problems

    start_log()
    tell_problems([f"{error.strerror}, expected one that can be written; mount one at /tmp, or export TMPDIR=FOLDER"])
    return EXIT_USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
