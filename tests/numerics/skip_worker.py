"""One rank that meets NaN on the way: what a skipped step leaves as it was, in every precision and ZeRO stage.

skip_worker.py OUT      under RANK, WORLD_SIZE, ...; rank 0 writes OUT/world_{size}.json
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from ds_trainer import distributed
from ds_trainer.engine.skipping import was_skipped
from ds_trainer.engine.state import engine_state
from ds_trainer.progress import start_log
from numerics.worker import GLOBAL_BATCH, Case
from numerics.world_size_worker import tensors

POISON = (float("nan"), float("inf"))


def steps(precision: str, stage: int) -> list[dict[str, Any]]:
    """Five steps of one micro-batch; the last rank's has NaN in the third, infinity in the fourth.

    By then the average of the weights is another than the weights.
    """
    case = Case(precision, stage, micro_batch=GLOBAL_BATCH // distributed.world_size(), num_points=450)
    engine = case.job.engine
    engine.train()
    is_last_rank = distributed.rank() == distributed.world_size() - 1
    outcomes = []
    for number, batch in zip(range(5), case.job.train_dl, strict=False):
        before = engine_state(engine) if number > 1 else {}
        (inputs,) = batch.inputs
        if number in (2, 3) and is_last_rank:
            inputs.view(-1)[0] = POISON[number - 2]
        losses_B = case.task.objective.loss(engine(inputs), batch.targets)
        engine.backward((losses_B * batch.weight_B).sum() * batch.share, scale_wrt_gas=False)
        engine.step()
        after = engine_state(engine)
        if before:
            ours, theirs = tensors(after), tensors(before)
            is_same = all(torch.equal(ours[name], theirs[name]) for name in ours)
            is_counted = after["scalars"] != before["scalars"]
            outcomes.append({"same": is_same, "counted": is_counted, "skipped": was_skipped(engine).item()})
    return outcomes


def main(out: Path) -> None:
    distributed.join(120)
    start_log()
    results = {f"{precision} {stage}": steps(precision, stage) for precision in ("fp32", "bf16") for stage in range(4)}
    if distributed.is_master():
        (out / f"world_{distributed.world_size()}.json").write_text(json.dumps(results))
    distributed.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
