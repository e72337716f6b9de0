"""Train once for each signer, who is held out: `python launch/cross_validate.py --seeds 3 ...`; see `--help`."""

import sys

from ds_trainer.cross_validation.command import main

if __name__ == "__main__":
    sys.exit(main())
