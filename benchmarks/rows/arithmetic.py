"""How much arithmetic a clip takes, and how much of the machine's a contestant uses."""

import functools
import time
from collections.abc import Callable, Mapping

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.case import Case
from benchmarks.pace import wait_for_device
from benchmarks.plain_data import layout_of
from benchmarks.plain_model import PlainModel

_PRODUCT = 1024
_REPETITIONS = 5


def flops_of_clip(case: Case) -> float:
    """FLOPs of forward and backward pass of one clip, counted on tensors without numbers."""
    layout = layout_of(case.store)
    parts = list(layout["parts"].values())
    num_keypoints, num_features = sum(map(len, parts)), len(layout["features"])
    with torch.device("meta"):
        model = PlainModel(parts, num_features, case.num_signs, case.num_frames, case.size, dropout=0.0)
        clips = torch.empty(2, case.num_frames, num_keypoints, num_features)
    with FlopCounterMode(display=False) as counter:
        model(clips).sum().backward()
    total: int = counter.get_total_flops()
    return total / len(clips)


def peak_flops(threads: int) -> dict[str, float]:
    """FLOP/s of the best of some square matrix products, by precision."""
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = 8 * _PRODUCT if device.type == "cuda" else _PRODUCT
    found = {}
    for name, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items():
        one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        found[name] = 2 * size**3 / _least_seconds(functools.partial(torch.matmul, one, other))
    return found


def _least_seconds(compute: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_REPETITIONS):
        wait_for_device()
        began = time.perf_counter()
        compute()
        wait_for_device()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def utilisation_note(
    who: str, clips_per_second: float, flops_per_clip: float, peaks: Mapping[str, float], ranks: int = 1
) -> str:
    """One line: clips/s, FLOP/s, and the fraction of the faster of the measured peaks."""
    used, name = clips_per_second * flops_per_clip, max(peaks, key=lambda name: peaks[name])
    peak = peaks[name] * ranks
    return f"{who}: {clips_per_second:.1f} clips/s, {used / 1e9:.1f} GFLOP/s, {used / peak:.0%} of {name} products"
