"""From whatever `--data` names to a clip store: found by content, prepared once, shared by all ranks of a machine."""

import argparse
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from ds_trainer.command import command
from ds_trainer.command_line import refuse_illegible
from ds_trainer.errors import DataError, SettingsError, looking_at
from ds_trainer.paths import exists
from ds_trainer.problems import legible, nearest_name
from ds_trainer.progress import log, with_bar
from ds_trainer.tasks.sign import known_layouts, synthetic
from ds_trainer.tasks.sign.clips import MAX_PATH, ClipSource, Progress, no_progress
from ds_trainer.tasks.sign.labels import load_labels, named
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.layout_file import load_layout
from ds_trainer.tasks.sign.readers import Reader, default, find_reader
from ds_trainer.tasks.sign.store import STORE_VERSION, ClipStore, is_store
from ds_trainer.tasks.sign.store_writer import write_store
from ds_trainer.tasks.sign.synthetic import SyntheticSettings, synthetic_source
from ds_trainer.tasks.sign.upright import turned_notices

DEFAULT_DATA = "default"
_MAX_NAME = 50  # characters, of four bytes at most, and a file name has at most 255 bytes


def resolve_store(
    data: str | Path,
    labels: Path | None,
    stores_dir: Path,
    layout: Path | None,
    progress: Progress = no_progress,
) -> Path:
    """The folder of the clip store for `data`, prepared if it was not yet.

    Several processes may call this at once, and need no process group: the first prepares, the others wait.

    Args:
        data: `default`, a clip store, or a file or folder of a format in `readers`.
        labels: a file with the names of the signs, in place of those that the data has.
        stores_dir: where stores are kept, one for each state of the source.
        layout: a file that says what the keypoints are, in place of what their number says.

    Raises:
        DataError: the source is missing, unknown or damaged, or the store cannot be written.
        SettingsError: the file of the layout does not describe one.
    """
    reader: Reader
    described = None if layout is None else load_layout(layout)
    if str(data) == DEFAULT_DATA:
        reader, path = default, default.find()
    else:
        path = _existing(data)
        with looking_at(path, DataError):
            if is_store(path):
                _refuse_for_store(path, labels, described)
                return path
            reader = find_reader(path)
    name = DEFAULT_DATA if reader is default else path.resolve().stem[:_MAX_NAME]
    store_name = re.sub(r"[^\w-]+", "_", name) + "-" + _fingerprint(reader, path, labels, described)
    store_dir = stores_dir / store_name
    if not _is_prepared(store_dir):
        _prepare(lambda: _described(named(reader.read(path), labels), described), store_dir, progress)
    return store_dir


def _described(source: ClipSource, layout: KeypointLayout | None) -> ClipSource:
    return source if layout is None else replace(source, layout=layout)


def _refuse_for_store(path: Path, labels: Path | None, layout: KeypointLayout | None) -> None:
    """Refuse what would be said of clips that are prepared already."""
    problems = []
    remedy = "leave {} out, or prepare the original data with it"
    if labels is not None:
        problems.append(
            f"--labels {labels}: {path} is a prepared store whose names are fixed; {remedy.format('--labels')}"
        )
    if layout is not None and ClipStore.open(path).layout != layout:
        problems.append(
            f"--layout {layout.name}: {path} is a prepared store of another layout; {remedy.format('--layout')}"
        )
    if problems:
        raise DataError(problems)


def resolve_synthetic(settings: SyntheticSettings, stores_dir: Path, progress: Progress = no_progress) -> Path:
    """The folder of the clip store with the synthetic clips of `settings`, made if it was not yet.

    Raises:
        DataError: the store cannot be written.
    """
    facts = [synthetic.VERSION, STORE_VERSION, settings.model_dump()]
    store_dir = stores_dir / f"synthetic_{settings.num_clips}-{_hashed(facts)}"
    if not _is_prepared(store_dir):
        _prepare(lambda: synthetic_source(settings), store_dir, progress)
    return store_dir


def _is_prepared(store_dir: Path) -> bool:
    try:
        return is_store(store_dir)
    except OSError as error:
        raise DataError(
            f"--stores_dir {store_dir.parent}: cannot be looked into ({error}), expected a folder for clip stores with "
            "what you may read; choose another, or ask for the right to read it"
        ) from error


def _prepare(read: Callable[[], ClipSource], store_dir: Path, progress: Progress) -> None:
    """Prepare the store unless another process did so while this one waited."""
    try:
        store_dir.parent.mkdir(parents=True, exist_ok=True)
        # Other users of a shared folder wait at the lock, too, and go on where its owner was killed.
        with FileLock(store_dir.parent / f".{store_dir.name}.lock", mode=0o666):
            if is_store(store_dir):
                return
            # The lock says that nobody is at work: what lies here was left by a process that was killed.
            for left_over in store_dir.parent.glob(f".{store_dir.name}.*.partial"):
                shutil.rmtree(left_over, ignore_errors=True)
            write_store(store_dir, read(), progress)
    except OSError as error:
        raise DataError(
            f"--stores_dir {store_dir.parent}: cannot be written ({error}), expected a folder for clip stores; choose "
            "a writable one"
        ) from error


def _fingerprint(reader: Reader, path: Path, labels: Path | None, layout: KeypointLayout | None) -> str:
    """12 hexadecimal digits that change when the source does; only names, sizes and times are looked at.

    Of the times also that of the last change of a file on this disk: rsync and unzip set the other back.
    """
    try:
        states = [
            (str(file.relative_to(path)), status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            for file in reader.files(path)
            if exists(file)
            for status in [file.stat()]
        ]
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); check its path and rights") from error
    names = load_labels(labels) if labels is not None else ""
    known_as = known_layouts.VERSION if layout is None else layout.to_dict()
    return _hashed([reader.FORMAT, reader.VERSION, STORE_VERSION, states, names, known_as])


def _hashed(facts: list[Any]) -> str:
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=6).hexdigest()


def _existing(data: str | Path) -> Path:
    """The path that `--data` gives, which must be there."""
    path = Path(data)
    shown_path = legible(str(data), MAX_PATH) or "''"
    try:
        if str(data) and exists(path):
            return path
        found = next((parent for parent in path.parents if exists(parent)), Path("."))
        siblings = [sibling.name for sibling in found.iterdir()] if found.is_dir() else []
    except OSError as error:
        raise DataError(f"--data {shown_path}: cannot be looked at ({error.strerror}); check the path") from error
    missing = path.parts[len(found.parts)] if found != Path(".") else str(path)
    remedy = nearest_name(missing, siblings[:200]) if siblings else "the folder is empty"
    raise DataError(
        f"--data {shown_path}: missing, expected a file or folder, or {DEFAULT_DATA!r}; in {found}: {remedy}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launch/prepare.py",
        description="Turn clips of any known format into a clip store, checking each of them; or make clips up.",
    )
    origin = parser.add_mutually_exclusive_group(required=True)
    origin.add_argument("--data", metavar="PATH", help=f"a file or folder of clips, or {DEFAULT_DATA}")
    origin.add_argument("--source", choices=["synthetic"], help="where clips come from that no file has")
    parser.add_argument(
        "--labels", type=Path, metavar="PATH", help="names of the signs, one a line, or the KArSL labels"
    )
    parser.add_argument(
        "--stores_dir", type=Path, default=Path("data/stores"), metavar="PATH", help="default: %(default)s"
    )
    group = parser.add_argument_group(
        "synthetic clips", "numbers and names for --source synthetic; --data takes --layout, too"
    )
    for name, field in SyntheticSettings.model_fields.items():
        usual = "required" if field.is_required() else f"default: {field.default}"
        metavar = "N" if field.annotation is int else "NAME"
        group.add_argument(f"--{name}", metavar=metavar, help=f"{field.description} ({usual})")
    return parser


def _resolve(arguments: argparse.Namespace) -> Path:
    """The folder of the store that the command line asks for."""
    given = vars(arguments)
    made_up = {name: given[name] for name in SyntheticSettings.model_fields if given[name] is not None}
    if arguments.source is None:
        layout = made_up.pop("layout", None)
        if made_up:
            raise SettingsError(
                [
                    f"--{name}: found with --data, expected only with --source synthetic; leave it out"
                    for name in made_up
                ]
            )
        described = None if layout is None else Path(layout)
        return resolve_store(arguments.data, arguments.labels, arguments.stores_dir, described, with_bar)
    if arguments.labels is not None:
        raise SettingsError("--labels: found with --source synthetic, whose signs have numbers only; leave it out")
    return resolve_synthetic(SyntheticSettings.from_flags(made_up), arguments.stores_dir, with_bar)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command line of launch/prepare.py; training prepares by itself what is not prepared yet.

    Returns:
        The exit status: 0, or 2 for what the user can mend.
    """
    arguments = _parser().parse_args(argv)
    refuse_illegible(map(str, vars(arguments).values()))
    store_dir = _resolve(arguments)
    store = ClipStore.open(store_dir)
    if arguments.source is None:  # what was made up can be made again: it is not worth reading back
        store.check_frames()
    counts = f"{len(store)} clips, {len(store.sign_names)} signs, {len(store.signer_names)} signers"
    log.info(f"{store_dir}: {counts}, {store.layout}")
    for notice in turned_notices(store, np.arange(len(store))):
        log.info(notice)
    return 0
