"""Score a trained model: `python launch/evaluate.py RUN`; see `--help`."""

import sys

from ds_trainer.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
