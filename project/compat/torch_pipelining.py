"""The runtime of `torch.distributed.pipelining` that runs any order of actions, and a schedule's loss."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor
from torch.distributed.pipelining.schedules import (
    PipelineScheduleMulti,
    PipelineScheduleSingle,
    _Action,
    _PipelineScheduleRuntime,
)
from torch.distributed.pipelining.stage import PipelineStage

Schedule = PipelineScheduleSingle | PipelineScheduleMulti
Action = _Action
"""One action of a rank: a forward, a backward or half of one, a send, a receive, FSDP's gathering ..."""
ActionRuntime = _PipelineScheduleRuntime
"""The schedule that executes a list of actions for each rank; torch's own later schedules derive from it."""


def schedule_of_order(
    order: Sequence[Sequence[str]],
    stages: Sequence[PipelineStage],
    microbatches: int,
    loss: Callable[[Tensor, Tensor], Tensor] | None,
) -> ActionRuntime:
    """Returns the schedule that runs `order`, the computations of each rank as torch writes them (`2F0`); torch adds
    the messages between ranks. Gradients are not scaled. Raises what torch raises for an order that cannot be run."""
    runtime = ActionRuntime(list(stages), microbatches, loss_fn=loss, scale_grads=False)
    runtime.pipeline_order = {rank: [Action.from_str(text) for text in row] for rank, row in enumerate(order)}
    runtime._prepare_schedule_with_comms(runtime.pipeline_order)
    return runtime


@contextmanager
def without_loss(schedule: Schedule) -> Iterator[None]:
    """Lets the schedule's `eval` run without targets: the last stage's outputs are all that is wanted."""
    loss, schedule._loss_fn = schedule._loss_fn, None
    try:
        yield
    finally:
        schedule._loss_fn = loss
