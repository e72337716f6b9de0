"""Attention is the same whichever way a device computes it."""

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ds_trainer.tasks.sign.models.attention import _broadcast_product, _fused, attend, hiding

SHAPES = {"frames of each part": (2, 4, 3, 20, 16), "frames": (2, 3, 20, 16)}


def parts_of(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    """Query, key and value, as they lie in memory in `Attention`."""
    torch.manual_seed(0)
    return torch.randn(3, *shape, dtype=dtype, requires_grad=True)


def bias_for(shape: tuple[int, ...]) -> Tensor:
    """Hides the last five tokens of the second clip."""
    is_hidden_BN = torch.zeros(shape[0], shape[-2], dtype=torch.bool)
    is_hidden_BN[1, -5:] = True
    return hiding(is_hidden_BN, torch.float64).view(shape[0], *(1,) * (len(shape) - 2), shape[-2])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("is_hiding", [False, True])
def test_the_fused_kernel_gives_what_products_give(shape: tuple[int, ...], is_hiding: bool) -> None:
    bias = bias_for(shape) if is_hiding else None
    found, expected = parts_of(shape), parts_of(shape)
    mixed, by_products = _fused(*found, bias), attend(*expected, bias)
    assert mixed.shape == shape
    torch.testing.assert_close(mixed, by_products)
    weight = torch.randn(shape, dtype=torch.float64)
    (mixed * weight).sum().backward()
    (by_products * weight).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_fused_kernel_takes_it(shape: tuple[int, ...]) -> None:
    """Where none does, torch says so; without this it would go back to products in float32 and tell nobody."""
    parts = parts_of(shape, torch.bfloat16)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        assert _fused(*parts, None).isfinite().all()


def test_a_broadcast_product_is_a_product() -> None:
    query, key, value = parts_of((2, 5, 3, 4, 16))
    torch.testing.assert_close(_broadcast_product(query, key.transpose(-1, -2)), query @ key.transpose(-1, -2))
    weight = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64).softmax(-1)
    torch.testing.assert_close(_broadcast_product(weight, value), weight @ value)


@pytest.mark.parametrize("num_tokens", [4, 20])
def test_other_devices_compute_what_a_cpu_does(num_tokens: int) -> None:
    """Shapes, on a device that has no numbers."""
    query, key, value = parts_of((2, 5, 3, num_tokens, 16)).detach().to("meta")
    bias = torch.zeros(2, 1, 1, 1, num_tokens, dtype=torch.float64, device="meta")
    assert attend(query, key, value, bias).shape == query.shape


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and there is none")
@pytest.mark.parametrize("num_tokens", [4, 50])
@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:TensorFloat32")  # of what torch.compile imports
def test_a_gpu_gives_what_a_cpu_gives(num_tokens: int, is_compiled: bool) -> None:
    parts = parts_of((2, 5, 3, num_tokens, 32), torch.float32).detach()
    on_gpu = torch.compile(attend) if is_compiled else attend
    found = on_gpu(*parts.cuda(), None)
    torch.testing.assert_close(found.cpu(), attend(*parts, None), rtol=1e-3, atol=1e-3)
