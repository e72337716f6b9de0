"""`--profile`: a few steps recorded with PyTorch's profiler, as a trace and as one screen that says where time goes.

The loop knows little of it: the batches that it asks for pass through here, and while steps are recorded, what the
engine does stands by name in the trace. Without `--profile` nothing is in between.
"""

import gzip
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import torch
from torch.profiler import profile, record_function, schedule

from ds_trainer import gpu
from ds_trainer.batches import Batch
from ds_trainer.distributed import is_master
from ds_trainer.errors import WriteError
from ds_trainer.files import make_folder, write_atomically, write_text
from ds_trainer.profile_summary import range_name, summarise
from ds_trainer.progress import log
from ds_trainer.watch.whereabouts import stand_at

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

_NUM_FIRST, _NUM_WARM_UP, NUM_RECORDED = 2, 1, 3
NUM_NEEDED = _NUM_FIRST + _NUM_WARM_UP + NUM_RECORDED
"""Steps: the first ones allocate and compile, one warms up the profiler, and the others are recorded."""
_ENGINE_PHASES = {"forward": "forward", "backward": "backward", "step": "engine step"}


class Profile:
    """Records a few steps of the first epoch that passes, if it is wanted, on the master rank.

    Args:
        run_dir: trace and summary are written to its folder `profile`.
    """

    def __init__(self, engine: "DeepSpeedEngine", run_dir: Path, is_wanted: bool):
        self._engine = engine
        self._dir = run_dir / "profile"
        self._is_due = is_wanted and is_master()

    def over(self, batches: Iterable[Batch]) -> Iterable[Batch]:
        """Pass the batches of an epoch on."""
        if not self._is_due:
            return batches
        self._is_due = False
        return self._recorded(iter(batches))

    def _recorded(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        num_steps = 0
        plan = schedule(wait=_NUM_FIRST, warmup=_NUM_WARM_UP, active=NUM_RECORDED, repeat=1)
        # One cycle is recorded, so that nothing accumulates: without it torch 2.11 warns that it would forget others.
        with profile(schedule=plan, acc_events=True) as profiler, _named(self._engine):
            for batch in _timed(batches):
                yield batch
                if not batch.ends_step:
                    continue
                num_steps += 1
                if num_steps in (NUM_NEEDED - NUM_RECORDED, NUM_NEEDED):
                    _wait_for_device()  # so that the recorded steps hold their own kernels, and all of them
                if num_steps == NUM_NEEDED:
                    break
                profiler.step()
        if num_steps < NUM_NEEDED:
            log.warning(
                f"--profile: nothing was recorded, as the epoch had {num_steps} steps left and {NUM_NEEDED} are needed;"
                " take a smaller train_micro_batch_size_per_gpu in the engine config, or more clips"
            )
            return
        self._report(profiler)
        yield from batches

    def _report(self, profiler: profile) -> None:
        stand_at("writing the profile")
        lines = summarise(profiler.events() or [], NUM_RECORDED)
        trace = self._dir / "trace.json.gz"
        try:
            make_folder(self._dir)
            write_text(self._dir / "summary.txt", "\n".join([*lines, ""]))
            write_atomically(trace, lambda file: _write_trace(profiler, file))
            lines.append(f"trace {trace} (to be opened in https://ui.perfetto.dev)")
        except WriteError as error:
            lines.append(f"the profile was not saved: {error}")
        for line in lines:
            log.info(line)


def _timed(batches: Iterator[Batch]) -> Iterator[Batch]:
    while True:
        with record_function(range_name("data")):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


@contextmanager
def _named(engine: "DeepSpeedEngine") -> Iterator[None]:
    """While it is open, what the engine does stands by name in a trace."""
    for method, phase in _ENGINE_PHASES.items():
        setattr(engine, method, record_function(range_name(phase))(getattr(engine, method)))
    try:
        yield
    finally:
        for method in _ENGINE_PHASES:
            delattr(engine, method)


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        with record_function(range_name("waiting for the device")):
            gpu.wait()


def _write_trace(profiler: profile, file: IO[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(plain))  # takes a name, not a file
        with plain.open("rb") as trace, gzip.open(file, "wb", compresslevel=6) as packed:
            shutil.copyfileobj(trace, packed)
