"""Follows a forward pass: which module, and which operation in it, made the first number that is not finite.

Each call notes what went in and what came out, in the order in which calls end. A module ends before the one that calls
it: the first whose inputs were finite and whose outputs were not is the innermost that is to blame.
"""

import sys
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Self

from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.jit import ScriptModule
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from ds_trainer.replay.looks import Look, looks_at, parts_of

LOSS = "the loss"
"""What `objective.loss` is called among modules."""

_CALLERS = ("ds_trainer.replay", "ds_trainer.replay.run")
"""What calls the model: no line of theirs explains anything."""


@dataclass(eq=False)
class Call:
    """A call of a module, or of a torch function in a module.

    Args:
        module: where it happened: the module's name in the model, empty for the model itself, or `LOSS`.
        type: the module's class.
        operation: the name of the torch function; empty for the module's call as a whole.
        place: the line of the task's code that called it, as file:line; empty where none did.
        within: what a module called directly, in order.
    """

    module: str
    type: str
    operation: str = ""
    place: str = ""
    inputs: list[Look] = field(default_factory=list)
    outputs: list[Look] = field(default_factory=list)
    within: list["Call"] = field(default_factory=list)

    @property
    def spoils(self) -> bool:
        """Whether it made something that is not finite out of finite inputs.

        A module may be handed a mask; what adds it to scores passes on what is meant.
        """
        is_given_bad = any(look.num_bad if self.operation else look.is_bad for look in self.inputs)
        return any(look.is_bad for look in self.outputs) and not is_given_bad

    @property
    def makes_nan(self) -> bool:
        """Whether it made NaN where there was none, though perhaps infinity."""
        return any(look.num_nan for look in self.outputs) and not any(look.num_nan for look in self.inputs)

    def bad_clips(self) -> frozenset[int] | None:
        """The clips in whose outputs something is not finite; None if that cannot be told."""
        known = [look.bad_clips for look in self.outputs if look.is_bad and look.bad_clips is not None]
        return frozenset().union(*known) if known else None


def first_fault(calls: list[Call], sound_clips: Set[int]) -> Call | None:
    """The first call that is to blame.

    Infinity in a clip whose loss is finite did no harm: it was meant, or nothing used it.
    """

    def is_harmful(call: Call) -> bool:
        return not (sound_clips & (call.bad_clips() or frozenset()))

    harmful = [call for call in calls if is_harmful(call)]
    return next((call for call in harmful if call.spoils), None) or next(
        (call for call in harmful if call.makes_nan), None
    )


class ForwardTrace(TorchFunctionMode):
    """While it is entered, notes the calls of a model's modules and of torch functions.

    Attributes:
        modules: the calls of modules, in the order in which they ended.
        made_by: the call whose result a node of the autograd graph computed.
    """

    def __init__(self, model: nn.Module, num_clips: int):
        super().__init__()
        self.modules: list[Call] = []
        self.made_by: dict[Node, Call] = {}
        self._num_clips = num_clips
        # A scripted module takes no hooks: what it makes shows in the module that calls it.
        self._named = [named for named in model.named_modules() if not isinstance(named[1], ScriptModule)]
        self._open: list[Call] = []
        self._handles: list[RemovableHandle] = []
        self._is_looking = False

    def __enter__(self) -> Self:
        for name, module in self._named:
            call_type = type(module).__name__
            self._handles += [
                module.register_forward_pre_hook(self._pre_hook(name, call_type), with_kwargs=True),
                module.register_forward_hook(self._hook, with_kwargs=True),
            ]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        for handle in self._handles:
            handle.remove()
        super().__exit__(*exception)  # type: ignore[no-untyped-call]

    def call_loss(self, loss: Callable[[Any, Any], Tensor], outputs: Any, targets: Any) -> Tensor:
        """Call `loss` as if it were a module."""
        self._begin(LOSS, "", (outputs, targets))
        losses_B = loss(outputs, targets)
        self._end(losses_B)
        return losses_B

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._is_looking or not self._open:
            return function(*args, **kwargs)
        # Before the call, which may work in place.
        inputs = looks_at((args, kwargs), self._num_clips)
        result = function(*args, **kwargs)
        changed = args[0] if result is None and args else result  # None: an assignment to an index
        outputs = looks_at(changed, self._num_clips)
        if outputs:
            parent = self._open[-1]
            call = Call(parent.module, parent.type, function.__name__, _place(), inputs, outputs)
            parent.within.append(call)
            self._note_nodes(changed, call)
        return result

    def _pre_hook(self, name: str, call_type: str) -> Callable[..., None]:
        def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._begin(name, call_type, (args, kwargs))

        return begin

    def _hook(self, module: nn.Module, args: Any, kwargs: Any, outputs: Any) -> None:
        self._end(outputs)

    def _begin(self, name: str, call_type: str, inputs: Any) -> None:
        self._open.append(Call(name, call_type, place=_place(), inputs=self._look(inputs)))

    def _end(self, outputs: Any) -> None:
        call = self._open.pop()
        call.outputs = self._look(outputs)
        self.modules.append(call)
        if self._open:
            self._open[-1].within.append(call)
        self._note_nodes(outputs, call)

    def _look(self, value: Any) -> list[Look]:
        """Look at tensors without noting that as calls of the model."""
        self._is_looking = True
        looks = looks_at(value, self._num_clips)
        self._is_looking = False
        return looks

    def _note_nodes(self, value: Any, call: Call) -> None:
        if isinstance(value, Tensor):
            if value.grad_fn is not None:
                self.made_by.setdefault(value.grad_fn, call)
            return
        for part in parts_of(value):
            self._note_nodes(part, call)


def _place() -> str:
    """The innermost line of the task's code, as file:line; empty where there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if name in _CALLERS:
            break
        if name != __name__ and name.partition(".")[0] != "torch":
            path = Path(frame.f_code.co_filename)
            shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
            return f"{shown}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
