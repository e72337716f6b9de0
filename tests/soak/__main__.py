"""`python -m soak`: run the scenarios, print the table; status 1 if any verdict is bad."""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from soak.courses import Lab
from soak.plan import full_plan, run_plan, short_plan
from soak.table import table


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0, help="what does not fit is a failure (default 15)")
    parser.add_argument("--short", action="store_true", help="a few scenarios, for CI")
    parser.add_argument("--only", default="", help="names of scenarios, separated by commas")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="decides the moments (default: any)")
    parser.add_argument("--work_dir", type=Path, help="where runs and logs are kept (default: not kept if all is well)")
    options = parser.parse_args()
    began_s = time.monotonic()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # not without the jobs
    names = [name.strip() for name in options.only.split(",") if name.strip()]
    scenarios = [each for each in (short_plan() if options.short else full_plan()) if not names or each.name in names]
    work_dir = Path(options.work_dir or tempfile.mkdtemp(prefix="ds_trainer_soak-")).absolute()
    work_dir.mkdir(parents=True, exist_ok=True)
    print(
        f"soak: seed {options.seed}, {len(scenarios)} scenarios in at most {options.minutes:g} minutes, in {work_dir}"
    )

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - began_s:4.0f} s] {line}", flush=True)

    rows = run_plan(scenarios, Lab(work_dir, began_s + 60 * options.minutes, options.seed), tell)
    print(f"\n{table(rows)}\n\nseed {options.seed}, {time.monotonic() - began_s:.0f} s")
    is_bad = any(row.is_bad for row in rows)
    if not is_bad and options.work_dir is None:
        shutil.rmtree(work_dir)
    return int(is_bad)


if __name__ == "__main__":
    sys.exit(main())
