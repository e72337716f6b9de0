"""What to do about clips that are not [frames, keypoints, features]: most are so but for the order of their axes."""

from typing import Any

from numpy.typing import NDArray

_FEW = 3


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


def remedy_for(frames: NDArray[Any]) -> str:
    """What to do about an array that is no clip."""
    if frames.ndim == 3 or frames.dtype.kind not in "fiu" or 0 in frames.shape:
        return "extract it again"
    holds_several = frames.ndim > 3 and len(frames) > 1
    return "save each clip as an array of its own" if holds_several else "reshape it"
