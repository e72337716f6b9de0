"""Multi-head self-attention, as each device computes it fastest.

Axes: D model width, H heads, N the axis that is attended over, A all axes before it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ds_trainer.tasks.sign.models.size import ModelSize


class Attention(nn.Module):
    """Multi-head self-attention over the last but one axis."""

    def __init__(self, size: ModelSize):
        super().__init__()
        self.num_heads = size.num_heads
        self.norm = nn.LayerNorm(size.width)
        self.to_qkv = nn.Linear(size.width, 3 * size.width)
        self.to_out = nn.Linear(size.width, size.width)

    def forward(self, tokens_AND: Tensor, bias_N: Tensor | None = None) -> Tensor:
        """float[A, N, D].

        Args:
            bias_N: added to the scores of each attended token; broadcasts to [A, H, N, N]; -inf hides a token.
        """
        qkv_AN3Hd = self.to_qkv(self.norm(tokens_AND)).unflatten(-1, (3, self.num_heads, -1))
        # Laid out once for all three: the products would copy each by itself.
        query, key, value = qkv_AN3Hd.movedim((-3, -2), (0, -3)).contiguous()
        out: Tensor = self.to_out(attend(query, key, value, bias_N).transpose(-2, -3).flatten(-2))
        return out


def hiding(is_hidden_BN: Tensor, dtype: torch.dtype) -> Tensor:
    """What added to the scores of attended tokens hides some of them: [B, N]."""
    return torch.zeros_like(is_hidden_BN, dtype=dtype).masked_fill(is_hidden_BN, float("-inf"))


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Scaled dot-product attention, each [..., N, d].

    On CPU the explicit products are twice as fast as the fused kernel at these sizes (bf16, 2 cores).
    """
    if query.device.type != "cpu":
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    # Scaled in place: a scaled copy of the queries would be kept until the backward pass.
    score = (query @ key.transpose(-1, -2)).mul_(query.shape[-1] ** -0.5)
    if bias is not None:
        score = score + bias
    mixed: Tensor = score.softmax(-1) @ value
    return mixed
