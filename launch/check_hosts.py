"""Look at every host before a job starts there: `python launch/check_hosts.py --hostfile hosts`; see `--help`."""

import sys

from ds_trainer.preflight.command import main

if __name__ == "__main__":
    sys.exit(main())
