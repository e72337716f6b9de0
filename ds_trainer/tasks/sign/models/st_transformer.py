"""A transformer over body parts and frames: in each block, parts of a frame see each other, then frames of a part.

Attention over both at once would cost P times as much for the frames, and ties what belongs to one moment no closer.

Axes: B clips, T frames, K keypoints, C features of a keypoint, P body parts, D model width, S signs, N tokens.
"""

import torch
from torch import Tensor, nn

from ds_trainer.tasks.sign.models.attention import Attention, hiding
from ds_trainer.tasks.sign.models.base import AttentionPooling, ModelSpec, PartEmbedding, SignModel, blanked, padding
from ds_trainer.tasks.sign.models.dropout import Dropout
from ds_trainer.tasks.sign.models.size import ModelSize


class Block(nn.Module):
    """Attention over parts, attention over frames, MLP; each added to what it reads."""

    def __init__(self, size: ModelSize, dropout: float):
        super().__init__()
        self.over_parts = Attention(size)
        self.over_frames = Attention(size)
        self.mlp = nn.Sequential(
            nn.LayerNorm(size.width),
            nn.Linear(size.width, 4 * size.width),
            nn.GELU(),
            nn.Linear(4 * size.width, size.width),
        )
        self.dropout = Dropout(dropout)

    def forward(self, tokens_BPTD: Tensor, bias_over_frames: Tensor | None) -> Tensor:
        """float[B, P, T, D]."""
        across_parts_BTPD = self.over_parts(tokens_BPTD.transpose(1, 2))
        tokens_BPTD = tokens_BPTD + self.dropout(across_parts_BTPD).transpose(1, 2)
        tokens_BPTD = tokens_BPTD + self.dropout(self.over_frames(tokens_BPTD, bias_over_frames))
        mixed_BPTD: Tensor = tokens_BPTD + self.dropout(self.mlp(tokens_BPTD))
        return mixed_BPTD


class SpatioTemporalTransformer(SignModel):
    """Body-part tokens, blocks of attention over parts and over frames, attention pooling, a linear map to signs."""

    def __init__(self, spec: ModelSpec):
        super().__init__(spec)
        self.embedding = PartEmbedding(spec)
        self.frame_TD = nn.Parameter(0.02 * torch.randn(spec.num_frames, spec.size.width))
        self.blocks = nn.ModuleList(Block(spec.size, spec.dropout) for _ in range(spec.size.num_layers))
        self.norm = nn.LayerNorm(spec.size.width)
        self.pooling = AttentionPooling(spec.size.width)
        self.dropout = Dropout(spec.dropout)
        self.to_logits = nn.Linear(spec.size.width, spec.num_signs)

    def forward(self, clips_BTKC: Tensor, num_frames_B: Tensor | None = None) -> Tensor:
        num_frames = clips_BTKC.shape[1]
        is_padding_BT = padding(num_frames_B, num_frames)
        tokens_BPTD = self.embedding(blanked(clips_BTKC, is_padding_BT)) + self.frame_TD[:num_frames]
        bias = None
        if is_padding_BT is not None:
            # Over parts, heads and attending frames.
            bias = hiding(is_padding_BT, tokens_BPTD.dtype)[:, None, None, None]
        for block in self.blocks:
            tokens_BPTD = block(tokens_BPTD, bias)
        tokens_BND = self.norm(tokens_BPTD).flatten(1, 2)
        is_padding_BN = None if is_padding_BT is None else is_padding_BT.repeat(1, tokens_BPTD.shape[1])
        logits_BS: Tensor = self.to_logits(self.dropout(self.pooling(tokens_BND, is_padding_BN)))
        return logits_BS
