"""Fixtures of the sign task's tests."""

from pathlib import Path
from typing import Any

import pytest
from sign_data.writers import grid, source

from ds_trainer.settings import combined_settings
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.settings import SignSettings
from ds_trainer.tasks.sign.store_writer import write_store
from ds_trainer.tasks.sign.task import SignTask

from .examples import LAYOUTS, REPETITIONS, SIGNERS, SIGNS, BuildTask

KNOWN = {name: layout for name, layout in LAYOUTS.items() if layout.mirror is not None}


@pytest.fixture(params=list(LAYOUTS.values()), ids=list(LAYOUTS))
def layout(request: pytest.FixtureRequest) -> KeypointLayout:
    return request.param


@pytest.fixture(params=list(KNOWN.values()), ids=list(KNOWN))
def known(request: pytest.FixtureRequest) -> KeypointLayout:
    return request.param


@pytest.fixture(scope="module")
def store_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "grid"
    names = ["one", "two", "three", "four"]
    write_store(path, source(grid(SIGNS, SIGNERS, REPETITIONS), num_signs=SIGNS, sign_names=names))
    return path


@pytest.fixture
def build(store_dir: Path) -> BuildTask:
    def build_task(**settings: Any) -> SignTask:
        given = {"data": str(store_dir), "model_size": "t_2_1", "num_frames": 6, **settings}
        return SignTask(combined_settings(SignSettings)(deepspeed_config=Path("unused"), **given))

    return build_task
