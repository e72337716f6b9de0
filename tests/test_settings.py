"""Unit and contract: what users type, right and wrong, on the command line and in a recipe."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from ds_trainer.errors import SettingsError
from ds_trainer.run_dir import Run
from ds_trainer.settings import (
    NameList,
    RunSettings,
    TaskSettings,
    build_parser,
    combined_settings,
    identity,
    load_settings,
    setting,
)
from ds_trainer.task import load_task_type
from ds_trainer.tasks.sign.settings import SignSettings

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
        (["--jitter", "NaN"], "--jitter: found nan; input should be a finite number"),
        (["--jitter", "-0.5"], "--jitter: found -0.5; input should be greater than or equal to 0"),
        (["--stall_timeout_s", "Infinity"], "--stall_timeout_s: found inf; input should be a finite number"),
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
        ("resume: no", "resume: found False; input should be a valid string"),
        ("runs_dir: 5", "runs_dir: found 5; input should be a valid string"),
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
    for path in (tmp_path / "absent", tmp_path, tmp_path / "binary"):
        with pytest.raises(SettingsError, match="cannot be read .* give --config the path of a YAML file"):
            load(*TOY, "--config", path)


def test_unknown_tasks(recipe: WriteRecipe) -> None:
    assert problems(*ENGINE, "--task", "sing") == [
        "--task: found 'sing'; did you mean 'sign'? (or your own, as module:Class)"
    ]
    assert "known names: sign, toy" in problems(*ENGINE, "--config", recipe("task: 5"))[0]


# -- what is shown and written ----------------------------------------------------------------------------------------


def test_help_is_grouped_and_says_units_and_defaults() -> None:
    text = " ".join(build_parser(combined_settings(SignSettings)).format_help().split())
    groups = ["what to train:", "training:", "the run:", "data:", "model:", "augmentation (training only):"]
    places = [text.index(f" {group} --") for group in groups]
    assert places == sorted(places)
    for shown in (
        "usage: deepspeed launch/train.py --deepspeed_config PATH [--name VALUE ...]",
        "see ds_configs/README.md (required)",
        "--num_epochs N passes over the training clips (default: 50)",
        "--stall_timeout_s X seconds after which ranks give up waiting for one that is gone (default: 600.0)",
        "--scale_learning_rate {none,sqrt,linear} how",
        "--max_rotation_degrees X largest rotation in the image plane, degrees (default: 10.0)",
        "--dry_run, --no-dry_run print what would be trained, take one step and stop (default: no)",
        "--signers NAME the only signers to use, separated by commas (default: all)",
        "--labels PATH",
        "(default: none)",
    ):
        assert shown in text
    for hidden in ("local_rank", "PydanticUndefined", "[N]", "()"):
        assert hidden not in text


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


def test_written_settings_are_a_recipe_of_the_same_run(tmp_path: Path, recipe: WriteRecipe) -> None:
    original = load(
        *ENGINE, "--data", "أحمد/clips.npz", "--signers", "s1,s2", "--selected_signs_to", "20", "--max_shift", "1e-05",
        "--config", recipe("model_size: t_2_1\nseed: 3\nsplit: 'signer:s3'\n"), "--resume", "auto", "--dry_run",
    )  # fmt: skip
    run = Run(tmp_path, {})
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
    assert "own task:" in build_parser(combined_settings(OwnSettings)).format_help()


def test_recipe_that_a_task_brings(recipe: WriteRecipe) -> None:
    path = recipe("seed: 9\nbare: 4\n")

    def seed(*argv: str) -> int:
        return load_settings([*ENGINE, *argv], lambda name: Owner(path)).seed  # type: ignore[arg-type, return-value]

    assert seed() == 9
    assert seed("--seed", "2") == 2
    assert seed("--bare", "1") == 0, "the task has none for these flags"
    own = path.with_name("own.yaml")
    own.write_text("num_epochs: 1")
    assert seed("--config", str(own)) == 0, "the user's recipe replaces it"
