"""The schedule of `torch.distributed.pipelining` that a layout names."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor
from torch.distributed.pipelining.schedules import (
    FORWARD,
    RECV_F,
    RESHARD,
    SEND_F,
    UNSHARD,
    PipelineScheduleMulti,
    PipelineScheduleSingle,
    _Action,
    _PipelineScheduleRuntime,
    get_schedule_class,
)

from project.engine.stage import RecordedStage
from project.spec.layout import ParallelLayout, is_schedule_file

Schedule = PipelineScheduleSingle | PipelineScheduleMulti
NEEDED_TO_EVALUATE = (FORWARD, SEND_F, RECV_F, UNSHARD, RESHARD)


def build_schedule(
    layout: ParallelLayout, stages: Sequence[RecordedStage], loss: Callable[[Tensor, Tensor], Tensor]
) -> Schedule:
    """For this rank's stages. Gradients are not scaled by the schedule: it would scale what earlier batches of an
    accumulation left as well. `loss` divides instead."""
    if is_schedule_file(layout.schedule):
        runtime = _PipelineScheduleRuntime(list(stages), layout.microbatches, loss_fn=loss, scale_grads=False)
        runtime._load_csv(layout.schedule)
        return runtime
    schedule_class = get_schedule_class(layout.schedule)
    single = issubclass(schedule_class, PipelineScheduleSingle)
    return schedule_class(stages[0] if single else list(stages), layout.microbatches, loss_fn=loss, scale_grads=False)


@contextmanager
def forward_only(schedule: Schedule) -> Iterator[None]:
    """torch's `eval` walks through a schedule's backward actions too, doing nothing, and trips over those that would
    pass a gradient between two stages of one rank. Here they are left out meanwhile."""
    if not isinstance(schedule, _PipelineScheduleRuntime):
        yield
        return
    order = schedule.pipeline_order_with_comms
    forwards = [action for action in leaves(order[schedule.rank]) if action.computation_type in NEEDED_TO_EVALUATE]
    schedule.pipeline_order_with_comms = {schedule.rank: forwards}
    try:
        yield
    finally:
        schedule.pipeline_order_with_comms = order


@contextmanager
def without_loss(schedule: Schedule) -> Iterator[None]:
    loss, schedule._loss_fn = schedule._loss_fn, None
    try:
        yield
    finally:
        schedule._loss_fn = loss


def leaves(actions: Sequence[_Action]) -> Iterator[_Action]:
    """A forward and a backward that overlap are one action with two of its own."""
    for action in actions:
        yield from action.sub_actions or (action,)
