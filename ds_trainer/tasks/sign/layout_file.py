"""A layout that a user describes: what the keypoints are that an extractor of their own gives."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeInt, ValidationError

from ds_trainer.errors import SettingsError
from ds_trainer.problems import problems_of
from ds_trainer.recipe import load_yaml
from ds_trainer.tasks.sign.layout import KeypointLayout

_COORDINATES = ("x", "y", "z")
_MAX_KEYPOINTS = 100_000
_RANGE = re.compile(r"(\d{1,6})-(\d{1,6})")


def _expanded(given: Any) -> list[Any]:
    """Keypoints as they may be written: 5, 5-9, 9-5 (the other way round), or a list of these."""
    if isinstance(given, list):
        keypoints: list[Any] = []
        for item in given:
            keypoints += _expanded(item)
            if len(keypoints) > _MAX_KEYPOINTS:  # a file of a page may name millions
                raise ValueError(f"expected at most {_MAX_KEYPOINTS} keypoints")
        return keypoints
    found = _RANGE.fullmatch(given) if isinstance(given, str) else None
    if found is None:
        return [given]
    first, last = map(int, found.groups())
    if abs(last - first) >= _MAX_KEYPOINTS:
        raise ValueError(f"expected less than {_MAX_KEYPOINTS} keypoints")
    return list(range(first, last + 1)) if first <= last else list(range(first, last - 1, -1))


Keypoints = Annotated[tuple[NonNegativeInt, ...], BeforeValidator(_expanded)]


class LayoutFile(BaseModel):
    """What a layout file holds. Keypoints are numbered from 0, in the order of the data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: tuple[str, ...] = Field(
        description="what each number of a keypoint is, such as [x, y, confidence]; coordinates come first"
    )
    parts: dict[str, Annotated[Keypoints, Field(min_length=1)]] = Field(
        description="each body part by its name, and its keypoints, such as right_hand: 7-27", min_length=1
    )
    mirror: tuple[tuple[Keypoints, Keypoints], ...] = Field(
        (), description="pairs of keypoints, or of ranges of them, of which one is the other in a mirror"
    )
    centre: Keypoints = Field((), description="the keypoints between which the origin of the body lies")
    scale: tuple[NonNegativeInt, NonNegativeInt] | None = Field(
        None, description="the two keypoints whose distance is the size of the body, such as the shoulders"
    )
    part_roots: dict[str, NonNegativeInt] = Field(
        {}, description="parts that are seen from a keypoint of their own, such as a hand from its wrist"
    )
    bones: tuple[tuple[Keypoints, Keypoints], ...] = Field(
        (), description="pairs of a keypoint and the one that it hangs on, such as an elbow and its shoulder, or ranges"
    )
    is_metric: bool = Field(False, description="whether x, y and z were measured in one unit, as a depth camera does")

    def layout(self, name: str) -> KeypointLayout:
        """The layout, under this name.

        Raises:
            ValueError: the parts of the description contradict each other.
        """
        self._check_features()
        if self.scale is not None and len(set(self.scale)) == 1:
            raise ValueError(
                f"scale: found keypoint {self.scale[0]} twice, expected two whose distance is the size of the body"
            )
        num_keypoints = self._num_keypoints()
        mirror, parents = list(range(num_keypoints)), list(range(num_keypoints))
        pairs = list(_paired("mirror", self.mirror, num_keypoints))
        for keypoint, partner in _singly("mirror", "beside", "partner", [*pairs, *((b, a) for a, b in pairs)]):
            mirror[keypoint] = partner
        for keypoint, parent in _singly("bones", "on", "that it hangs on", _paired("bones", self.bones, num_keypoints)):
            if keypoint == parent:
                raise ValueError(f"bones: found keypoint {keypoint} on itself, expected another; leave it out")
            parents[keypoint] = parent
        return KeypointLayout(
            name=name,
            features=self.features,
            parts=dict(self.parts),
            mirror=tuple(mirror) if self.mirror else None,
            centre=self.centre,
            scale=self.scale,
            part_roots=dict(self.part_roots),
            parents=tuple(parents) if self.bones else (),
            is_metric=self.is_metric,
        )

    def _check_features(self) -> None:
        num_coordinates = sum(feature in _COORDINATES for feature in self.features)
        if num_coordinates < 2 or self.features[:num_coordinates] != _COORDINATES[:num_coordinates]:
            raise ValueError(f"features: found {', '.join(self.features)}; expected x, y or x, y, z in front")

    def _num_keypoints(self) -> int:
        named = [keypoint for keypoints in self.parts.values() for keypoint in keypoints]
        twice = next((keypoint for keypoint, count in Counter(named).items() if count > 1), None)
        if twice is not None:
            raise ValueError(f"parts: found keypoint {twice} twice, expected each in one part; take it out of one")
        if len(named) <= max(named):
            missing = min(set(range(len(named))) - set(named))
            raise ValueError(f"parts: found no keypoint {missing}, expected all from 0 to {max(named)}; give it a part")
        return len(named)


def _paired(name: str, pairs: Iterable[tuple[Keypoints, Keypoints]], num_keypoints: int) -> Iterator[tuple[int, int]]:
    """Each keypoint of a range with its partner in the other.

    Raises:
        ValueError: there are no such keypoints, or one range is longer than the other.
    """
    for some, others in pairs:
        if len(some) != len(others):
            raise ValueError(
                f"{name}: found {len(some)} keypoints beside {len(others)}, expected as many; mend a range"
            )
        if outside := [keypoint for keypoint in (*some, *others) if keypoint >= num_keypoints]:
            raise ValueError(
                f"{name}: found keypoint {outside[0]}, expected 0 to {num_keypoints - 1}, as parts name them"
            )
        yield from zip(some, others, strict=True)


def _singly(name: str, relation: str, other: str, pairs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The pairs, none of which may say of a keypoint what another pair contradicts."""
    known: dict[int, int] = {}
    for keypoint, partner in pairs:
        if known.setdefault(keypoint, partner) != partner:
            raise ValueError(
                f"{name}: found keypoint {keypoint} {relation} {known[keypoint]} and {relation} {partner}, expected "
                f"one {other}; take a pair out"
            )
        yield keypoint, partner


def load_layout(path: Path) -> KeypointLayout:
    """The layout that a YAML file describes; its name is that of the file.

    Raises:
        SettingsError: the file is missing, is no YAML, or does not describe a layout.
    """
    try:
        return LayoutFile.model_validate(load_yaml(path, "--layout")).layout(path.stem)
    except ValidationError as error:
        problems = problems_of(error, LayoutFile)
    except ValueError as error:
        problems = [str(error)]
    raise SettingsError([f"{path}: {problem}" for problem in problems])
