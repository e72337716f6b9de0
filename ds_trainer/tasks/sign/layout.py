"""What the keypoints of a clip are: which body part each belongs to, and which one stands in its place in a mirror."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import index
from typing import Any

from pydantic_core import to_jsonable_python

LOWER_BODY = "lower_body"
"""The part that does not sign: a sitting signer's legs rest, and where the image ends above them they are guessed."""

HANDS = ("left_hand", "right_hand")

_GUESSED_DEPTH_WEIGHT = 0.3


@dataclass(frozen=True)
class KeypointLayout:
    """The meaning of the K keypoints of a clip and of their C features.

    Args:
        features: what each of the C numbers of a keypoint is; coordinates x, y, z come first.
        parts: part -> its keypoints, in the order of the model's tokens; every keypoint is in exactly one part.
        mirror: for each keypoint the one that stands in its place in the mirror image, an involution; None: unknown,
            and such clips cannot be mirrored.
        centre: keypoints whose mean is the origin of the body; empty: unknown.
        scale: two keypoints whose distance is the size of the body; None: unknown.
        part_roots: part -> the keypoint that is its own origin, such as a hand's wrist.
        parents: for each keypoint the one that it hangs on, such as an elbow's shoulder: the other end of its bone;
            itself where it hangs on none; empty: unknown.
        is_metric: whether all three coordinates are measured in one unit, as a depth camera does. Where one camera had
            to guess the depth, directions in it mean little.

    Attributes:
        depth_weight: what the depth is worth beside the other coordinates: less where it is known to be guessed.
    """

    name: str
    features: tuple[str, ...]
    parts: dict[str, tuple[int, ...]]
    mirror: tuple[int, ...] | None = None
    centre: tuple[int, ...] = ()
    scale: tuple[int, int] | None = None
    part_roots: dict[str, int] = field(default_factory=dict)
    parents: tuple[int, ...] = ()
    is_metric: bool = False

    def __post_init__(self) -> None:
        """Raise `ValueError` where keypoints are named that there are not: a layout may come from a damaged file."""
        everything = list(range(self.num_keypoints))
        if sorted(keypoint for keypoints in self.parts.values() for keypoint in keypoints) != everything:
            raise ValueError("not every keypoint is in exactly one part")
        mirror = everything if self.mirror is None else self.mirror
        if sorted(mirror) != everything or [mirror[partner] for partner in mirror] != everything:
            raise ValueError("the mirror is not undone by itself")
        if not {*self.centre, *(self.scale or ())} <= set(everything):
            raise ValueError("the centre or the scale is measured by keypoints that are not there")
        if not all(root in self.parts.get(part, ()) for part, root in self.part_roots.items()):
            raise ValueError("the root of a part is not in it")
        if self.parents and not self._parents_lead_to_roots():
            raise ValueError("keypoints hang on one another in a circle, or on what is not there")

    def _parents_lead_to_roots(self) -> bool:
        if len(self.parents) != self.num_keypoints or not set(self.parents) <= set(range(self.num_keypoints)):
            return False
        reached = list(self.parents)
        for _ in range(self.num_keypoints.bit_length()):  # each time twice as far
            reached = [reached[keypoint] for keypoint in reached]
        return all(self.parents[keypoint] == keypoint for keypoint in reached)

    @property
    def num_keypoints(self) -> int:
        return sum(len(keypoints) for keypoints in self.parts.values())

    @property
    def num_features(self) -> int:
        return len(self.features)

    @property
    def num_coordinates(self) -> int:
        return sum(feature in ("x", "y", "z") for feature in self.features)

    def __str__(self) -> str:
        return f"{self.name}: {self.num_keypoints} keypoints x {self.num_features} ({', '.join(self.features)})"

    @property
    def is_known(self) -> bool:
        """Whether anything but the number of its keypoints is known."""
        return self.mirror is not None or bool(self.centre or self.scale or self.parents) or len(self.parts) > 1

    @property
    def depth_weight(self) -> float:
        return _GUESSED_DEPTH_WEIGHT if self.is_known and not self.is_metric else 1.0

    @property
    def bones(self) -> list[tuple[int, int]]:
        """(keypoint, its parent) for each that has one."""
        return [(keypoint, parent) for keypoint, parent in enumerate(self.parents) if keypoint != parent]

    @property
    def signing_parts(self) -> list[str]:
        """The names of the parts that sign: all but the lower body."""
        return [part for part in self.parts if part != LOWER_BODY]

    @property
    def part_of(self) -> list[int]:
        """For each keypoint the number of its part."""
        numbers = {keypoint: number for number, part in enumerate(self.parts.values()) for keypoint in part}
        return [numbers[keypoint] for keypoint in range(self.num_keypoints)]

    @property
    def sides(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """The keypoints of the left and of the right hand, or else of all parts that are called left and right; None
        where there are none, not as many on either side, or no mirror in which one would be seen as the other."""
        if self.mirror is None or not self.num_coordinates:
            return None
        pairs = [(part, part.replace("left", "right", 1)) for part in self.parts if part.startswith("left")]
        pairs = [pair for pair in pairs if pair[1] in self.parts]
        if set(HANDS) <= set(self.parts):
            pairs = [HANDS]
        left, right = (sum((self.parts[pair[side]] for pair in pairs), ()) for side in (0, 1))
        return (left, right) if left and len(left) == len(right) else None

    def needed_for(self, keypoints: Sequence[int]) -> tuple[int, ...]:
        """These keypoints, and behind them all that says where they are: the body's centre and scale, both sides, which
        tell a left-handed signer, what each hangs on, its partner in the mirror, and its part if that has a root."""
        both_sides = itertools.chain(*(self.sides or ()))
        links = [other for other in (self.mirror, self.parents) if other]
        wholes = [set(self.parts[part]) for part in self.part_roots]
        found: set[int] = set()
        new = {*keypoints, *self.centre, *(self.scale or ()), *both_sides}
        while new:
            found |= new
            linked = {other[keypoint] for other in links for keypoint in new}
            new = linked.union(*(whole for whole in wholes if whole & new)) - found
        return (*keypoints, *sorted(found.difference(keypoints)))

    def only(self, keypoints: Sequence[int]) -> "KeypointLayout":
        """The layout of these keypoints alone, numbered anew in this order: all that `needed_for` some of them says."""
        number = {keypoint: place for place, keypoint in enumerate(keypoints)}
        parts = {part: tuple(number[own] for own in owns if own in number) for part, owns in self.parts.items()}
        return replace(
            self,
            parts={part: owns for part, owns in parts.items() if owns},
            mirror=None if self.mirror is None else tuple(number[self.mirror[keypoint]] for keypoint in keypoints),
            centre=tuple(number[keypoint] for keypoint in self.centre),
            scale=None if self.scale is None else (number[self.scale[0]], number[self.scale[1]]),
            part_roots={part: number[root] for part, root in self.part_roots.items() if root in number},
            parents=tuple(number[self.parents[keypoint]] for keypoint in keypoints) if self.parents else (),
        )

    def to_dict(self) -> dict[str, Any]:
        """This layout as plain JSON types, which also load with `weights_only=True`."""
        plain: dict[str, Any] = to_jsonable_python(self)
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "KeypointLayout":
        """The layout that `to_dict` wrote."""
        scale = values["scale"]
        return cls(
            name=values["name"],
            features=tuple(values["features"]),
            parts={part: _keypoints(keypoints) for part, keypoints in values["parts"].items()},
            mirror=None if values["mirror"] is None else _keypoints(values["mirror"]),
            centre=_keypoints(values["centre"]),
            scale=None if scale is None else (index(scale[0]), index(scale[1])),
            part_roots={part: index(root) for part, root in values["part_roots"].items()},
            parents=_keypoints(values["parents"]),
            is_metric=bool(values["is_metric"]),
        )


def _keypoints(numbers: Iterable[Any]) -> tuple[int, ...]:
    return tuple(index(number) for number in numbers)
