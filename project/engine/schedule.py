"""A layout's schedule as `torch.distributed.pipelining` runs it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor
from torch.distributed.pipelining.schedules import (
    FORWARD,
    RECV_F,
    RESHARD,
    SEND_F,
    UNSHARD,
    PipelineScheduleSingle,
    get_schedule_class,
)

from project.compat.torch_pipelining import Action, ActionRuntime, Schedule, schedule_of_order
from project.engine.stage import RecordedStage
from project.spec.layout import ParallelLayout
from project.spec.schedules.order import order_of
from project.spec.schedules.table import schedule_of

NEEDED_TO_EVALUATE = (FORWARD, SEND_F, RECV_F, UNSHARD, RESHARD)


def build_schedule(
    layout: ParallelLayout, stages: Sequence[RecordedStage], loss: Callable[[Tensor, Tensor], Tensor] | None
) -> Schedule:
    """The schedule of this rank's stages: torch's own class, or torch's runtime with the order of the layout's record.

    Gradients are not scaled by the schedule: it would scale what earlier batches of an accumulation left as well.
    `loss` divides instead.
    """
    name = schedule_of(layout).torch_class
    if name is None:
        order = [[str(action) for action in actions] for actions in order_of(layout)]
        return schedule_of_order(order, stages, layout.microbatches, loss)
    schedule_class = get_schedule_class(name)
    single = issubclass(schedule_class, PipelineScheduleSingle)
    return schedule_class(stages[0] if single else list(stages), layout.microbatches, loss_fn=loss, scale_grads=False)


@contextmanager
def forward_only(schedule: Schedule) -> Iterator[None]:
    """torch's `eval` walks through a schedule's backward actions too, doing nothing, and trips over those that would
    pass a gradient between two stages of one rank. Here they are left out meanwhile."""
    if not isinstance(schedule, ActionRuntime):
        yield
        return
    order = schedule.pipeline_order_with_comms
    forwards = [action for action in leaves(order[schedule.rank]) if action.computation_type in NEEDED_TO_EVALUATE]
    schedule.pipeline_order_with_comms = {schedule.rank: forwards}
    try:
        yield
    finally:
        schedule.pipeline_order_with_comms = order


def leaves(actions: Sequence[Action]) -> Iterator[Action]:
    """The actions one by one: a forward and a backward that overlap are one action with two of its own."""
    for action in actions:
        yield from action.sub_actions or (action,)
