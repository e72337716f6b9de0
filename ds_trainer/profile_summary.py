"""Where the time of recorded steps went: phases, operations, synchronisations, costliest operators.

Reads the events of `torch.profiler`. Times are what the host spent, as the wall clock shows it; with a GPU also what
the device spent on the kernels that a phase launched.
"""

import functools
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch._C._autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

PHASES = ("data", "forward", "backward", "engine step", "waiting for the device")
_REST = "rest: loss, sums, votes"
_RANGE = "ds_trainer: "
_STEP = "ProfilerStep"
_NUM_OPERATORS = 12
_WIDTH = 44
_WAITS = {
    f"{runtime}{what}Synchronize" for runtime in ("cuda", "hip") for what in ("Device", "Stream", "Event")
}  # what the host calls to wait for a GPU
_READ = "aten::_local_scalar_dense"  # what `.item()` and the like become: on a GPU each waits
_WORKLESS = ("empty", "new_empty", "resize", "_unsafe_view", "_local_scalar_dense")

Events = Sequence[FunctionEvent]


def range_name(phase: str) -> str:
    """The name under which a phase of `PHASES` stands in a trace."""
    return _RANGE + phase


def summarise(events: Events, num_steps: int) -> list[str]:
    """One screen about so many recorded steps."""
    host = [event for event in events if event.device_type == DeviceType.CPU]
    device = [event for event in events if event.device_type != DeviceType.CPU and not event.is_user_annotation]
    wall_us = sum(event.time_range.elapsed_us() for event in host if event.name.startswith(_STEP))
    if not wall_us:
        return ["nothing was recorded: PyTorch's profiler gave no events"]
    busy_us = sum(event.time_range.elapsed_us() for event in device)
    each = wall_us / num_steps
    kernels = f", {len(device) / num_steps:,.0f} kernels" if device else ""
    return [
        f"{num_steps} steps recorded, {each / 1e3:.1f} ms each (recording included)"
        + (f"; the GPU was busy for {busy_us / wall_us:.0%} of the time" if device else ""),
        f"{operations(host) / num_steps:,.0f} operations{kernels} and {synchronisations(host) / num_steps:,.1f} "
        f"{'synchronisations' if device else 'reads of a number (a synchronisation on a GPU)'} a step",
        *_phase_lines(host, wall_us, num_steps, has_device=bool(device)),
        *(_kernel_lines(host, device, wall_us, num_steps) if device else _operator_lines(host, wall_us, num_steps)),
    ]


# -- phases -----------------------------------------------------------------------------------------------------------


def _phase_lines(host: Events, wall_us: float, num_steps: int, has_device: bool) -> Iterator[str]:
    on_device = device_us_by_phase(host) if has_device else Counter()
    yield f"{'phase':<{_WIDTH}}{'ms a step':>12}{'share':>9}" + ("  ms of kernels" if has_device else "")
    spent = {phase: _total_us(host, range_name(phase)) for phase in PHASES}
    spent[_REST] = wall_us - sum(spent.values())
    for phase, spent_us in spent.items():
        if spent_us > 0:
            kernels = f"{on_device[phase] / num_steps / 1e3:>15.2f}" if has_device else ""
            yield _row(phase, spent_us, wall_us, num_steps) + kernels


def _total_us(events: Events, name: str) -> float:
    return float(sum(event.time_range.elapsed_us() for event in events if event.name == name))


def _row(name: str, spent_us: float, wall_us: float, num_steps: int) -> str:
    return f"{_shortened(name):<{_WIDTH}}{spent_us / num_steps / 1e3:>12.2f}{spent_us / wall_us:>9.1%}"


def _shortened(name: str) -> str:
    return name if len(name) < _WIDTH else f"{name[: _WIDTH - 4]}..."


def device_us_by_phase(host: Events) -> "Counter[str]":
    """Microseconds of kernels by the phase in whose time they were launched: autograd has a thread of its own."""
    ranges = sorted(
        (event.time_range.start, event.time_range.end, event.name.removeprefix(_RANGE))
        for event in host
        if event.name.startswith(_RANGE)
    )
    spent: Counter[str] = Counter()
    for event in host:
        place = bisect_right(ranges, (event.time_range.start, float("inf"), "")) - 1
        phase = ranges[place][2] if place >= 0 and event.time_range.start <= ranges[place][1] else _REST
        for kernel in event.kernels:
            spent[phase] += kernel.duration
    return spent


# -- counts -----------------------------------------------------------------------------------------------------------


def operations(host: Events) -> int:
    """Operators that work on data: views, allocations and operators that only call others are left out."""
    return sum(_operations_under(event) for event in host if event.cpu_parent is None)


def _operations_under(event: FunctionEvent) -> int:
    kind = _kind(event.name)
    if kind == "calls others":
        return sum(_operations_under(child) for child in event.cpu_children)
    return int(kind == "works")


@functools.cache
def _kind(name: str) -> str:
    """Whether an event "works", is "workless", or "calls others", which are counted in its place."""
    namespace, _, operator = name.partition("::")
    if not (namespace.isidentifier() and operator.isidentifier()):
        return "calls others"
    packet = getattr(getattr(torch.ops, namespace), operator, None)
    if packet is None:
        return "calls others"
    overloads = [each for name in packet.overloads() if _is_called(each := getattr(packet, name))]
    if all(overload.has_kernel_for_dispatch_key("CompositeImplicitAutograd") for overload in overloads):
        return "calls others"
    is_workless = operator.startswith(_WORKLESS) or all(overload.is_view for overload in overloads)
    return "workless" if is_workless else "works"


def _is_called(overload: torch._ops.OpOverload) -> bool:
    """Not one that only TorchScript has, nor one for dimensions with names or a given output: those are built apart."""
    name = overload.name()
    return not ("Dimname" in name or name.endswith("out")) and torch._C._dispatch_has_kernel(name)


def synchronisations(host: Events) -> int:
    """How often the host waited for the GPU; on a CPU, how often it would, had it one."""
    waits = [event for event in host if event.name in _WAITS]
    own = range_name("waiting for the device")
    if any(event.name == own for event in host):
        return sum(not _is_within(event, own) for event in waits)
    return sum(event.name == _READ for event in host)


def _is_within(event: FunctionEvent, name: str) -> bool:
    while event.cpu_parent is not None:
        event = event.cpu_parent
        if event.name == name:
            return True
    return False


# -- operators --------------------------------------------------------------------------------------------------------


def _operator_lines(host: Events, wall_us: float, num_steps: int) -> Iterator[str]:
    """By the time that the host spent in them, operators that they call not included."""
    calls: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    for event in host:
        if not event.name.startswith((_RANGE, _STEP)):
            calls[event.name] += 1
            spent[event.name] += event.self_cpu_time_total
    yield from _costliest("operator", calls, spent, wall_us, num_steps)
    yield _row("outside operators: Python", wall_us - spent.total(), wall_us, num_steps)


def _kernel_lines(host: Events, device: Events, wall_us: float, num_steps: int) -> Iterator[str]:
    """By the time of their kernels; a kernel that no operator launched stands for itself."""
    calls: Counter[str] = Counter(event.name for event in device)
    spent: Counter[str] = Counter()
    for event in device:
        spent[event.name] += event.time_range.elapsed_us()
    for event in host:
        calls[event.name] += bool(event.kernels)
        for kernel in event.kernels:
            spent[event.name] += kernel.duration
            spent[kernel.name] -= kernel.duration
            calls[kernel.name] -= 1
    yield from _costliest("operator, by its kernels", calls, spent, wall_us, num_steps)


def _costliest(
    title: str, calls: "Counter[str]", spent: "Counter[str]", wall_us: float, num_steps: int
) -> Iterable[str]:
    yield f"{title:<{_WIDTH}}{'ms a step':>12}{'share':>9}  calls a step"
    for name, spent_us in spent.most_common(_NUM_OPERATORS):
        if spent_us > 0:
            yield f"{_row(name, spent_us, wall_us, num_steps)}{calls[name] / num_steps:>14.1f}"
