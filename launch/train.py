"""Train a recogniser: `deepspeed launch/train.py --deepspeed_config ds_configs/bf16.json`; see `--help`."""

import sys

from ds_trainer.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
