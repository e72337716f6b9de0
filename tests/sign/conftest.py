"""Fixtures of the sign task's tests."""

import pytest

from ds_trainer.tasks.sign.layout import KeypointLayout

from .examples import LAYOUTS

KNOWN = {name: layout for name, layout in LAYOUTS.items() if layout.mirror is not None}


@pytest.fixture(params=list(LAYOUTS.values()), ids=list(LAYOUTS))
def layout(request: pytest.FixtureRequest) -> KeypointLayout:
    return request.param


@pytest.fixture(params=list(KNOWN.values()), ids=list(KNOWN))
def known(request: pytest.FixtureRequest) -> KeypointLayout:
    return request.param
