"""Fixtures of the tests of sign data."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from ds_trainer.tasks.sign.store import ClipStore
from ds_trainer.tasks.sign.store_writer import write_store

from .writers import BuildStore, grid, source


@pytest.fixture
def build_store(tmp_path: Path) -> BuildStore:
    def build(split_of: Mapping[int, str] | None = None, claims: bool = False, **shape: int) -> ClipStore:
        clips = grid(**({"signs": 4, "signers": 5, "repetitions": 6} | shape), split_of=split_of)
        path = tmp_path / f"store_{len(list(tmp_path.iterdir()))}"
        write_store(path, source(clips, num_signs=max(clip.sign for clip in clips), claims_unseen_signers=claims))
        return ClipStore.open(path)

    return build
