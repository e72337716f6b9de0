"""What a profile's summary says: operations, waits for the device, and which phase they are of."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_profile import Toy
from torch._C._autograd import DeviceType
from torch.profiler import profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode

from ds_trainer.loop import micro_step
from ds_trainer.profile_summary import device_us_by_phase, operations, range_name, summarise, synchronisations


def events_of(run: Any) -> Any:
    with profile(acc_events=True) as profiler:  # torch 2.11 warns without it
        run()
    return [event for event in profiler.events() if event.device_type == DeviceType.CPU]


class CountsOperators(TorchDispatchMode):
    """As the dispatcher sees them."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        workless = ("empty", "new_empty", "_unsafe_view", "_local_scalar_dense", "_record_function")
        if not func.is_view and not name.startswith(workless):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def test_operators_stay_the_objects_that_they_are() -> None:
    """The compiler tells operators apart by identity: a model compiled after a profile would else not compile."""
    before = torch.ops.aten.convolution.default
    operations(events_of(lambda: torch.conv1d(torch.ones(1, 2, 8), torch.ones(2, 2, 3))))
    assert torch.ops.aten.convolution.default is before


def test_operations_are_those_that_the_dispatcher_sees() -> None:
    toy = Toy(48)
    batch = next(iter(toy.batches))

    def step() -> None:
        micro_step(toy.engine, toy.task.objective, batch).item()
        toy.engine.step()

    step()  # the first one makes the gradients
    with CountsOperators() as counter:
        step()
    assert operations(events_of(step)) == len(counter.names)


def test_reads_of_a_number_are_counted_where_there_is_no_gpu() -> None:
    numbers = torch.rand(3)
    assert synchronisations(events_of(lambda: (numbers.sum().item(), bool(numbers[0] > 2), numbers + 1))) == 2


def event(name: str, start: float, end: float, *kernels: tuple[str, float], parent: Any = None) -> Any:
    """What the summary reads of an event of the profiler, on a machine that has no GPU to record one."""
    return SimpleNamespace(
        name=name,
        time_range=SimpleNamespace(start=start, end=end, elapsed_us=lambda: end - start),
        kernels=[SimpleNamespace(name=kernel, duration=duration) for kernel, duration in kernels],
        device_type=DeviceType.CPU,
        cpu_parent=parent,
        cpu_children=[],
        is_user_annotation=False,
    )


def kernel(name: str, start: float, end: float) -> Any:
    made = event(name, start, end)
    made.device_type = DeviceType.CUDA
    return made


WAITING = event(range_name("waiting for the device"), 80, 100)
ON_GPU = [
    event("ProfilerStep#3", 0, 100),
    event(range_name("data"), 0, 10),
    event(range_name("forward"), 10, 30),
    event("aten::mm", 12, 14, ("gemm", 30.0)),
    event("cudaStreamSynchronize", 15, 16),
    event(range_name("backward"), 30, 70),
    event("aten::mm", 40, 42, ("gemm", 20.0), ("fill", 1.0)),
    WAITING,
    event("cudaDeviceSynchronize", 81, 99, parent=WAITING),
    kernel("gemm", 20, 50),
    kernel("gemm", 50, 70),
    kernel("fill", 70, 71),
    kernel("triton_fused", 71, 76),
    event("aten::add", 75, 76, ("add", 1.0)),
    kernel("add", 77, 78),
]
ON_HOST = [event for event in ON_GPU if event.device_type == DeviceType.CPU]


def test_kernels_belong_to_the_phase_that_launched_them() -> None:
    assert device_us_by_phase(ON_HOST) == {"forward": 30, "backward": 21, "rest: loss, sums, votes": 1}


def test_own_waiting_is_no_synchronisation_of_training() -> None:
    assert synchronisations(ON_HOST) == 1


def test_summary_on_a_gpu() -> None:
    lines = summarise(ON_GPU, num_steps=1)
    assert lines[0] == "1 steps recorded, 0.1 ms each (recording included); the GPU was busy for 57% of the time"
    assert lines[1] == "3 operations, 5 kernels and 1.0 synchronisations a step"
    rows = [line.split() for line in lines[2:]]
    assert ["data", "0.01", "10.0%", "0.00"] in rows
    assert ["forward", "0.02", "20.0%", "0.03"] in rows
    assert ["backward", "0.04", "40.0%", "0.02"] in rows
    assert ["waiting", "for", "the", "device", "0.02", "20.0%", "0.00"] in rows
    assert rows[-3:] == [
        ["aten::mm", "0.05", "51.0%", "2.0"],
        ["triton_fused", "0.01", "5.0%", "1.0"],
        ["aten::add", "0.00", "1.0%", "1.0"],
    ]


def test_profiler_that_gave_nothing_is_told() -> None:
    (line,) = summarise([], num_steps=3)
    assert line.startswith("nothing was recorded")


def test_shares_of_phases_and_of_operators_each_add_up() -> None:
    def step() -> None:
        with record_function("ProfilerStep#0"):
            for phase in ("data", "forward", "backward"):
                with record_function(range_name(phase)):
                    torch.rand(64, 64) @ torch.rand(64, 64)

    lines = summarise(events_of(step), num_steps=1)
    border = next(number for number, line in enumerate(lines) if line.startswith("operator"))
    for part in (lines[3:border], lines[border + 1 :]):
        shares = [float(word[:-1]) for line in part for word in line.split() if word.endswith("%")]
        assert sum(shares) == pytest.approx(100, abs=0.1 * len(shares))
    assert any(line.startswith("aten::mm ") and line.endswith(" 3.0") for line in lines)
