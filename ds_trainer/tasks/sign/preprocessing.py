"""From keypoints as they were recorded to what a model sees: in training, in evaluation and wherever a model is used.

Axes: B clips, N frames of the longest clip, F frames that are read, T frames that a model sees, K keypoints,
C features.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ds_trainer.errors import CheckpointError
from ds_trainer.problems import reason_of
from ds_trainer.randomness import Draw
from ds_trainer.tasks.sign.augmentation import Augmentation
from ds_trainer.tasks.sign.features import with_features
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.normalisation import normalise
from ds_trainer.tasks.sign.on_device import picked
from ds_trainer.tasks.sign.sampling import Sampling


def padded(clips: Iterable[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    """Clips [frames, K, C] of any lengths as one float32[B, N, K, C], and their lengths int64[B]."""
    frames = [torch.from_numpy(np.array(clip, dtype=np.float32)) for clip in clips]
    return pad_sequence(frames, batch_first=True), torch.tensor([len(clip) for clip in frames])


class Recogniser(nn.Module):
    """A trained model with its preprocessing: recorded clips -> logits of signs."""

    def __init__(self, preprocessing: "Preprocessing", model: nn.Module):
        super().__init__()
        self.preprocessing = preprocessing
        self.model = model

    def forward(self, clips_BNKC: Tensor, num_frames_B: Tensor) -> Tensor:
        """Logits float[B, S] of clips float[B, N, K, C] of `num_frames_B` real frames, int64[B]."""
        logits_BS: Tensor = self.model(self.preprocessing(clips_BNKC, num_frames_B))
        return logits_BS


@dataclass(frozen=True)
class Preprocessing:
    """What is done to each clip, always, before a model sees it.

    Args:
        taken: keypoints of recorded clips, all others being left out at once: a model that looks at the hands alone
            need not wait for a face. Those of a part are neighbours.
        layout: of the keypoints taken.
        sampling: which frames are taken.
        depth_weight: factor on the third coordinate.
        features: what the model sees of each keypoint.
        parts: keypoints of the layout that the model looks at, by body part: their movement is the clock, where time is
            counted in it.
        mirrors_left_handed: whether clips of the left hand are seen in a mirror.
    """

    taken: tuple[int, ...]
    layout: KeypointLayout
    sampling: Sampling
    depth_weight: float
    features: Sequence[str]
    parts: Sequence[Sequence[int]]
    mirrors_left_handed: bool

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> "Preprocessing":
        """That of a trained model, as its checkpoint describes it.

        Raises:
            CheckpointError: it is the description of something else.
        """
        try:
            return cls._of(description)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {reason_of(error)}"
            raise CheckpointError(f"description: expected that of a model of the sign task ({reason})") from error

    @classmethod
    def _of(cls, description: Mapping[str, Any]) -> "Preprocessing":
        recorded = KeypointLayout.from_dict(description["layout"])
        parts = list(description["parts"].values())
        taken = recorded.needed_for(list(itertools.chain(*parts)))
        number = {keypoint: place for place, keypoint in enumerate(taken)}
        return cls(
            taken=taken,
            layout=recorded.only(taken),
            sampling=Sampling(
                index(description["num_frames"]),
                float(description["motion_fraction"]),
                num_read=index(description["num_read"]),
                rest_fraction=float(description["rest_fraction"]),
            ),
            depth_weight=float(description["depth_weight"]),
            features=description["features"],
            parts=[[number[keypoint] for keypoint in part] for part in parts],
            mirrors_left_handed=description["mirrors_left_handed"],
        )

    def __call__(self, clips_BNKC: Tensor, num_frames_B: Tensor) -> Tensor:
        """What a model sees of recorded clips: float[B, T, taken, features].

        Args:
            clips_BNKC: float[B, N, K, C], a missing keypoint with all coordinates exactly 0.
            num_frames_B: int64[B], 1..N, how many frames of each clip are real.
        """
        frame_BF = self.sampling.frames(torch.zeros_like(num_frames_B), num_frames_B, draw=None)
        index_BFKC = frame_BF[:, :, None, None].expand(-1, -1, *clips_BNKC.shape[2:])
        return self.of_sampled(clips_BNKC.gather(1, index_BFKC))

    def of_sampled(
        self,
        clips_BFKC: Tensor,
        draw: Draw | None = None,
        augmentation: Augmentation | None = None,
        feature_mask_fraction: float = 0.0,
    ) -> Tensor:
        """The same for the frames that `sampling` took, augmented in training: float[B, T, taken, features].

        Args:
            draw: the random numbers of training; None: clips as they are.
        """
        clips_BFKC = clips_BFKC[:, :, picked(self.taken, clips_BFKC.device)]
        is_mirrored_B = None
        if draw is not None and augmentation is not None:
            is_mirrored_B = augmentation.mirrors(self.layout, draw)
        clips_BTKC = normalise(clips_BFKC, self.layout, self.depth_weight, is_mirrored_B, self.mirrors_left_handed)
        if self.sampling.motion_fraction > 0:
            seen = list(itertools.chain(*self.parts))
            clips_BTKC = self.sampling.by_motion(clips_BTKC, self.layout.num_coordinates, seen, draw)
        if draw is not None and augmentation is not None:
            clips_BTKC = augmentation(clips_BTKC, self.layout, draw, self.parts, self.depth_weight)
        return with_features(clips_BTKC, self.layout, self.features, feature_mask_fraction, draw).contiguous()
