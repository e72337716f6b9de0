"""A micro-step that was run again, and what follows from it: where it began, and in which clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ds_trainer.problems import exact
from ds_trainer.replay.files import SavedMicroStep
from ds_trainer.replay.looks import Look
from ds_trainer.replay.run import Finding
from ds_trainer.replay.trace import Call, first_fault

Cause = Literal["none", "weights", "inputs", "targets", "forward", "sum", "backward"]


@dataclass(frozen=True)
class ClipLooks:
    """What the inputs and the targets of one clip are like."""

    inputs: list[Look]
    targets: list[Look]

    @property
    def is_bad(self) -> bool:
        """Whether something in either is not finite."""
        return any(look.num_bad for look in (*self.inputs, *self.targets))

    @property
    def largest_input(self) -> float:
        """Absolute value, of the finite ones."""
        return max((look.largest for look in self.inputs), default=0.0)


@dataclass(frozen=True)
class Case:
    """A micro-step that was run again.

    Args:
        clips: in the order of the micro-batch, those included that fill it up.
        bad_weights: names of weights that are not finite themselves.
        in_float32: what became of it in float32; None if it was float32 already, or nothing was found.
        precision: the type that was used, such as bfloat16.
        is_bad_as_read: whether the clips to blame are not finite before augmentation either; None if it is not theirs.
    """

    micro_step: SavedMicroStep
    finding: Finding
    clips: Sequence[ClipLooks]
    bad_weights: Sequence[str]
    in_float32: Finding | None
    precision: str
    is_bad_as_read: bool | None = None

    @cached_property
    def cause(self) -> Cause:
        """Where it began."""
        finding = self.finding
        if finding.is_finite:
            return "none"
        if self.bad_weights:
            return "weights"
        for part in ("inputs", "targets"):
            if any(look.num_bad for place in finding.blamed_clips() or [] for look in getattr(self.clips[place], part)):
                return part  # type: ignore[return-value]  # mypy takes the tuple's entries for any text
        return "backward" if finding.gradients is not None else "forward" if finding.call is not None else "sum"

    @cached_property
    def origins(self) -> list[int] | None:
        """Places of the clips in which it began: layers such as BatchNorm carry it to others. None: cannot be told."""
        blamed = self.finding.blamed_clips()
        if blamed is None or self.cause == "weights":
            return None
        bad_clips = self.finding.call.bad_clips() if self.finding.call is not None else None
        begun = [place for place in blamed if self.clips[place].is_bad] or sorted(bad_clips or ())
        return begun or blamed

    @cached_property
    def inner(self) -> Call | None:
        """In the forward pass, the operation that went bad first within the module that did."""
        call = self.finding.call
        while call is not None and not call.operation:
            call = first_fault(call.within, self.finding.sound_clips())
        return call

    @property
    def beginning(self) -> tuple[str, ...]:
        """What cases have in common that began at the same place."""
        gradients = self.finding.gradients
        fault = gradients.fault if gradients is not None else None
        call = fault.call if fault is not None else self.finding.call
        return (self.cause, call.module, call.operation) if call is not None else (self.cause,)

    def name(self, place: int) -> str:
        """What a person calls a clip."""
        index = self.micro_step.indices[place]
        if place >= self.micro_step.num_real:
            return f"number {index}, which only fills the micro-batch up"
        name = self.micro_step.names[place]
        return f"number {index}" if name == str(index) else f"{exact(name)} (number {index})"
