"""Contract: `--help`, the settings that a run writes down, and those that a user's own task adds."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from cadences import cadence
from pydantic_core import to_jsonable_python

from ds_trainer import predict
from ds_trainer.command_line import build_parser, load_settings
from ds_trainer.cross_validation import command as cross_validation
from ds_trainer.preflight import command as preflight
from ds_trainer.run.run_dir import Run
from ds_trainer.settings import NameList, RunSettings, TaskSettings, combined_settings, identity, setting
from ds_trainer.task import load_task_type
from ds_trainer.tasks.sign import inspection
from ds_trainer.tasks.sign.settings import SignSettings

ENGINE = ["--deepspeed_config", "engine.json"]
TOY = [*ENGINE, "--task", "toy"]


def load(*argv: str | Path) -> RunSettings:
    return load_settings([str(argument) for argument in argv], load_task_type)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


def test_help_is_grouped_and_says_units_and_defaults() -> None:
    text = " ".join(build_parser(combined_settings(SignSettings)).format_help().split())
    groups = ["what to train:", "training:", "the run:", "data:", "model:", "augmentation (training only):"]
    places = [text.index(f" {group} --") for group in groups]
    assert places == sorted(places)
    for shown in (
        "usage: deepspeed launch/train.py --deepspeed_config PATH [--name VALUE ...]",
        "see ds_configs/README.md (required)",
        "--num_epochs N epochs: each passes over the training clips once, or as often as --min_epoch_clips asks "
        "for (default: 50)",
        "--stall_timeout_s X seconds for which a rank may be silent, or no rank take a step, until the run ends and "
        "says which rank it was (default: 120.0)",
        "--scale_learning_rate {none,sqrt,linear} how",
        "flags win; without one, --data default has its own (default: none)",
        "with the settings of ds_configs/recipes/fingerspelling.yaml in place of the defaults shown here, unless "
        "--config names others (default: default)",
        "--max_rotation_degrees X largest rotation in the image plane, degrees (default: 10.0)",
        "--dry_run, --no-dry_run print what would be trained, take one step and stop (default: no)",
        "--signers NAME,... the only signers to use, separated by commas; none named: all (default: none named)",
        "--labels PATH",
        "(default: none)",
    ):
        assert shown in text
    for hidden in ("local_rank", "PydanticUndefined", "[N]", "()"):
        assert hidden not in text


@pytest.mark.parametrize(
    ("main", "shown"),
    [
        (predict.main, "--top N signs a clip, 1 to 100 (default: 5)"),
        (inspection.main, "where plots and tables go (default: runs/inspection)"),
        (cross_validation.main, "trainings of each fold, with --seed and those after it (default: 1)"),
        (preflight.main, "the engine config (default: ds_configs/bf16.json)"),
    ],
)
def test_help_of_other_commands_says_defaults(
    main: Callable[[list[str]], int], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert shown in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("task", ["sign", "toy"])
def test_every_flag_has_help(task: str) -> None:
    text = " ".join(build_parser(combined_settings(load_task_type(task).settings_type)).format_help().split())
    for name, field in load_task_type(task).settings_type.model_fields.items():
        assert field.description
        assert f"--{name} " in text
        assert f" {field.description} (default: " in text


def test_help_ends_the_command_well(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load("--task", "toy", "--help")
    assert caught.value.code == 0
    assert "--num_arms N" in capsys.readouterr().out


def test_written_settings_are_a_recipe_of_the_same_run(tmp_path: Path, recipe: Path) -> None:
    recipe.write_text("model_size: t_2_1\nseed: 3\nsplit: 'signer:s3'\n")
    original = load(
        *ENGINE, "--data", "أحمد/clips.npz", "--signers", "s1,s2", "--selected_signs_to", "20", "--max_shift", "1e-05",
        "--config", recipe, "--resume", "auto", "--dry_run",
    )  # fmt: skip
    run = Run(tmp_path, {}, cadence())
    run.write_provenance(to_jsonable_python(original, exclude={"config", "resume"}), {}, {})
    again = load("--config", tmp_path / "run.yaml")
    assert again.model_dump(exclude={"config", "resume"}) == original.model_dump(exclude={"config", "resume"})
    assert yaml.safe_load((tmp_path / "run.yaml").read_text(encoding="utf-8"))["data"] == "أحمد/clips.npz"


def test_identity_is_what_makes_a_run_what_it_is() -> None:
    settings = load(*TOY, "--seed", "3")
    same = load(*TOY, "--seed", "3", "--num_epochs", "99", "--runs_dir", "other", "--resume", "must", "--verbose")
    assert identity(same) == identity(settings)
    assert identity(settings)["seed"] == 3
    assert identity(load(*TOY, "--seed", "4")) != identity(settings)
    assert identity(load(*TOY, "--seed", "3", "--num_arms", "4")) != identity(settings)
    assert identity(settings) == yaml.safe_load(yaml.safe_dump(identity(settings))), "plain values"


# -- settings of a user's own task ------------------------------------------------------------------------------------


class OwnSettings(TaskSettings):
    names: NameList = setting(("a", "b"), "own task", "names of 50% of them")
    bare: int = 3


class Owner:
    settings_type = OwnSettings

    def __init__(self, default_recipe: Path | None = None):
        self.default_recipe = default_recipe

    def recipe_for(self, flags: dict[str, str]) -> Path | None:
        return None if "bare" in flags else self.default_recipe


def test_settings_of_an_own_task() -> None:
    settings = load_settings([*ENGINE, "--names", "x,y"], lambda name: Owner())  # type: ignore[arg-type, return-value]
    assert settings.model_dump()["names"] == ("x", "y")
    assert settings.model_dump()["bare"] == 3
    text = build_parser(combined_settings(OwnSettings)).format_help()
    assert "own task:" in text
    assert "(default: a,b)" in text
    assert "--bare N (default: 3)" in " ".join(text.split())


def test_recipe_that_a_task_brings(recipe: Path) -> None:
    recipe.write_text("seed: 9\nbare: 4\n")

    def seed(*argv: str) -> int:
        return load_settings([*ENGINE, *argv], lambda name: Owner(recipe)).seed  # type: ignore[arg-type, return-value]

    assert seed() == 9
    assert seed("--seed", "2") == 2
    assert seed("--bare", "1") == 0, "the task has none for these flags"
    own = recipe.with_name("own.yaml")
    own.write_text("num_epochs: 1")
    assert seed("--config", str(own)) == 0, "the user's recipe replaces it"
