"""Look at clips before training on them: `python launch/inspect_data.py --data data/karsl-502 --augment`."""

import sys

from ds_trainer.tasks.sign.inspection import main

if __name__ == "__main__":
    sys.exit(main())
