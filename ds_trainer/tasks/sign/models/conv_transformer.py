"""Depthwise convolutions over time that tell movements, a transformer block that relates them, a masked mean.

In the spirit of the winning solution of Google's contest in isolated sign recognition (Kaggle, 2023, first place by
Hoyeol Sohn), with layer norms in place of batch norms: those of small micro-batches on several ranks drift apart.

Axes: B clips, T frames, K keypoints, C features of a keypoint, P body parts, D model width, E expanded width, S signs,
N tokens, each of a few frames.
"""

from torch import Tensor, nn
from torch.nn import functional

from ds_trainer.tasks.sign.models.attention import Attention, hiding
from ds_trainer.tasks.sign.models.base import FrameEmbedding, ModelSpec, SignModel, blanked, padding
from ds_trainer.tasks.sign.models.dropout import Dropout
from ds_trainer.tasks.sign.models.size import ModelSize

_FRAMES_PER_TOKEN = 4
_KERNEL = 11
_EXPANSION = 2
_CONVOLUTIONS_PER_LAYER = 3
_MOST_DROPOUT_WITHIN = 0.2


class ChannelAttention(nn.Module):
    """Each channel scaled by what its neighbours have on average over time.

    Efficient channel attention: Wang et al. 2020, arXiv 1910.03151.
    """

    def __init__(self) -> None:
        super().__init__()
        self.over_channels = nn.Conv1d(1, 1, kernel_size=5, padding=2, bias=False)

    def forward(self, tokens_BNE: Tensor, is_padding_BN: Tensor | None) -> Tensor:
        """float[B, N, E]."""
        scale_B1E = self.over_channels(_mean(tokens_BNE, is_padding_BN)[:, None]).sigmoid()
        scaled_BNE: Tensor = tokens_BNE * scale_B1E
        return scaled_BNE


class ConvBlock(nn.Module):
    """A wider space in which each channel is filtered over time by itself, added to what it reads."""

    def __init__(self, size: ModelSize, dropout: float):
        super().__init__()
        expanded = _EXPANSION * size.width
        self.expand = nn.Sequential(nn.LayerNorm(size.width), nn.Linear(size.width, expanded), nn.SiLU())
        self.over_time = nn.Conv1d(expanded, expanded, _KERNEL, padding=_KERNEL // 2, groups=expanded)
        self.norm = nn.LayerNorm(expanded)
        self.channels = ChannelAttention()
        self.contract = nn.Linear(expanded, size.width)
        self.dropout = Dropout(dropout)

    def forward(self, tokens_BND: Tensor, is_padding_BN: Tensor | None) -> Tensor:
        """float[B, N, D]."""
        wide_BNE = blanked(self.expand(tokens_BND), is_padding_BN)
        filtered_BNE = self.norm(self.over_time(wide_BNE.transpose(1, 2)).transpose(1, 2))
        changed_BND: Tensor = self.dropout(self.contract(self.channels(filtered_BNE, is_padding_BN)))
        return tokens_BND + changed_BND


class TransformerBlock(nn.Module):
    """Attention over tokens, then an MLP; each added to what it reads."""

    def __init__(self, size: ModelSize, dropout: float):
        super().__init__()
        self.attention = Attention(size)
        self.mlp = nn.Sequential(
            nn.LayerNorm(size.width),
            nn.Linear(size.width, 2 * size.width),
            nn.SiLU(),
            nn.Linear(2 * size.width, size.width),
        )
        self.dropout = Dropout(dropout)

    def forward(self, tokens_BND: Tensor, bias: Tensor | None) -> Tensor:
        """float[B, N, D]."""
        tokens_BND = tokens_BND + self.dropout(self.attention(tokens_BND, bias))
        mixed_BND: Tensor = tokens_BND + self.dropout(self.mlp(tokens_BND))
        return mixed_BND


class ConvTransformer(SignModel):
    """Tokens of four frames, layers of three convolutions and a transformer block, a mean over time, signs.

    Most of the dropout is late, on the one vector that is left of a clip.
    """

    def __init__(self, spec: ModelSpec):
        super().__init__(spec)
        size, within = spec.size, min(spec.dropout / 3, _MOST_DROPOUT_WITHIN)
        self.embedding = FrameEmbedding(spec)
        self.to_tokens = nn.Linear(_FRAMES_PER_TOKEN * size.width, size.width)
        self.norm_tokens = nn.LayerNorm(size.width)
        self.convolutions = nn.ModuleList(
            nn.ModuleList(ConvBlock(size, within) for _ in range(_CONVOLUTIONS_PER_LAYER))
            for _ in range(size.num_layers)
        )
        self.transformers = nn.ModuleList(TransformerBlock(size, within) for _ in range(size.num_layers))
        self.to_pooled = nn.Sequential(nn.LayerNorm(size.width), nn.Linear(size.width, 2 * size.width), nn.SiLU())
        self.dropout = Dropout(spec.dropout)
        self.to_logits = nn.Linear(2 * size.width, spec.num_signs)

    def forward(self, clips_BTKC: Tensor, num_frames_B: Tensor | None = None) -> Tensor:
        is_padding_BT = padding(num_frames_B, clips_BTKC.shape[1])
        frames_BTD = self.embedding(blanked(clips_BTKC, is_padding_BT))
        tokens_BND = self._tokens(blanked(frames_BTD, is_padding_BT))
        is_padding_BN, bias = None, None
        if is_padding_BT is not None:
            is_padding_BN = is_padding_BT[:, ::_FRAMES_PER_TOKEN]  # a token is real if its first frame is
            bias = hiding(is_padding_BN, tokens_BND.dtype)[:, None, None]  # over heads and attending tokens
        for convolutions, transformer in zip(self.convolutions, self.transformers, strict=True):
            for convolution in convolutions:  # type: ignore[attr-defined]  # a list of modules
                tokens_BND = convolution(tokens_BND, is_padding_BN)
            tokens_BND = transformer(tokens_BND, bias)
        logits_BS: Tensor = self.to_logits(self.dropout(_mean(self.to_pooled(tokens_BND), is_padding_BN)))
        return logits_BS

    def _tokens(self, frames_BTD: Tensor) -> Tensor:
        """Neighbouring frames together; the last few are filled up with nothing: float[B, N, D]."""
        lacking = -frames_BTD.shape[1] % _FRAMES_PER_TOKEN
        filled_BTD = functional.pad(frames_BTD, (0, 0, 0, lacking))
        tokens_BND: Tensor = self.norm_tokens(
            self.to_tokens(filled_BTD.unflatten(1, (-1, _FRAMES_PER_TOKEN)).flatten(2))
        )
        return tokens_BND


def _mean(tokens_BND: Tensor, is_padding_BN: Tensor | None) -> Tensor:
    """Over the real tokens: float[B, D]."""
    if is_padding_BN is None:
        return tokens_BND.mean(1)
    return blanked(tokens_BND, is_padding_BN).sum(1) / (~is_padding_BN).sum(1, keepdim=True).clamp(min=1)
