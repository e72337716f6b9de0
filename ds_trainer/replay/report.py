"""What a person reads about a micro-step that was run again: which clips, which module, in which direction, why."""

import math
from collections.abc import Sequence

from ds_trainer.problems import exact
from ds_trainer.replay.case import Case
from ds_trainer.replay.gradients import Gradients
from ds_trainer.replay.looks import Look
from ds_trainer.replay.run import Finding
from ds_trainer.replay.trace import LOSS, Call

_MOST_CLIPS = 8


def case_lines(case: Case) -> list[str]:
    """All but what to do."""
    micro_step, finding = case.micro_step, case.finding
    num_filling = len(case.clips) - micro_step.num_real
    title = f"micro-step {micro_step.number} of rank {micro_step.rank}: {counted(micro_step.num_real, 'clip')}"
    title += f" and {num_filling} to fill up" if num_filling else ""
    is_same = finding.loss == micro_step.loss or str(finding.loss) == micro_step.loss_text
    before = "as in training" if is_same else f"in training {exact(micro_step.loss_text)}"
    losses = f"summed loss {finding.loss:.6g}, {before}"
    if case.cause == "none":
        assert finding.gradients is not None, "else there were a cause"
        return [f"{title}; {losses}; all is finite, gradients up to {finding.gradients.largest:.3g}"]
    lines = [f"{title}; {losses}", *_clip_lines(case), *_cause_lines(case)]
    if case.in_float32 is not None:
        lines.append(_float32_line(case, case.in_float32))
    return [lines[0], *(f"  {line}" for line in lines[1:])]


def repeated_line(case: Case) -> str:
    """A line on a case that began where one before it did."""
    micro_step, origins = case.micro_step, case.origins
    start = f"micro-step {micro_step.number} of rank {micro_step.rank}: the same"
    if origins is None:
        return start
    names = ", ".join(case.name(place) for place in origins[:3]) + (" ..." if len(origins) > 3 else "")
    return f"{start}, in {len(origins)} of {len(case.clips)} clips: {names}"


def counted(number: int, noun: str) -> str:
    """`1 clip`, `2 clips`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _clip_lines(case: Case) -> list[str]:
    if case.origins is None:
        return [
            f"clips to blame: cannot be told; all {case.micro_step.num_real}: {_summary(case, range(len(case.clips)))}"
        ]
    lines = [f"clips to blame: {len(case.origins)} of {len(case.clips)}"]
    lines += [f"  {case.name(place)}: {_clip(case, place)}" for place in case.origins[:_MOST_CLIPS]]
    if len(case.origins) > _MOST_CLIPS:
        lines.append(f"  ... and {len(case.origins) - _MOST_CLIPS} more")
    others = [place for place in range(len(case.clips)) if place not in case.origins]
    return lines + ([f"the other {len(others)}: {_summary(case, others)}"] if others else [])


def _clip(case: Case, place: int) -> str:
    looks = case.clips[place]
    targets = f"; target {described(looks.targets)}" if any(look.num_bad for look in looks.targets) else ""
    return f"loss {case.finding.losses[place]:.4g}; input {described(looks.inputs)}{targets}"


def _summary(case: Case, places: Sequence[int]) -> str:
    losses = [case.finding.losses[place] for place in places]
    finite = [loss for loss in losses if math.isfinite(loss)]
    num_bad = len(losses) - len(finite)
    texts = [f"losses {min(finite) + 0.0:.4g} to {max(finite) + 0.0:.4g}"] if finite else []
    texts += [f"{num_bad:,} {'loss' if num_bad == 1 else 'losses'} not finite"] if num_bad else []
    return ", ".join([*texts, f"inputs up to {max(case.clips[place].largest_input for place in places):.3g}"])


def _cause_lines(case: Case) -> list[str]:
    finding = case.finding
    if case.cause == "weights":
        more = f" and {len(case.bad_weights) - 1} more" if len(case.bad_weights) > 1 else ""
        return [f"went bad first: the weights themselves: {case.bad_weights[0]}{more} hold NaN or infinity"]
    if case.cause in ("inputs", "targets"):
        return [f"went bad first: the {case.cause} themselves, before the model"]
    if case.cause == "sum":
        return ["went bad first: the sum of the clips' losses; each of them is finite"]
    if finding.call is not None:
        return _forward_lines(finding.call, case.inner, len(case.clips))
    return _backward_lines(finding.gradients, len(case.clips))


def _forward_lines(call: Call, inner: Call | None, num_clips: int) -> list[str]:
    lines = [
        f"went bad first: the output of {where(call)}, in the forward pass",
        f"  its input: {described(call.inputs)}",
        f"  its output: {described(call.outputs)}{_in_clips(call.bad_clips(), num_clips)}",
    ]
    if inner is not None:
        within = f" in {where(inner)}" if inner.module != call.module else ""
        lines.append(f"  there first: {inner.operation}{_at(inner)}{within}, given {described(inner.inputs)}")
    return lines


def _backward_lines(gradients: Gradients | None, num_clips: int) -> list[str]:
    assert gradients is not None, "the forward pass is finite"
    assert gradients.fault is not None, "no other cause is left"
    fault, bad = gradients.fault, gradients.bad_parameters
    call = fault.call
    what = f"{call.operation or 'the output'}{_at(call)} in {where(call)}" if call is not None else fault.node
    lines = [f"went bad first: the gradient of {what}, in the backward pass"]
    if call is not None:
        lines.append(f"  in the forward pass it was given {described(call.inputs)}")
    if fault.outgoing:
        lines.append(f"  the gradient that came in: {described(fault.incoming)}")
        lines.append(f"  what it made of it: {described(fault.outgoing)}{_in_clips(fault.bad_clips(), num_clips)}")
    else:
        lines.append(f"  the gradients that came in were finite, their sum was not: {described(fault.incoming)}")
    if bad:
        num_all = counted(gradients.num_parameters, "parameter")
        lines.append(f"  gradients not finite: {len(bad)} of {num_all}, first {bad[0]}")
    return lines


def where(call: Call) -> str:
    """The module of a call, as a person finds it in the code."""
    if call.module == LOSS:
        return f"{LOSS} (the task's objective)"
    return f"{call.module} ({call.type})" if call.module else f"the model itself ({call.type}), outside its submodules"


def _at(call: Call) -> str:
    return f" at {call.place}" if call.place else ""


def _in_clips(bad_clips: frozenset[int] | None, num_clips: int) -> str:
    return f", in {len(bad_clips)} of {num_clips} clips" if bad_clips else ""


def described(looks: Sequence[Look]) -> str:
    """Shapes, and how far the numbers reach."""
    return "; ".join(map(_described, looks[:4])) + (" ..." if len(looks) > 4 else "") if looks else "no numbers"


def _described(look: Look) -> str:
    if not look.num_bad:
        reach = f"{look.largest:.3g}" if look.smallest == look.largest else f"{look.smallest:.3g} to {look.largest:.3g}"
        return f"{list(look.shape)}, finite, absolute values {reach}"
    kinds = [f"{count:,} {kind}" for count, kind in ((look.num_nan, "NaN"), (look.num_infinite, "infinite")) if count]
    others = "" if look.num_bad == look.num_values else f", the others up to {look.largest:.3g}"
    return (
        f"{list(look.shape)}, {look.num_bad:,} of {look.num_values:,} numbers not finite ({', '.join(kinds)}){others}"
    )


def _float32_line(case: Case, in_float32: Finding) -> str:
    if in_float32.is_finite:
        return f"in float32: all is finite: the range or precision of {case.precision} is the cause"
    call = in_float32.call
    if call is None and in_float32.gradients is not None and in_float32.gradients.fault is not None:
        call = in_float32.gradients.fault.call
    place = f", first in {where(call)}" if call is not None else ""
    return f"in float32: not finite either{place}: {case.precision} is not the cause"
