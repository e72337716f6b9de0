"""One rank that continues a model with frozen weights and buffers of its own, as resume points hold it.

frozen_worker.py OUT      under RANK, WORLD_SIZE, ...; each rank writes OUT/rank_{rank}.pt
"""

import sys
from pathlib import Path
from typing import Any

import torch
from deepspeed import DeepSpeedEngine
from torch import nn
from torch.nn.functional import cross_entropy

from ds_trainer import distributed
from ds_trainer.engine.engine import build_engine, plain_module
from ds_trainer.engine.state import engine_state, full_precision_state, load_engine_state
from ds_trainer.progress import start_log
from numerics.module_worker import batches, new_module
from numerics.worker import GLOBAL_BATCH, engine_config


def trained(stage: int) -> DeepSpeedEngine:
    """After a step on examples of this rank's own."""
    own = GLOBAL_BATCH // distributed.world_size()
    engine = build_engine(new_module("Normed"), engine_config("fp32", stage, own))
    inputs, targets = batches()[0]
    mine = slice(distributed.rank() * own, (distributed.rank() + 1) * own)
    engine.train()
    engine.backward(cross_entropy(engine(inputs[mine].to(engine.device)), targets[mine].to(engine.device)))
    engine.step()
    return engine


def continued(stage: int, state: dict[str, Any]) -> dict[str, Any]:
    """This rank's buffers, and on the master the whole state, of an engine that began with other numbers."""
    module = new_module("Normed")
    for value in module.state_dict().values():
        nn.init.constant_(value, 2)
    engine = build_engine(module, engine_config("fp32", stage, GLOBAL_BATCH // distributed.world_size()))
    load_engine_state(engine, state)
    return seen(engine)


def seen(engine: DeepSpeedEngine) -> dict[str, Any]:
    buffers = {name: value.cpu().clone() for name, value in plain_module(engine).named_buffers()}
    engine.eval()
    with torch.no_grad():
        logits = engine(batches()[0][0].to(engine.device)).cpu()
    return {"buffers": buffers, "logits": logits, "whole": full_precision_state(engine)}


def outcome(stage: int) -> dict[str, Any]:
    engine = trained(stage)
    state, before = engine_state(engine), seen(engine)
    # As versions before this one wrote it: frozen weights once a rank.
    earlier = state and {**state, "others": [{**state["others"][0], **others} for others in state["others"]]}
    return {
        "others": state.get("others"),
        "before": before,
        "continued": continued(stage, state),
        "continued from an earlier version": continued(stage, earlier),
    }


def main(out: Path) -> None:
    distributed.join(120)
    start_log()
    torch.save({stage: outcome(stage) for stage in range(4)}, out / f"rank_{distributed.rank()}.pt")
    distributed.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
