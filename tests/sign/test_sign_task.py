"""Unit: the sign task on a real clip store of four signs by four signers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cadences import cadence
from pydantic_core import to_jsonable_python
from sign_data.writers import frames, grid, packed_arrays, source

from ds_trainer.errors import DataError, SettingsError
from ds_trainer.run.resume import choose_run
from ds_trainer.run.run_dir import Run
from ds_trainer.tasks.sign.store_writer import write_store
from ds_trainer.tasks.sign.task import SignTask

from .examples import AS_IT_IS, REPETITIONS, SIGNERS, SIGNS, BuildTask, batch


def numbers(dataset: Any) -> list[int]:
    return [dataset[place] for place in range(len(dataset))]


def test_splits_share_no_clip_and_leave_none_out(build: BuildTask) -> None:
    for split in ("auto", "random", "signer:s02"):
        task = build(split=split)
        assert task.test_set is not None
        clips = numbers(task.train_set) + numbers(task.val_set) + numbers(task.test_set)
        assert sorted(clips) == list(range(SIGNS * SIGNERS * REPETITIONS))


def test_keypoints_that_nothing_is_known_of_are_told(build: BuildTask, tmp_path: Path) -> None:
    clips = [replace(clip, frames=clip.frames[:, :9]) for clip in grid(SIGNS, SIGNERS, 1)]
    write_store(tmp_path / "nine", source(clips, num_signs=SIGNS))
    (told, *_) = build(data=str(tmp_path / "nine")).notices
    assert "no layout of 9 keypoints is known" in told
    assert "--layout" in told
    assert not any("is known" in notice for notice in build().notices)


def test_described_hands_are_seen_from_their_wrists_and_confidence_is_kept(build: BuildTask, tmp_path: Path) -> None:
    described = tmp_path / "nine.yaml"
    described.write_text(
        "features: [x, y, confidence]\nparts: {pose: 0-4, right_hand: 5-8}\npart_roots: {right_hand: 5}\n"
    )
    np.savez(tmp_path / "clips.npz", **packed_arrays(frames=frames(9, (9, 3)), signer=np.array(["a", "b", "c"])))
    task = build(
        data=str(tmp_path / "clips.npz"),
        layout=described,
        stores_dir=tmp_path,
        split="signer:c",
        val_by="signer",
        val_fraction=0.5,
        **AS_IT_IS,
    )
    clips_BTKC, _ = batch(task, [0, 1, 2])
    assert (clips_BTKC[..., 5, :2] == 0).all()
    assert (clips_BTKC[..., 6:, :2] != 0).all()
    assert np.isin(clips_BTKC[..., 2], task.store.frames[..., 2]).all()
    assert task.description()["layout"]["name"] == "nine"


def test_last_signer_is_held_out_unless_asked_otherwise(build: BuildTask) -> None:
    for settings, expected in (({}, "s04"), ({"split": "signer:s02"}, "s02")):
        task = build(**settings)
        test = numbers(task.test_set)
        assert {task.store.signer_names[signer] for signer in task.store.signer[test]} == {expected}
        assert len(test) == SIGNS * REPETITIONS
        assert any("unseen signers" in notice and expected in notice for notice in task.notices)


def test_random_split_is_said_to_flatter(build: BuildTask) -> None:
    assert any("results flatter" in notice for notice in build(split="random").notices)


def test_classes_are_the_selected_signs(build: BuildTask) -> None:
    task = build(selected_signs_from=2, selected_signs_to=3)
    assert task.class_names == ["two", "three"]
    assert task.sign_numbers == [2, 3]
    clips = numbers(task.train_set) + numbers(task.val_set) + numbers(task.test_set)
    _, classes = batch(task, clips)
    assert len(clips) == 2 * SIGNERS * REPETITIONS
    assert classes.tolist() == [int(task.store.sign[clip]) - 1 for clip in clips]
    assert set(classes.tolist()) == {0, 1}
    assert task.build_model()(batch(task, clips[:3])[0]).shape == (3, 2)
    assert task.label() == "signs_2-st_transformer-t_2_1"


def test_range_beyond_the_data_trains_on_what_exists_and_says_so(build: BuildTask) -> None:
    task = build(selected_signs_to=502)
    assert task.class_names == ["one", "two", "three", "four"]
    assert any("signs 1..502 are selected, of which 4 exist" in notice for notice in task.notices)
    assert not any("are selected" in notice for notice in build(selected_signs_to=4).notices)


def test_what_is_not_in_the_data_is_refused(build: BuildTask) -> None:
    with pytest.raises(DataError, match=r"found no sign with clips in this range, expected one within 1\.\.4"):
        build(selected_signs_from=5, selected_signs_to=9)
    with pytest.raises(DataError, match="did you mean 's01'"):
        build(signers=("s1",))
    with pytest.raises(DataError, match="missing, expected a file or folder"):
        build(data="no/such/data")


def test_only_the_chosen_signers(build: BuildTask) -> None:
    task = build(signers=("s01", "s03"), split="signer:s03")
    clips = numbers(task.train_set) + numbers(task.val_set) + numbers(task.test_set)
    assert {task.store.signer_names[signer] for signer in task.store.signer[clips]} == {"s01", "s03"}


def test_model_looks_at_the_chosen_parts(build: BuildTask) -> None:
    task = build(parts=("right_arm", "left_arm"))
    assert list(task.description()["parts"]) == ["right_arm", "left_arm"]
    model = task.build_model().eval()
    clips_BTKC, _ = batch(task, [0, 9])
    layout = task.preprocessing.layout
    assert list(layout.parts) == ["head", "left_arm", "right_arm"], "the neck, on which both arms hang, but no legs"
    assert [task.preprocessing.taken[keypoint] for keypoint in layout.parts["head"]] == [1]
    changed = clips_BTKC.clone()
    changed[:, :, list(layout.parts["head"])] += 1
    assert torch.equal(model(changed), model(clips_BTKC))
    changed[:, :, list(layout.parts["left_arm"])] += 1
    assert not torch.equal(model(changed), model(clips_BTKC))
    with pytest.raises(SettingsError, match="--parts: found 'left_hand'; did you mean 'left_arm'"):
        build(parts=("left_hand",))


def test_legs_are_looked_at_only_if_they_are_named(build: BuildTask) -> None:
    assert list(build().description()["parts"]) == ["head", "left_arm", "right_arm"]
    assert list(build(parts=("right_arm", "lower_body")).description()["parts"]) == ["right_arm", "lower_body"]


# -- what a checkpoint holds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["st_transformer", "bilstm"])
def test_description_rebuilds_the_model_without_the_data(build: BuildTask, tmp_path: Path, model: str) -> None:
    task = build(model=model, selected_signs_to=3)
    original = task.build_model().eval()
    torch.save({"description": task.description(), "weights": original.state_dict()}, tmp_path / "model.pth")
    loaded = torch.load(tmp_path / "model.pth", weights_only=True)
    rebuilt = SignTask.model_from(loaded["description"])
    rebuilt.load_state_dict(loaded["weights"])
    clips_BTKC, _ = batch(task, [0, 1])
    assert torch.equal(rebuilt.eval()(clips_BTKC), original(clips_BTKC))
    assert loaded["description"]["sign_names"] == ["one", "two", "three"]
    assert loaded["description"]["sign_numbers"] == [1, 2, 3]
    assert loaded["description"]["layout"]["name"] == "kinect_20"


def test_weights_follow_the_seed_of_torch(build: BuildTask) -> None:
    task = build()
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(task.build_model().state_dict()["to_logits.weight"])
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


def test_fingerprint_is_that_of_the_data(build: BuildTask, tmp_path: Path) -> None:
    write_store(tmp_path / "same", source(grid(SIGNS, SIGNERS, REPETITIONS), num_signs=SIGNS, sign_names=list("abcd")))
    write_store(tmp_path / "less", source(grid(SIGNS, SIGNERS, 2), num_signs=SIGNS, sign_names=list("abcd")))
    fingerprint = build().fingerprint()
    assert len(fingerprint) >= 12
    assert build(seed=5, selected_signs_to=2).fingerprint() == fingerprint
    assert build(data=str(tmp_path / "less")).fingerprint() != fingerprint


def test_run_goes_on_with_its_clips_wherever_they_lie_and_with_no_others(build: BuildTask, tmp_path: Path) -> None:
    engine = {"train_batch_size": 2, "train_micro_batch_size_per_gpu": 2}
    for name in ("own.npz", "moved.npz"):
        np.savez(tmp_path / name, **packed_arrays(signer=np.array(["a", "b", "c"])))
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    layout = tmp_path / "described.yaml"
    layout.write_text("features: [x, y, z]\nparts: {pose: 0-19}\n")

    def chosen(data: str, resume: str = "auto", **settings: Any) -> Path | None:
        task = build(data=str(tmp_path / data), stores_dir=tmp_path / "stores", runs_dir=tmp_path / "runs",
                     split="signer:c", val_by="signer", val_fraction=0.5, resume=resume, **settings)  # fmt: skip
        if not run.dir.exists():
            (run.dir / "resume" / "epoch_0001-step_00000010").mkdir(parents=True)
            environment = {"data_fingerprint": task.fingerprint(), "world_size": 1}
            run.write_provenance(to_jsonable_python(task.settings), engine, environment)
            run.write_status("stopped")
        return choose_run(task.settings, task, lambda ranks: engine)[0]

    run = Run(tmp_path / "runs" / "one", {}, cadence())
    assert chosen("own.npz") == chosen("moved.npz") == chosen("moved.npz", str(run.dir)) == run.dir
    for others in ({"labels": tmp_path / "names.txt"}, {"layout": layout}):
        assert chosen("own.npz", **others) is None
        with pytest.raises(SettingsError, match=r"^--resume \S+one: data fingerprint was \w+, now \w+; give [^\n]+$"):
            chosen("own.npz", str(run.dir), **others)


def test_examples_have_the_names_of_their_clips(build: BuildTask) -> None:
    task = build()
    names = {task.train_set.name_of(place) for place in range(len(task.train_set))}
    assert len(names) == len(task.train_set)
    assert names <= set(task.store.clip_ids)


def test_skeletons_are_the_clips_as_recorded(build: BuildTask) -> None:
    task = build()
    first, second = task.skeletons(task.val_set, [0, 1])
    frames_TKC = task.store.clip_frames(int(task.val_set.clips[1]))
    is_there_TK = (frames_TKC[..., : task.store.layout.num_coordinates] != 0).any(-1)
    assert np.array_equal(np.isfinite(second.points_TKD).all(-1), is_there_TK)
    assert task.store.layout.is_metric, "y points upwards, as a depth camera measures it; pictures count downwards"
    assert np.array_equal(second.points_TKD[is_there_TK], frames_TKC[is_there_TK][:, :2] * (1, -1))
    assert len(first.parts_K) == task.store.layout.num_keypoints


def test_members_of_an_ensemble_are_taught_by_themselves(build: BuildTask) -> None:
    task = build(num_members=2)
    clips_BTKC, class_B = batch(task, [0, 13, 47])
    model = task.build_model()
    logits_BMS = model.train()(clips_BTKC)
    one_B, other_B = (
        torch.nn.functional.cross_entropy(
            logits_BMS[:, member], class_B, label_smoothing=task.settings.label_smoothing, reduction="none"
        )
        for member in (0, 1)
    )
    assert not torch.allclose(one_B, other_B)
    torch.testing.assert_close(task.objective.minimised(logits_BMS, class_B), (one_B + other_B) / 2)
