"""What a model sees of each keypoint: its place, whether it is there, how it moves, where its bone points.

Computed from normalised and augmented clips, so that all of it fits together. Each is 0 where it is unknown: for a
keypoint that is missing, in this frame or in the one it is compared with.

Axes: B clips, T frames, K keypoints, C features, D coordinates (the first of the features).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ds_trainer.randomness import Draw
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.presence import bones, changes, hanging_on, lengths, presence

_LEAST_LENGTH = 1e-3


def with_features(
    clips_BTKC: Tensor,
    layout: KeypointLayout,
    names: Sequence[str],
    mask_fraction: float,
    draw: Draw | None,
) -> Tensor:
    """The named features of clips, one behind the other: float[B, T, K, num_features].

    Args:
        names: of `FEATURES`; `place` stands for the clips as they are, confidence included.
        mask_fraction: in training each of the features is 0 in so many clips, so that none is relied on alone; a clip
            that would lose all keeps them.
    """
    if list(names) == [PLACE]:
        return clips_BTKC
    points_BTKD = clips_BTKC[..., : layout.num_coordinates]
    present_BTK1 = presence(points_BTKD)
    found = [clips_BTKC if name == PLACE else _COMPUTED[name](points_BTKD, present_BTK1, layout) for name in names]
    if draw is not None and mask_fraction > 0:
        is_kept_BN = draw.uniform("features", len(found)) >= mask_fraction
        is_kept_BN |= ~is_kept_BN.any(1, keepdim=True)
        found = [
            feature.masked_fill(~is_kept_B[:, None, None, None], 0.0)
            for feature, is_kept_B in zip(found, is_kept_BN.unbind(1), strict=True)
        ]
    return torch.cat(found, dim=-1)


def num_features(layout: KeypointLayout, names: Sequence[str]) -> int:
    """Features of a keypoint after `with_features`."""
    widths = {PLACE: layout.num_features, "presence": 1}
    return sum(widths.get(name, layout.num_coordinates) for name in names)


def present(points_BTKD: Tensor, present_BTK1: Tensor, layout: KeypointLayout) -> Tensor:
    """1 where the keypoint is there, 0 where it is missing: else a missing hand is one at the origin."""
    return present_BTK1


def velocity(points_BTKD: Tensor, present_BTK1: Tensor, layout: KeypointLayout) -> Tensor:
    """What has changed since the frame before, times the number of frames: sizes of the body per clip."""
    return _change(points_BTKD, present_BTK1, lag=1) * points_BTKD.shape[1]


def acceleration(points_BTKD: Tensor, present_BTK1: Tensor, layout: KeypointLayout) -> Tensor:
    """Twice the change over one frame less that over two, x(t) - 2 x(t - 1) + x(t - 2), in the same measure."""
    over_two, over_one = (_change(points_BTKD, present_BTK1, lag) for lag in (2, 1))
    is_known_BTK1 = functional.pad(present_BTK1[:, 2:] * present_BTK1[:, 1:-1] * present_BTK1[:, :-2], _frames(2))
    return (2 * over_one - over_two) * is_known_BTK1 * points_BTKD.shape[1]


def bone(points_BTKD: Tensor, present_BTK1: Tensor, layout: KeypointLayout) -> Tensor:
    """The direction from the keypoint that it hangs on, of length 1: the same for long and for short arms."""
    directions_BTKD = torch.zeros_like(points_BTKD)
    if layout.bones:
        bones_BTkD = bones(points_BTKD, present_BTK1, layout)
        hanging = hanging_on(layout, points_BTKD.device)
        directions_BTKD[:, :, hanging] = bones_BTkD / lengths(bones_BTkD).clamp(min=_LEAST_LENGTH)
    return directions_BTKD


def _change(points_BTKD: Tensor, present_BTK1: Tensor, lag: int) -> Tensor:
    return functional.pad(changes(points_BTKD, present_BTK1, lag)[0], _frames(lag))


def _frames(lag: int) -> tuple[int, ...]:
    """For `pad`: so many frames in front."""
    return 0, 0, 0, 0, lag, 0


_COMPUTED: dict[str, Callable[[Tensor, Tensor, KeypointLayout], Tensor]] = {
    "presence": present,
    "velocity": velocity,
    "acceleration": acceleration,
    "bone": bone,
}
PLACE = "place"
FEATURES = (PLACE, *_COMPUTED)
