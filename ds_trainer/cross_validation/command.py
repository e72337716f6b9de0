"""The command line of launch/cross_validate.py."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ds_trainer import distributed
from ds_trainer.classification import summarise
from ds_trainer.command import command
from ds_trainer.command_line import load_settings
from ds_trainer.cross_validation.fold_commands import ADAPTED, adapted_scores_of, trained_in, training_of
from ds_trainer.cross_validation.folds import Fold, folds_of
from ds_trainer.cross_validation.plan import Plan
from ds_trainer.cross_validation.scored import scored_by
from ds_trainer.cross_validation.sweep import FoldStopped, finished_run, run_folds, scores_in
from ds_trainer.cross_validation.table import Results, Scores, draw_table, table_lines, write_table
from ds_trainer.engine.config import load_engine_config, resolve_engine_config
from ds_trainer.errors import DataError, SettingsError
from ds_trainer.files import make_folder
from ds_trainer.job import EXIT_STOPPED
from ds_trainer.problems import nearest_name, shown
from ds_trainer.progress import log, with_bar
from ds_trainer.stopping import interrupt_once
from ds_trainer.task import load_task_type
from ds_trainer.tasks.sign.clips import NOBODY, by_number
from ds_trainer.tasks.sign.prepare import resolve_store
from ds_trainer.tasks.sign.split_draws import signers_of
from ds_trainer.tasks.sign.splits import SplitRule, impossible_in, is_in_range
from ds_trainer.tasks.sign.store import ClipStore


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Cross-validate; return the exit status: 0, 2 for what the user can mend, 75 if it was stopped."""
    interrupt_once()  # the trainings are to be ended, too
    try:
        own, flags = _parser().parse_known_args(argv)
        _cross_validate(own, flags)
        return 0
    except (FoldStopped, KeyboardInterrupt):
        log.info("stopped; the same command goes on where it was")
        return EXIT_STOPPED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launch/cross_validate.py",
        description="Train once for each signer, who is held out, and tell how well signers are recognised who took no "
        "part. All flags of launch/train.py are passed on. Killed at any moment, the same command goes on.",
        allow_abbrev=False,
    )
    parser.add_argument("--by", choices=["signer"], default="signer", help="what is held out (default: signer)")
    parser.add_argument("--folds", type=int, help="groups of signers that are held out together (default: each alone)")
    parser.add_argument(
        "--seeds", type=int, default=1, help="trainings of each fold, with --seed and those after it (default: 1)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="folds side by side (default: 1)")
    parser.add_argument(
        "--adapt",
        action="store_true",
        help="then score each half of a signer's clips by a model adapted to the other half, without labels: a table "
        "of its own",
    )
    parser.add_argument("--metric", default="top1", help="what the table shows (default: top1)")
    parser.add_argument("--sweep_dir", type=Path, help="where runs and table are kept (default: by the settings)")
    return parser


def _cross_validate(own: argparse.Namespace, flags: Sequence[str]) -> None:
    settings: Any = load_settings(flags, load_task_type)
    _refuse_what_folds_decide(own, flags, settings)
    written = load_engine_config(settings.deepspeed_config)
    resolved = resolve_engine_config(written, 1, distributed.device().type, source=str(settings.deepspeed_config))
    store = ClipStore.open(
        resolve_store(settings.data, settings.labels, settings.stores_dir, settings.layout, with_bar)
    )
    signers = signers_of_folds(settings, store)
    folds = folds_of(signers, own.folds, own.seeds, settings.seed)
    scored = scored_by(folds, settings)
    plan = Plan(settings, written, resolved, store.fingerprint, own.folds or len(signers))
    sweep_dir = own.sweep_dir or plan.dir_in(settings.runs_dir)
    plan.claim(sweep_dir)
    plan.refuse_others(folds, sweep_dir)

    def is_done(fold: Fold) -> bool:
        plan.refuse_others([fold], sweep_dir)
        return finished_run(fold, sweep_dir) is not None

    def is_scored(fold: Fold) -> bool:
        return (trained_in(sweep_dir, fold) / ADAPTED).exists()

    log.info(f"{len(folds)} trainings in {sweep_dir}")
    inputs = plan.write_inputs(sweep_dir)
    run_folds(folds, training_of([*flags, *inputs], sweep_dir), sweep_dir, own.jobs, is_done)
    about = {"command": ["launch/cross_validate.py", *flags], **plan.described()}
    scores = _scores(folds, sweep_dir, "status.json", own.metric)
    _tell(sweep_dir, Results(own.metric, scores, scored), about)
    if own.adapt:
        log.info(f"{len(folds)} models are adapted to the signers held out")
        run_folds(folds, adapted_scores_of(inputs, sweep_dir), sweep_dir, own.jobs, is_scored)
        scores = _scores(folds, sweep_dir, ADAPTED, own.metric)
        by = ", each half of their clips by a model adapted to the other"
        _tell(sweep_dir / "adapted", Results(own.metric, scores, scored, by), about)


def signers_of_folds(settings: Any, store: ClipStore) -> list[str]:
    """The signers to be held out, by the numbers in their names: those with clips of the selected signs.

    Raises:
        DataError: the data has no such signers or signs.
    """
    asked = set(settings.signers or store.signer_names)
    selected = SplitRule(
        signers=sorted(asked), signs_from=settings.selected_signs_from, signs_to=settings.selected_signs_to
    )
    if problems := impossible_in(store, selected):
        raise DataError(problems)
    clips = np.flatnonzero(is_in_range(store, selected)[store.sign])
    without = set(store.signer_names) - set(signers_of(store, clips))
    if asked & without:
        log.info(f"not held out, as they have no clips of the selected signs: {', '.join(sorted(asked & without))}")
    held_out = asked - without
    if NOBODY in held_out and len(held_out) > 1:
        log.info("not held out, as they may be of any signer: clips of which the data does not say who signs")
        held_out -= {NOBODY}
    return sorted(held_out, key=by_number)


def _refuse_what_folds_decide(own: argparse.Namespace, flags: Sequence[str], settings: Any) -> None:
    given = {flag.partition("=")[0].removeprefix("--") for flag in flags if flag.startswith("--")}
    given |= {"dry_run"} if settings.dry_run else set()  # of a recipe
    problems = [
        f"--{name}: found among the settings, expected to be left to the folds; leave it out"
        for name in ("split", "resume", "dry_run")
        if name in given
    ]
    if settings.task != "sign":
        problems.append(f"--task: found {settings.task}, expected sign: only its clips have signers")
    for name in ("seeds", "jobs"):
        if getattr(own, name) < 1:
            problems.append(f"--{name}: found {getattr(own, name)}, expected 1 or more")
    metrics = ["loss", *summarise(torch.zeros(1, 3))]  # whatever is summarised; here of one example
    if own.metric not in metrics:
        problems.append(f"--metric: found {shown(own.metric)}; {nearest_name(own.metric, metrics)}")
    if problems:
        raise SettingsError(problems)


def _tell(out_dir: Path, results: Results, about: Mapping[str, Any]) -> None:
    make_folder(out_dir)
    write_table(out_dir, results, about)
    draw_table(out_dir / "table.png", results)
    for line in table_lines(results):
        log.info(line)
    log.info(f"table {out_dir / 'table.txt'}")


def _scores(folds: Sequence[Fold], sweep_dir: Path, file: str, metric: str) -> Scores:
    scores: dict[int, dict[str, float]] = {}
    for fold in folds:
        path = trained_in(sweep_dir, fold) / file
        scores.setdefault(fold.seed, {}).update(scores_in(path, fold, metric))
    return scores
