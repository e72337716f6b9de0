"""Show runs side by side: `python launch/compare.py RUN RUN ... [--page compare.html]`; see `--help`."""

import sys

from ds_trainer.report.compare import main

if __name__ == "__main__":
    sys.exit(main())
