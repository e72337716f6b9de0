"""Unit and contract: what users type, right and wrong, on the command line and in a recipe."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ds_trainer.command_line import load_settings
from ds_trainer.errors import SettingsError
from ds_trainer.settings import RunSettings
from ds_trainer.task import load_task_type

ENGINE = ["--deepspeed_config", "engine.json"]
TOY = [*ENGINE, "--task", "toy"]
WriteRecipe = Callable[[str], Path]


def load(*argv: str | Path) -> RunSettings:
    return load_settings([str(argument) for argument in argv], load_task_type)


def problems(*argv: str | Path) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(*argv)
    return caught.value.problems


@pytest.fixture
def recipe(tmp_path: Path) -> WriteRecipe:
    def write(text: str) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


# -- what is right ----------------------------------------------------------------------------------------------------


def test_defaults_flags_and_recipe(recipe: WriteRecipe) -> None:
    path = recipe("task: toy\nseed: 5\nnum_epochs: 3\nnum_arms: 4\njitter: 1\ndry_run: true\nruns_dir: elsewhere\n")
    settings = load(*ENGINE, "--config", path, "--seed", "7", "--plateau_factor", "5e-1", "--no-dry_run")
    assert (settings.seed, settings.plateau_factor, settings.dry_run) == (7, 0.5, False), "flags win"
    assert (settings.num_epochs, settings.runs_dir) == (3, Path("elsewhere")), "the recipe beats defaults"
    assert settings.plateau_patience == 3
    assert settings.model_dump()["num_arms"] == 4, "the task is chosen by the recipe, too"
    assert settings.model_dump()["jitter"] == 1.0


def test_task_flag_beats_the_recipe(recipe: WriteRecipe) -> None:
    settings = load(*TOY, "--config", recipe("task: sign\nseed: 4\n"))
    assert (settings.task, settings.seed) == ("toy", 4)
    assert "num_arms" in settings.model_dump()


def test_empty_recipe_changes_nothing(recipe: WriteRecipe) -> None:
    given = load(*TOY, "--config", recipe("# nothing yet\n"))
    assert given.model_dump(exclude={"config"}) == load(*TOY).model_dump(exclude={"config"})


@pytest.mark.parametrize("form", ["--seed 3", "--seed=3"])
def test_both_forms_of_a_flag(form: str) -> None:
    assert load(*TOY, *form.split()).seed == 3


@pytest.mark.parametrize("added", [["--local_rank=1"], ["--local_rank", "0"], ["--deepspeed"]])
def test_what_launchers_and_tutorials_add_is_accepted(added: list[str]) -> None:
    plain = load(*TOY).model_dump()
    assert load(*added, *TOY).model_dump() == plain
    assert load(*TOY, *added).model_dump() == plain


def test_lists_of_names(recipe: WriteRecipe) -> None:
    def signers(*argv: str | Path) -> Any:
        return load(*ENGINE, "--data", "clips.npz", *argv).model_dump()["signers"]

    assert signers() == ()
    assert signers("--signers", "ann, bob,") == ("ann", "bob")
    assert signers("--config", recipe("signers: [ann, 'b, c']")) == ("ann", "b, c")
    assert signers("--config", recipe("signers: ann,bob")) == ("ann", "bob")


def test_text_that_looks_like_a_number_stays_text() -> None:
    settings = load(*ENGINE, "--data", "007", "--signers", "1,2").model_dump()
    assert (settings["data"], settings["signers"]) == ("007", ("1", "2"))


def test_settings_cannot_be_changed() -> None:
    settings = load(*TOY)
    with pytest.raises(ValidationError, match="frozen"):
        settings.seed = 4


def test_task_and_run_settings_do_not_share_names() -> None:
    for name in ("sign", "toy"):
        of_task = load_task_type(name).settings_type.model_fields
        assert not set(of_task) & set(RunSettings.model_fields), "one of them would silently win"


# -- what is wrong ----------------------------------------------------------------------------------------------------


def test_all_problems_are_reported_at_once(recipe: WriteRecipe) -> None:
    path = recipe("sead: 1\nnum_epochs: 0\nplateau_factor: 2\nverbose: 1\nnum_arms: three\n")
    found = problems(
        "--task", "toy", "--config", path, "--epochs", "5", "stray", "--seed", "x", "--runs_dir", "--num_arms", "2",
        "--plateau_patience=-1", "--scale_learning_rate", "squared", "--num-points=50",
    )  # fmt: skip
    assert set(found) == {
        "--epochs: unknown flag; did you mean '--num_epochs'?",
        "--num-points: unknown flag; did you mean '--num_points'?",
        "stray: unexpected argument; every setting is given as --name VALUE",
        "--runs_dir: found no value, expected one behind it",
        "--seed: found 'x'; input should be a valid integer",
        "--plateau_patience: found -1; input should be greater than or equal to 0",
        "--scale_learning_rate: found 'squared'; input should be 'none', 'sqrt' or 'linear'",
        f"{path}: sead: unknown name; did you mean 'seed'?",
        f"{path}: num_epochs: found 0; input should be greater than or equal to 1",
        f"{path}: plateau_factor: found 2; input should be less than 1",
        f"{path}: verbose: found 1; input should be a valid boolean",
        "--deepspeed_config: missing; expected the engine config (JSON): precision, ZeRO, batch sizes, optimizer; "
        "see ds_configs/README.md",
    }
    assert len(found) == 12


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--seed", "1.0"], "--seed: found 1.0; input should be a valid integer"),
        (["--seed", "true"], "--seed: found True; input should be a valid integer"),
        (["--seed", "1_000"], "--seed: found '1_000'; input should be a valid integer"),
        (["--jitter", "nan"], "--jitter: found 'nan'; input should be a valid number"),
        (["--jitter", "NaN"], "--jitter: found 'NaN'; input should be a valid number"),
        (["--jitter", ".nan"], "--jitter: found nan; input should be a finite number"),
        (["--jitter", "-0.5"], "--jitter: found -0.5; input should be greater than or equal to 0"),
        (["--stall_timeout_s", ".inf"], "--stall_timeout_s: found inf; input should be a finite number"),
        (["--warmup_epochs", "1e308"], "--warmup_epochs: found 1e+308; input should be less than or equal to 1000000"),
        (
            ["--cooldown_epochs", "1e308"],
            "--cooldown_epochs: found 1e+308; input should be less than or equal to 1000000",
        ),
        (
            ["--start_timeout_s", "1e15"],
            "--start_timeout_s: found 1000000000000000.0; input should be less than or equal to 604800",
        ),
        (["--dry_run", "yes"], "yes: unexpected argument; every setting is given as --name VALUE"),
        (["--data", "x"], "--data: unknown flag; did you mean '--task'?"),
        (["-seed", "1"], "-seed: unexpected argument; every setting is given as --name VALUE"),
        (["--see", "1"], "--see: unknown flag; did you mean '--seed'?"),
        (["--num_epoch=1"], "--num_epoch: unknown flag; did you mean '--num_epochs'?"),
        (["--seed"], "--seed: found no value, expected one behind it"),
        (["--resume"], "--resume: found no value, expected one behind it"),
        (["--config"], "--config: found no value, expected one behind it"),
    ],
)
def test_wrong_flags(argv: list[str], problem: str) -> None:
    assert problem in problems(*TOY, *argv)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("seed: '3'", "seed: found '3'; input should be a valid integer"),
        ("seed: 3.0", "seed: found 3.0; input should be a valid integer"),
        ("seed: true", "seed: found True; input should be a valid integer"),
        ("seed:", "seed: found None; input should be a valid integer"),
        ("seed: 2026-01-01", "seed: found '2026-01-01'; input should be a valid integer"),
        ("dry_run: 'yes'", "dry_run: found 'yes'; input should be a valid boolean"),
        ("resume: no", "resume: found False; input should be a valid string; put it in quotes"),
        ("runs_dir: 5", "runs_dir: found 5; input should be a valid string; put it in quotes"),
        ("jitter: .inf", "jitter: found inf; input should be a finite number"),
        ("deepspeed: engine.json", "deepspeed: unknown name; did you mean 'deepspeed_config'?"),
        ("config: other.yaml", "config: a recipe cannot name another recipe; write its settings here"),
        ("seed: [1, 2]", "seed: found [1, 2]; input should be a valid integer"),
    ],
)
def test_wrong_values_in_a_recipe(recipe: WriteRecipe, text: str, problem: str) -> None:
    path = recipe(text)
    assert problems(*TOY, "--config", path) == [f"{path}: {problem}"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("seed: [", "is not YAML: .*line 1"),
        ("seed: 1\n seed: 2", "is not YAML"),
        ("- seed\n- 3", "expected lines of the form 'name: value', found list"),
        ("seed", "expected lines of the form 'name: value', found str"),
        ("1: 2", "expected lines of the form 'name: value', found dict"),
        ("seed: !!python/object/apply:os.getcwd []", "is not YAML: could not determine a constructor"),
    ],
)
def test_file_that_is_no_recipe(recipe: WriteRecipe, text: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=rf"recipe\.yaml: {problem}"):
        load(*TOY, "--config", recipe(text))


def test_recipe_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, tmp_path / "binary"):
        with pytest.raises(SettingsError, match=r"cannot be read .* give --config the path of a YAML file"):
            load(*TOY, "--config", path)
    with pytest.raises(SettingsError, match=r"^--config .*absent: no such file; .* holds no YAML file$"):
        load(*TOY, "--config", tmp_path / "absent")


def test_unknown_tasks(recipe: WriteRecipe) -> None:
    assert problems(*ENGINE, "--task", "sing") == [
        "--task: found 'sing'; did you mean 'sign'? (or your own, as module:Class)"
    ]
    assert "known names: sign, toy" in problems(*ENGINE, "--config", recipe("task: 5"))[0]
