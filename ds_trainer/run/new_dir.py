"""A directory for a new run, called by the time and by what is trained."""

import itertools
from datetime import datetime
from pathlib import Path

from ds_trainer.distributed import agreed
from ds_trainer.errors import WriteError


def new_run_dir(runs_dir: Path, label: str) -> Path:
    """Make a run directory with a name that no other has; the same path on every rank. Collective.

    Raises:
        WriteError: it cannot be made there.
    """
    return agreed(lambda: _make_run_dir(runs_dir, f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{label}"))


def _make_run_dir(runs_dir: Path, name: str) -> Path:
    for attempt in itertools.count(1):
        run_dir = runs_dir / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            runs_dir.mkdir(parents=True, exist_ok=True)
            run_dir.mkdir()
            return run_dir
        except FileExistsError:
            if not runs_dir.is_dir():
                raise WriteError(f"{runs_dir}: is a file, expected a directory; choose another --runs_dir") from None
        except OSError as error:
            raise WriteError(
                f"--runs_dir {runs_dir}: cannot be written ({error.strerror}); make room there, or choose another"
            ) from error
    raise AssertionError("unreachable")
