"""The schedule of `torch.distributed.pipelining` that a layout names."""

from collections.abc import Callable

from torch import Tensor
from torch.distributed.pipelining.schedules import PipelineScheduleSingle, get_schedule_class

from project.parallel.layout import ParallelLayout
from project.pipeline.stage import RecordedStage


def build_schedule(
    layout: ParallelLayout, stage: RecordedStage, loss: Callable[[Tensor, Tensor], Tensor]
) -> PipelineScheduleSingle:
    """Gradients are not scaled by the schedule: it would scale what earlier batches of an accumulation left as well.
    `loss` divides instead."""
    schedule_class = get_schedule_class(layout.schedule)
    return schedule_class(stage, layout.microbatches, loss_fn=loss, scale_grads=False)
