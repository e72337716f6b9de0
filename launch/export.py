"""Write a trained model in a form that others can use: `python launch/export.py RUN --to onnx`; see `--help`."""

import sys

from ds_trainer.export.command import main

if __name__ == "__main__":
    sys.exit(main())
