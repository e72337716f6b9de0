"""Clips drawn as skeletons, a few moments of each side by side.

Axes: B clips, T frames, K keypoints, C features, D coordinates (the first of the features).
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ds_trainer.plots.style import BLUE, GREEN, ORANGE, SMALL_PT, VERMILLION, new_figure, shown_name
from ds_trainer.tasks.sign.layout import KeypointLayout

NUM_MOMENTS = 6
_COLOURS = (BLUE, ORANGE, GREEN, VERMILLION)
_FACE_SHARE = 2.5
"""How far from the body parts are drawn that are seen from a root of their own, in units of the body's size."""


def skeletons_figure(
    clips: Sequence[NDArray[np.float32]], names: Sequence[str], layout: KeypointLayout, title: str
) -> Figure:
    """A row a clip, float32[T, K, C] each, and a column for each of six moments from its first to its last frame.

    Of one number a keypoint it is both coordinates.
    """
    clips = [np.repeat(clip_TKC, 2, -1) if clip_TKC.shape[-1] == 1 else clip_TKC for clip_TKC in clips]
    figure = new_figure(title, 1.8 * NUM_MOMENTS + 1.5, 1.9 * len(clips) + 0.6)
    rows = figure.subplots(len(clips), NUM_MOMENTS, squeeze=False)
    for row, clip_TKC, name in zip(rows, clips, names, strict=True):
        moments = np.linspace(0, len(clip_TKC) - 1, NUM_MOMENTS).round().astype(int)
        limits = _limits(clip_TKC[moments], layout)
        for axes, moment in zip(row, moments, strict=True):
            draw_skeleton(axes, clip_TKC[moment], layout)
            axes.set(xlim=limits[0], ylim=limits[1] if layout.is_metric else limits[1][::-1])
        row[0].set_ylabel(shown_name(name), fontsize=SMALL_PT, parse_math=False)
    return figure


def draw_skeleton(axes: Axes, frame_KC: NDArray[np.float32], layout: KeypointLayout) -> None:
    """The keypoints that are there, and the bones between them, a colour a part."""
    points_KD = frame_KC[:, : max(2, layout.num_coordinates)]
    is_there_K = (points_KD != 0).any(1)
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)
    bones = [bone for bone in layout.bones if is_there_K[list(bone)].all()]
    axes.add_collection(LineCollection([points_KD[list(bone), :2] for bone in bones], colors="#999999", linewidths=0.8))
    for number, keypoints in enumerate(layout.parts.values()):
        shown = [keypoint for keypoint in keypoints if is_there_K[keypoint]]
        axes.scatter(points_KD[shown, 0], points_KD[shown, 1], s=3, color=_COLOURS[number % len(_COLOURS)])


def apart(clip_TKC: NDArray[np.float32], layout: KeypointLayout) -> NDArray[np.float32]:
    """A normalised clip in which parts that are seen from a root of their own stand beside the body."""
    clip_TKC = clip_TKC.copy()
    for number, part in enumerate(layout.part_roots):
        own = list(layout.parts[part])
        is_there_TK = (clip_TKC[:, own, : layout.num_coordinates] != 0).any(-1)
        is_there_TK[:, own.index(layout.part_roots[part])] |= is_there_TK.any(1)
        clip_TKC[:, own, 0] += is_there_TK * (_FACE_SHARE if number % 2 else -_FACE_SHARE)
    return clip_TKC


def _limits(frames_TKC: NDArray[np.float32], layout: KeypointLayout) -> tuple[tuple[float, float], tuple[float, float]]:
    points_ND = frames_TKC[..., : max(2, layout.num_coordinates)].reshape(-1, max(2, layout.num_coordinates))
    shown_ND = points_ND[(points_ND != 0).any(1)]
    if not len(shown_ND):
        return (0.0, 1.0), (0.0, 1.0)
    middle, half = (shown_ND.min(0) + shown_ND.max(0)) / 2, float((np.ptp(shown_ND[:, :2], axis=0) / 2).max()) * 1.1
    half = max(half, 1e-3)
    return (middle[0] - half, middle[0] + half), (middle[1] - half, middle[1] + half)
