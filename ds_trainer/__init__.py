"""A DeepSpeed-backed trainer for sign-language recognisers, and for any `nn.Module`.

What programs of others may rely on stands in `__all__` and in docs/api.md. Each name is imported when it is used, so
that `import ds_trainer` takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ds_trainer.checkpoint import load_checkpoint, load_model
    from ds_trainer.classification import balanced_weights, classification_objective
    from ds_trainer.errors import CheckpointError, DataError, SettingsError, UserError
    from ds_trainer.objective import Objective
    from ds_trainer.randomness import Draw
    from ds_trainer.settings import TaskSettings, setting
    from ds_trainer.stopping import StopRequested
    from ds_trainer.task import Deployment, Task
    from ds_trainer.tasks.sign.known_layouts import layout_for
    from ds_trainer.tasks.sign.layout import KeypointLayout
    from ds_trainer.tasks.sign.models import ModelSpec, SignModel
    from ds_trainer.tasks.sign.preprocessing import Preprocessing, Recogniser
    from ds_trainer.tasks.sign.store import ClipStore
    from ds_trainer.training import train
    from ds_trainer.validation import Metrics, in_order, validate

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "ClipStore",
    "DataError",
    "Deployment",
    "Draw",
    "KeypointLayout",
    "Metrics",
    "ModelSpec",
    "Objective",
    "Preprocessing",
    "Recogniser",
    "SettingsError",
    "SignModel",
    "StopRequested",
    "Task",
    "TaskSettings",
    "UserError",
    "balanced_weights",
    "classification_objective",
    "in_order",
    "layout_for",
    "load_checkpoint",
    "load_model",
    "setting",
    "train",
    "validate",
]

_MODULES = {
    "checkpoint": ("load_checkpoint", "load_model"),
    "classification": ("balanced_weights", "classification_objective"),
    "errors": ("CheckpointError", "DataError", "SettingsError", "UserError"),
    "objective": ("Objective",),
    "randomness": ("Draw",),
    "settings": ("TaskSettings", "setting"),
    "stopping": ("StopRequested",),
    "task": ("Deployment", "Task"),
    "tasks.sign.known_layouts": ("layout_for",),
    "tasks.sign.layout": ("KeypointLayout",),
    "tasks.sign.models": ("ModelSpec", "SignModel"),
    "tasks.sign.preprocessing": ("Preprocessing", "Recogniser"),
    "tasks.sign.store": ("ClipStore",),
    "training": ("train",),
    "validation": ("Metrics", "in_order", "validate"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ds_trainer' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ds_trainer.{_MODULE_OF[name]}"), name)
