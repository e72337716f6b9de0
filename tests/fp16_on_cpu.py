"""Trains in fp16 on a CPU, which DeepSpeed refuses, so that what fp16 needs of the trainer is tested without a GPU."""

import functools
import sys

import torch
from deepspeed.accelerator import get_accelerator

from ds_trainer import job
from ds_trainer.engine.config import resolve_engine_config

if __name__ == "__main__":
    accelerator = get_accelerator()
    accelerator.is_fp16_supported = lambda: True
    accelerator.supported_dtypes = lambda: [torch.float, torch.half, torch.bfloat16]

    @functools.wraps(resolve_engine_config)
    def resolve(config, world_size, device_type, *args, **kwargs):
        return resolve_engine_config(config, world_size, "cuda", *args, **kwargs)

    job.resolve_engine_config = resolve
    sys.exit(job.main())
