"""Which clips launch/predict.py finds."""

from pathlib import Path

import numpy as np

from ds_trainer.predict import clips_in


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
