"""Tell which signs clips show: `python launch/predict.py RUN clip.npz --top 5`; see `--help`."""

import sys

from ds_trainer.predict import main

if __name__ == "__main__":
    sys.exit(main())
