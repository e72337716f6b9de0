"""What to do about a micro-step whose loss or gradient is not finite: a sentence for each cause."""

from collections.abc import Iterator, Sequence

from ds_trainer.replay.case import Case
from ds_trainer.replay.files import SavedStep
from ds_trainer.replay.looks import Look
from ds_trainer.replay.report import counted, where
from ds_trainer.replay.trace import Call

_LOGARITHMS = {"log", "log2", "log10", "log1p", "logit", "xlogy"}
_DIVISIONS = {"div", "true_divide", "reciprocal", "rsqrt", "__rdiv__", "__rtruediv__", "normalize"}
_ROOTS = {"sqrt", "rsqrt", "norm", "vector_norm", "pow", "__pow__", "cdist", "std", "acos", "asin", "atan2", "hypot"}
_SOFTMAXES = {"softmax", "log_softmax", "scaled_dot_product_attention", "multi_head_attention_forward"}

_OUTLIER = 20.0
"""How many times larger than in the other clips an input has to be before it is suspected."""

_RATE = "lower the learning rate (optimizer.params.lr in the engine config), or clip harder (gradient_clipping)"

NORM_REMEDY = f"the gradient is too large for the sum of its squares: {_RATE}"

_HUGE = 1e8
"""Numbers in a model that trains well are far smaller."""


def remedies(case: Case) -> Iterator[str]:
    """What to do about one micro-step, the likeliest first."""
    if case.cause == "weights":
        yield "go on from a resume point or checkpoint of before: these weights cannot recover"
    elif case.cause in ("inputs", "targets"):
        yield from _data_remedies(case)
    elif case.cause == "sum":
        yield f"the losses are too large to be added up: {_RATE}"
    else:
        yield from _outlier_remedies(case)
        yield from _forward_remedies(case) if case.cause == "forward" else _backward_remedies(case)
        if case.in_float32 is not None and case.in_float32.is_finite:
            yield (
                f"train in float32 (ds_configs/fp32.json), or have the named module compute in float32: "
                f"{case.precision} keeps too little"
            )


def _data_remedies(case: Case) -> Iterator[str]:
    names = ", ".join(case.name(place) for place in (case.origins or [])[:3])
    if case.cause == "targets":
        yield f"the target of {names} is not finite: correct it in the data, or leave the clip out"
    elif case.is_bad_as_read:
        yield f"the data of {names} holds NaN or infinity: correct it or leave it out, and prepare the data again"
    else:
        yield f"the data of {names} is finite as it was read: look at the augmentation, in `prepare` of the task"


def _outlier_remedies(case: Case) -> Iterator[str]:
    origins = case.origins or []
    largest = max((clip.largest_input for place, clip in enumerate(case.clips) if place not in origins), default=0.0)
    for place in origins[:1]:
        ratio = case.clips[place].largest_input / largest if largest else 0.0
        if ratio > _OUTLIER:
            yield f"{case.name(place)} has inputs {ratio:.0f} times larger than the other clips: look at its data"


def _forward_remedies(case: Case) -> Iterator[str]:
    call = case.finding.call
    assert call is not None, "the cause is in the forward pass"
    operation = (case.inner or call).operation
    place = where(call)
    if operation in _LOGARITHMS:
        yield f"in {place}: keep the argument of {operation} above 0, such as x.clamp_min(1e-6)"
    elif operation in _DIVISIONS:
        yield f"in {place}: keep the divisor away from 0, such as x / y.clamp_min(1e-6)"
    elif operation in _ROOTS:
        yield f"in {place}: keep the argument of {operation} where it is defined, such as x.clamp_min(0)"
    elif operation in _SOFTMAXES:
        yield f"in {place}: NaN comes of a softmax over -inf alone: leave something unmasked in each row"
    elif _has_outgrown(case.inner or call):
        yield f"the numbers in {place} outgrew their range; if they grew in training: {_RATE}"
        yield f"else normalise what {place} reads, or bound what it makes"
    else:
        yield f"look in {place} for a division, root, logarithm or power that its inputs drive out of its range"


def _has_outgrown(call: Call) -> bool:
    """Whether numbers were too large, rather than out of the domain of an operation."""
    return all(look.num_nan == 0 for look in call.outputs) or _is_huge(call.inputs)


def _is_huge(looks: Sequence[Look]) -> bool:
    return any(look.largest > _HUGE for look in looks)


def _backward_remedies(case: Case) -> Iterator[str]:
    gradients = case.finding.gradients
    assert gradients is not None, "the cause is in the backward pass"
    assert gradients.fault is not None, "the cause is in the backward pass"
    call = gradients.fault.call
    operation, place = (call.operation, where(call)) if call is not None else ("", gradients.fault.node)
    if operation in _ROOTS - {"rsqrt"}:
        yield (
            f"in {place}: the slope of {operation} is infinite at 0, though its value is finite: add a small number "
            f"under the root, such as (x + 1e-6).sqrt()"
        )
    elif operation in _DIVISIONS | _LOGARITHMS:
        yield f"in {place}: the slope of {operation} has no bound near 0: keep away from it, as x.clamp_min(1e-6) does"
    elif _is_huge([*gradients.fault.incoming, *(call.inputs if call is not None else [])]) or not any(
        look.num_nan for look in gradients.fault.outgoing
    ):
        yield f"the gradient outgrew its range in {place}: {_RATE}; or bound what {place} reads"
    else:
        yield (
            f"look in {place} for an operation whose slope is infinite where its value is finite; "
            f"torch.where does not help: it multiplies that infinity by 0, which is NaN"
        )


def why_nothing(step: SavedStep, is_chosen: bool, is_other_machine: bool, is_fp16: bool) -> Iterator[str]:
    """Why a bad batch may be finite when it is run again, the likeliest reason first.

    Args:
        is_chosen: whether the user chose the micro-step.
    """
    if is_fp16:
        yield "fp16 skips a step now and then to find its loss scale, which is not replayed: that is no fault"
    if step.num_updates_since:
        yield f"the weights are not those of then: {counted(step.num_updates_since, 'update')} later they were saved"
    if is_chosen:
        yield "another micro-step of the step is to blame: leave --micro_step out"
    if is_other_machine:
        yield "it ran on another device, or with other versions of the packages, which round differently"
    if step.world_size > 1:
        yield f"the sum of the gradients over {counted(step.world_size, 'rank')} left the range of their exchange"
    yield "if it comes back with other clips, and on one machine only, suspect that machine's memory"
