"""TensorBoard, Weights & Biases, Comet and CSV files, by DeepSpeed's own blocks of the engine config.

What they get is what metrics.jsonl gets, under the same names: `step/loss`, `epoch/val_loss`, `test/top1`, over the
number of steps. DeepSpeed's own events, which count examples instead, are off: W&B drops what does not count upwards.
"""

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ds_trainer.distributed import agreed
from ds_trainer.errors import SettingsError
from ds_trainer.progress import log

if TYPE_CHECKING:
    from deepspeed.monitor.monitor import Monitor

Record = Mapping[str, Any]

MONITORS = {"tensorboard": "tensorboard", "wandb": "wandb", "csv_monitor": None, "comet": "comet_ml"}
"""The blocks of an engine config, and the package that each needs."""

_LOCAL = ("tensorboard", "csv_monitor")
"""The blocks that write files of their own, for which the run directory is the place unless they name one."""


def monitor_problems(keys: Any, place: object) -> Iterator[str]:
    """Monitors whose package is missing, and a secret that every run directory would hold a copy of."""
    for name, package in MONITORS.items():
        is_missing = package is not None and importlib.util.find_spec(package) is None
        if getattr(keys, name).enabled and is_missing:
            yield f"{name}.enabled: found true, and no package {package}; pip install {package}, or remove the block"
    if keys.comet.api_key is not None:
        yield "comet.api_key: found a secret, which each run directory would keep; remove it and export COMET_API_KEY"


def without_monitors(config: Mapping[str, Any]) -> dict[str, Any]:
    """An engine config by which the engine itself monitors nothing."""
    return {name: value for name, value in config.items() if name not in MONITORS}


def start_monitors(config: Mapping[str, Any], run_dir: Path) -> Callable[[Record], None]:
    """Start the monitors that an engine config enables, for the master rank; return what to call with each record.

    Collective. A monitor that fails later does not end training: that is told once, and metrics.jsonl has the record.

    Raises:
        SettingsError: one cannot be started.
    """
    blocks = {name: dict(config[name]) for name in MONITORS if config.get(name, {}).get("enabled", False)}
    writers: list[Callable[[Record], None]] = []
    if blocks:
        agreed(lambda: writers.append(_started(blocks, run_dir)))
    return writers[0] if writers else lambda record: None


def _started(blocks: dict[str, dict[str, Any]], run_dir: Path) -> Callable[[Record], None]:
    from deepspeed.monitor.config import get_monitor_config
    from deepspeed.monitor.monitor import MonitorMaster

    for name in _LOCAL:
        if name in blocks:
            blocks[name].setdefault("output_path", str(run_dir))
            blocks[name].setdefault("job_name", name)
    os.environ.setdefault("WANDB_NAME", run_dir.name)
    os.environ.setdefault("WANDB_DIR", str(run_dir))
    shown = " and ".join(blocks)
    try:
        monitor = MonitorMaster(get_monitor_config(blocks))
    except Exception as error:
        raise SettingsError(
            f"{shown}: cannot be started ({error}); mend it, or remove it from the engine config"
        ) from error
    if monitor.csv_monitor is not None:
        # The files of a run that is continued have their headings.
        monitor.csv_monitor.filenames = [path.stem for path in Path(monitor.csv_monitor.log_dir).glob("*.csv")]
    return _Writer(monitor, shown)


class _Writer:
    def __init__(self, monitor: "Monitor", shown: str):
        self._monitor = monitor
        self._shown = shown
        self._is_well = True

    def __call__(self, record: Record) -> None:
        try:
            self._monitor.write_events(list(events_of(record)))
        except Exception as error:
            if self._is_well:
                log.warning(f"{self._shown}: {type(error).__name__}: {error}; training goes on without")
            self._is_well = False


def events_of(record: Record) -> Iterator[tuple[str, float, int]]:
    """The numbers of a record as (name, value, step)."""
    for name, value in record.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if name not in ("epoch", "step") and is_number:
            yield f"{record['kind']}/{name}", float(value), int(record["step"])
