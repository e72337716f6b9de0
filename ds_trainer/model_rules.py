"""Which models cannot be trained, told before an engine is built of them: what DeepSpeed says later names no layer."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ds_trainer.errors import ModelError
from ds_trainer.precision import is_divided
from ds_trainer.problems import shortened


def refuse_untrainable(model: nn.Module, config: Mapping[str, Any]) -> None:
    """Look through a new model, which is to be trained as a resolved engine config says.

    Raises:
        ModelError: a weight has no shape yet, is complex or has sparse gradients, or no weight is trained; or ZeRO-3
            cannot divide one.
    """
    problems = [*_shapeless(model), *_complex(model), *_sparse(model)]
    if is_divided(config):
        problems += _indivisible(model)
    if not problems and not any(weight.requires_grad for weight in model.parameters()):
        problems = ["no weight is trained: all are frozen, or there is none; expected one whose requires_grad is true"]
    if problems:
        raise ModelError(shortened([f"the task's model: {problem}" for problem in problems]))


def _shapeless(model: nn.Module) -> Iterator[str]:
    for name, weight in model.named_parameters():
        if is_lazy(weight):
            yield (
                f"{name} has no shape yet, being of a lazy layer; give the layer its input size, or pass a batch "
                "through the model in build_model and in model_from"
            )


def _complex(model: nn.Module) -> Iterator[str]:
    for name, weight in model.named_parameters():
        if weight.requires_grad and weight.is_complex():
            yield (
                f"{name} is {str(weight.dtype).removeprefix('torch.')}, which DeepSpeed does not train; keep its real "
                "and imaginary part in a real weight, and see it through torch.view_as_complex(weight.float())"
            )


def _sparse(model: nn.Module) -> Iterator[str]:
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.sparse and layer.weight.requires_grad:
            yield f"{name or 'it'} has sparse gradients, which cannot be clipped; build it with sparse=False"


def _indivisible(model: nn.Module) -> Iterator[str]:
    remedy = "or use stage 1 or 2"
    for name, weight in model.named_parameters():
        if not is_lazy(weight) and weight.dim() == 0:
            yield f"{name} is a single number, which ZeRO-3 cannot divide; give it the shape (1,), {remedy}"
        elif not is_lazy(weight) and weight.numel() == 0:
            yield f"{name} holds no numbers, which ZeRO-3 cannot divide; leave it out, {remedy}"
    for name, layer in model.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):
            yield f"{name or 'it'} is scripted, so ZeRO-3 cannot reach its weights; take the plain module, {remedy}"
            return
