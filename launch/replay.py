"""Tell what made NaN in a step that was skipped: `python launch/replay.py RUN/bad_batches/step_00000123`."""

import sys

from ds_trainer.replay.command import main

if __name__ == "__main__":
    sys.exit(main())
