"""What an engine config will need before it is started: the memory of weights, gradients and optimizer states."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StageMemory:
    """Bytes a rank that one ZeRO stage needs for the model's state.

    Args:
        optimizer: with the float32 masters, where the weights themselves are not the masters.
        host: the part of the three that offloading puts into the host's memory or on its NVMe device.
    """

    stage: int
    weights: int
    gradients: int
    optimizer: int
    host: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer


def memory_estimate(num_parameters: int, world_size: int, config: Mapping[str, Any]) -> list[StageMemory]:
    """What each of the ZeRO stages 0 to 3 would need for `config`, whichever of them it sets.

    Stage 1 divides the optimizer states among the ranks, 2 the gradients too, 3 the weights too (Rajbhandari et al.
    2020, arXiv 1910.02054, section 3). Activations and communication buffers come on top.

    Args:
        config: a resolved engine config.
    """
    return [_stage_memory(stage, num_parameters, world_size, config) for stage in range(4)]


def _stage_memory(stage: int, num_parameters: int, world_size: int, config: Mapping[str, Any]) -> StageMemory:
    def share(bytes_a_parameter: int, first_divided_stage: int) -> int:
        divisor = world_size if stage >= first_divided_stage else 1
        return -(-num_parameters * bytes_a_parameter // divisor)

    is_half = any(config.get(name, {}).get("enabled", False) for name in ("bf16", "fp16"))
    zero = config["zero_optimization"]
    is_optimizer_offloaded = stage >= 1 and _is_offloaded(zero, "offload_optimizer")
    # In float32 the weights are the masters, except that ZeRO keeps flat copies of its own (seen in DeepSpeed 0.19.8).
    master = 4 if is_half or stage >= 1 else 0
    # Beside offloaded states DeepSpeed keeps the gradients once more, in float32 on the host (0.19.8).
    states = master + 4 * _num_moments(config["optimizer"]) + (4 if is_optimizer_offloaded else 0)
    accumulation = config.get("data_types", {}).get("grad_accum_dtype")
    weights = share(2 if is_half else 4, 3)
    gradients = share({None: 2 if is_half else 4, "fp32": 4}.get(accumulation, 2), 2)
    optimizer = share(states, 1)
    host = optimizer if is_optimizer_offloaded else 0
    if stage == 3 and _is_offloaded(zero, "offload_param"):
        host += weights
    return StageMemory(stage, weights, gradients, optimizer, host)


def _num_moments(optimizer: Mapping[str, Any]) -> int:
    params = optimizer["params"]
    if optimizer["type"] == "SGD":
        return 1 if params.get("momentum", 0) else 0
    return 3 if params.get("amsgrad", False) else 2


def _is_offloaded(zero: Mapping[str, Any], name: str) -> bool:
    block = zero.get(name) or {}
    return bool(block.get("device", "none") != "none")
