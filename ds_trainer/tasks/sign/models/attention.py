"""Multi-head self-attention, as each device computes it fastest.

Axes: D model width, H heads, N the axis that is attended over, A all axes before it, Z the same as one.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ds_trainer.tasks.sign.models.size import ModelSize

_FEW_TOKENS = 8


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
    """Scaled dot-product attention, each [A, H, N, d].

    On CPU the explicit products are twice as fast as the fused kernel at these sizes (bf16, 2 cores). So they should be
    on a GPU for the few parts of a body, where a fused kernel computes a tile of 64 tokens or more (not measured).
    """
    is_on_cpu = query.device.type == "cpu"
    if not is_on_cpu and query.shape[-2] > _FEW_TOKENS:
        return _fused(query, key, value, bias)
    product = _broadcast_product if torch.compiler.is_compiling() and not is_on_cpu else torch.matmul
    # Scaled in place: a scaled copy of the queries would be kept until the backward pass.
    score = product(query, key.transpose(-1, -2)).mul_(query.shape[-1] ** -0.5)
    if bias is not None:
        score = score + bias
    mixed: Tensor = product(score.softmax(-1), value)
    return mixed


def _fused(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """By a kernel of torch's, which takes four axes: given five, torch goes back to products, in float32 (2.13.0)."""
    if bias is not None:
        bias = bias.expand(*query.shape[:-3], *bias.shape[-3:]).flatten(0, -4)
    query_ZHNd, key_ZHNd, value_ZHNd = (part.flatten(0, -4) for part in (query, key, value))
    mixed_ZHNd = functional.scaled_dot_product_attention(query_ZHNd, key_ZHNd, value_ZHNd, attn_mask=bias)
    mixed: Tensor = mixed_ZHNd.unflatten(0, query.shape[:-3])
    return mixed


def _broadcast_product(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right` as a sum, which a compiler makes one kernel with what is around it."""
    return (left.unsqueeze(-1) * right.unsqueeze(-3)).sum(-2)
