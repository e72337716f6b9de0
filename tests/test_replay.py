"""Replay of a bad batch names clip, module and direction, and tells of damaged files without a traceback."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bad_batch import BF16, FP32, TASK, edit, first, save_bad_batch
from faulty_task import BAD, NUM_CLIPS
from launching import run, succeed, train_here
from torch import Tensor, nn

from ds_trainer.checkpoint import load_checkpoint, write_checkpoint
from ds_trainer.replay.command import replay
from ds_trainer.replay.gradients import trace_gradients
from ds_trainer.replay.trace import ForwardTrace


def report(folder: Path, number: int | None = None) -> str:
    return "\n".join(replay(folder, number, TASK))


CASES = {
    "root": ("the gradient of sqrt", "in middle (Root), in the backward pass", "first first.weight", "under the root"),
    "logarithm": ("output of middle (Logarithm), in the forward pass", "there first: log at", "log above 0"),
    "square": (
        "output of middle (Square), in the forward pass",
        "there first: square",
        "times larger",
        "learning rate",
    ),
    "attention": ("output of middle (Attention), in the forward", "softmax", "in middle.softmax (Softmax)", "unmasked"),
    "loss": ("output of the loss (the task's objective), in the forward pass", "there first: div", "the divisor"),
    "data": ("the inputs themselves", "data of clip-05 (number 5) holds NaN or infinity"),
    "augmentation": ("the inputs themselves", "finite as it was read", "`prepare`"),
}


@pytest.mark.parametrize("fault", CASES)
def test_report_names_clip_module_and_direction(tmp_path: Path, fault: str) -> None:
    text = report(save_bad_batch(tmp_path, fault))
    for part in CASES[fault]:
        assert part in text, text
    blamed = re.search(r"clips to blame: 1 of 8\n\s+clip-05 \(number 5\)", text)
    assert blamed, text
    assert "in float32" not in text, "it was float32"


@pytest.mark.parametrize(("fault", "config"), [("near one", BF16), ("half", {**FP32, "fp16": {"enabled": True}})])
def test_report_tells_when_sixteen_bits_are_the_cause(tmp_path: Path, fault: str, config: dict[str, Any]) -> None:
    text = report(save_bad_batch(tmp_path, fault, config))
    assert "went bad first: the output of middle" in text
    assert re.search("in float32: all is finite: the range or precision of b?float16 is the cause", text), text
    assert "fp32.json" in text


@pytest.mark.parametrize("config", [BF16, {**FP32, "torch_autocast": {"enabled": True, "dtype": "bfloat16"}}])
def test_report_tells_when_sixteen_bits_are_not_the_cause(tmp_path: Path, config: dict[str, Any]) -> None:
    assert "in float32: not finite either, first in middle (Root)" in report(save_bad_batch(tmp_path, "root", config))


def test_finite_batch_says_so_and_why_that_may_be(tmp_path: Path) -> None:
    text = report(save_bad_batch(tmp_path, "none"))
    assert "nothing was NaN or infinite this time; the norm of the gradient" in text
    assert "1 update later" in text
    assert "went bad" not in text


def test_norm_that_alone_overflows_is_told(tmp_path: Path) -> None:
    folder = save_bad_batch(tmp_path, "none")
    edit(folder / "batch.json", lambda batch: first(batch).update(share=1e30))
    text = report(folder)
    assert "every gradient is finite, but not the norm" in text
    assert "learning rate" in text


def test_bad_weights_are_told_before_anything_else(tmp_path: Path) -> None:
    folder = save_bad_batch(tmp_path, "none")
    content = load_checkpoint(folder / "weights.pth")
    content["state_dict"]["last.weight"][0, 0] = float("nan")
    write_checkpoint(folder / "weights.pth", content)
    assert "the weights themselves: last.weight hold" in report(folder)


def test_micro_steps_whose_loss_was_bad_are_run_or_the_one_that_is_asked_for(tmp_path: Path) -> None:
    folder = save_bad_batch(tmp_path, "logarithm", losses=(1.5, None, 2.5))
    assert re.findall("micro-step ([0-9])", report(folder)) == ["1"]
    assert re.findall("micro-step ([0-9])", report(folder, 2)) == ["2"]
    folder = save_bad_batch(tmp_path / "all", "root", losses=(1.5, 2.5))
    assert "micro-step 1 of rank 0: the same, in 1 of 8 clips: clip-05" in report(folder)


def test_data_that_changed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_bad_batch(tmp_path, "none")
    assert "note: " not in report(folder)
    edit(folder / "batch.json", lambda batch: batch["micro_steps"][0]["names"].__setitem__(0, "other"))
    edit(tmp_path / "environment.json", lambda environment: environment.update(data_fingerprint="other"))
    text = report(folder)
    assert "another fingerprint" in text
    assert "1 clip of micro-step 0 of rank 0 changed: number 3 was other, is now clip-03" in text
    (tmp_path / "environment.json").unlink()
    assert "cannot be told" in report(folder)


def test_clip_of_a_later_pass_in_the_epoch_is_found(tmp_path: Path) -> None:
    folder = save_bad_batch(tmp_path, "data")
    content = load_checkpoint(folder / "weights.pth")
    content["settings"]["min_epoch_clips"] = 2 * NUM_CLIPS
    write_checkpoint(folder / "weights.pth", content)
    later = [index + NUM_CLIPS for index in [3, 0, BAD, 7, 1, 2, 2, 2]]
    edit(folder / "batch.json", lambda batch: first(batch).update(indices=later))
    text = report(folder)
    assert f"clip-05 (number {BAD + NUM_CLIPS})" in text
    assert "changed" not in text


def test_gradients_whose_sum_alone_overflows_are_found() -> None:
    model = nn.Linear(1, 1)
    with ForwardTrace(model, 2) as trace:
        losses_B = trace.call_loss(lambda x, y: (x * 3e38 + x * 3e38).sum(1), model(torch.zeros(2, 1)), None)
    gradients = trace_gradients(losses_B.sum() * 0.9, model, trace.made_by, 2)
    assert gradients.fault is not None
    assert gradients.fault.outgoing == []
    assert gradients.bad_parameters


class Mixture(nn.Module):
    """Layers that are written in C++, that work in place, or that call functions of functions."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.layers = nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.LayerNorm(8))

    def forward(self, x: Tensor) -> Tensor:
        hidden, _ = self.lstm(x)
        hidden = hidden + self.attention(hidden, hidden, hidden)[0]
        hidden[:, 0] = 1
        return self.layers(hidden).mean((1, 2))  # type: ignore[no-any-return]


def test_looking_changes_no_number() -> None:
    torch.manual_seed(0)
    model, x = Mixture(), torch.randn(3, 5, 4)
    torch.manual_seed(1)
    plain = model(x).square()
    plain.sum().backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]  # type: ignore[union-attr]
    model.zero_grad()
    torch.manual_seed(1)
    with ForwardTrace(model, 3) as trace:
        losses_B = trace.call_loss(lambda outputs, _: outputs.square(), model(x), None)
    gradients = trace_gradients(losses_B.sum(), model, trace.made_by, 3)
    assert torch.equal(losses_B, plain)
    assert all(torch.equal(own.grad, grad) for own, grad in zip(model.parameters(), expected, strict=True))  # type: ignore[arg-type]
    assert gradients.fault is None
    assert gradients.num_parameters == len(expected)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.slow
def test_compiled_modules_are_run_plainly(tmp_path: Path) -> None:
    assert "the gradient of sqrt" in report(save_bad_batch(tmp_path, "compiled root"))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("config", ["bf16.json", "torch_autocast.json"])
def test_what_training_saved_is_run_again_to_the_same_loss(tmp_path: Path, config: str) -> None:
    root = Path(__file__).parents[1]
    flags = ["--deepspeed_config", root / "ds_configs" / config, "--task", TASK, "--fault", "root", "--num_epochs", "1"]
    train_here(*flags, "--runs_dir", tmp_path / "runs")
    (folder,) = tmp_path.glob("runs/*/bad_batches/*")
    command = [sys.executable, root / "launch" / "replay.py", folder.relative_to(tmp_path)]
    text = succeed([*command, "--task", TASK], cwd=tmp_path)
    assert "as in training" in text, text
    assert "the gradient of sqrt" in text
    assert "clip-05" in text
    shutil.rmtree(folder)
    finished = run(command, cwd=tmp_path)
    assert finished.returncode == 2
    assert "Traceback" not in finished.stdout
