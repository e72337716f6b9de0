"""What all folds of a sweep have in common: noted in its folder, given to each training, and looked for in its run."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from ds_trainer.cross_validation.folds import Fold
from ds_trainer.cross_validation.sweep import finished_run
from ds_trainer.errors import SettingsError
from ds_trainer.files import make_folder, write_json, write_yaml
from ds_trainer.problems import reason_of, shown
from ds_trainer.run.reading import read_json
from ds_trainer.run.resume import differences, in_short
from ds_trainer.settings import RunSettings, identity

_OF_EACH_FOLD = ("split", "seed")
_OF_A_SWEEP = ("num_epochs", "early_stopping_epochs")
"""A run may go on with more epochs; the folds of a sweep have as many."""


@dataclass(frozen=True)
class Plan:
    """What makes a sweep what it is.

    Args:
        engine_config: as it is written.
        resolved_config: as the one rank that trains a fold completes it.
        num_groups: of signers that are held out together.
    """

    settings: RunSettings
    engine_config: dict[str, Any]
    resolved_config: dict[str, Any]
    data_fingerprint: str
    num_groups: int

    def described(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        settings = {name: value for name, value in identity(self.settings).items() if name not in _OF_EACH_FOLD}
        return {
            "settings": settings,
            **self._of_a_sweep(),
            "folds": self.num_groups,
            "engine_config": self.engine_config,
            "data_fingerprint": self.data_fingerprint,
        }

    def _of_a_sweep(self) -> dict[str, Any]:
        return {name: getattr(self.settings, name) for name in _OF_A_SWEEP}

    def dir_in(self, runs_dir: Path) -> Path:
        """Where the sweep is kept unless the user says."""
        text = json.dumps(self.described(), sort_keys=True)
        return runs_dir / f"cross_validation-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"

    def claim(self, sweep_dir: Path) -> None:
        """Note in a new folder what it is for; refuse one that is for something else."""
        path = sweep_dir / "plan.json"
        if not path.exists():
            make_folder(sweep_dir)
            write_json(path, self.described())
            return
        before, now = _read(path), self.described()
        settings = [name for name, value in now["settings"].items() if before["settings"].get(name) != value]
        differing = settings + [name for name in now if name != "settings" and before.get(name) != now[name]]
        if differing:
            raise SettingsError(
                f"{path}: holds a sweep of other settings: {', '.join(differing)} differ; choose another --sweep_dir "
                "or delete the folder"
            )

    def write_inputs(self, sweep_dir: Path) -> list[str | Path]:
        """Write the settings and the engine config, and give the flags by which the trainings read them.

        The files that they are from may be edited for the next experiment while the sweep goes on.
        """
        recipe, engine_config = sweep_dir / "recipe.yaml", sweep_dir / "engine.json"
        write_yaml(recipe, to_jsonable_python(self.settings, exclude={"config", "resume"}))
        write_json(engine_config, self.engine_config)
        return ["--config", recipe, "--deepspeed_config", engine_config]

    def refuse_others(self, folds: Sequence[Fold], sweep_dir: Path) -> None:
        """Refuse what was trained otherwise, such as on data that was changed while the sweep went on.

        Raises:
            SettingsError: with each such fold.
            CheckpointError: a run does not say what it was made with.
        """
        problems = []
        for fold in folds:
            run_dir = finished_run(fold, sweep_dir)
            if run_dir is not None and (differing := self._differences(run_dir, fold)):
                problems.append(
                    f"{fold}: {run_dir} is no run of this sweep: {in_short(differing)}; expected what "
                    f"{sweep_dir / 'plan.json'} says; delete that run directory, and train the fold again on the "
                    "data of the others, or choose another --sweep_dir"
                )
        if problems:
            raise SettingsError(problems)

    def _differences(self, run_dir: Path, fold: Fold) -> list[str]:
        expected = {
            **identity(self.settings.model_copy(update={"split": fold.split, "seed": fold.seed})),
            **self._of_a_sweep(),
            "engine config": self.resolved_config,
            "data fingerprint": self.data_fingerprint,
        }
        return differences(run_dir, lambda _: expected)


def _read(path: Path) -> dict[str, Any]:
    """What `claim` noted.

    Raises:
        SettingsError: it is damaged, or a file of that name that something else wrote.
    """
    try:
        plan = read_json(path)
        if not isinstance(plan.get("settings"), dict):
            raise ValueError(f"found {shown(plan)}")
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{path}: is no plan of a sweep ({reason_of(error)}), expected the one that this command wrote; choose "
            "another --sweep_dir, or delete the file"
        ) from error
    return plan
