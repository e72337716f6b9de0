"""The forms that a trained model is written in, and how each is read back to be compared.

`pth` and `safetensors` hold weights; `pt2` and `onnx` hold a whole recogniser, preprocessing included.
"""

import contextlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ds_trainer.checkpoint import load_checkpoint, load_model, write_checkpoint
from ds_trainer.errors import CheckpointError, SettingsError, UserError
from ds_trainer.files import write_atomically
from ds_trainer.problems import reason_of
from ds_trainer.task import Deployment

Checkpoint = Mapping[str, Any]
Answers = Callable[..., list[Tensor]]
"""Inputs of a deployment -> its answers."""

MOST_DIFFERENCE = {"pth": 0.0, "safetensors": 0.0, "pt2": 1e-4, "onnx": 1e-3}
"""Of answers (logits): weights are the same bits; other programs sum in another order."""

WEIGHTS = ("pth", "safetensors")


def write(form: str, path: Path, checkpoint: Checkpoint, deployment: Deployment | None) -> None:
    """Write `checkpoint` to `path`."""
    if form == "pth":
        write_checkpoint(path, {key: value for key, value in checkpoint.items() if key != "format"})
    elif form == "safetensors":
        _save_safetensors(path, checkpoint)
    else:
        assert deployment is not None
        with _exporting(form):
            (_save_pt2 if form == "pt2" else _save_onnx)(path, checkpoint, deployment)


@contextlib.contextmanager
def _exporting(form: str) -> Iterator[None]:
    """Keeps from the log what torch says of its own parts, and tells in a line what it cannot export.

    Raises:
        CheckpointError: the model does what no graph can hold, such as to branch on its numbers.
    """
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    exporter_log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except Exception as error:  # of many types, each with pages of its own
        cause = error.__cause__ or error
        raise CheckpointError(
            f"--to {form}: torch cannot export the model ({type(cause).__name__}: {reason_of(cause)}); mend its "
            "forward pass or the task's deployment, or export its weights: --to pth or --to safetensors"
        ) from error
    finally:
        exporter_log.setLevel(level)


def answers_of(module: Callable[..., Any]) -> Answers:
    """What answers for a module: its tensors one after the other, however it returns them."""
    return lambda *inputs: tree_leaves(module(*inputs))


def read_model(form: str, path: Path, checkpoint: Checkpoint) -> nn.Module:
    """The model of a file of weights, in evaluation mode."""
    if form == "pth":
        return load_model(load_checkpoint(path))
    from safetensors.torch import load_file

    return load_model({**checkpoint, "state_dict": load_file(path)})


def read_answers(form: str, path: Path, names: tuple[str, ...]) -> Answers:
    """What answers for a whole recogniser that was read back from its file."""
    if form == "pt2":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch 2.11 tells a user of what it reads its own file into
            return answers_of(torch.export.load(path).module())
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def answer(*inputs: Tensor) -> list[Tensor]:
        fed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return [torch.from_numpy(found) for found in session.run(None, fed)]

    return answer


def _save_safetensors(path: Path, checkpoint: Checkpoint) -> None:
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise _missing("safetensors", error) from error
    # Tied weights are written under each of their names: the format knows no others.
    weights = {name: value.clone().contiguous() for name, value in checkpoint["state_dict"].items()}
    about = {key: checkpoint[key] for key in ("task", "description", "temperature") if key in checkpoint}
    content = save(weights, metadata={key: json.dumps(value, ensure_ascii=False) for key, value in about.items()})
    write_atomically(path, lambda file: file.write(content))


def _dynamic_shapes(deployment: Deployment) -> tuple[dict[int, Any], ...]:
    dims: dict[str, Any] = {}
    for axes in deployment.dynamic_axes:
        for name in axes.values():
            dims.setdefault(name, torch.export.Dim(name, min=1))
    return tuple({axis: dims[name] for axis, name in axes.items()} for axes in deployment.dynamic_axes)


def _save_pt2(path: Path, checkpoint: Checkpoint, deployment: Deployment) -> None:
    program = torch.export.export(
        deployment.module, deployment.inputs, dynamic_shapes=_dynamic_shapes(deployment), strict=False
    )
    about = {"about.json": json.dumps(_about(checkpoint, deployment))}
    write_atomically(path, lambda file: torch.export.save(program, file, extra_files=about))


def _save_onnx(path: Path, checkpoint: Checkpoint, deployment: Deployment) -> None:
    try:
        import onnxruntime  # noqa: F401  # reads it back
        import onnxscript  # noqa: F401  # torch's exporter asks for it
        from onnx import checker
    except ImportError as error:
        raise _missing("onnx", error) from error
    program = torch.onnx.export(
        deployment.module,
        deployment.inputs,
        input_names=list(deployment.names),
        output_names=list(deployment.answers),
        dynamic_shapes=_dynamic_shapes(deployment),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    _refuse_fixed_axes(proto, deployment)
    for key, value in _about(checkpoint, deployment).items():
        proto.metadata_props.add(key=key, value=json.dumps(value, ensure_ascii=False))
    checker.check_model(proto)
    write_atomically(path, lambda file: file.write(proto.SerializeToString()))


def _refuse_fixed_axes(proto: Any, deployment: Deployment) -> None:
    """Where a graph takes no other numbers than the example has, torch 2.13 writes it for these, without a word."""
    for taken, axes in zip(proto.graph.input, deployment.dynamic_axes, strict=True):
        for axis, name in axes.items():
            size = taken.type.tensor_type.shape.dim[axis]
            if not size.dim_param:
                raise CheckpointError(
                    f"--to onnx: the model takes {size.dim_value} {name} alone, expected any number of them; mend its "
                    "forward pass (split and chunk by a number of examples are such), or export its weights: --to pth "
                    "or --to safetensors"
                )


def _about(checkpoint: Checkpoint, deployment: Deployment) -> dict[str, Any]:
    return {**deployment.about, "temperature": checkpoint.get("temperature", 1.0), "task": checkpoint["task"]}


def _missing(form: str, error: ImportError) -> SettingsError:
    return SettingsError(f"--to {form}: {error}; pip install 'ds-trainer[export]'")
