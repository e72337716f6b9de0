"""What is set for a GPU, as far as a machine without one can tell."""

import os

import pytest
import torch
from deepspeed.accelerator import cuda_accelerator

from ds_trainer import dry_run, gpu
from ds_trainer.engine.engine import _ask_torch_for_memory

NEWER = hasattr(torch.backends.cudnn, "rnn")  # ways of torch to speak of TF32, since 2.9


def settings() -> tuple[bool, bool, bool, bool, bool]:
    cudnn = torch.backends.cudnn
    has_attention = torch.backends.cuda.cudnn_sdp_enabled()
    return cudnn.enabled, cudnn.benchmark, cudnn.deterministic, has_attention, cudnn.allow_tf32


def precisions() -> list[str]:
    cudnn = torch.backends.cudnn
    return [torch.backends.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision] if NEWER else []


@pytest.mark.parametrize("spoken_of", ["allow_tf32", "fp32_precision"])
@pytest.mark.filterwarnings("ignore:Please use the new API")
def test_cudnn_gives_the_same_bits_in_training_and_is_as_before_after_it(
    monkeypatch: pytest.MonkeyPatch, spoken_of: str
) -> None:
    if spoken_of == "fp32_precision":
        if not NEWER:
            pytest.skip("torch knows no fp32_precision before 2.9")
        monkeypatch.setattr(torch.backends, "fp32_precision", "tf32")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = settings(), precisions()
    with gpu.same_bits():
        assert settings() == (True, False, True, False, False)
        assert set(precisions()[1:]) <= {"ieee"}
    assert (settings(), precisions()) == before


def test_libraries_add_in_one_order_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setenv("NCCL_ALGO", "Ring")
    with gpu.same_bits():
        assert (os.environ["CUBLAS_WORKSPACE_CONFIG"], os.environ["NCCL_ALGO"]) == (":4096:8", "Ring")


@pytest.mark.parametrize(
    ("block", "is_told"), [("bf16", True), ("fp16", False), ("torch_autocast", False), ("unused", False)]
)
def test_gpu_without_bf16_is_told(monkeypatch: pytest.MonkeyPatch, block: str, is_told: bool) -> None:
    monkeypatch.setattr(dry_run, "device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for has_bf16 in (False, True):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, it=has_bf16: it)
        said = dry_run.precision({block: {"enabled": True}})
        assert ("this GPU has no bf16 arithmetic; fp16.json" in said) == (is_told and not has_bf16)


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
