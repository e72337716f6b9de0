"""From a run to what others use: every form answers like the model that was trained, from any resume point."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from launching import ROOT, clean_environment, done_here, run, succeed, torchrun
from sign_runs import NUM_CLIPS, config_of, prepared_store, train

from ds_trainer.checkpoint import load_checkpoint, load_model
from ds_trainer.evaluate import main as evaluate_command
from ds_trainer.export.command import main as export_command
from ds_trainer.export.formats import MOST_DIFFERENCE
from ds_trainer.predict import answers_of, load_recogniser
from ds_trainer.tasks.sign.store import ClipStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_store(tmp_path_factory.mktemp("stores"))


def export(source: Path, form: str, out: Path) -> str:
    """Exported in this process; what is not exported is told by one of its own, below. Returns the log."""
    return done_here(export_command, "--to", form, "--out", out, source)


@pytest.fixture(scope="module")
def run_dir(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    config = config_of(folder, 1, "bf16")
    model = ["--model", "conv_transformer", "--model_size", "t_2_1", "--num_members", "2"]
    return train(store, folder / "runs", 1, config, *model)


@pytest.mark.parametrize("form", MOST_DIFFERENCE)
def test_every_form_answers_like_the_model_that_was_trained(
    run_dir: Path, store: Path, tmp_path: Path, form: str
) -> None:
    path = tmp_path / f"model.{form}"
    output = export(run_dir, form, path)
    assert "held-out clips differ by" in output
    assert "no temperature" not in output
    checkpoint = load_checkpoint(run_dir / "best.pth")
    assert checkpoint["temperature"] != 1.0, "or the test says nothing of it"
    recogniser = load_recogniser(checkpoint)
    opened = ClipStore.open(store)
    clips = [opened.clip_frames(clip) for clip in (3, 17, 31)]
    longest = max(map(len, clips)) + 5  # other numbers of clips and frames than it was made with
    padded_BNKC = np.zeros((3, longest, *clips[0].shape[1:]), np.float32)
    for row, clip in zip(padded_BNKC, clips, strict=True):
        row[: len(clip)] = clip
    lengths_B = np.array([len(clip) for clip in clips])
    with torch.no_grad():
        expected = recogniser(torch.from_numpy(padded_BNKC), torch.from_numpy(lengths_B)).numpy()
    if form == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        (found,) = session.run(None, {"clips": padded_BNKC, "num_frames": lengths_B})
        about = session.get_modelmeta().custom_metadata_map
        assert json.loads(about["sign_names"]) == checkpoint["description"]["sign_names"]
        assert json.loads(about["layout"])["name"] == "holistic_75"
        assert json.loads(about["temperature"]) == pytest.approx(checkpoint["temperature"])
    elif form == "pt2":
        program = torch.export.load(path).module()
        found = program(torch.from_numpy(padded_BNKC), torch.from_numpy(lengths_B)).detach().numpy()
    else:
        if form == "pth":
            weights = torch.load(path, weights_only=True)["state_dict"]
        else:
            from safetensors.torch import load_file

            weights = load_file(path)
        model = load_model({**checkpoint, "state_dict": weights})
        recogniser.model.load_state_dict(model.state_dict())
        with torch.no_grad():
            found = recogniser(torch.from_numpy(padded_BNKC), torch.from_numpy(lengths_B)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=MOST_DIFFERENCE[form])


def test_evaluate_says_what_training_said_on_any_number_of_ranks(run_dir: Path, store: Path, tmp_path: Path) -> None:
    status = json.loads((run_dir / "status.json").read_text())
    words = [run_dir, "--json", tmp_path / "out.json"]
    for evaluate in (
        lambda: done_here(evaluate_command, *words),
        lambda: succeed([*torchrun(2), "launch/evaluate.py", *words], timeout_s=100),
    ):
        output = evaluate()
        found = json.loads((tmp_path / "out.json").read_text())
        num_scored = sum(group["num_examples"] for group in found["by_group"].values())
        assert f", {num_scored} of {NUM_CLIPS} examples)" in output
        assert found["results"] == status["results"]
        assert found["by_group"] == status["by_group"]
        assert found["calibration_error"] == status["calibration_error"]
        assert found["notes"] == []
    output = done_here(evaluate_command, run_dir / "resume")
    assert "no temperature was fitted" in output
    assert "that validation gives" not in output


def test_adapted_scores_are_those_of_any_number_of_ranks(run_dir: Path, store: Path, tmp_path: Path) -> None:
    words = [run_dir, "--adapt", "--json", tmp_path / "out.json"]
    output = done_here(evaluate_command, *words)
    assert "by a model adapted to the other half):" in output
    of_one = json.loads((tmp_path / "out.json").read_text())
    succeed([*torchrun(2), "launch/evaluate.py", *words], timeout_s=100)
    assert json.loads((tmp_path / "out.json").read_text()) == of_one
    status = json.loads((run_dir / "status.json").read_text())
    assert of_one["by_group"].keys() == status["by_group"].keys()
    assert of_one["results"]["loss"] != status["results"]["loss"]


def evaluated(run_dir: Path, tmp_path: Path, *flags: str) -> dict[str, Any]:
    done_here(evaluate_command, run_dir, "--json", tmp_path / "out.json", *flags)
    found: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
    return found


def test_evaluate_passes_as_many_clips_at_once_as_it_is_told(run_dir: Path, tmp_path: Path) -> None:
    found = evaluated(run_dir, tmp_path, "--micro_batch", "3")["results"]
    assert found == pytest.approx(json.loads((run_dir / "status.json").read_text())["results"], rel=1e-3)
    told = done_here(evaluate_command, run_dir, "--micro_batch", "1000000000000", status=2)
    assert "error: out of memory: " in told
    assert "give a smaller --micro_batch" in told
    assert "error: --micro_batch: found 0" in done_here(evaluate_command, run_dir, "--micro_batch", "0", status=2)


def test_evaluate_on_some_of_the_signs_knows_them_by_name(run_dir: Path, store: Path, tmp_path: Path) -> None:
    """The model still chooses among all its signs: what it answers to each clip is what it answered before."""
    found = evaluated(run_dir, tmp_path, "--selected_signs_from", "2", "--selected_signs_to", "3")["results"]
    with (run_dir / "diagnostics" / "answers.csv").open(encoding="utf-8", newline="") as file:
        answers = list(csv.DictReader(file))
    some = {ClipStore.open(store).sign_names[sign] for sign in (1, 2)}
    is_right = [int(answer["is_right"]) for answer in answers if answer["true"] in some]
    assert 0 < len(is_right) < len(answers)
    assert found["top1"] == pytest.approx(sum(is_right) / len(is_right))


def test_evaluate_scores_all_of_other_data(run_dir: Path, store: Path, tmp_path: Path) -> None:
    found, before = evaluated(run_dir, tmp_path, "--split", "all"), json.loads((run_dir / "status.json").read_text())
    assert sum(group["num_examples"] for group in found["by_group"].values()) == len(ClipStore.open(store))
    num_known = len(ClipStore.open(store)) - sum(group["num_examples"] for group in before["by_group"].values())
    assert found["notes"] == [f"{num_known} of the {NUM_CLIPS} scored clips were trained or validated on"]
    for signer, scored in before["by_group"].items():
        assert found["by_group"][signer] == pytest.approx(scored, rel=1e-3)
    told = done_here(evaluate_command, run_dir, "--split", "all", "--on", "val", status=2)
    assert "error: --on val: --split, or the task, leaves nothing for it" in told


def test_evaluate_refuses_signs_that_the_model_does_not_know(run_dir: Path, store: Path, tmp_path: Path) -> None:
    opened = ClipStore.open(store)
    np.savez(
        tmp_path / "clips.npz",
        frames=np.concatenate([opened.clip_frames(clip) for clip in range(len(opened))]),
        offsets=opened.offsets, y=opened.sign, label_names=np.array([f"other {name}" for name in opened.sign_names]),
        signer=np.array(opened.signer_names)[opened.signer], ids=opened.clip_ids,
    )  # fmt: skip
    command = [sys.executable, "launch/evaluate.py", run_dir, "--data", tmp_path / "clips.npz", "--split", "random"]
    refused = run([*command, "--stores_dir", tmp_path / "stores"])
    assert refused.returncode == 2
    assert "error: sign_names: found other " in refused.stdout
    assert "Traceback" not in refused.stdout


def test_predict_reads_files_and_tells_of_bad_ones(run_dir: Path, store: Path, tmp_path: Path) -> None:
    opened = ClipStore.open(store)
    clips_dir = tmp_path / "clips"
    clips_dir.mkdir()
    np.savez(clips_dir / "a.npz", video=opened.clip_frames(0))
    np.save(clips_dir / "b.npy", opened.clip_frames(1)[:, :50])
    (clips_dir / "c.npz").write_bytes(b"no archive")
    frames = opened.clip_frames(4)
    np.savez(clips_dir / "e.npz", frames=frames, offsets=np.array([0, 3, len(frames)]), ids=np.array(["only one"]))
    np.savez(clips_dir / "d.npz", one=opened.clip_frames(2), two=opened.clip_frames(3))
    command = [sys.executable, "launch/predict.py", run_dir, clips_dir, "--top", "2", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(line["clip"]).name for line in lines] == ["a.npz", "d.npz:one", "d.npz:two"]
    assert "b.npy: found shape" in done.stderr
    assert "expected [frames, 75, " in done.stderr
    assert "c.npz: cannot be read" in done.stderr
    assert "e.npz: ids: found shape (1,), expected (2,)" in done.stderr
    assert "Traceback" not in done.stderr
    checkpoint = load_checkpoint(run_dir / "best.pth")
    expected = answers_of(load_recogniser(checkpoint), [opened.clip_frames(clip) for clip in (0, 2, 3)], checkpoint, 2)
    for line, answers in zip(lines, expected, strict=True):
        assert [answer["sign"] for answer in line["answers"]] == [answer.sign for answer in answers]
        confidences = [answer["confidence"] for answer in line["answers"]]
        assert confidences == pytest.approx([answer.confidence for answer in answers], abs=1e-4)
        assert confidences == sorted(confidences, reverse=True)
