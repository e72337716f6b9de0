"""Which clips launch/predict.py finds, how many it looks at together, and what it is asked for."""

from pathlib import Path

import numpy as np
import pytest

from ds_trainer.predict import CLIPS_AT_ONCE, FRAMES_AT_ONCE, batched, clips_in, main


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
