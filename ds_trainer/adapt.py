"""A trained model for one signer, made of a model for anybody and of clips of this signer that nobody has labelled."""

import argparse
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ds_trainer.adaptation import adapt, in_batches, is_answer
from ds_trainer.checkpoint import write_checkpoint
from ds_trainer.command import command
from ds_trainer.errors import EXIT_USER_ERROR, DataError, SettingsError, WriteError, looking_at
from ds_trainer.files import make_folder
from ds_trainer.paths import is_dir, is_file
from ds_trainer.predict import add_model_and_clips, batched, load_recogniser, noting_turned, unanswered, usable
from ds_trainer.progress import complain, log
from ds_trainer.source import load_source, uncalibrated
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.preprocessing import Preprocessing, padded
from ds_trainer.tasks.sign.unlabelled import Frames, clips_in
from ds_trainer.tasks.sign.upright import turned_note


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command line of launch/adapt.py.

    Returns:
        The exit status: 0, or 2 if a clip could not be read; the model is adapted to the others all the same.
    """
    arguments = _parser().parse_args(argv)
    _refuse_out(arguments.out)
    checkpoint = load_source(arguments.checkpoint)
    description = checkpoint["description"]
    model = load_recogniser(checkpoint).model
    layout, preprocessing = KeypointLayout.from_dict(description["layout"]), Preprocessing.of(description)
    complain(uncalibrated(checkpoint), "note")
    problems: list[str] = []
    turned: list[str] = []
    clips = itertools.chain.from_iterable(clips_in(path) for path in arguments.clips)
    found = noting_turned(usable(clips, layout, description["parts"], problems), description, turned)
    clips_NTKC, answers_N = _answered(model, preprocessing, batched(found), problems)
    if len(clips_NTKC) == 0:
        raise DataError([*problems, "no clip that the model can look at, expected some of one signer"])
    complain(_few(len(clips_NTKC), len(description["sign_names"])), "note")
    complain([turned_note(turned)] if turned else [], "note")
    make_folder(arguments.out.parent)
    adapt(model, _mixed(clips_NTKC), checkpoint.get("temperature", 1.0))
    num_before = checkpoint.get("adapted_to", 0)
    content = {**checkpoint, "state_dict": model.state_dict(), "adapted_to": num_before + len(clips_NTKC)}
    write_checkpoint(arguments.out, content)
    num_changed = int((_answers(model, clips_NTKC) != answers_N).sum())
    log.info(f"{arguments.out}: adapted to {len(clips_NTKC)} clips, {num_changed} of which it answers otherwise now")
    complain(problems)
    return EXIT_USER_ERROR if problems else 0


def _refuse_out(path: Path) -> None:
    """Raise, before the work is done for nothing, where a model cannot be written or another file would be lost."""
    with looking_at(path, WriteError):
        if is_dir(path):
            raise SettingsError(f"--out {path}: found a folder, expected a file to write: {path / 'signer.pth'}, say")
        if path.suffix != ".pth":
            raise SettingsError(f"--out {path}: expected the name of a .pth: {path.with_suffix('.pth')}, say")
        if path.name == "best.pth" and is_file(path.with_name("run.yaml")):
            raise SettingsError(
                f"--out {path}: found the model of a run, whose results and resume points belong to it; choose another"
            )


@torch.no_grad()
def _answered(
    model: nn.Module,
    preprocessing: Preprocessing,
    batches: Iterable[list[tuple[str, Frames]]],
    problems: list[str],
) -> tuple[Tensor, Tensor]:
    """What the model sees of clips, float[N, T, K, C], and its answers to them, int64[N]; those that it cannot answer
    are left out, and told in `problems`."""
    seen, answers = [], []
    for batch in batches:
        clips_BTKC = preprocessing(*padded(frames for _, frames in batch))
        logits_BS = model(clips_BTKC)
        is_answered_B = is_answer(logits_BS)
        problems += [
            unanswered(*clip) for clip, is_answered in zip(batch, is_answered_B, strict=True) if not is_answered
        ]
        seen.append(clips_BTKC[is_answered_B])
        answers.append(logits_BS[is_answered_B].argmax(1))
    return (torch.cat(seen), torch.cat(answers)) if seen else (torch.zeros(0), torch.zeros(0))


def _few(num_clips: int, num_signs: int) -> list[str]:
    """What must be told of so many clips."""
    if num_clips >= num_signs:
        return []
    found = f"{num_clips} clip{'s' if num_clips > 1 else ''} of one signer, for {num_signs} signs"
    return [f"{found}: little is gained from less than a clip a sign; record more, of all signs"]


def _mixed(clips_NTKC: Tensor) -> list[tuple[Tensor]]:
    """The clips in batches at random: they may come sign by sign."""
    order = torch.randperm(len(clips_NTKC), generator=torch.Generator().manual_seed(0))
    return [(batch,) for batch in in_batches(clips_NTKC[order])]


@torch.no_grad()
def _answers(model: nn.Module, clips_NTKC: Tensor) -> Tensor:
    """int64[N], the likeliest sign of each clip."""
    return torch.cat([model(batch).argmax(1) for batch in in_batches(clips_NTKC)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launch/adapt.py",
        description="Adapt a trained model to one signer by clips of this signer without labels, of all signs about "
        "equally often. What is written is used like any other checkpoint, for this signer.",
        allow_abbrev=False,
    )
    add_model_and_clips(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .pth to write")
    return parser
