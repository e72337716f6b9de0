"""How long a step takes over a slow cable, by ZeRO stage and by what may make it shorter: the documentation's table.

    PYTHONPATH=tests python -m multinode.bandwidth [--mbit_per_s 100] [--only TEXT]

Two hosts with a rank each train 2.9 million parameters, nearly all in one layer: what a step costs beside
communication is small, and shown as the row without a limit. About half a minute a row.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launching import ROOT

from multinode.lab import Lab
from multinode.training import Training, records_in

_FLAGS = ["--num_hidden", "1700", "--num_points", "852", "--num_epochs", "3", "--record_every_steps", "999"]


@dataclass(frozen=True)
class Row:
    """A change of `bf16.json` and what it is called.

    Args:
        change: merged into the engine config, block by block.
        of: the engine config that is changed.
        flags: more flags of the trainer.
    """

    name: str
    change: dict[str, Any] = field(default_factory=dict)
    of: str = "bf16.json"
    is_limited: bool = True
    flags: tuple[str, ...] = ()


def zero(**keys: Any) -> dict[str, Any]:
    """A change of the ZeRO block."""
    return {"zero_optimization": keys}


ROWS = [
    Row("stage 1, no limit", is_limited=False),
    Row("stage 0", zero(stage=0)),
    Row("stage 1 (`bf16.json`)"),
    Row("stage 2", zero(stage=2)),
    Row("stage 3", of="bf16_zero3.json"),
    Row("fp32, stage 1", of="fp32.json"),
    Row("fp32, stage 1, communicates bf16", {"communication_data_type": "bf16"}, of="fp32.json"),
    Row("`torch_autocast.json`", of="torch_autocast.json"),
    Row("`torch_autocast.json`, communicates bf16", {"communication_data_type": "bf16"}, of="torch_autocast.json"),
    Row("stage 1, `use_multi_rank_bucket_allreduce: false`", zero(use_multi_rank_bucket_allreduce=False)),
    Row("stage 1, `reduce_scatter: false`", zero(reduce_scatter=False)),
    Row("stage 1, buckets of 500,000", zero(reduce_bucket_size=500_000, allgather_bucket_size=500_000)),
    Row("stage 2, `overlap_comm`", zero(stage=2, overlap_comm=True)),
    Row("stage 1, accumulation 4", {"gradient_accumulation_steps": 4}),
    Row("stage 0, accumulation 4", {"gradient_accumulation_steps": 4, **zero(stage=0)}),
    Row("stage 2, accumulation 4", {"gradient_accumulation_steps": 4, **zero(stage=2)}),
    Row("stage 3, accumulation 4", {"gradient_accumulation_steps": 4}, of="bf16_zero3.json"),
    Row("stage 1, a resume point every 4 steps", flags=("--resume_every_steps", "4")),
    Row("stage 1, micro-batch 128", {"train_micro_batch_size_per_gpu": 128}),
]


def engine_config(row: Row) -> dict[str, Any]:
    """The engine config of a row."""
    config: dict[str, Any] = json.loads((ROOT / "ds_configs" / row.of).read_text())
    for key, value in row.change.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    return config


def step_s(lab: Lab, row: Row, work_dir: Path) -> tuple[float, int]:
    """The median seconds of a step, the first epoch left out, and its clips."""
    training = Training(lab, work_dir)
    config = engine_config(row)
    path = work_dir / "engine.json"
    path.write_text(json.dumps(config))
    training.ranks("--deepspeed_config", str(path), *_FLAGS, *row.flags)
    training.succeed(600)
    epochs = [record for record in records_in(training.runs_dir) if record["kind"] == "epoch"]
    clips = config["train_micro_batch_size_per_gpu"] * config["gradient_accumulation_steps"] * len(lab.hosts)
    return statistics.median(clips / epoch["examples_per_second"] for epoch in epochs[1:]), clips


def table(mbit_per_s: float, rows: list[Row]) -> Iterator[str]:
    """The lines of the table, each as soon as it is known."""
    yield f"| at {mbit_per_s:g} Mbit/s | ms a step | clips a step | clips/s |"
    yield "|---|---|---|---|"
    with tempfile.TemporaryDirectory() as folder:
        for number, row in enumerate(rows):
            with Lab(2) as lab:
                for host in range(2 if row.is_limited else 0):
                    lab.limit_rate(host, mbit_per_s)
                seconds, clips = step_s(lab, row, Path(folder) / str(number))
                yield f"| {row.name} | {1000 * seconds:.0f} | {clips} | {clips / seconds:.0f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mbit_per_s", type=float, default=100.0)
    parser.add_argument("--only", default="", help="rows with this in their name")
    chosen = parser.parse_args()
    for line in table(chosen.mbit_per_s, [row for row in ROWS if chosen.only in row.name]):
        print(line, flush=True)


if __name__ == "__main__":
    main()
