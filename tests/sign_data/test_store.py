"""The clip store: what goes in comes out, opening is fast, bad clips and bad disks leave nothing behind."""

import os
import pickle
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.clips import RawClip
from ds_trainer.tasks.sign.known_layouts import layout_for
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.store import ClipStore
from ds_trainer.tasks.sign.store_writer import write_store

from .writers import frames, grid, source


def test_clips_come_back_as_they_went_in(tmp_path: Path) -> None:
    clips = grid(signs=3, signers=2, repetitions=2, split_of={1: "train", 2: "test"})
    write_store(tmp_path / "store", source(clips, sign_names=["one", "two", "three"]))
    store = ClipStore.open(str(tmp_path / "store"))
    assert len(store) == len(clips)
    for number, clip in enumerate(clips):
        np.testing.assert_array_equal(store.clip_frames(number), clip.frames)
        assert store.sign_numbers[store.sign[number]] == clip.sign
        assert store.signer_names[store.signer[number]] == clip.signer
        assert store.clip_ids[number] == clip.clip_id
    assert store.sign_names == ["one", "two", "three"]
    assert store.split.tolist() == [1, 1, 3, 3] * 3
    assert store.layout.name == "kinect_20"
    assert list(tmp_path.iterdir()) == [tmp_path / "store"]


def test_memory_does_not_grow_with_the_frames_that_are_read(tmp_path: Path) -> None:
    """A mapping that keeps its pages would hold the whole store, 64 MiB here, after an epoch."""
    one = frames(200, (184, 4))
    clips = (RawClip(one, 1, "a", "train", f"{number}", "") for number in range(114))
    write_store(tmp_path / "store", source(clips))
    store = ClipStore.open(tmp_path / "store")
    before_mib = mapped_mib()
    for first in range(0, len(store.frames), 1200):
        numbers = np.arange(first, first + 1200).reshape(24, 50)
        expected = np.concatenate([one] * 6).reshape(24, 50, 184, 4)
        np.testing.assert_array_equal(store.read(numbers), expected, "more at once than are copied at once")
    assert store.frames.nbytes > 60 * 2**20
    assert mapped_mib() < before_mib + 8


def mapped_mib() -> float:
    """Of this process: memory that is a file's."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssFile"].split()[0]) / 2**10


def test_signs_without_clips_are_left_out_and_numbers_kept(tmp_path: Path) -> None:
    clips = [clip for clip in grid(signs=5, signers=1, repetitions=1) if clip.sign in (2, 5)]
    write_store(tmp_path / "store", source(clips, num_signs=5))
    store = ClipStore.open(tmp_path / "store")
    assert (store.sign_numbers, store.sign_names, store.sign.tolist()) == ([2, 5], ["2", "5"], [0, 1])


def test_fingerprint_tells_contents_apart_and_nothing_else(tmp_path: Path) -> None:
    clips = grid(signs=2, signers=2, repetitions=2)
    changes: list[dict[str, Any]] = [
        {"frames": clips[0].frames + 1}, {"signer": "other"}, {"signer": "s02"}, {"split": "val"}, {"clip_id": "other"}
    ]  # fmt: skip
    variants = [source(clips), source(clips), source(clips, layout=replace(layout_for(20, 3), centre=(0, 1)))]
    variants += [source([replace(clips[0], **change), *clips[1:]]) for change in changes]
    fingerprints = []
    for number, variant in enumerate(variants):
        write_store(tmp_path / str(number), variant)
        fingerprints.append(ClipStore.open(tmp_path / str(number)).fingerprint)
    assert fingerprints[0] == fingerprints[1]
    assert len(set(fingerprints)) == len(variants) - 1


def test_opens_75300_clips_in_milliseconds(tmp_path: Path) -> None:
    one = frames(1, (2, 2))
    clips = (
        RawClip(one, 1 + n % 502, f"{n % 3:02}", "train", f"{n % 3:02}-train/{n % 502:04}/{n:06}", "")
        for n in range(75300)
    )
    write_store(tmp_path / "store", replace(source([], num_signs=502), clips=clips))
    ClipStore.open(tmp_path / "store")
    start = time.perf_counter()
    store = ClipStore.open(tmp_path / "store")
    elapsed_s = time.perf_counter() - start
    assert len(store) == 75300
    assert elapsed_s < 0.25, "measured 0.02 s; reading frames or building Python objects would take far longer"


def test_a_pickled_store_is_only_its_path(tmp_path: Path) -> None:
    write_store(tmp_path / "store", source(grid(signs=2, signers=2, repetitions=3)))
    pickled = pickle.dumps(ClipStore.open(tmp_path / "store"))
    assert len(pickled) < 500
    assert len(pickle.loads(pickled)) == 12


def _clip(**changed: object) -> RawClip:
    return replace(RawClip(frames(3), 1, "ann", "", "c", "file.npz"), **changed)  # type: ignore[arg-type]


def _with(value: float) -> np.ndarray:
    bad = frames(3)
    bad[1, 4, 2] = value
    return bad


BAD_CLIPS = {
    "nan": (_clip(frames=_with(np.nan)), "1 NaN or infinite numbers in 1 of 3 frames, first in frame 1"),
    "infinite": (_clip(frames=_with(np.inf)), "1 NaN or infinite"),
    "too large for float32": (_clip(frames=_with(1.0).astype(np.float64) * 1e300), "180 NaN or infinite"),
    "keypoints": (
        _clip(frames=frames(3, (21, 3))),
        "found 21 keypoints x 3 features, expected 20 keypoints x 3 features",
    ),
    "empty": (_clip(frames=frames(0)), "found 0 frames"),
    "flat": (
        _clip(frames=frames(3).reshape(3, 60)),
        "(3, 60), expected numbers [frames, keypoints, features]; if each row holds a frame, one keypoint after the "
        "other, save clip.reshape(len(clip), 20, 3)",
    ),
    "flat, of keypoints that nobody knows": (_clip(frames=np.ones((3, 61))), "keypoints, features]; reshape it"),
    "a frame": (_clip(frames=frames(3)[0]), "(20, 3), expected numbers [frames, keypoints, features]; if each file "),
    "of one axis too many": (_clip(frames=frames(3)[None]), "of shape (1, 3, 20, 3), expected numbers [frames, key"),
    "several clips": (_clip(frames=np.stack([frames(3)] * 2)), "save each clip as an array of its own"),
    "text": (_clip(frames=np.full((2, 20, 3), "x")), "expected numbers"),
    "label above": (_clip(sign=4), "found sign 4, expected 1..3"),
    "label below": (_clip(sign=0), "found sign 0, expected 1..3"),
    "split": (_clip(split="dev"), "found split 'dev'"),
}


@pytest.mark.parametrize("name", BAD_CLIPS)
def test_bad_clip_is_named_and_nothing_is_left(tmp_path: Path, name: str) -> None:
    clip, expected = BAD_CLIPS[name]
    with pytest.raises(DataError) as caught:
        write_store(tmp_path / "store", source([_clip(), replace(clip, clip_id="the_bad_one"), _clip()]))
    [problem] = caught.value.problems
    assert problem.startswith("file.npz: clip the_bad_one: ")
    assert expected in problem
    assert list(tmp_path.iterdir()) == []


def test_bad_clips_are_all_named_also_where_the_first_is_one(tmp_path: Path) -> None:
    (nan, of_nan), (wider, of_wider) = BAD_CLIPS["nan"], BAD_CLIPS["keypoints"]
    with pytest.raises(DataError) as caught:
        write_store(tmp_path / "store", source([nan, _clip(), wider]))
    first, second = caught.value.problems
    assert of_nan in first
    assert of_wider in second


@pytest.mark.parametrize(("order", "back"), [((1, 0, 2), (1, 0, 2)), ((1, 2, 0), (2, 0, 1)), ((2, 0, 1), (1, 2, 0))])
@pytest.mark.parametrize("lengths", [(3, 5), (7, 3, 5, 4, 5)], ids=str)
def test_axes_in_another_order_are_told_once(
    tmp_path: Path, order: tuple[int, ...], back: tuple[int, ...], lengths: tuple[int, ...]
) -> None:
    clips = [_clip(frames=frames(length).transpose(order)) for length in lengths]
    with pytest.raises(DataError) as caught:
        write_store(tmp_path / "store", source(clips))
    [problem] = caught.value.problems
    assert problem.startswith(f"a test: found shapes {clips[0].frames.shape}, {clips[1].frames.shape}")
    assert problem.endswith(f"transpose them to [frames, keypoints, features]: np.transpose(clip, {back})")
    assert clips[0].frames.transpose(back).shape == (lengths[0], 20, 3)


def test_clips_of_one_length_with_their_features_in_front_are_refused(tmp_path: Path) -> None:
    """As ST-GCN takes them, [features, frames, keypoints]: each would be three frames of keypoints of 20 features."""
    clips = [_clip(frames=frames(64, seed=seed).transpose(2, 0, 1)) for seed in range(3)]
    with pytest.raises(DataError, match=r"a test: all clips begin .* np\.transpose\(clip, \(1, 2, 0\)\); .* --layout"):
        write_store(tmp_path / "store", source(clips))
    meant = KeypointLayout("mine", tuple(f"feature_{number}" for number in range(20)), {"all": tuple(range(64))})
    write_store(tmp_path / "store", source(clips, layout=meant))
    write_store(tmp_path / "short", source([_clip(frames=frames(3, seed=seed)) for seed in range(3)]))


def test_all_problems_are_counted_and_some_shown(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        write_store(tmp_path / "store", source([DataError("damaged.npz: truncated"), *[_clip(sign=9)] * 23]))
    assert caught.value.problems[0] == "damaged.npz: truncated"
    assert len(caught.value.problems) == 21
    assert caught.value.problems[-1] == "... and 4 more problems like these"


def test_no_clips_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found no clips"):
        write_store(tmp_path / "store", source([]))


def test_a_store_is_never_overwritten(tmp_path: Path) -> None:
    write_store(tmp_path / "store", source([_clip()]))
    with pytest.raises(DataError, match="exists already"):
        write_store(tmp_path / "store", source([_clip()]))


def test_store_is_on_disk_before_its_name_is_and_others_may_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a loss of power leaves a store in which frames are missing."""
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        is_named = (tmp_path / "stores" / "store").exists()
        synced.append(f"{path.name if path.suffix != '.partial' else 'store'}, named: {is_named}")

    monkeypatch.setattr(os, "fsync", fsync)
    write_store(tmp_path / "stores" / "store", source([_clip()]))
    *contents, folder, parent = synced
    assert sorted(contents) == [f"{name}, named: False" for name in ("frames.npy", "index.npz", "store.json")]
    assert (folder, parent) == ("store, named: False", "stores, named: True")
    assert stat.S_IMODE((tmp_path / "stores" / "store").stat().st_mode) == 0o755


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_store(tmp_path / "file" / "store", source([_clip()]))


@pytest.mark.usefixtures("small_disk")
def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="enough space"):
        write_store(tmp_path / "store", source([_clip(frames=frames(1000))]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o700), (0o022, 0o755), (0o002, 0o775)])
def test_a_store_is_as_private_as_other_files_of_its_owner(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_store(tmp_path / "store", source([_clip()]))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == mode
