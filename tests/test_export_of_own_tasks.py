"""Exports of tasks of one's own: one answer or several, of any shape; and models that no graph can hold."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from launching import ROOT, done_here, run, succeed, train_here
from own_tasks import Drawn
from torch import Tensor, nn

from ds_trainer import job
from ds_trainer.checkpoint import load_checkpoint, write_checkpoint
from ds_trainer.errors import CheckpointError
from ds_trainer.export.command import largest_difference, main
from ds_trainer.export.formats import WEIGHTS, read_answers, write
from ds_trainer.task import Deployment

OWN_TASK = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

from ds_trainer import Deployment, Objective, Task


class Regression(Task):
    def __init__(self, settings):
        numbers = torch.randn(60, 7, generator=torch.Generator().manual_seed(0))
        everything = TensorDataset(numbers, numbers.sum(1))
        self.train_set, self.val_set = torch.utils.data.random_split(everything, [40, 20])
        self.objective = Objective(loss=lambda outputs, targets: (outputs[0] - targets) ** 2)

    def build_model(self):
        return Model()

    def label(self):
        return "regression"

    def description(self):
        return {}

    @classmethod
    def model_from(cls, description):
        return Model()

    @classmethod
    def deployment(cls, model, description):
        return Deployment(model, (torch.randn(4, 7),), ("numbers",), ({0: "examples"},), {}, ("sum", "weighed"))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(7, 1)

    def forward(self, numbers):
        return self.linear(numbers)[:, 0], {"weighed": numbers * self.linear.weight}
"""


class Branching(nn.Module):
    def forward(self, numbers: Tensor) -> Tensor:
        return numbers if numbers.sum() > 0 else -numbers


class Halving(nn.Module):
    def forward(self, numbers: Tensor) -> Tensor:
        one, other = torch.cat([numbers, -numbers]).chunk(2)
        return one - other


class Masking(nn.Module):
    """Answers with infinite numbers, whole ones and truth values."""

    def forward(self, numbers: Tensor) -> dict[str, Any]:
        return {
            "masked": numbers.masked_fill(numbers > 0, -torch.inf),
            "others": (numbers.argmax(-1), (numbers > 0).any(-1)),
        }


def deployment_of(module: nn.Module, answers: tuple[str, ...] = ("logits",)) -> Deployment:
    return Deployment(module.eval(), (torch.randn(4, 7),), ("numbers",), ({0: "examples"},), {}, answers)


@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_answers_of_any_kind_are_those_of_the_module(tmp_path: Path, form: str) -> None:
    deployment = deployment_of(Masking(), ("masked", "sign", "is_any"))
    write(form, tmp_path / "model", {"task": "own"}, deployment)
    answers = read_answers(form, tmp_path / "model", deployment.names)
    for numbers in (torch.randn(9, 7), torch.randn(1, 7)):  # others than it was exported with
        expected = deployment.module(numbers)
        for answer, one in zip(answers(numbers), (expected["masked"], *expected["others"]), strict=True):
            assert torch.equal(answer, one)
    if form == "onnx":
        import onnxruntime

        outputs = onnxruntime.InferenceSession(tmp_path / "model").get_outputs()
        assert [output.name for output in outputs] == ["masked", "sign", "is_any"]


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")  # torch 2.11, reading a .pt2
@pytest.mark.parametrize("form", ["safetensors", "pt2", "onnx"])
def test_file_says_of_which_task_and_temperature_it_is(tmp_path: Path, form: str) -> None:
    path, module = tmp_path / f"model.{form}", nn.Linear(7, 2)
    checkpoint = {"task": "own", "description": {"of": "ünï"}, "temperature": 1.5, "state_dict": module.state_dict()}
    write(form, path, checkpoint, deployment_of(module))
    if form == "safetensors":
        with safetensors.safe_open(path, "pt") as file:
            texts = file.metadata()
        assert json.loads(texts["description"]) == {"of": "ünï"}, "what the model is"
    elif form == "pt2":
        extra = {"about.json": ""}
        torch.export.load(path, extra_files=extra)
        texts = {name: json.dumps(value) for name, value in json.loads(extra["about.json"]).items()}
    else:
        import onnxruntime

        texts = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert (json.loads(texts["task"]), json.loads(texts["temperature"])) == ("own", 1.5)


def test_weights_that_are_tied_or_lie_otherwise_in_memory_are_written_by_each_name(tmp_path: Path) -> None:
    weights = {"one": (one := torch.randn(3, 4)), "tied": one, "turned": one.T}
    write("safetensors", tmp_path / "model", {"task": "own", "description": {}, "state_dict": weights}, None)
    found = safetensors.torch.load_file(tmp_path / "model")
    assert all(torch.equal(found[name], value) for name, value in weights.items())


@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_model_that_no_graph_can_hold_is_told_in_a_line(tmp_path: Path, form: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        write(form, tmp_path / "model", {"task": "own"}, deployment_of(Branching()))
    (problem,) = caught.value.problems
    assert problem.startswith(f"--to {form}: torch cannot export the model (")
    assert "data-dependent" in problem
    assert "\n" not in problem
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(("form", "told"), [("pt2", "examples"), ("onnx", "^--to onnx: the model takes 4 examples")])
def test_graph_that_takes_one_number_of_examples_alone_is_not_written(tmp_path: Path, form: str, told: str) -> None:
    """Torch writes such an ONNX file without a word."""
    with pytest.raises(CheckpointError, match=told):
        write(form, tmp_path / "model", {"task": "own"}, deployment_of(Halving()))
    assert not (tmp_path / "model").exists()


def test_differences_between_answers() -> None:
    infinite, whole = torch.tensor([[1.0, -torch.inf, torch.nan]]), torch.tensor([3, 7])
    assert largest_difference([infinite, whole], [infinite, whole]) == 0
    assert largest_difference([infinite, whole + 1], [infinite, whole]) == 1
    assert largest_difference([whole], [whole[None]]) == torch.inf
    assert largest_difference([whole], [whole, whole]) == torch.inf
    assert not largest_difference([torch.tensor([torch.nan])], [torch.tensor([1.0])]) <= 1
    assert largest_difference([torch.tensor([True])], [torch.tensor([False])]) == 1


def drawn() -> dict[str, Any]:
    """A checkpoint."""
    known = {"task": "own_tasks:Drawn", "description": {}, "settings": {}, "epoch": 0, "metrics": {}}
    return {**known, "engine_config": {}, "versions": {}, "state_dict": Drawn.model_from({}).state_dict()}


def test_models_in_one_folder_are_exported_beside_each_other(tmp_path: Path) -> None:
    """Such as those that were adapted to several signers."""
    for epoch, name in enumerate(("best", "ann", "bob")):
        write_checkpoint(tmp_path / f"{name}.pth", {**drawn(), "epoch": epoch})
        for form in WEIGHTS:
            done_here(main, tmp_path / f"{name}.pth", "--task", "own_tasks:Drawn", "--to", form)
    assert {path.name for path in tmp_path.glob("*.safetensors")} == {
        "model.safetensors", "ann.safetensors", "bob.safetensors"
    }  # fmt: skip
    epochs = {path.name: load_checkpoint(path)["epoch"] for path in tmp_path.glob("*.pth")}
    assert epochs == {"best.pth": 0, "model.pth": 0, "ann.pth": 1, "bob.pth": 2}


def test_weights_that_are_others_when_read_back_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a task that says nothing of its inputs, so that there are no answers to compare."""
    write_checkpoint(tmp_path / "best.pth", drawn())
    flags = [str(tmp_path / "best.pth"), "--task", "own_tasks:Drawn", "--to", "safetensors"]
    assert main(flags) == 0
    assert "read back: the same weights to the bit" in capsys.readouterr().out
    assert main([*flags, "--out", str(tmp_path / "new" / "folder" / "own.safetensors")]) == 0
    load = safetensors.torch.load_file
    monkeypatch.setattr(safetensors.torch, "load_file", lambda path: {**load(path), "bias": torch.zeros(1)})
    assert main(flags) == 2
    told = f"error: {tmp_path / 'model.safetensors'}: read back, bias and 0 others differ from the source's weights"
    assert told in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_regression_with_two_answers_is_exported_in_every_form(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN_TASK)
    config = ROOT / "ds_configs" / "fp32.json"
    train = [sys.executable, ROOT / "launch" / "train.py", "--deepspeed_config", config, "--num_epochs", "1"]
    succeed([*train, "--task", "own:Regression", "--runs_dir", "runs"], cwd=tmp_path)
    (run_dir,) = (tmp_path / "runs").glob("*/")
    for form in ("pth", "safetensors", "pt2", "onnx"):
        export = [sys.executable, ROOT / "launch" / "export.py", run_dir, "--task", "own:Regression", "--to", form]
        output = succeed(export, cwd=tmp_path)
        assert "read back: sum, weighed of 4 examples of the deployment (Task.recorded gives none)" in output
        assert len(output.splitlines()) == 2, "nothing of torch's own"
    (tmp_path / "own.py").write_text(OWN_TASK.replace("return Deployment(model, ", "return model, ("))
    finished = run(export, cwd=tmp_path)
    assert finished.returncode == 2
    assert "found tuple, expected a Deployment or None" in finished.stdout


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_task_without_inputs_to_export_gives_its_weights(tmp_path: Path) -> None:
    flags = ["--deepspeed_config", "ds_configs/fp32.json", "--task", "toy", "--num_epochs", "1"]
    train_here(*flags, "--runs_dir", tmp_path / "runs")
    (run_dir,) = (tmp_path / "runs").iterdir()
    for form in WEIGHTS:
        told = done_here(main, run_dir, "--to", form, "--out", tmp_path / f"model.{form}")
        assert "the same weights to the bit" in told
    assert "expected Task.deployment" in done_here(main, run_dir, "--to", "onnx", status=2)


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_resume_point_of_a_run_that_was_stopped_in_its_first_epoch(tmp_path: Path) -> None:
    flags = ["--deepspeed_config", "ds_configs/fp32.json", "--task", "toy", "--stop_after_minutes", "0.00001"]
    done_here(job.main, *flags, "--runs_dir", tmp_path, status=job.EXIT_STOPPED)
    (run_dir,) = tmp_path.iterdir()
    (line,) = done_here(main, run_dir / "resume", "--to", "pth", status=2).splitlines()
    assert "no epoch of the run has ended yet" in line
    assert "continue the run" in line


@pytest.mark.slow
def test_export_of_a_resume_point_lies_in_the_run_that_will_delete_the_point(tmp_path: Path) -> None:
    """Beside that of the best checkpoint, whose place it does not take."""
    flags = ["--deepspeed_config", "ds_configs/fp32.json", "--task", "toy", "--num_points", "60", "--num_epochs", "1"]
    train_here(*flags, "--runs_dir", tmp_path)
    (point,) = tmp_path.glob("*/resume/epoch_*")
    run_dir, files = point.parents[1], sorted(point.iterdir())
    for source, name in ((run_dir, "model"), (run_dir / "resume", "resume"), (point, point.name)):
        assert main([str(source), "--to", "pth"]) == 0
        (run_dir / f"{name}.pth").unlink()
    assert sorted(point.iterdir()) == files
