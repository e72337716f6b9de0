"""launch/adapt.py: a checkpoint for one signer, of clips without labels."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from launching import done_here
from sign_data.writers import frames as random_frames
from sign_runs import write_untrained

from ds_trainer.adapt import main
from ds_trainer.checkpoint import load_checkpoint, write_checkpoint
from ds_trainer.predict import main as predict


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "best.pth"
    path.parent.mkdir()
    write_untrained(path)
    return path


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    path = tmp_path / "clips.npz"
    np.savez(path, **{f"clip_{number}": random_frames(3 + number % 5) for number in range(7)})  # type: ignore[arg-type]
    return path


def test_what_is_written_is_a_model_like_any_other(model: Path, clips: Path, tmp_path: Path) -> None:
    before, out = model.read_bytes(), tmp_path / "signers" / "best.pth"
    output = done_here(main, model.parent, clips, "--out", out)
    signs = [[line.split()[1] for line in done_here(predict, each, clips).splitlines()] for each in (model, out)]
    num_changed = sum(one != other for one, other in zip(*signs, strict=True))
    assert f"{out}: adapted to 7 clips, {num_changed} of which it answers otherwise now" in output
    assert "note:" not in output
    trained, own = load_checkpoint(model), load_checkpoint(out)
    assert own.pop("adapted_to") == 7
    weights = own.pop("state_dict"), trained.pop("state_dict")
    assert own == trained
    assert [name for name in weights[1] if torch.equal(weights[0][name], weights[1][name])] == []
    assert model.read_bytes() == before
    assert len(done_here(predict, out, clips).splitlines()) == 7
    done_here(main, out, clips, "--out", out)
    assert load_checkpoint(out)["adapted_to"] == 14


def test_model_is_as_sure_as_its_temperature_says_or_as_it_is_which_is_told(
    model: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, note = load_checkpoint(model), "note: no temperature was fitted to these weights"
    weights = {}
    for temperature in (1.5, 1.0, None):
        own = {key: value for key, value in checkpoint.items() if key != "temperature"}
        write_checkpoint(model, own if temperature is None else {**own, "temperature": temperature})
        assert main([str(model), str(clips), "--out", str(tmp_path / "ann.pth")]) == 0
        assert (note in capsys.readouterr().err) == (temperature is None)
        weights[temperature] = torch.cat(
            [value.flatten() for value in load_checkpoint(tmp_path / "ann.pth")["state_dict"].values()]
        )
    assert torch.equal(weights[None], weights[1.0])
    assert not torch.equal(weights[1.5], weights[1.0])


def test_clip_that_cannot_be_used_is_told_and_the_others_are_taken(
    model: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "other.npy", np.ones((4, 3, 2), np.float32))
    large = random_frames(6)
    large[0, 5, 0] = 3e38
    np.save(tmp_path / "large.npy", large)
    given = [clips, tmp_path / "other.npy", tmp_path / "large.npy"]
    assert main([str(model), *map(str, given), "--out", str(tmp_path / "ann.pth")]) == 2
    told = capsys.readouterr().err
    assert f"error: {tmp_path}/other.npy: found shape [4, 3, 2]" in told
    assert f"error: {tmp_path}/large.npy: found NaN for confidences" in told
    own = load_checkpoint(tmp_path / "ann.pth")
    assert own["adapted_to"] == 7
    assert all(value.isfinite().all() for value in own["state_dict"].values())


def test_model_that_rules_a_sign_out_is_adapted_as_well_as_asked(model: Path, clips: Path, tmp_path: Path) -> None:
    """By a logit of -inf, with which its confidences are numbers."""
    checkpoint = load_checkpoint(model)
    signs = len(checkpoint["description"]["sign_names"])
    name = next(name for name, value in checkpoint["state_dict"].items() if value.shape == (signs,))
    checkpoint["state_dict"][name][0] = -torch.inf
    write_checkpoint(model, checkpoint)
    assert len(done_here(predict, model, clips).splitlines()) == 7
    assert "adapted to 7 clips" in done_here(main, model, clips, "--out", tmp_path / "ann.pth")


def test_nothing_is_written_where_no_clip_can_be_used(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", np.ones((4, 3, 2), np.float32))
    output = done_here(main, model, tmp_path / "other.npy", "--out", tmp_path / "ann.pth", status=2)
    assert "found shape [4, 3, 2]" in output
    assert "no clip that the model can look at, expected some of one signer" in output
    assert not (tmp_path / "ann.pth").exists()


def test_few_clips_are_told(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "clip.npy", random_frames(5))
    assert main([str(model), str(tmp_path / "clip.npy"), "--out", str(tmp_path / "ann.pth")]) == 0
    assert "note: 1 clip of one signer, for 2 signs: " in capsys.readouterr().err
    assert main([str(model), *2 * [str(tmp_path / "clip.npy")], "--out", str(tmp_path / "ann.pth")]) == 0
    assert capsys.readouterr().err == "", "one of each sign is enough"


@pytest.mark.parametrize(
    ("out", "told"),
    [
        (".", "found a folder, expected a file to write: signer.pth, say"),
        ("run", "run: found a folder, expected a file to write: run/signer.pth, say"),
        ("clips.npz", "clips.npz: expected the name of a .pth: clips.pth, say"),
        (f"{'n' * 300}.pth", "File name too long"),
        ("run/best.pth", "run/best.pth: found the model of a run, whose results and resume points belong to it"),
    ],
)
def test_what_would_be_lost_or_cannot_be_written_is_told_at_once(
    model: Path, clips: Path, tmp_path: Path, out: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (model.parent / "run.yaml").touch()
    before = {path: path.read_bytes() for path in (model, clips)}
    with contextlib.chdir(tmp_path):
        assert main(["run", "no_clips.npz", "--out", out]) == 2
    assert told in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in before}


def test_clips_whose_y_runs_the_other_way_are_told(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = load_checkpoint(model)
    layout = {**checkpoint["description"]["layout"], "parts": {"body": list(range(3, 20)), "head": [0, 1, 2]}}
    layout |= {"centre": [4, 5], "scale": [4, 5], "part_roots": {}}
    described = {**checkpoint["description"], "layout": layout, "head_side": 1}
    write_checkpoint(model, {**checkpoint, "description": described})
    upright, told = random_frames(5), "y runs the other way than in the training clips"
    upright[:, :3, 1] = upright[:, 4:6, 1].max() + 1
    turned = upright * [1, -1, 1]
    np.savez(tmp_path / "clips.npz", upright=upright, turned=turned.astype(np.float32))
    assert main([str(model), str(tmp_path / "clips.npz"), "--out", str(tmp_path / "ann.pth")]) == 0
    assert f"note: {tmp_path}/clips.npz:turned: {told}" in capsys.readouterr().err
