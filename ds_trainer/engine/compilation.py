"""A model whose passes are compiled by `torch.compile`: fewer kernels, after a first step that takes minutes."""

from torch import nn

from ds_trainer.errors import SettingsError


def compile_model(model: nn.Module) -> None:
    """Have the model's forward and backward pass compiled when each is first needed.

    In place, so that the names of its weights stay; shapes are fixed, since every micro-batch is filled up. Training
    and validation are a graph each.

    Raises:
        SettingsError: what `torch.compile` compiles with is missing.
    """
    # Loads inductor: a second or two, only for those who compile.
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise SettingsError(
            "--compile: found no C++ compiler, which torch.compile needs; install g++, or leave --compile out"
        ) from error
    model.compile(dynamic=False)
