"""Clips of any length -> a fixed number of frames.

Axes: B clips, T frames after sampling.
"""

import torch
from torch import Tensor

from ds_trainer.randomness import Draw


def sampled_frames(first_B: Tensor, num_frames_B: Tensor, num_samples: int, draw: Draw | None) -> Tensor:
    """Cut each clip into `num_samples` equal bins of time and choose a frame in each: int64[B, T].

    In training the frame is drawn anywhere in its bin, so that an epoch sees each clip at a slightly uneven tempo;
    otherwise it is the one at the bin's centre. A clip shorter than the number of bins repeats frames.

    Args:
        first_B: number of each clip's first frame in the store.
        num_frames_B: length of each clip, at least 1.
    """
    place_T = torch.arange(num_samples)
    within_BT = draw.uniform("frame", num_samples) if draw is not None else torch.full((1, num_samples), 0.5)
    # float64: in float32 the last bin's upper edge can round up to the clip's length.
    offset_BT = (place_T + within_BT.double()) / num_samples * num_frames_B[:, None]
    return first_B[:, None] + offset_BT.long()
