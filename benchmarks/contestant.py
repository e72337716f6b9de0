"""One contestant in a process of its own: `python -m benchmarks.contestant NAME CASE_DIR`; see `pace.py`."""

import argparse
import contextlib
import importlib
from pathlib import Path

import torch

from benchmarks.case import Case
from benchmarks.pace import EnoughError, Pace

CONTESTANTS = {
    "ds_trainer": "own:train",
    "ds_trainer_compiled": "own:train_compiled",
    "plain": "plain:train",
    "plain_fp32": "plain:train_fp32",
    "plain_fused": "plain:train_fused",
    "deepspeed": "raw_deepspeed:train",
    "accelerate": "accelerated:train",
    "ds_trainer_data": "own:prepare",
    "ds_trainer_data_compiled": "own:prepare_compiled",
    "numpy_data": "plain:prepare",
}
"""Module and function in `benchmarks.contestants`: imported by the one that runs alone, so memory is its own."""


def main() -> None:
    """Run one contestant until its standard input ends."""
    parser = argparse.ArgumentParser(prog="benchmarks.contestant", description=__doc__)
    parser.add_argument("name", choices=CONTESTANTS)
    parser.add_argument("case", type=Path)
    parser.add_argument("--warm_up", type=int, default=2, help="steps before the first round")
    parser.add_argument("--steps", type=int, default=3, help="steps in a round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count", action="store_true", help="count operations")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    module, function = CONTESTANTS[arguments.name].split(":")
    train = getattr(importlib.import_module(f"benchmarks.contestants.{module}"), function)
    with contextlib.suppress(EnoughError):
        train(Case.load(arguments.case), Pace(arguments.warm_up, arguments.steps, arguments.count))


if __name__ == "__main__":
    main()
