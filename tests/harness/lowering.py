"""torch's simulation of a schedule, built over mock stages without processes: whether it can be run."""

from functools import cache
from unittest import mock

from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import (
    REDUCE_GRAD,
    RESHARD,
    UNSHARD,
    PipelineScheduleMulti,
    PipelineScheduleSingle,
    _PipelineScheduleRuntime,
    _simulate_comms_compute,
    get_schedule_class,
)

from project.engine.pipeline import build_schedule
from project.spec.layout import ParallelLayout
from project.spec.schedules.table import schedule_of

NOT_SIMULATED = (UNSHARD, RESHARD, REDUCE_GRAD)


def build(layout: ParallelLayout) -> PipelineScheduleSingle | PipelineScheduleMulti:
    stages, name = mock_stages(layout.pp, layout.virtual_stages), schedule_of(layout).torch_class
    if name is None:
        return build_schedule(layout, stages, loss=None)
    schedule_class = get_schedule_class(name)
    takes_one = issubclass(schedule_class, PipelineScheduleSingle) and len(stages) == 1
    return schedule_class(stages[0] if takes_one else stages, layout.microbatches)


def runtime(layout: ParallelLayout) -> _PipelineScheduleRuntime:
    return _PipelineScheduleRuntime(mock_stages(layout.pp, layout.virtual_stages), layout.microbatches)


def simulate(schedule: _PipelineScheduleRuntime, stages: int) -> None:
    """Raises ValueError if the ranks would deadlock."""
    order = {
        rank: [
            leaf
            for action in actions
            for leaf in action.sub_actions or (action,)
            if leaf.computation_type not in NOT_SIMULATED
        ]
        for rank, actions in schedule.pipeline_order_with_comms.items()
    }
    _simulate_comms_compute(order, lambda stage: schedule.stage_index_to_group_rank[stage], stages)


@cache
def mock_stages(pp: int, virtual_stages: int) -> list[mock.Mock]:
    stage = mock.create_autospec(PipelineStage, instance=True)
    stage.group_rank, stage.group_size, stage.num_stages, stage.submod = 0, pp, pp * virtual_stages, None
    return [stage] * virtual_stages
