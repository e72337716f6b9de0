"""A model behind one flat parameter, so that what is done for each parameter is done once.

DeepSpeed and the optimizer walk through all parameters several times a step: with 127 of them that is more operations
than the model itself has. The model computes the same, from views of the flat weights; only the norm of the gradient is
summed in another order.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ds_trainer.engine.parameter_groups import Treatment, TreatmentOf
from ds_trainer.engine.precision import as_statistics_of, has_statistics, is_divided
from ds_trainer.errors import TaskError


class Slice(NamedTuple):
    """Where a weight of the model is: in which of the flat parameters, and from where."""

    flat: int
    start: int
    shape: tuple[int, ...]

    def of(self, flat: Tensor) -> Tensor:
        """The weight, as a view of its flat parameter."""
        return flat[self.start : self.start + math.prod(self.shape)].view(self.shape)


class _Taken(nn.Parameter):
    """What a weight was before it became part of a flat one: whoever still has it would train with it in vain."""

    @classmethod
    def instead_of(cls, weight: nn.Parameter) -> None:
        """Have the object itself refuse to be computed with, and keep no memory."""
        weight.data = weight.data.new_empty(0)
        weight.__class__ = cls

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise TaskError(
            "model: computes with a weight that it keeps beside the module's own (in a list or a dict, say), and which "
            "would not be trained; expected self.layer.weight, read in the forward pass"
        )


class FlatModel(nn.Module):
    """A model whose trained weights are views of a few flat parameters.

    Buffers, frozen weights, those of recurrent layers, which cuDNN arranges in memory by itself, and those of scripted
    modules, which cannot be taken apart, stay the model's.

    Args:
        model: taken apart: before its first pass it has no trained weights any more.
        most_numbers: in a flat parameter, unless a single weight has more: weights of large models are divided, so that
            gradients can be exchanged while the backward pass goes on.
        dtype: the precision in which the model computes; None: that of its weights.
        treatment_of: how the optimizer treats each of the model's weights.

    Attributes:
        slices: by the name that a flat weight has in the model.
        state_names: the names in the model's state dict, in its order, and for each the name under which that weight is
            trained, which is another one where weights are tied.
    """

    def __init__(self, model: nn.Module, most_numbers: int, dtype: torch.dtype | None, treatment_of: TreatmentOf):
        super().__init__()
        self.state_names = state_names(model)
        closed = [module for module in model.modules() if isinstance(module, nn.RNNBase | torch.jit.ScriptModule)]
        kept = {id(weight) for module in closed for weight in module.parameters()}
        trained = {
            name: weight for name, weight in model.named_parameters() if weight.requires_grad and id(weight) not in kept
        }
        treatments = {name: treatment_of(weight) for name, weight in trained.items()}
        by_treatment = sorted(trained, key=lambda name: (treatments[name], not _is_odd(trained[name])), reverse=True)
        trained = {name: trained[name] for name in by_treatment}
        names = {id(weight): name for name, weight in trained.items()}
        chunks = _chunks(trained, treatments, most_numbers)
        self.slices = {
            name: Slice(number, start, tuple(trained[name].shape))
            for number, chunk in enumerate(chunks)
            for name, start in zip(chunk, _starts(trained, chunk), strict=False)
        }
        self.flats = nn.ParameterList(
            torch.cat([trained[name].detach().flatten() for name in chunk]) for chunk in chunks
        )
        self._treatments: dict[Tensor, Treatment] = {
            flat: treatments[chunk[0]] for flat, chunk in zip(self.flats, chunks, strict=True)
        }
        self._treatment_of_kept = treatment_of
        self._sizes = [[trained[name].numel() for name in chunk] for chunk in chunks]
        order = {name: position for position, name in enumerate(self.slices)}
        self._places = [
            (module, leaf, order[names[id(weight)]], has_statistics(module))
            for module in model.modules()
            for leaf, weight in module._parameters.items()
            if id(weight) in names
        ]
        for module, leaf, *_ in self._places:
            taken = module._parameters.pop(leaf)
            if taken is not None and not isinstance(taken, _Taken):  # as one that is tied is, the second time
                _Taken.instead_of(taken)
        self.model = model
        self._dtype = dtype

    def forward(self, *inputs: Any) -> Any:
        """What the model makes of `inputs`."""
        pieces = itertools.chain.from_iterable(map(self._split, self.flats, self._sizes))
        weights = [piece.view(own.shape) for piece, own in zip(pieces, self.slices.values(), strict=True)]
        for module, leaf, position, is_statistical in self._places:
            weight = as_statistics_of(module, weights[position]) if is_statistical else weights[position]
            # They stay there: a backward pass that recomputes reads them again.
            module._parameters[leaf] = weight  # type: ignore[assignment]
        others = self._others_in_other_types()
        return functional_call(self.model, others, inputs) if others else self.model(*inputs)

    def _split(self, flat: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
        # Not `split`, whose pieces no module could change in place, as some do with their weights in the forward pass.
        return torch.unsafe_split_with_sizes(flat if self._dtype is None else flat.to(self._dtype), sizes)

    def _others_in_other_types(self) -> dict[str, Tensor]:
        """What is not flat and of another precision than the model computes in, converted."""
        if self._dtype is None:
            return {}
        own = (item for item in self.model.named_parameters() if isinstance(item[1], nn.Parameter))
        return {
            name: value.to(self._dtype)
            for name, value in itertools.chain(own, self.model.named_buffers())
            if value.is_floating_point() and value.dtype != self._dtype
        }

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """The flat parameters and those that the model kept, without the views."""
        every = super().named_parameters(*args, **kwargs)
        return ((name, value) for name, value in every if isinstance(value, nn.Parameter))

    def treatment_of(self, parameter: Tensor) -> Treatment:
        """How the optimizer treats a parameter: a flat one is of weights that are treated alike."""
        return self._treatments.get(parameter) or self._treatment_of_kept(parameter)


def can_be_flat(config: Mapping[str, Any]) -> bool:
    """Whether an engine config lets weights lie in flat parameters: not where each layer is to be treated by itself."""
    return not is_divided(config) and not config.get("data_types", {}).get("keep_in_fp32_modules")


def state_names(model: nn.Module) -> dict[str, str]:
    """The names in a model's state dict, in its order, and for each the first that its tensor has."""
    first = {id(weight): name for name, weight in model.named_parameters()}
    return {name: first.get(id(value), name) for name, value in model.state_dict(keep_vars=True).items()}


def _chunks(trained: Mapping[str, Tensor], treatments: Mapping[str, Treatment], most_numbers: int) -> list[list[str]]:
    """The names of weights that lie in a flat parameter together: neighbours of one type that are treated alike."""
    kinds = {name: (weight.dtype, treatments[name]) for name, weight in trained.items()}
    chunks: list[list[str]] = []
    num_numbers = 0
    for name, weight in trained.items():
        num_numbers += weight.numel()
        if not chunks or num_numbers > most_numbers or kinds[name] != kinds[chunks[-1][0]]:
            chunks.append([])
            num_numbers = weight.numel()
        chunks[-1].append(name)
    return chunks


def _is_odd(weight: Tensor) -> bool:
    """Whether weights behind it would not begin at a multiple of 16 bytes, which the fast products of a GPU need."""
    return weight.numel() % 8 != 0


def _starts(trained: Mapping[str, Tensor], chunk: list[str]) -> Iterator[int]:
    return itertools.accumulate((trained[name].numel() for name in chunk), initial=0)
