"""A folder for each sign, with files of clips in it; above it, where they are known, folders of signers and splits."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ds_trainer.errors import DataError
from ds_trainer.problems import legible, shown
from ds_trainer.tasks.sign.clip_shapes import STACK_FRAMES, is_frame
from ds_trainer.tasks.sign.clips import SPLITS, ClipSource, RawClip, by_number, data_flag, plain_name
from ds_trainer.tasks.sign.readers import clip_file, karsl_npz, openpose, packed_npz

FORMAT = "a folder of such files in {sign}/, {signer}/{sign}/ or {split}/{sign}/"
VERSION = 3 + clip_file.VERSION

_OTHER_SPLITS = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}
_LIKE_KARSL = re.compile(r"[0-9]+-[A-Za-z]+")
_KARSL_SIGN = re.compile(r"[0-9]{4}")
_REMEDY = "move them, or write index.csv with the columns path, sign and signer"


@dataclass(frozen=True)
class _Place:
    """What the folders of a file say.

    Args:
        file: its path within the data.
        signers: the names of the folders above that of the sign that are no split; one at most, if all is in order.
    """

    file: Path
    sign: str
    signers: tuple[str, ...]
    split: str

    @classmethod
    def of(cls, file: Path) -> "_Place":
        *above, sign = map(plain_name, file.parts[:-1])
        folder = next((name for name in above if name.lower() in SPLITS), "")
        return cls(file, sign, tuple(name for name in above if name != folder), folder.lower())


def recognises(path: Path) -> bool:
    """Whether `path` has files of clips in it, wherever."""
    return path.is_dir() and clip_file.has_clips(path)


def files(path: Path) -> list[Path]:
    """All files of clips."""
    return clip_file.read_below(path)


def read(path: Path) -> ClipSource:
    """The clips of all files, in the order of their names; signs are numbered in the order of theirs, 9 before 10, but
    those that KArSL's folders call 0001 to 0502 have these numbers.

    Raises:
        DataError: the folders may mean something else.
    """
    found = [file.relative_to(path) for file in clip_file.files_below(path)]
    bare = [file for file in found if len(file.parts) == 1]
    if bare:
        raise DataError(
            f"{path}: found {legible(str(bare[0]))} right in it, expected a folder for each sign, or index.csv with "
            f"the columns path, sign and signer; {_remedy_for(path, bare[0].name, len(bare) == len(found))}"
        )
    places = [_Place.of(file) for file in found]
    problem = _problem_of(places)
    if problem:
        raise DataError(f"{path}: {_single_frames(path, found[0]) or problem}")
    names = sorted({place.sign for place in places}, key=by_number)
    layout = openpose.layout_of(path / place.file for place in places)
    if all(map(_is_karsl_sign, names)):
        numbers = {name: int(name) for name in names}
        return ClipSource(str(path), len(places), max(numbers.values()), _clips(path, places, numbers), layout=layout)
    numbers = {name: number for number, name in enumerate(names, start=1)}
    return ClipSource(str(path), len(places), len(names), _clips(path, places, numbers), names, layout=layout)


def _is_karsl_sign(name: str) -> bool:
    return bool(_KARSL_SIGN.fullmatch(name)) and 1 <= int(name) <= karsl_npz.NUM_SIGNS


def _single_frames(path: Path, name: Path) -> str | None:
    """What to tell where files hold frames, as the first of them does: their folders lie deeper than those of clips."""
    try:
        (frames,) = clip_file.load_clips(path / name).values()
    except (DataError, ValueError):  # it is damaged, or holds several clips
        return None
    found = f"one frame in each file, such as {shown(str(name))} {frames.shape}"
    return f"found {found}, expected a clip; {STACK_FRAMES}" if is_frame(frames) else None


def _remedy_for(path: Path, bare: str, is_flat: bool) -> str:
    """What to do about the file `bare` right in the folder `path`, which has no others if it is flat."""
    whole = Path(os.path.abspath(path))
    above = path.parent if path.name not in ("", "..") else whole.parent
    if packed_npz.is_packed(path / bare):
        return f"packed clips are given by {data_flag(path / bare)}"
    if karsl_npz.is_sign_file(whole / bare):
        return f"{whole.name} is a folder of KArSL: give the one above it, {data_flag(above)}"
    if not is_flat:
        return "move it into the folder of its sign"
    return f"where {legible(whole.name)} is a sign, give the folder above it, {data_flag(above)}"


def _problem_of(places: Sequence[_Place]) -> str | None:
    """Why the folders cannot be understood, the first reason."""
    depths: dict[int, Path] = {}
    for place in places:
        depths.setdefault(len(place.signers), place.file.parent)
    if max(depths) > 1:
        deep = shown(str(depths[max(depths)]))
        return f"found {deep}, expected {{sign}}, {{signer}}/{{sign}}, or these within {{split}}; {_REMEDY}"
    if len(depths) > 1:
        return f"found {shown(str(depths[0]))} and {shown(str(depths[1]))}, a signer in one of them; {_REMEDY}"
    above = sorted({name for place in places for name in place.signers})
    if above and all(name.lower() in _OTHER_SPLITS for name in above):
        return f"found the folder {shown(above[0])}, expected {_OTHER_SPLITS[above[0].lower()]}; rename it"
    signs = sorted({place.sign for place in places})
    if all(sign.lower() in (*SPLITS, *_OTHER_SPLITS) for sign in signs):
        return f"found {shown(signs[0])} as the folder of clips, expected {{split}}/{{sign}}; {_REMEDY}"
    if all(_LIKE_KARSL.fullmatch(sign) for sign in signs):
        expected = "{signer}-train, -val or -test as in KArSL, or a folder for each sign"
        return f"found the folder {shown(signs[0])}, expected {expected}; rename it"
    return None


def _clips(path: Path, places: Sequence[_Place], numbers: Mapping[str, int]) -> Iterator[RawClip | DataError]:
    are_signers = _are_signers(places)
    for place in places:
        signer = place.signers[0] if place.signers and are_signers else ""
        yield from clip_file.labelled(path, place.file, numbers[place.sign], signer, place.split)


def _are_signers(places: Sequence[_Place]) -> bool:
    """Whether the folders above signs can be signers: where no sign is in two of them, they are groups of signs."""
    above: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for place in places:
        above[place.sign].add(place.signers)
    return len({place.signers for place in places}) == 1 or any(len(folders) > 1 for folders in above.values())
