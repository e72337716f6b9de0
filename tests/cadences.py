"""When a run of a test writes and stops: as by default, but for what the test says."""

from pathlib import Path
from typing import Any

from ds_trainer.run.cadence import Cadence
from ds_trainer.settings import RunSettings


def cadence(**changed: Any) -> Cadence:
    return Cadence.of(RunSettings(deepspeed_config=Path("unused"), **changed))
