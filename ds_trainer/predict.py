"""Which signs a trained model sees in clips that nobody has labelled.

Axes: B clips, N frames of the longest clip, T frames of one, K keypoints, C features, S signs.
"""

import argparse
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ds_trainer.checkpoint import load_model
from ds_trainer.command import command
from ds_trainer.errors import EXIT_USER_ERROR, CheckpointError, DataError, UserError
from ds_trainer.problems import exact, shown
from ds_trainer.progress import complain, log
from ds_trainer.source import load_source, uncalibrated
from ds_trainer.tasks.sign.clips import MAX_PATH, as_float32
from ds_trainer.tasks.sign.holistic import in_order, is_holistic, order_of
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.preprocessing import Preprocessing, Recogniser, padded
from ds_trainer.tasks.sign.unlabelled import EXPECTED, Frames, clips_in
from ds_trainer.tasks.sign.upright import is_turned, turned_note
from ds_trainer.text_file import is_plain

CLIPS_AT_ONCE, FRAMES_AT_ONCE = 32, 16_000
_MOST_ANSWERS = 100


@dataclass(frozen=True)
class Answer:
    """A sign that a clip may show, and how sure the model is, 0 to 1."""

    sign: str
    number: int
    confidence: float


def problem_of(
    name: str, frames: NDArray[Any], layout: KeypointLayout, parts: Mapping[str, Sequence[int]]
) -> str | None:
    """Why a model cannot look at a clip; None: it can.

    Args:
        layout: of the clips that it was trained on.
        parts: keypoints that it looks at, by body part.
    """
    expected = f"expected [frames, {layout.num_keypoints}, {layout.num_features}] as in training ({layout.name})"
    if frames.shape[1:] != (layout.num_keypoints, layout.num_features) or not len(frames):
        return f"{name}: found shape {list(frames.shape)}, {expected}"
    if frames.dtype.kind not in "fiu" or not np.isfinite(as_float32(frames)).all():
        found = f"{frames.dtype} that is no number, NaN, infinite or beyond float32"
        return f"{name}: found {found}, expected finite numbers; write 0 for a missing keypoint"
    if layout.num_coordinates and not frames[..., : layout.num_coordinates].any():
        return f"{name}: found nobody in {len(frames)} frames, expected a signer; extract it again, or leave it out"
    if is_holistic(layout) and (own := in_order(layout, frames)) is not layout:
        found, expected = (", ".join(order_of(each)) for each in (own, layout))
        return f"{name}: found keypoints of {found} in this order, expected {expected} as in training; reorder them"
    looked_at = list(itertools.chain(*parts.values()))
    looked_at += [layout.mirror[keypoint] for keypoint in looked_at if layout.mirror]  # a left-handed signer's
    if layout.num_coordinates and not frames[:, looked_at, : layout.num_coordinates].any():
        found = f"found none of {', '.join(parts)} in {len(frames)} frames"
        return f"{name}: {found}, which is all that the model looks at; extract it again, or leave it out"
    return None


def load_recogniser(checkpoint: Mapping[str, Any]) -> Recogniser:
    """The trained model of a checkpoint of the sign task with its preprocessing.

    Raises:
        CheckpointError: it is of another task, or damaged.
    """
    if checkpoint["task"] != "sign":
        raise CheckpointError(f"task: found {checkpoint['task']}, expected sign: other tasks have no clips")
    recogniser = Recogniser(Preprocessing.of(checkpoint["description"]), load_model(checkpoint)).eval()
    names, numbers = (checkpoint["description"].get(name) for name in ("sign_names", "sign_numbers"))
    if not (isinstance(names, list) and isinstance(numbers, list) and len(names) == len(numbers)):
        raise CheckpointError("description: found no sign_numbers, expected one of each of sign_names")
    strange = next((name for name in names if not (isinstance(name, str) and is_plain(name))), None)
    if strange is not None:
        raise CheckpointError(f"description: sign_names: found {shown(strange)}, expected a text in one line")
    return recogniser


@torch.no_grad()
def answers_of(
    recogniser: nn.Module, clips: Sequence[Frames], checkpoint: Mapping[str, Any], top: int
) -> list[list[Answer]]:
    """The `top` likeliest signs of each clip, float[T, K, C] each, the likeliest first."""
    logits_BS = recogniser(*padded(clips))
    confidence_BS = (logits_BS / checkpoint.get("temperature", 1.0)).softmax(1)
    values, signs = confidence_BS.topk(min(top, confidence_BS.shape[1]))
    names, numbers = checkpoint["description"]["sign_names"], checkpoint["description"]["sign_numbers"]
    return [
        [Answer(names[sign], numbers[sign], value) for sign, value in zip(of_clip, confidences, strict=True)]
        for of_clip, confidences in zip(signs.tolist(), values.tolist(), strict=True)
    ]


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command line of launch/predict.py.

    Returns:
        The exit status: 0, or 2 if something could not be read; what could is answered all the same.
    """
    arguments = _parser().parse_args(argv)
    try:
        checkpoint = load_source(arguments.checkpoint)
        recogniser = load_recogniser(checkpoint)
        description = checkpoint["description"]
        layout, parts = KeypointLayout.from_dict(description["layout"]), description["parts"]
    except UserError as error:
        return _refuse(error.problems)
    complain(uncalibrated(checkpoint), "note")
    problems: list[str] = []
    turned: list[str] = []
    clips = (clip for path in arguments.clips for clip in clips_in(path))
    found = noting_turned(usable(clips, layout, parts, problems), description, turned)
    for batch in batched(found):
        answers = answers_of(recogniser, [frames for _, frames in batch], checkpoint, arguments.top)
        for (name, frames), of_clip in zip(batch, answers, strict=True):
            if math.isfinite(of_clip[0].confidence):
                log.info(_line(name, of_clip, arguments.json))
            else:
                problems.append(unanswered(name, frames))
    complain([turned_note(turned)] if turned else [], "note")
    return _refuse(problems) if problems else 0


def batched(clips: Iterable[tuple[str, Frames]]) -> Iterator[list[tuple[str, Frames]]]:
    """The clips in the same order, as many together as memory has room for, where all are as long as the longest."""
    batch: list[tuple[str, Frames]] = []
    longest = 0
    for clip in clips:
        longest = max(longest, len(clip[1]))
        if batch and (len(batch) == CLIPS_AT_ONCE or longest * (len(batch) + 1) > FRAMES_AT_ONCE):
            yield batch
            batch, longest = [], len(clip[1])
        batch.append(clip)
    if batch:
        yield batch


def usable(
    clips: Iterable[tuple[str, Frames | DataError]],
    layout: KeypointLayout,
    parts: Mapping[str, Sequence[int]],
    problems: list[str],
) -> Iterator[tuple[str, Frames]]:
    """Those clips that the model can look at; what is wrong with others is added to `problems`."""
    for name, clip in clips:
        if isinstance(clip, DataError):
            problems += clip.problems
            continue
        problem = problem_of(exact(name, MAX_PATH), clip, layout, parts)
        if problem is None:
            yield name, clip
        else:
            problems.append(problem)


def noting_turned(
    clips: Iterable[tuple[str, Frames]], description: Mapping[str, Any], turned: list[str]
) -> Iterator[tuple[str, Frames]]:
    """The clips; the names of those whose y runs another way than a model has learnt are added to `turned`."""
    layout, side = KeypointLayout.from_dict(description["layout"]), description.get("head_side")
    for name, frames in clips:
        if is_turned(frames, layout, side):
            turned.append(exact(name, MAX_PATH))
        yield name, frames


def _line(name: str, answers: Sequence[Answer], is_json: bool) -> str:
    if is_json:
        plain = [{**vars(answer), "confidence": round(answer.confidence, 6)} for answer in answers]
        return json.dumps({"clip": name, "answers": plain}, ensure_ascii=False)
    return f"{exact(name, MAX_PATH)}  " + "  ".join(f"{answer.sign} {answer.confidence:.3f}" for answer in answers)


def unanswered(name: str, frames: Frames) -> str:
    """That a model answers a clip with NaN, which huge numbers in it make."""
    found = f"found NaN for confidences, and numbers up to {float(np.abs(frames).max()):.2g} in the clip"
    return f"{exact(name, MAX_PATH)}: {found}, expected those of a body; scale it as in training, or extract it again"


def _refuse(problems: Sequence[str]) -> int:
    complain(problems)
    return EXIT_USER_ERROR


def _number_of_answers(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= _MOST_ANSWERS):
        raise argparse.ArgumentTypeError(f"found {text[:20]!r}, expected 1 to {_MOST_ANSWERS}")
    return int(text)


def add_model_and_clips(parser: argparse.ArgumentParser) -> None:
    """Let a command take `checkpoint` and `clips`, one path or more of what `clips_in` reads."""
    parser.add_argument("checkpoint", type=Path, help="a .pth, or a run directory")
    parser.add_argument(
        "clips", type=Path, nargs="+", help=f"files ({EXPECTED}; video with MediaPipe) or folders of them"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launch/predict.py",
        description="Tell which signs clips show: a line a clip, the likeliest sign first, with its confidence.",
        allow_abbrev=False,
    )
    add_model_and_clips(parser)
    parser.add_argument(
        "--top", type=_number_of_answers, default=5, metavar="N", help="signs a clip, 1 to 100 (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    return parser
