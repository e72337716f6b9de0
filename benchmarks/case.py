"""What the contestants of a row train: a folder with all that they share. Reading it needs no ds_trainer.

case.json      size of the model, micro-batch, dropout, ...
clips.npz      the training clips by their numbers in the store, and the class of each
weights.pt     what every contestant's network begins with
engine.json    the engine config of ds_trainer
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LEARNING_RATE = 1e-3
CLIPPING = 1.0


@dataclass(frozen=True)
class Case:
    """What is trained.

    Args:
        store: the clip store, as an absolute path.
        size: of the model, such as `s_4_6`.
        num_signs: classes of the model.
    """

    folder: Path
    store: Path
    size: str
    micro_batch: int
    dropout: float
    num_signs: int
    num_frames: int = 50

    @classmethod
    def load(cls, folder: Path) -> "Case":
        """The case in a folder that `case_writer.write_case` made."""
        values: dict[str, Any] = json.loads((folder / "case.json").read_text())
        return cls(folder=folder, **{**values, "store": Path(values["store"])})

    def save(self) -> None:
        """Write case.json."""
        values = {name: value for name, value in asdict(self).items() if name != "folder"}
        (self.folder / "case.json").write_text(json.dumps({**values, "store": str(self.store)}))
