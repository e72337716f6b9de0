"""Every recipe is made of settings that exist, stands in the README's table with what to expect, and says why."""

from pathlib import Path

import pytest
import torch
from launching import ROOT

from ds_trainer.command_line import load_settings
from ds_trainer.recipe import load_recipe
from ds_trainer.task import load_task_type
from ds_trainer.tasks.sign.prepare import resolve_synthetic
from ds_trainer.tasks.sign.synthetic import SyntheticSettings
from ds_trainer.tasks.sign.task import SignTask

RECIPES = sorted((ROOT / "ds_configs" / "recipes").glob("*.yaml"))


@pytest.fixture(params=RECIPES, ids=lambda path: path.stem)
def recipe(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_settings_are_those_that_the_recipe_gives(recipe: Path) -> None:
    settings = load_settings(["--deepspeed_config", "unused", "--config", str(recipe)], load_task_type).model_dump()
    for name, value in load_recipe(recipe).items():
        given = settings[name]
        assert (list(given) if isinstance(given, tuple) else given) == value, name


@pytest.mark.parametrize("layout", ["karsl", "holistic_75"])
def test_recipe_trains_on_clips_of_another_layout(recipe: Path, layout: str, tmp_path: Path) -> None:
    store = resolve_synthetic(SyntheticSettings(num_clips=24, num_signs=3, layout=layout), tmp_path)
    flags = ["--deepspeed_config", "unused", "--config", str(recipe), "--data", str(store)]
    task = SignTask(load_settings(flags, load_task_type))
    (clips_BTKC,), classes_B = task.prepare(torch.tensor([0, 1]), torch.device("cpu"), None)
    assert task.build_model().eval()(clips_BTKC).shape == (len(classes_B), 3)


def test_table_names_it_with_a_result_and_a_cost(recipe: Path) -> None:
    text = (recipe.parent / "README.md").read_text(encoding="utf-8")
    (row,) = [line for line in text.splitlines() if line.startswith(f"| [{recipe.name}]({recipe.name})")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == 6
    assert all(cells)
    assert any(character.isdigit() for character in cells[4]), "the result to expect"


def test_recipe_begins_with_what_it_is_for(recipe: Path) -> None:
    assert recipe.read_text(encoding="utf-8").startswith("# ")
