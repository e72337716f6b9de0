"""Which clips launch/predict.py finds, how many it looks at together, and what it is asked for."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sign_data.writers import frames as random_frames
from sign_data.writers import grid, source
from sign_runs import write_untrained
from torch import nn

from ds_trainer.checkpoint import load_checkpoint, write_checkpoint
from ds_trainer.errors import DataError
from ds_trainer.predict import CLIPS_AT_ONCE, FRAMES_AT_ONCE, Answer, answers_of, batched, main, problem_of
from ds_trainer.tasks.sign import unlabelled
from ds_trainer.tasks.sign.known_layouts import layout_for
from ds_trainer.tasks.sign.store import INDEX_FILE, ClipStore
from ds_trainer.tasks.sign.store_writer import write_store
from ds_trainer.tasks.sign.unlabelled import clips_in


def test_what_is_put_aside_is_no_clip(tmp_path: Path) -> None:
    """As where training data is read: macOS puts a ._a.npy beside a.npy into its archives."""
    clip = np.ones((2, 3, 3), np.float32)
    for name in ("b.npy", "a.npy", "signs/c.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / name, clip)
    (tmp_path / "._a.npy").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "._b.npy").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "video.mp4").touch()
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "1.jpg").touch()
    found = dict(clips_in(tmp_path))
    assert list(found) == [str(tmp_path / name) for name in ("a.npy", "b.npy", "frames", "signs/c.npy")]
    assert all(isinstance(found[str(tmp_path / name)], np.ndarray) for name in ("a.npy", "b.npy", "signs/c.npy"))


def test_folder_of_images_is_one_clip_and_what_is_wrong_with_an_image_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(unlabelled, "Footage", lambda path: SimpleNamespace(problems=[f"{path.name}/1.jpg: no image"]))
    monkeypatch.setattr(unlabelled, "keypoints_of", lambda footage, has_bar: np.ones((2, 3, 3), np.float32))
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "1.jpg").touch()
    for given in (tmp_path, tmp_path / "frames"):
        assert [name for name, _ in clips_in(given)] == [str(tmp_path / "frames")]
        assert "frames/1.jpg: no image" in capsys.readouterr().err


def test_clips_go_together_as_far_as_their_frames_fit() -> None:
    """Each takes as much memory as the longest of its batch."""
    half = FRAMES_AT_ONCE // 2
    lengths = [*[1] * (CLIPS_AT_ONCE + 2), half, half + 1, 3 * FRAMES_AT_ONCE, 1, 2]
    clips = [(str(number), np.zeros((length, 1, 1), np.float32)) for number, length in enumerate(lengths)]
    batches = list(batched(clips))
    assert [clip for batch in batches for clip in batch] == clips
    assert [[len(frames) for _, frames in batch] for batch in batches] == [
        [1] * CLIPS_AT_ONCE, [1, 1], [half], [half + 1], [3 * FRAMES_AT_ONCE], [1, 2],
    ]  # fmt: skip


@pytest.mark.parametrize("top", ["0", "200", "many"])
def test_number_of_answers_is_told_in_a_line(top: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "clip.npz", "--top", top])
    assert f"argument --top: found {top!r}, expected 1 to 100" in capsys.readouterr().err


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best.pth"
    write_untrained(path)
    return path


class Fixed(nn.Module):
    """A model that sees the same in all clips."""

    def forward(self, clips_BNKC: torch.Tensor, num_frames_B: torch.Tensor) -> torch.Tensor:
        return torch.tensor([0.0, 2.0, 1.0]).expand(len(num_frames_B), -1)


@pytest.mark.parametrize(
    ("temperature", "first", "second"), [({}, 0.665241, 0.244728), ({"temperature": 2.0}, 0.506480, 0.307196)]
)
def test_answers_are_the_likeliest_signs_with_their_numbers(
    temperature: dict[str, float], first: float, second: float
) -> None:
    checkpoint = {"description": {"sign_names": ["a", "b", "c"], "sign_numbers": [7, 3, 5]}, **temperature}
    clips = [np.ones((3, 2, 2), np.float32)] * 2
    expected = [Answer("b", 3, pytest.approx(first, abs=1e-6)), Answer("c", 5, pytest.approx(second, abs=1e-6))]
    assert answers_of(Fixed(), clips, checkpoint, 2) == [expected] * 2
    assert [len(answers) for answers in answers_of(Fixed(), clips, checkpoint, 5)] == [3, 3]


def test_clip_store_gives_its_clips(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "prepared" / "store"
    write_store(path, source(grid(2, 2, 2)))
    store = ClipStore.open(path)
    for given in (path, tmp_path):
        found = dict(clips_in(given))
        assert list(found) == [f"{path}:{name}" for name in store.clip_ids]
        for clip, frames in enumerate(found.values()):
            np.testing.assert_array_equal(frames, store.clip_frames(clip))
    assert main([str(model), str(path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(store) == 8
    (path / INDEX_FILE).write_bytes(b"no archive")
    [(_, error)] = clips_in(path)
    assert isinstance(error, DataError)


@pytest.mark.parametrize(("side", "told"), [(1, ["low"]), (-1, ["high"]), (0, []), (None, []), ("1", [])])
def test_clips_whose_y_runs_another_way_than_in_training_are_answered_and_told(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], side: object, told: list[str]
) -> None:
    checkpoint = torch.load(model, weights_only=True)
    checkpoint["description"] |= {} if side is None else {"head_side": side}
    torch.save(checkpoint, tmp_path / "other.pth")
    head, clips = [0, 1], {}
    for name, height in (("low", -9.0), ("high", 9.0), ("lying", 0.0)):
        clips[name] = random_frames(6)
        clips[name][:, head, 1] += height
    clips["lying"][:, head, 0] += 90
    np.savez(tmp_path / "clips.npz", **clips)  # type: ignore[arg-type]
    assert main([str(tmp_path / "other.pth"), str(tmp_path / "clips.npz")]) == 0
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 3
    names = ", ".join(f"{tmp_path}/clips.npz:{name}" for name in told)
    notes = [line for line in output.err.splitlines() if "y runs" in line]
    assert len(notes) == len(told)
    assert all(note.startswith(f"note: {names}: y runs the other way than in the training clips; ") for note in notes)


def clip_with(number: float) -> NDArray[np.float64]:
    clip = random_frames(6).astype(np.float64)
    clip[0, 5, 0] = number
    return clip


@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.filterwarnings("error")
def test_clip_that_cannot_be_judged_is_told_and_others_are_answered(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], form: list[str]
) -> None:
    clips = {"first": clip_with(1), "nobody": np.zeros((6, 20, 3)), "far": clip_with(1e39), "large": clip_with(3e38)}
    np.savez(tmp_path / "clips.npz", **clips, last=clip_with(1))  # type: ignore[arg-type]  # names of its own
    assert main([str(model), str(tmp_path / "clips.npz"), *form]) == 2
    told = capsys.readouterr()
    first, last = told.out.splitlines()
    assert first.replace("first", "last") == last
    nobody, far, large = told.err.splitlines()
    assert "clips.npz:nobody: found nobody in 6 frames, expected a signer" in nobody
    assert "clips.npz:far: found float64 that is no number, NaN, infinite or beyond float32" in far
    assert "clips.npz:large: found NaN for confidences, and numbers up to 3e+38 in the clip, expected" in large


def test_nobody_is_there_where_all_coordinates_are_0() -> None:
    """However sure the extraction is of what it did not find; a clip without coordinates is taken as it is."""
    layout, clip = layout_for(5, 4), random_frames(6, (5, 4))
    assert problem_of("clip", clip, layout, layout.parts) is None
    clip[:, :, :3] = 0
    assert "found nobody in 6 frames" in str(problem_of("clip", clip, layout, layout.parts))
    clip[3, 2, 1] = -0.5
    assert problem_of("clip", clip, layout, layout.parts) is None
    without = replace(layout, features=("a", "b", "c", "d"))
    assert problem_of("clip", np.zeros((6, 5, 4)), without, layout.parts) is None


def test_clip_without_what_the_model_looks_at_is_not_answered() -> None:
    layout, clip = layout_for(75, 4), random_frames(6, (75, 4))
    right = {"right_hand": layout.parts["right_hand"]}
    for hand in ("left_hand", "right_hand"):
        assert problem_of("clip", clip, layout, right) is None, "a left-handed signer's left hand will do"
        clip[:, layout.parts[hand], :3] = 0
    assert "clip: found none of right_hand in 6 frames, which is all that" in str(
        problem_of("clip", clip, layout, right)
    )
    assert problem_of("clip", clip, layout, layout.parts) is None


def test_name_of_a_file_stays_within_its_line(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, empty = tmp_path / "a\x1b[31m\nb.npy", tmp_path / "c\nd.npy"
    np.save(path, clip_with(1))
    np.save(empty, np.zeros((0, 20, 3)))
    assert main([str(model), str(path), str(empty)]) == 2
    told = capsys.readouterr()
    [line], [problem] = told.out.splitlines(), told.err.splitlines()
    assert "a\\x1b[31m\\nb.npy'  " in line
    assert "c\\nd.npy': found shape" in problem
    assert main([str(model), str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clip"] == str(path)


def test_confidences_without_a_temperature_are_told(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "clip.npy", clip_with(1))
    assert main([str(model), str(tmp_path / "clip.npy"), "--json"]) == 0
    calibrated = capsys.readouterr()
    assert calibrated.err == ""
    stopped = load_checkpoint(model)
    del stopped["temperature"], stopped["format"]
    write_checkpoint(tmp_path / "best.pth", stopped)
    assert main([str(tmp_path / "best.pth"), str(tmp_path / "clip.npy"), "--json"]) == 0
    told = capsys.readouterr()
    odds, plain_odds = (
        math.log(first["confidence"] / second["confidence"])
        for first, second in (json.loads(out)["answers"] for out in (calibrated.out, told.out))
    )
    assert plain_odds == pytest.approx(1.5 * odds, rel=1e-3), "the temperature divides logits"
    assert told.err.startswith("note: no temperature was fitted to these weights: confidences are not calibrated")
