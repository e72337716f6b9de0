"""Of which runs the validation losses say nothing of which is better."""

from pathlib import Path

import pytest
from test_compare import make_runs

from ds_trainer.report.compare import best_of
from ds_trainer.report.runs import find_runs

SMOOTHING = "not comparable: label_smoothing, a part of the loss, differs"


@pytest.mark.parametrize(
    ("settings", "doubt"),
    [
        (("split: signer:a\n", "split: signer:a\n"), ""),
        (("seed: 0\n", "seed: 1\n"), ""),
        (("split: signer:a\n", "split: signer:b\n"), " (of other clips: split differs)"),
        (("signers: [a]\nval_by: clip\n", "val_by: signer\n"), " (of other clips: signers, val_by differ)"),
        (
            ("val_fraction: 0.1\nlabel_smoothing: 0.2\n", "val_fraction: 0.15\nlabel_smoothing: 0.0\n"),
            f" (of other clips: val_fraction differs; {SMOOTHING})",
        ),
    ],
)
def test_losses_of_other_validation_clips_are_called_so(tmp_path: Path, settings: tuple[str, str], doubt: str) -> None:
    paths = make_runs(tmp_path / "runs", 2)
    for run_dir, own in zip(paths, settings, strict=True):
        (run_dir / "run.yaml").write_text(own)
    assert best_of(find_runs(paths)[0]) == f"lowest validation loss: B, 1.99{doubt}"
