"""What every sign model is, and the pieces that they share.

Axes: B clips, T frames, K keypoints, C features of a keypoint, P body parts, D model width, S signs, N tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ds_trainer.tasks.sign.models.size import ModelSize
from ds_trainer.tasks.sign.on_device import picked


@dataclass(frozen=True)
class ModelSpec:
    """What a sign model is built from.

    Args:
        parts: the keypoints of each body part.
        num_features: features of a keypoint.
        num_signs: signs to tell apart.
        num_frames: the most frames that a clip can have.
        size: width and depth.
        dropout: fraction left out in training.
    """

    parts: Sequence[Sequence[int]]
    num_features: int
    num_signs: int
    num_frames: int
    size: ModelSize
    dropout: float


class SignModel(nn.Module, ABC):
    """Clips -> logits of signs."""

    @abstractmethod
    def __init__(self, spec: ModelSpec):
        super().__init__()

    @abstractmethod
    def forward(self, clips_BTKC: Tensor, num_frames_B: Tensor | None = None) -> Tensor:
        """Logits float[B, S].

        Args:
            clips_BTKC: normalised clips, float[B, T, K, C].
            num_frames_B: int64[B], how many frames of each clip are real; those behind do not change the logits.
                None: all are.
        """


class PartEmbedding(nn.Module):
    """One token for each frame and body part: a linear map of the part's keypoints, plus what the part is."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        width = spec.size.width
        self.parts = spec.parts
        self.maps = nn.ModuleList(nn.Linear(len(part) * spec.num_features, width) for part in spec.parts)
        self.part_PD = nn.Parameter(0.02 * torch.randn(len(spec.parts), width))

    def forward(self, clips_BTKC: Tensor) -> Tensor:
        """Tokens float[B, P, T, D]."""
        frames_NKC = clips_BTKC.flatten(0, 1)  # N = B T: a matrix is multiplied where it lies, more axes are copied
        tokens = [
            to_token(frames_NKC[:, picked(part, clips_BTKC.device)].flatten(1)).unflatten(0, clips_BTKC.shape[:2])
            for part, to_token in zip(self.parts, self.maps, strict=True)
        ]
        return torch.stack(tokens, dim=1) + self.part_PD[:, None]


class FrameEmbedding(PartEmbedding):
    """One token for each frame: those of its body parts added up, by one product for all parts.

    That there is one gradient for all biases matters, too: torch.compile fails on equal ones in bf16 on a CPU, whose
    sums it takes for one and stores under one name (seen with torch 2.13.0).
    """

    def __init__(self, spec: ModelSpec):
        super().__init__(spec)
        self.every_part = [keypoint for part in spec.parts for keypoint in part]

    def forward(self, clips_BTKC: Tensor) -> Tensor:
        """Tokens float[B, T, D]."""
        weight_DF = torch.cat([to_token.weight for to_token in self.maps], dim=1)  # type: ignore[misc]  # of Linears
        bias_D = torch.stack([to_token.bias for to_token in self.maps]).sum(0) + self.part_PD.sum(0)  # type: ignore[misc]
        frames_NF = clips_BTKC.flatten(0, 1)[:, picked(self.every_part, clips_BTKC.device)].flatten(1)
        tokens_BTD: Tensor = functional.linear(frames_NF, weight_DF, bias_D).unflatten(0, clips_BTKC.shape[:2])
        return tokens_BTD


class AttentionPooling(nn.Module):
    """The mean of tokens, weighted by a learned score of each."""

    def __init__(self, width: int):
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, tokens_BND: Tensor, is_padding_BN: Tensor | None = None) -> Tensor:
        """float[B, D]; tokens marked as padding get no weight."""
        score_BN = self.score(tokens_BND).squeeze(-1)
        if is_padding_BN is not None:
            score_BN = score_BN.masked_fill(is_padding_BN, float("-inf"))
        pooled_BD: Tensor = (score_BN.softmax(-1)[:, None] @ tokens_BND).squeeze(1)
        return pooled_BD


def padding(num_frames_B: Tensor | None, num_frames: int) -> Tensor | None:
    """bool[B, T], true for frames behind each clip's end; None where no clip has any."""
    if num_frames_B is None:
        return None
    return torch.arange(num_frames, device=num_frames_B.device) >= num_frames_B[:, None]


def blanked(values: Tensor, is_padding_BN: Tensor | None) -> Tensor:
    """Clips or tokens, [B, N, ...], whose padding is 0, whatever stood there.

    An attention weight of 0 does not silence infinity or NaN.
    """
    if is_padding_BN is None:
        return values
    return values.masked_fill(is_padding_BN.view(*is_padding_BN.shape, *(1,) * (values.ndim - 2)), 0.0)
