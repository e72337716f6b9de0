"""What a step asks of its device, counted: it cannot be noisy, so it is what keeps training fast in CI."""

import json
import sys
from typing import Any

import pytest
from launching import succeed

from ds_trainer.engine.precision import has_fast_bf16

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

MOST_OPERATIONS, MOST_IN_DATA_PATH, MOST_SYNCHRONISATIONS = 800, 280, 1
MOST_MIB_COPIED = 76 if has_fast_bf16() else 120
"""Of a step of 4 clips, data path included: activations that are laid out anew, and 2.9 million weights.

71 in bf16; 115 in float32, in which processors without bf16 instructions compute.
"""


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Of `s_4_6` at micro-batch 4, by contestant: the last of its steps."""
    folder = tmp_path_factory.mktemp("operations")
    succeed([sys.executable, "-m", "benchmarks", "--only", "operations", "--results_dir", folder], timeout_s=300)
    (path,) = folder.glob("*.json")
    by_title = json.loads(path.read_text())["rows"]["operations"]["samples"]
    assert [by_title[title][name] for title in by_title for name in by_title[title]], "somebody took part"
    return {name: by_round[-1] for samples in by_title.values() for name, by_round in samples.items()}


def test_a_step_takes_few_operations(counted: dict[str, dict[str, Any]]) -> None:
    in_data_path = counted["ds_trainer_data"]["operations"]
    assert 100 < in_data_path <= MOST_IN_DATA_PATH, counted["ds_trainer_data"]["by_name"]
    assert 400 < counted["ds_trainer"]["operations"] - in_data_path <= MOST_OPERATIONS, counted["ds_trainer"]["by_name"]


def test_a_step_hardly_waits_for_its_device(counted: dict[str, dict[str, Any]]) -> None:
    assert counted["ds_trainer"]["synchronisations"] <= MOST_SYNCHRONISATIONS


def test_a_step_copies_little(counted: dict[str, dict[str, Any]]) -> None:
    assert 1 < counted["ds_trainer"]["bytes_copied"] / 2**20 <= MOST_MIB_COPIED


def test_counting_sees_what_the_peers_do(counted: dict[str, dict[str, Any]]) -> None:
    """Were nothing counted, everything would be little."""
    assert counted["deepspeed"]["operations"] > 2 * counted["ds_trainer"]["operations"]
    assert counted["plain"]["synchronisations"] > 100, "a norm and a count of steps for each parameter"
