"""The spatio-temporal transformer as one would write it without ds_trainer: the network that the peers train.

Parameters have the names and shapes of `ds_trainer.tasks.sign.models.st_transformer`, so that the weights of either
load into the other, and both then give equal logits.

Axes: B clips, T frames, K keypoints, C features of a keypoint, P body parts, D model width, S signs, H heads,
N the axis that is attended over, A clips times the axis that is not, d head size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

HEAD_SIZES = {"t": 16, "s": 32, "m": 64, "l": 128}


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * width)
        self.to_out = nn.Linear(width, width)

    def forward(self, tokens_AND: Tensor) -> Tensor:
        """float[A, N, D]."""
        num_groups, num_tokens, width = tokens_AND.shape
        qkv = self.to_qkv(self.norm(tokens_AND)).view(num_groups, num_tokens, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed_AHNd = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.to_out(mixed_AHNd.transpose(1, 2).reshape(num_groups, num_tokens, width))
        return out


class Block(nn.Module):
    """Attention over the parts of a frame, over the frames of a part, and an MLP."""

    def __init__(self, width: int, num_heads: int, dropout: float):
        super().__init__()
        self.over_parts = Attention(width, num_heads)
        self.over_frames = Attention(width, num_heads)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens_BTPD: Tensor) -> Tensor:
        """float[B, T, P, D]."""
        num_clips = len(tokens_BTPD)
        across_parts = self.over_parts(tokens_BTPD.flatten(0, 1)).unflatten(0, (num_clips, -1))
        tokens_BTPD = tokens_BTPD + self.dropout(across_parts)
        by_part = tokens_BTPD.transpose(1, 2).flatten(0, 1)
        across_frames = self.over_frames(by_part).unflatten(0, (num_clips, -1)).transpose(1, 2)
        tokens_BTPD = tokens_BTPD + self.dropout(across_frames)
        mixed_BTPD: Tensor = tokens_BTPD + self.dropout(self.mlp(tokens_BTPD))
        return mixed_BTPD


class Embedding(nn.Module):
    """One token for each frame and body part."""

    def __init__(self, parts: Sequence[Sequence[int]], num_features: int, width: int):
        super().__init__()
        self.parts = [list(part) for part in parts]
        self.maps = nn.ModuleList(nn.Linear(len(part) * num_features, width) for part in parts)
        self.part_PD = nn.Parameter(0.02 * torch.randn(len(parts), width))

    def forward(self, clips_BTKC: Tensor) -> Tensor:
        """float[B, T, P, D]."""
        tokens = [
            to_token(clips_BTKC[:, :, part].flatten(2)) for part, to_token in zip(self.parts, self.maps, strict=True)
        ]
        return torch.stack(tokens, dim=2) + self.part_PD


class Pooling(nn.Module):
    """The mean of tokens, weighted by a learned score of each."""

    def __init__(self, width: int):
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """float[B, D]."""
        weight_BN1 = self.score(tokens_BND).softmax(1)
        pooled_BD: Tensor = (weight_BN1 * tokens_BND).sum(1)
        return pooled_BD


class PlainModel(nn.Module):
    """Clips -> logits of signs.

    Args:
        parts: the keypoints of each body part.
        size: head size (a letter), heads and layers, such as `s_4_6`.
    """

    def __init__(
        self,
        parts: Sequence[Sequence[int]],
        num_features: int,
        num_signs: int,
        num_frames: int,
        size: str,
        dropout: float,
    ):
        super().__init__()
        letter, num_heads, num_layers = size.split("_")
        width = HEAD_SIZES[letter] * int(num_heads)
        self.embedding = Embedding(parts, num_features, width)
        self.frame_TD = nn.Parameter(0.02 * torch.randn(num_frames, width))
        self.blocks = nn.ModuleList(Block(width, int(num_heads), dropout) for _ in range(int(num_layers)))
        self.norm = nn.LayerNorm(width)
        self.pooling = Pooling(width)
        self.dropout = nn.Dropout(dropout)
        self.to_logits = nn.Linear(width, num_signs)

    def forward(self, clips_BTKC: Tensor) -> Tensor:
        """Logits float[B, S]."""
        tokens_BTPD = self.embedding(clips_BTKC) + self.frame_TD[:, None]
        for block in self.blocks:
            tokens_BTPD = block(tokens_BTPD)
        tokens_BND = self.norm(tokens_BTPD).flatten(1, 2)
        logits_BS: Tensor = self.to_logits(self.dropout(self.pooling(tokens_BND)))
        return logits_BS
