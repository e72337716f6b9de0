"""Train a recogniser: `deepspeed launch/train.py --deepspeed_config ds_configs/bf16.json`; see `--help`."""

import sys

from ds_trainer.stopping import hold_sigusr1_back

if __name__ == "__main__":
    hold_sigusr1_back()
    from ds_trainer.job import main

    sys.exit(main())
