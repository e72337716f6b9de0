"""What is set for a GPU, as far as a machine without one can tell."""

import pytest
import torch
from deepspeed.accelerator import cuda_accelerator

from ds_trainer import gpu
from ds_trainer.engine.engine import _ask_torch_for_memory


def settings() -> tuple[bool, bool, bool]:
    cudnn = torch.backends.cudnn
    return cudnn.deterministic, cudnn.allow_tf32, torch.backends.cuda.cudnn_sdp_enabled()


def test_cudnn_gives_the_same_bits_in_training_and_is_as_before_after_it() -> None:
    before = settings()
    with gpu.same_bits():
        assert settings() == (True, False, False)
    assert settings() == before


@pytest.mark.parametrize(
    ("visible", "is_asked"),
    [(None, True), ("0", True), ("2, 3", True), ("GPU-8f", False), ("0,MIG-1", False), ("", False)],
)
def test_nvml_is_asked_only_where_gpus_are_visible_by_numbers(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, is_asked: bool
) -> None:
    nvml = object()
    monkeypatch.setattr(cuda_accelerator, "pynvml", nvml)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    _ask_torch_for_memory()
    assert (cuda_accelerator.pynvml is nvml) == is_asked
