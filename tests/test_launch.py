"""What the README tells users to type works: real commands, real clips, real launchers."""

import json
import re
import shlex
import socket
import sys
from pathlib import Path

import pytest
import torch
from launching import ROOT, run, succeed, train_here, uses_launcher

from ds_trainer.checkpoint import load_checkpoint
from ds_trainer.job import main
from ds_trainer.predict import load_recogniser

pytestmark = [uses_launcher, pytest.mark.slow, pytest.mark.timeout(400)]

TRAIN = ["launch/train.py", "--deepspeed_config", "ds_configs/bf16.json"]
TINY = ["--model_size", "t_1_1", "--num_epochs", "1", "--selected_signs_to", "5", "--num_frames", "8"]


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def only_run(runs_dir: Path) -> Path:
    runs = list(runs_dir.iterdir())
    assert len(runs) == 1, runs
    return runs[0]


def assert_complete(run_dir: Path, num_signs: int) -> None:
    """All that the README promises of a run directory is there, and the checkpoint answers."""
    status = json.loads((run_dir / "status.json").read_text())
    assert status["status"] == "finished"
    kinds = [json.loads(line)["kind"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert kinds.count("epoch") == 1
    assert kinds.count("test") == 1
    expected = {"run.yaml", "engine.json", "environment.json", "best.pth", "resume", "diagnostics", "report.html"}
    assert expected <= {path.name for path in run_dir.iterdir()}
    plots = {"curves.png", "confusion_matrix.png", "class_scores.png", "confusions.png", "calibration.png"}
    assert plots | {"classification_report.csv", "answers.csv"} == {
        path.name for path in (run_dir / "diagnostics").iterdir()
    }
    checkpoint = load_checkpoint(run_dir / "best.pth")
    description = checkpoint["description"]
    num_keypoints = sum(len(part) for part in description["layout"]["parts"].values())
    clips = torch.randn(2, description["num_frames"], num_keypoints, len(description["layout"]["features"]))
    assert load_recogniser(checkpoint)(clips, torch.tensor([description["num_frames"], 1])).shape == (2, num_signs)
    assert len(description["sign_names"]) == num_signs


@pytest.mark.parametrize(
    "launcher",
    [
        ["deepspeed"],
        ["deepspeed", "--num_gpus", "2"],
        ["torchrun", "--nproc_per_node", "2"],
        [sys.executable],
    ],
    ids=["deepspeed", "two ranks", "torchrun", "python"],
)
def test_default_data_trains_under_every_launcher(launcher: list[str], runs_dir: Path) -> None:
    succeed([*launcher, *TRAIN, *TINY, "--runs_dir", runs_dir])
    assert_complete(only_run(runs_dir), num_signs=5)


@pytest.mark.parametrize("num_ranks", ["1", "2"])
def test_isl_kinect30_trains_without_the_held_out_signer(isl_kinect30: Path, runs_dir: Path, num_ranks: str) -> None:
    data = ["--data", isl_kinect30, "--split", "signer:s10", "--stores_dir", runs_dir.parent / "stores"]
    tiny = ["--model_size", "t_1_1", "--num_epochs", "1", "--selected_signs_to", "4", "--num_frames", "8"]
    output = succeed(["deepspeed", "--num_gpus", num_ranks, *TRAIN, *data, *tiny, "--runs_dir", runs_dir])
    assert "unseen signers in test: s10" in output
    assert_complete(only_run(runs_dir), num_signs=4)


def test_range_beyond_the_signs_trains_on_those_that_exist_and_says_so(runs_dir: Path) -> None:
    flags = ["--selected_signs_from", "25", "--selected_signs_to", "502", "--runs_dir", runs_dir]
    output = train_here(*TRAIN[1:], *TINY[:4], "--num_frames", "8", *flags)
    assert "502" in output
    assert_complete(only_run(runs_dir), num_signs=2)


def test_resume_auto_continues_the_killed_run_and_leaves_a_finished_one(runs_dir: Path) -> None:
    flags = [*TRAIN[1:], *TINY, "--runs_dir", runs_dir, "--resume", "auto"]
    train_here(*flags)
    first = only_run(runs_dir)
    status = first / "status.json"
    status.write_text(json.dumps({"status": "running"}))  # what a SIGKILL leaves
    output = train_here(*flags, "--num_epochs", "2")
    assert f"continuing {first} after epoch 1" in output
    epochs = [json.loads(line) for line in (first / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in epochs if record["kind"] == "epoch"] == [0, 1]
    train_here(*flags)
    assert len(list(runs_dir.iterdir())) == 2, "a finished run is not continued"


def test_dry_run_prints_the_plan_takes_a_step_and_leaves_nothing(runs_dir: Path) -> None:
    passes = ["--min_epoch_clips", "200"]
    output = succeed([sys.executable, *TRAIN, *TINY, *passes, "--runs_dir", runs_dir, "--dry_run"])
    for expected in ("parameters", "steps an epoch", "stage   weights", "micro_batch", "one step taken: loss"):
        assert expected in output
    num_clips, num_passes = (
        int(re.search(pattern, output)[1])  # type: ignore[index]
        for pattern in (r"clips: (\d+) train", r"the training clips (\d+) times in it")
    )
    assert 200 <= num_clips * num_passes < 200 + num_clips
    assert not runs_dir.exists()


def test_loss_of_a_dry_run_is_that_of_the_whole_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((ROOT / "ds_configs" / "fp32.json").read_text())
    losses = []
    for micro_batch, accumulation in ((32, 1), (8, 4)):
        sizes = {"train_micro_batch_size_per_gpu": micro_batch, "gradient_accumulation_steps": accumulation}
        (tmp_path / "config.json").write_text(json.dumps(config | sizes))
        flags = ["--task", "toy", "--jitter", "0", "--dropout", "0", "--dry_run"]
        assert main(["--deepspeed_config", str(tmp_path / "config.json"), *flags]) == 0
        losses.append(float(re.findall(r"one step taken: loss ([\d.]+)", capsys.readouterr().out)[0]))
    assert losses[0] == pytest.approx(losses[1], abs=2e-4)


def test_zero_3_trains_and_exports_whole_weights(runs_dir: Path) -> None:
    command = ["launch/train.py", "--deepspeed_config", "ds_configs/bf16_zero3.json", *TINY, "--runs_dir", runs_dir]
    succeed(["deepspeed", "--num_gpus", "2", *command])
    assert_complete(only_run(runs_dir), num_signs=5)


BAD_COMMANDS = {
    "unknown flags": (["--num_epoch", "3", "--seeed", "1"], ["'--num_epochs'", "'--seed'"]),
    "impossible values": (["--num_epochs", "0", "--val_fraction", "2"], ["--num_epochs", "--val_fraction"]),
    "missing data": (["--data", "launhc"], ["launhc", "'launch'"]),
    "no such task": (["--task", "sing"], ["'sign'"]),
    "a range with no clips": (["--selected_signs_from", "100"], ["--selected_signs_from"]),
    "no such signer": (["--split", "signer:asl"], ["'ase'"]),
    "nothing to continue": (["--resume", "must", "--runs_dir", "nowhere"], ["nowhere", "unfinished"]),
    "fewer ranks than meant": (["--expect_world_size", "2", *TINY], ["--expect_world_size 2: found 1 ranks"]),
    "read-only runs": (["--runs_dir", "/proc/runs", *TINY], ["/proc/runs"]),
}


@pytest.mark.parametrize("case", BAD_COMMANDS)
def test_bad_command_is_told_in_lines(
    case: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    flags, expected = BAD_COMMANDS[case]
    assert main([*TRAIN[1:], *flags]) == 2
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("error: ")]
    for words in expected:
        assert any(words in line for line in lines), (words, lines)


def test_error_ends_the_process_with_status_2_and_no_traceback() -> None:
    finished = run([sys.executable, *TRAIN, *BAD_COMMANDS["unknown flags"][0]])
    assert finished.returncode == 2, finished.stdout
    assert "error: " in finished.stdout
    assert "Traceback" not in finished.stdout


def test_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    """A real file system of 1 MB, for which mounting rights are needed."""
    mount = run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path])
    if mount.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {mount.stdout.strip()}")
    try:
        finished = run([sys.executable, *TRAIN, *TINY[2:], "--model_size", "s_4_2", "--runs_dir", tmp_path])
    finally:
        run(["umount", tmp_path])
    assert finished.returncode == 2, finished.stdout
    assert "Traceback" not in finished.stdout
    assert any(line.startswith("error: ") and "No space left" in line for line in finished.stdout.splitlines())


def test_hostfile_that_does_not_exist_is_told(tmp_path: Path) -> None:
    """The launcher itself trains on this host, and ends with status 0."""
    absent = run(["deepspeed", "--hostfile", tmp_path / "hots", *TRAIN, *TINY, "--runs_dir", tmp_path])
    assert absent.returncode != 0
    assert "hots: no such file" in absent.stdout, absent.stdout


def test_only_a_launcher_of_its_own_has_a_hostfile_for_a_job() -> None:
    """What started a job may have a word `ds` for another reason, and a hostfile of another program."""
    code = "from ds_trainer.launched import refuse_other_world_size; refuse_other_world_size(0, 1)"
    succeed(["sh", "-c", '"$1" -c "$2"; exit $?', "ds", sys.executable, code, "--hostfile", "hots"])


def test_settings_errors_of_two_ranks_are_told_once() -> None:
    finished = run(["deepspeed", "--num_gpus", "2", *TRAIN, "--num_epoch", "3"])
    assert finished.returncode != 0
    assert finished.stdout.count("unknown flag") == 1
    assert "Traceback" not in finished.stdout


def test_a_rank_with_other_data_ends_the_job_before_it_trains(tmp_path: Path) -> None:
    """As where a host has an older copy: ranks would wait for each other's steps for ever."""
    flags = ["--deepspeed_config", ROOT / "ds_configs/bf16.json", "--task", "faulty_task:FaultyTask"]
    command = ["deepspeed", "--num_gpus", "2", ROOT / "launch/train.py", *flags, "--fault", "other data"]
    finished = run(command, cwd=tmp_path)
    assert finished.returncode == 2
    assert (
        f"error: the training split: found 11 on {socket.gethostname()} (rank 1), expected 12 as on rank 0; give"
        in (finished.stdout)
    )


def test_readme_commands_name_files_that_exist() -> None:
    words = (ROOT / "README.md").read_text().split()
    for word in words:
        path = word.strip("`(),.")
        if path.startswith(("launch/", "ds_configs/", "docs/")) and not path.endswith(("/", "...")):
            assert (ROOT / path).exists(), f"the README names {path}"


@pytest.mark.parametrize("reader", ["head -n 1", "true"])
def test_run_outlives_who_reads_its_log(runs_dir: Path, reader: str) -> None:
    training = [sys.executable, "-m", "ds_trainer", "--deepspeed_config", "ds_configs/fp32.json", "--task", "toy"]
    written = shlex.join([*training, "--num_epochs", "3", "--runs_dir", str(runs_dir)])
    command = f"set -o pipefail; ({written} 2> {shlex.quote(f'{runs_dir}.errors')}) | {reader}"
    finished = run(["bash", "-c", command])
    assert finished.returncode == 0, finished.stdout
    assert "rror" not in Path(f"{runs_dir}.errors").read_text()
    assert json.loads((only_run(runs_dir) / "status.json").read_text())["status"] == "finished"
