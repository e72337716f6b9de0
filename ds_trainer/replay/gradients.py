"""Follows a backward pass: which operation made the first gradient that is not finite."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.autograd.graph import Node

from ds_trainer.replay.looks import Look, looks_at
from ds_trainer.replay.trace import Call


@dataclass(frozen=True)
class GradientFault:
    """Where the first gradient that is not finite was made.

    Args:
        call: of the forward pass, whose gradient it is; None where that cannot be told.
        node: the name of autograd's function.
        incoming: the gradients with respect to the call's results.
        outgoing: those with respect to what went into the call; empty if the gradients that came in from several places
            were finite, and their sum was not.
    """

    call: Call | None
    node: str
    incoming: list[Look]
    outgoing: list[Look]

    def bad_clips(self) -> frozenset[int] | None:
        """The clips whose gradient is not finite; None if that cannot be told."""
        looks = self.outgoing or self.incoming
        known = [look.bad_clips for look in looks if look.num_bad and look.bad_clips is not None]
        return frozenset().union(*known) if known else None


@dataclass
class Gradients:
    """What was seen in a backward pass.

    Args:
        fault: the first gradient that is not finite, in the order in which they were computed.
        bad_parameters: those whose gradient is not finite, in that order.
        num_parameters: those that got a gradient.
        largest: absolute value of the finite gradients of parameters.
    """

    fault: GradientFault | None = None
    bad_parameters: list[str] = field(default_factory=list)
    num_parameters: int = 0
    largest: float = 0.0


def trace_gradients(loss: Tensor, model: nn.Module, made_by: Mapping[Node, Call], num_clips: int) -> Gradients:
    """Compute the gradients of `loss`, adding them to those that the parameters have, and look at each on its way.

    Args:
        made_by: as `ForwardTrace.made_by`.
    """
    gradients = Gradients()
    if loss.grad_fn is None:  # nothing in it depends on a weight
        return gradients
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def watch(node: Node, call: Call | None) -> Callable[[object, object], None]:
        parameter = names.get(id(getattr(node, "variable", None)))

        def look(outgoing: object, incoming: object) -> None:
            came, went = looks_at(incoming, num_clips), looks_at(outgoing, num_clips)
            if gradients.fault is None and any(seen.num_bad for seen in (*came, *went)):
                is_sum = any(seen.num_bad for seen in came)
                gradients.fault = GradientFault(call, node.name(), came, [] if is_sum else went)
            if parameter is not None:
                _note_parameter(gradients, parameter, came)

        return look

    handles = [node.register_hook(watch(node, call)) for node, call in _calls_by_node(loss.grad_fn, made_by).items()]
    loss.backward()  # type: ignore[no-untyped-call]
    for handle in handles:
        handle.remove()
    return gradients


def _note_parameter(gradients: Gradients, name: str, looks: list[Look]) -> None:
    gradients.num_parameters += 1
    gradients.largest = max(gradients.largest, *(look.largest for look in looks), 0.0)
    if any(look.num_bad for look in looks):
        gradients.bad_parameters.append(name)


def _calls_by_node(root: Node, made_by: Mapping[Node, Call]) -> dict[Node, Call | None]:
    """The call of the forward pass that each node of the graph belongs to.

    One call leaves several nodes, of which only the one of its result is known: those behind it, up to the next one
    that is known, are of the same call.
    """
    calls: dict[Node, Call | None] = {root: made_by.get(root)}
    waiting = [root]
    while waiting:
        node = waiting.pop()
        for before, _ in node.next_functions:
            if before is not None and before not in calls:
                calls[before] = made_by.get(before, calls[node])
                waiting.append(before)
    return calls
