"""The layouts that are known by the number of their keypoints alone."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ds_trainer.errors import DataError
from ds_trainer.problems import listed
from ds_trainer.tasks.sign import kinect, mediapipe
from ds_trainer.tasks.sign.clips import ClipSource, frames_evenly
from ds_trainer.tasks.sign.holistic import NUM_FACE_OF, holistic, in_order, is_holistic, order_of, placed
from ds_trainer.tasks.sign.kinect import kinect_20
from ds_trainer.tasks.sign.layout import KeypointLayout

VERSION = 2
"""Rises when the same clips would get another layout: a store keeps its own."""

# Three numbers are taken as x, y, z; a layout of x, y, confidence cannot be told from them.
_FEATURES = {2: ("x", "y"), 3: ("x", "y", "z"), 4: ("x", "y", "z", "visibility")}

_MOST = 3
_USUAL = 0.99
"""Of a number that is no coordinate: visibilities are up to 1, tracking states up to 3. Percentages in it are as bad as
any noise: top-1 0.083 of isl-kinect30, s08, in place of 0.981 without them."""

_FRAMES_READ = 2000
_SURE = 0.3  # what MMPose draws: kpt_thr of its demos
_MANY = 0.1
"""Of a part's keypoints: fewer guesses than that are noise like any other."""


def checked_layout(source: ClipSource, frames_NKC: NDArray[np.float32]) -> KeypointLayout:
    """What a source says of its keypoints, or else what its frames show.

    Raises:
        DataError: the frames are other than it says, or a fourth number is no visibility.
    """
    layout = source.layout or layout_of(frames_NKC)
    shape_KC, described = frames_NKC.shape[1:], (layout.num_keypoints, layout.num_features)
    if described != shape_KC:
        found, expected = ("{} keypoints x {} features".format(*shape) for shape in (shape_KC, described))
        raise DataError(
            f"{source.name}: found clips of {found}, expected {expected} as the layout {layout.name} says; "
            "give the layout of these clips"
        )
    reach = _reaches(layout, frames_NKC).get("visibility")
    if source.layout is None and reach is not None:
        raise DataError(
            f"{source.name}: found {reach:.3g} as the fourth number of some keypoints, expected a visibility, 0 to "
            "1; leave it out (clip[..., :3]), divide it, or say with --layout what the four are (docs/data.md)"
        )
    return layout


def layout_for(num_keypoints: int, num_features: int) -> KeypointLayout:
    """The layout of clips whose shape is all that is known of them.

    A number of keypoints that no known layout has gives one part without mirror, centre and scale.
    """
    features = _FEATURES.get(num_features) or tuple(f"feature_{number}" for number in range(1, num_features + 1))
    if num_keypoints in NUM_FACE_OF:
        return holistic(features, NUM_FACE_OF[num_keypoints])
    if num_keypoints in _KNOWN:
        return _KNOWN[num_keypoints](features)
    return KeypointLayout(f"generic_{num_keypoints}", features, {"all": tuple(range(num_keypoints))})


def layout_of(frames_NKC: NDArray[np.float32]) -> KeypointLayout:
    """The layout of a store's frames: what their shape says, and where parts may be in any order, their places."""
    layout = layout_for(*frames_NKC.shape[1:])
    if layout.name == kinect_20(layout.features).name:
        return kinect.in_order(layout.features, frames_evenly(frames_NKC, _FRAMES_READ))
    return in_order(layout, frames_evenly(frames_NKC, _FRAMES_READ)) if is_holistic(layout) else layout


def notices_of(layout: KeypointLayout, frames_NKC: NDArray[np.float32]) -> list[str]:
    """What the log must say about the layout of a store's frames: where it may be other than its user thinks."""
    too_large = [
        f"{feature} reaches {reach:.3g}, and the model sees it as it is, beside coordinates of about 1: leave it out "
        "or divide it"
        for feature, reach in _reaches(layout, frames_NKC).items()
    ]
    doubtful = [*_doubtful_depth(layout, frames_evenly(frames_NKC, 64)), *_doubtful_places(layout, frames_NKC)]
    return [*_guesses(layout), *doubtful, *too_large]


def _reaches(layout: KeypointLayout, frames_NKC: NDArray[np.float32]) -> dict[str, float]:
    """How far those features go, beside coordinates, that are too large for a model."""
    others = layout.features[layout.num_coordinates :] if layout.num_coordinates else ()
    if not others:
        return {}
    beside_NKc = np.abs(frames_evenly(frames_NKC, _FRAMES_READ)[..., layout.num_coordinates :])
    # Not the largest: a glitch in one frame destroys nothing.
    reach_c = np.quantile(beside_NKc, _USUAL, axis=(0, 1), method="lower").tolist()
    return {feature: reach for feature, reach in zip(others, reach_c, strict=True) if reach > _MOST}


def _doubtful_depth(layout: KeypointLayout, frames_NKC: NDArray[np.float32]) -> list[str]:
    """Depth is measured from the body, and negative in front of it, or in metres: a confidence is neither."""
    if layout.num_features != 3 or layout.num_coordinates != 3:
        return []
    depth_NK = frames_NKC[..., 2]
    most = float(depth_NK.max())  # a little above 1 where confidences are read off heat maps
    if depth_NK.min() < 0 or most > 1.5 or not depth_NK.any():
        return []
    bounds = f"0 and {max(1, round(most, 1)):g}"
    return [f"z lies between {bounds} throughout: if it is a confidence, give --layout (docs/data.md)"]


def _doubtful_places(layout: KeypointLayout, frames_NKC: NDArray[np.float32]) -> list[str]:
    """Some extractors give a place to what nobody can see, too, and say so by the confidence alone.

    Where some keypoints of a part are missing, whoever gave the clips has decided what was seen.
    """
    if "confidence" not in layout.features:
        return []
    frames_NKC = frames_evenly(frames_NKC, _FRAMES_READ)
    is_there_NK = (frames_NKC[..., : layout.num_coordinates] != 0).any(-1)
    is_unsure_NK = frames_NKC[..., layout.features.index("confidence")] < _SURE
    unsure = {part: float(is_unsure_NK[:, layout.parts[part]].mean()) for part in layout.signing_parts}
    told = [
        f"{100 * fraction:.0f} % of {part}"
        for part, fraction in unsure.items()
        if fraction > _MANY and is_there_NK[:, layout.parts[part]].all()
    ]
    if not told:
        return []
    remedy = "the model takes their places for seen; write 0 for such keypoints (docs/data.md)"
    return [f"confidence is below {_SURE} for {listed(told)}, and none are missing there: {remedy}"]


def _guesses(layout: KeypointLayout) -> list[str]:
    if not layout.is_known:
        return [
            f"no layout of {layout.num_keypoints} keypoints is known: they are one part, without left and right, hands "
            f"and bones, of {', '.join(layout.features)}; --layout says what they are (docs/data.md)"
        ]
    if not layout.num_coordinates:
        told = f"nothing is known of {layout.num_features} numbers a keypoint, which the model sees as they are"
        return [f"{told}; --layout says which are x, y and z (docs/data.md)"]
    if layout.part_roots.keys() == layout.parts.keys():
        seen = "each part is seen from its own root, and no other keypoint tells how that moves"
        return [f"{seen}: leave part_roots out of --layout, unless only the shapes of hands matter"]
    if layout.name == kinect.kinect_sdk_20(layout.features).name:
        order = "Microsoft's SDK for the Kinect writes them"
    elif not is_holistic(layout) or layout == layout_for(layout.num_keypoints, layout.num_features):
        return []
    else:
        order = ", ".join(order_of(layout))
    return [f"the lengths of bones say that keypoints come as {order}; if not, give --layout (docs/data.md)"]


def karsl_184(features: tuple[str, ...]) -> KeypointLayout:
    """The keypoints of the KArSL recordings: 6 of the pose, 136 of the face, the right hand, the left hand."""
    pose, face, right_hand, left_hand = _consecutive(6, 136, mediapipe.NUM_HAND, mediapipe.NUM_HAND)
    hands = [parent for hand in (right_hand, left_hand) for parent in placed(mediapipe.HAND_PARENTS, hand)]
    # All 136 have their partner among the 136, so the mirror loses none.
    face_mirror = tuple(face[mediapipe.KARSL_FACE.index(mediapipe.FACE_MIRROR[k])] for k in mediapipe.KARSL_FACE)
    return KeypointLayout(
        name="karsl_184",
        features=features,
        parts={"pose": pose, "face": face, "right_hand": right_hand, "left_hand": left_hand},
        mirror=(1, 0, 3, 2, 5, 4, *face_mirror, *left_hand, *right_hand),
        centre=(0, 1),
        scale=(0, 1),
        part_roots={"right_hand": right_hand[0], "left_hand": left_hand[0]},
        parents=(0, 1, 0, 1, 2, 3, *face, *hands),
    )


def _consecutive(*lengths: int) -> list[tuple[int, ...]]:
    """Consecutive ranges of keypoints, one for each length."""
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    return [tuple(range(start, start + length)) for start, length in zip(starts, lengths, strict=True)]


_KNOWN: dict[int, Callable[[tuple[str, ...]], KeypointLayout]] = {184: karsl_184, 20: kinect_20}

NUM_KEYPOINTS = (*_KNOWN, *NUM_FACE_OF, 67, 133, 137)
"""Those of the layouts that are known, and of those that ds_configs/layouts has."""
