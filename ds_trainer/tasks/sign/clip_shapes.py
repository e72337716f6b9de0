"""What to do about clips that are not [frames, keypoints, features]: most are so but for the order of their axes."""

from typing import Any

from numpy.typing import NDArray

from ds_trainer.tasks.sign.known_layouts import NUM_KEYPOINTS

_FEW = 3
_NUM_FEATURES = (2, 3, 4)

STACK_FRAMES = "save numpy.stack(frames) of each clip, in their order, as one file"


class SeenShapes:
    """The shapes of all clips of a source: of the frames alone their numbers differ, so these show their axis."""

    def __init__(self) -> None:
        self._num_clips = 0
        self._shapes: dict[tuple[int, ...], None] = {}

    def add(self, shape: tuple[int, ...]) -> None:
        """Take a clip's shape into account."""
        self._num_clips += 1
        self._shapes[shape] = None

    def wrong_order(self) -> str | None:
        """What to tell of clips whose frames lie along another axis than the first, if all do."""
        shapes = [*self._shapes]
        if any(len(shape) != 3 for shape in shapes):
            return None
        changing = [axis for axis in range(3) if len({shape[axis] for shape in shapes}) > 1]
        # Of clips filled up to one length, one or two may have other keypoints.
        if len(changing) != 1 or changing == [0] or len(shapes) < min(_FEW, self._num_clips):
            return None
        order = (*changing, *sorted({0, 1, 2} - set(changing), key=lambda axis: -shapes[0][axis]))
        found = ", ".join(map(str, shapes[:_FEW]))
        return (
            f"found shapes {found}{', ...' if len(shapes) > _FEW else ''}, expected only the first axis, the frames, "
            f"to differ; transpose them to [frames, keypoints, features]: np.transpose(clip, {order})"
        )

    def features_in_front(self) -> str | None:
        """What to tell of clips that all have as few frames as keypoints have features, and more features than that.

        Of one length, as networks of graphs take them, no axis shows itself.
        """
        if self._num_clips < _FEW or not all(_may_begin_with_features(shape) for shape in self._shapes):
            return None
        return (
            f"all clips begin with an axis of 2 to 4, such as {next(iter(self._shapes))}, expected [frames, keypoints, "
            "features]; if they are [features, frames, keypoints], save np.transpose(clip, (1, 2, 0)); if they are "
            "as expected, say with --layout what their features are (docs/data.md)"
        )


def _may_begin_with_features(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] in _NUM_FEATURES and shape[2] > max(_NUM_FEATURES)


def remedy_for(frames: NDArray[Any]) -> str:
    """What to do about an array that is no clip."""
    if frames.ndim == 3 or frames.dtype.kind not in "fiu" or 0 in frames.shape:
        return "extract it again"
    if frames.ndim > 3 and len(frames) > 1:
        return "save each clip as an array of its own"
    return (_remedy_for_rows(frames) if frames.ndim == 2 else "") or "reshape it"


def is_frame(frames: NDArray[Any]) -> bool:
    """Whether an array is like one frame, [keypoints, features]."""
    return frames.ndim == 2 and frames.dtype.kind in "fiu" and frames.shape[1] in _NUM_FEATURES


def _remedy_for_rows(rows: NDArray[Any]) -> str:
    """What to do about a frame, or about frames whose keypoints lie in one row; empty: nothing is known of it."""
    if is_frame(rows):
        return f"if each file holds one frame, {STACK_FRAMES}"
    width = rows.shape[1]
    known = [(width // each, each) for each in _NUM_FEATURES if width % each == 0 and width // each in NUM_KEYPOINTS]
    calls = " or ".join(f"clip.reshape(len(clip), {number}, {each})" for number, each in known)
    return f"if each row holds a frame, one keypoint after the other, save {calls}" if calls else ""
