"""`python -m ds_trainer` trains, as `launch/train.py` and `ds-train` do."""

import sys

from ds_trainer.stopping import hold_sigusr1_back


def main() -> int:
    """Train as the command line says; return the exit status of `job.main`."""
    hold_sigusr1_back()
    from ds_trainer.job import main as train

    return train()


if __name__ == "__main__":
    sys.exit(main())
