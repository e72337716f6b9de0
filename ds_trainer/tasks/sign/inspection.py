"""What is in a store, before anything is trained on it: counts, lengths, what is missing, copies, drawn samples."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ds_trainer.batches import size_of
from ds_trainer.command import command
from ds_trainer.command_line import load_settings
from ds_trainer.distributed import device
from ds_trainer.errors import SettingsError
from ds_trainer.files import make_folder, write_atomically, write_csv
from ds_trainer.plots.fonts import fonts_for
from ds_trainer.problems import listed
from ds_trainer.progress import log
from ds_trainer.randomness import Draw
from ds_trainer.task import load_task_type
from ds_trainer.tasks.sign.augmentation import Augmentation
from ds_trainer.tasks.sign.clips import SPLITS, evenly
from ds_trainer.tasks.sign.features import PLACE
from ds_trainer.tasks.sign.mirror import mirrored
from ds_trainer.tasks.sign.skeleton_plots import apart, skeletons_figure
from ds_trainer.tasks.sign.split_draws import Clips, is_of, signers_of
from ds_trainer.tasks.sign.store import ClipStore
from ds_trainer.tasks.sign.task import SignTask

NUM_SAMPLES = 6
_MOST_CLIPS_READ = 2000
"""For what is missing: more, evenly taken, would say the same."""
_FEW_FRAMES = 5

_NOTHING = Augmentation()


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command line of launch/inspect_data.py: flags of launch/train.py, and --augment, --out_dir.

    Returns:
        The exit status: 0, or 2 for what the user can mend.
    """
    own, flags = _parser().parse_known_args(argv)
    out_dir: Path = own.out_dir
    settings = load_settings([*flags, "--deepspeed_config", own.deepspeed_config], load_task_type)
    if not issubclass(load_task_type(settings.task), SignTask):
        raise SettingsError(f"--task: found {settings.task}, expected sign: other tasks have no clips")
    task = SignTask(settings)
    splits = {"train": task.train_set, "val": task.val_set, "test": task.test_set}
    clips = np.sort(np.concatenate([task.clips_of(dataset) for dataset in splits.values()]))
    for line in describe_store(task.store, clips):
        log.info(line)
    for name, dataset in splits.items():
        log.info(f"{name}: {len(task.clips_of(dataset))} clips")
    for notice in task.notices:
        log.info(notice)
    make_folder(out_dir)
    draw_samples(task.store, clips, out_dir / "samples.png")
    log.info(f"drawn: {out_dir / 'samples.png'}")
    write_counts(task.store, clips, out_dir / "clips_by_sign.csv")
    log.info(f"clips of each sign by signer: {out_dir / 'clips_by_sign.csv'}")
    if own.augment:
        draw_augmentation(task, out_dir / "augmentation.png")
        log.info(f"drawn: {out_dir / 'augmentation.png'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launch/inspect_data.py",
        description="Tell what clips there are, and draw some. Flags of launch/train.py say which, as --data does.",
        allow_abbrev=False,
    )
    parser.add_argument("--augment", action="store_true", help="draw a clip before and after each augmentation, too")
    parser.add_argument(
        "--out_dir",
        type=Path,
        default=Path("runs/inspection"),
        help="where plots and tables go (default: %(default)s)",
    )
    parser.add_argument("--deepspeed_config", default="unused", help=argparse.SUPPRESS)
    return parser


def describe_store(store: ClipStore, clips: Clips) -> Iterator[str]:
    """A few lines about some clips, and a table with a row a signer."""
    lengths = np.diff(store.offsets)[clips]
    low, middle, high = np.percentile(lengths, [5, 50, 95]).astype(int)
    signs, per_sign = np.unique(store.sign[clips], return_counts=True)
    yield (
        f"{store.path}: {len(clips)} clips of {len(signs)} signs by {len(signers_of(store, clips))} signers, "
        f"{store.layout}"
    )
    yield f"frames a clip: {lengths.min()} to {lengths.max()}, half up to {middle}, 90 % within {low} to {high}"
    names = [store.sign_names[sign] for sign in signs]
    fewest, most = int(per_sign.argmin()), int(per_sign.argmax())
    yield f"clips a sign: {per_sign[fewest]} ({names[fewest]}) to {per_sign[most]} ({names[most]})"
    yield _counted("copies, frame for frame", store.copies(clips))
    blank, short = clips[store.content[clips] == 0], clips[lengths < _FEW_FRAMES]
    yield _counted("clips in which all is missing", [store.clip_ids[clip] for clip in blank])
    yield _counted(f"clips of fewer than {_FEW_FRAMES} frames", [store.clip_ids[clip] for clip in short])
    yield from _signer_table(store, clips)


def _counted(what: str, names: Sequence[str]) -> str:
    return f"{what}: {len(names)}" + (f" ({listed(names)})" if names else "")


def _signer_table(store: ClipStore, clips: Clips) -> Iterator[str]:
    parts, names = list(store.layout.parts), signers_of(store, clips)
    read = evenly(clips, _MOST_CLIPS_READ)
    clips_read = ((clip, store.clip_frames(clip)) for clip in read.tolist())
    missing = {clip: [*missing_fractions(seen, store), *depthless_fraction(seen, store)] for clip, seen in clips_read}
    without = [*parts, "z"] if "z" in store.layout.features else parts
    width = max(len(name) for name in (*names, "signer"))
    splits = [split for number, split in enumerate(SPLITS) if split and (store.split[clips] == number).any()]
    columns = ["clips", *splits, "frames", *(f"no {each}" for each in without)]
    yield f"{'signer':{width}}  " + "  ".join(f"{column:>8}" for column in columns)
    lengths = np.diff(store.offsets)
    for name in names:
        own = clips[is_of(store, [name])[clips]]
        counts = [len(own), *(int((store.split[own] == SPLITS.index(split)).sum()) for split in splits)]
        of_read = [missing[clip] for clip in np.intersect1d(own, read).tolist()]
        gone = np.mean(of_read, axis=0) if of_read else np.full(len(without), np.nan)
        values = [*map(str, counts), f"{lengths[own].mean():.0f}", *(f"{100 * fraction:.1f} %" for fraction in gone)]
        cells = (f"{value:>{max(8, len(column))}}" for value, column in zip(values, columns, strict=True))
        yield f"{name:{width}}  " + "  ".join(cells)


def missing_fractions(frames_TKC: NDArray[np.float32], store: ClipStore) -> NDArray[np.float64]:
    """For each part the fraction of the clip's frames in which all of it is missing."""
    is_there_TK = (frames_TKC[..., : max(1, store.layout.num_coordinates)] != 0).any(-1)
    return np.array([1 - is_there_TK[:, list(part)].any(1).mean() for part in store.layout.parts.values()])


def depthless_fraction(frames_TKC: NDArray[np.float32], store: ClipStore) -> list[float]:
    """The fraction of the clip's frames in which z is 0 throughout; nothing where the layout has no z."""
    features = store.layout.features
    return [float((frames_TKC[..., features.index("z")] == 0).all(1).mean())] if "z" in features else []


def write_counts(store: ClipStore, clips: Clips, path: Path) -> None:
    """A table with a row a sign: how many of the clips are of it, and of each signer."""
    signers = np.unique(store.signer[clips])
    rows: list[Sequence[Any]] = [("number", "sign", "clips", *(store.signer_names[signer] for signer in signers))]
    for sign in np.unique(store.sign[clips]).tolist():
        own = store.signer[clips[store.sign[clips] == sign]]
        per_signer = [int((own == signer).sum()) for signer in signers]
        rows.append((store.sign_numbers[sign], store.sign_names[sign], len(own), *per_signer))
    write_csv(path, rows)


def draw_samples(store: ClipStore, clips: Clips, path: Path) -> None:
    """Draw some of the clips, as they were recorded."""
    chosen = evenly(clips, NUM_SAMPLES).tolist()
    names = [f"{store.sign_names[store.sign[clip]]}, {store.signer_names[store.signer[clip]]}" for clip in chosen]
    drawn = [store.clip_frames(clip) for clip in chosen]
    with fonts_for(names):
        figure = skeletons_figure(drawn, names, store.layout, f"{store.path.name}: from the first frame to the last")
        write_atomically(path, figure.savefig)


def draw_augmentation(task: SignTask, path: Path) -> None:
    """Draw what `augmented` gives."""
    clips = augmented(task)
    layout = task.preprocessing.layout
    drawn = [apart(clip_BTKC[0].cpu().numpy(), layout) for clip_BTKC in clips.values()]
    figure = skeletons_figure(drawn, list(clips), layout, "one clip, as training may see it")
    write_atomically(path, figure.savefig)


def augmented(task: SignTask) -> dict[str, Tensor]:
    """A training clip as the model gets it, then with each augmentation of the settings alone, then with all."""
    task.preprocessing = replace(task.preprocessing, features=(PLACE,))  # whatever else the model may see
    used = task.preprocessing
    dataset = task.train_set if size_of(task.train_set) else task.test_set
    items = torch.tensor([dataset[0]])  # type: ignore[index]
    draw = Draw.of(task.settings.seed, 0, torch.tensor([0]))
    on_device = draw.on(device())
    (clips_BTKC,), _ = task.prepare(items, device(), None)
    shown = {"as it is": clips_BTKC}
    for changed in _one_by_one(task.augmentation):
        (name,) = (f.name for f in fields(changed) if getattr(changed, f.name) != getattr(_NOTHING, f.name))
        is_mirrored_B = changed.mirrors(used.layout, on_device)
        seen_BTKC = clips_BTKC if is_mirrored_B is None else mirrored(clips_BTKC, used.layout, is_mirrored_B)
        shown[name] = changed(seen_BTKC, used.layout, on_device, used.parts, used.depth_weight)
    (all_BTKC,), _ = task.prepare(items, device(), draw)
    return shown | {"all, and other frames": all_BTKC}


def _one_by_one(augmentation: Augmentation) -> Iterator[Augmentation]:
    for field in fields(augmentation):
        value: Any = getattr(augmentation, field.name)
        if value > 0:
            # Mirrored for certain, so that there is something to see.
            value = 1.0 if field.name == "mirror_fraction" else value
            yield replace(_NOTHING, **{field.name: value})
