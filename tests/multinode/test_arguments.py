"""What becomes of arguments on the way to other hosts: DeepSpeed hands them to a shell there without quoting them."""

import json
import re
from pathlib import Path

import pytest

from multinode.needs import needs
from multinode.training import Training

pytestmark = [pytest.mark.multinode, pytest.mark.slow, pytest.mark.timeout(240)]

PLAIN = ["a-b_c.d/e:f=g,h@i+j%k", "two words", "it's well", "ümlaut"]
CHANGED = {
    '{"a":1}': "{a:1}",
    "it's-ok's": "its-oks",
    "$HOME": "/root",
    "$NOWHERE/x": "/x",
    "a $HOME b": "a /root b",
    "back\\slash": "backslash",
    "~": "/root",
    "*.glob": "found.glob",
}
"""What is written, and what arrives, with deepspeed 0.19.8 over pdsh."""


def test_what_the_remote_shell_makes_of_arguments(training: Training) -> None:
    needs("pdsh")
    script = Path(__file__).with_name("show_arguments.py")
    (training.work_dir / "found.glob").touch()
    sent = [*PLAIN, *CHANGED, "cut", ";", "true"]
    training.start(["deepspeed", "--hostfile", training.lab.hostfile, script, *sent])
    assert training.end(60) == [0], training.output
    arrived = [json.loads(line) for line in re.findall(r"arrived (.*)", training.output)]
    assert arrived == [[*PLAIN, *CHANGED.values(), "cut"]] * 2, "and what stood behind ; was another command"


def test_a_recipe_is_not_changed_on_its_way(training: Training) -> None:
    """Anything may stand in a file: only its path is an argument."""
    needs("pdsh")
    runs_dir = training.work_dir / "two words; $HOME {'a'}"
    recipe = training.work_dir / "recipe.yaml"
    recipe.write_text(json.dumps({"runs_dir": str(runs_dir)}))
    script, *flags = training.train()
    place = flags.index("--runs_dir")
    training.start(
        [
            "deepspeed",
            "--hostfile",
            training.lab.hostfile,
            script,
            *flags[:place],
            "--num_epochs",
            "1",
            "--config",
            recipe,
        ]
    )
    training.runs_dir = runs_dir
    training.succeed()


@pytest.mark.parametrize(
    ("flags", "written", "arrived"),
    [
        (["--plateau_factor", "$FACTOR"], "$FACTOR", "0.5"),
        (["--seed", "3", ";", "true"], ";", "None"),
    ],
    ids=["valid, but not what was meant", "cut"],
)
def test_changed_argument_is_refused(training: Training, flags: list[str], written: str, arrived: str) -> None:
    needs("pdsh")
    with (training.work_dir / ".deepspeed_env").open("a") as file:
        file.write("FACTOR=0.5\n")
    training.deepspeed(*flags)
    assert training.end(60) == [0 if arrived == "None" else 2], training.output  # the status of what stood behind ;
    assert training.output.count("error: ") == 1, training.output
    assert (
        f"error: the argument {written!r} arrived as {arrived if arrived == 'None' else repr(arrived)}"
        in training.output
    )
    assert not training.runs_dir.exists()
