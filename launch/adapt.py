"""Adapt a trained model to one signer: `python launch/adapt.py RUN clips/ --out signer.pth`; see `--help`."""

import sys

from ds_trainer.adapt import main

if __name__ == "__main__":
    sys.exit(main())
