"""`python -m ds_trainer` trains, as `launch/train.py` does."""

import sys

from ds_trainer.stopping import hold_sigusr1_back

if __name__ == "__main__":
    hold_sigusr1_back()
    from ds_trainer.job import main

    sys.exit(main())
