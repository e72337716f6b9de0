"""A sweep that tells what models reach that are adapted to the signers held out."""

import json
import signal
from pathlib import Path

import pytest
from launching import ROOT
from sign_runs import prepared_store

from ds_trainer.cross_validation.command import main


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_folds_are_scored_by_adapted_models_beside_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    sweep_dir, store = tmp_path / "sweep", prepared_store(tmp_path / "stores")
    flags = ["--deepspeed_config", str(ROOT / "ds_configs/fp32.json"), "--data", str(store)]
    flags += ["--model", "bilstm", "--model_size", "t_1_1", "--num_frames", "8", "--num_epochs", "2", "--folds", "2"]
    flags += ["--sweep_dir", str(sweep_dir), "--adapt"]
    assert main(flags) == 0
    own, adapted = capsys.readouterr().out.split("2 models are adapted to the signers held out\n")
    assert "each half of their clips by a model adapted to the other" in adapted
    assert "adapted to the other" not in own
    found = json.loads((sweep_dir / "adapted" / "results.json").read_text())
    assert found["num_clips"] == json.loads((sweep_dir / "results.json").read_text())["num_clips"]
    scored = {}
    for path in sweep_dir.glob("seed_0/*/*/adapted.json"):
        scored |= json.loads(path.read_text())["by_group"]
    assert found["scores"]["0"] == {signer: scores["top1"] for signer, scores in scored.items()}
    assert found["num_clips"] == {signer: scores["num_examples"] for signer, scores in scored.items()}

    path.unlink()
    (stores := store.parent).rename(tmp_path / "moved")
    flags[flags.index(str(store))] = str(tmp_path / "moved" / store.relative_to(stores))
    assert main(flags) == 0
    own, adapted = capsys.readouterr().out.split("2 models are adapted to the signers held out\n")
    assert "2 of 2 folds are done already" in own
    assert "1 of 2 folds are done already" in adapted, "the other is not scored again"
    again = json.loads((sweep_dir / "adapted" / "results.json").read_text())
    assert {**again, "command": found["command"]} == found, "wherever the clips lie now"
