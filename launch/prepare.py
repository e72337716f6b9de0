"""Prepare clips for training: `python launch/prepare.py --data data/karsl-502`; see `--help`."""

import sys

from ds_trainer.tasks.sign.prepare import main

if __name__ == "__main__":
    sys.exit(main())
