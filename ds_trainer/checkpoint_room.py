"""What a checkpoint from elsewhere may ask for: no program in it makes much of few bytes, nor does its description.

`torch.load(weights_only=True)` (2.13) runs no code of the file, but makes room: for a `bytearray` of any length, for a
copy of one number that strides repeat. And a list may stand in itself.
"""

import pickletools
import re
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ds_trainer.errors import CheckpointError
from ds_trainer.problems import shown

_NAMED = re.compile(
    r"collections OrderedDict|_codecs encode|torch\.storage \w+Storage|torch (\w+Storage|Size|[a-z]\w*)"
    r"|torch\._utils _rebuild_(tensor|parameter)\w*|torch\._tensor _rebuild_from_type_v2|torch\.nn\.parameter Parameter"
)
"""What torch.save names for plain values and tensors."""

_MOST_VALUES, _DEEPEST = 2**22, 100
"""A layout of 100,000 keypoints has some of each in half a dozen lists."""

_HARMLESS_BYTES = 2**20
_NARROWEST = 4
"""Weights may be kept in a quarter of the bytes that the model has them in: 8 bits for 32."""


def refuse_roomy_names(archive: zipfile.ZipFile) -> None:
    """Look at what the pickles in a file name, before any is read.

    Raises:
        ValueError: it is more than plain values and tensors need.
    """
    for member in archive.infolist():
        if member.filename.lower().endswith(".pkl"):  # torch finds DATA.PKL, too
            for instruction, name, _ in pickletools.genops(archive.read(member)):
                if instruction.name == "GLOBAL" and not _NAMED.fullmatch(str(name)):
                    raise ValueError(f"it names {shown(name)}, which no plain value or tensor needs")


def refuse_repeated(content: Any) -> None:
    """Raise `ValueError` where values stand in each other so often that to walk through them would never end."""
    waiting, num_seen = [(content, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        num_seen += 1
        if depth > _DEEPEST or num_seen + len(waiting) > _MOST_VALUES:
            raise ValueError("it has the same value in many places, or in itself")
        within: Iterable[Any] = (*value.keys(), *value.values()) if isinstance(value, Mapping) else ()
        within = value if isinstance(value, list | tuple | set | frozenset) else within
        waiting += [(item, depth + 1) for item in within]


def refuse_unfounded(weights: Mapping[Any, Any], sketch: Mapping[str, Any]) -> None:
    """Do not build a model that is larger than the weights in the file: strides may repeat a number for ever.

    Args:
        sketch: the state dict of the model, without memory.

    Raises:
        CheckpointError: they are fewer than it has.
    """
    found, expected = _num_bytes(weights.values()), _num_bytes(sketch.values())
    if expected > _HARMLESS_BYTES + _NARROWEST * found:
        raise CheckpointError(
            f"state_dict: found {found} bytes of weights, expected {expected}; the description is of another model"
        )


def _num_bytes(tensors: Iterable[Any]) -> int:
    """Bytes behind tensors, those that several share counted once."""
    storages = [
        tensor.untyped_storage()
        for tensor in tensors
        if isinstance(tensor, Tensor) and tensor.layout == torch.strided and not is_lazy(tensor)
    ]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())
