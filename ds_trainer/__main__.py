"""`python -m ds_trainer` trains, as `launch/train.py` does."""

import sys

from ds_trainer.job import main

if __name__ == "__main__":
    sys.exit(main())
