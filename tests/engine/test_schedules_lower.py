"""The rules allow exactly the schedules that torch can run."""

import itertools

import pytest
from torch.distributed.pipelining.schedules import _PipelineScheduleRuntime

from project.spec.layout import ParallelLayout
from project.spec.legality.layouts import layout_faults
from project.spec.model import ModelConfig
from project.spec.partition import stage_to_rank
from project.spec.schedules.table import SCHEDULES
from tests.harness.lowering import build, simulate

SIZES = list(itertools.product((1, 2, 4), (1, 2, 3)))


def layouts(schedule: str) -> list[ParallelLayout]:
    return [
        ParallelLayout(pp=pp, schedule=schedule, microbatches=microbatches, virtual_stages=virtual)
        for pp, virtual in SIZES
        for microbatches in range(1, 13)
    ]


def is_allowed(layout: ParallelLayout) -> bool:
    return not layout_faults(layout, ModelConfig(num_layers=12), batch_size=layout.microbatches, seq_len=256)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_is_allowed_exactly_where_torch_can_run_it(schedule: str) -> None:
    allowed = [layout for layout in layouts(schedule) if is_allowed(layout)]
    assert allowed
    for layout in layouts(schedule):
        if layout not in allowed:
            with pytest.raises((ValueError, AttributeError, AssertionError, KeyError)):
                build(layout)
            continue
        built = build(layout)
        if isinstance(built, _PipelineScheduleRuntime):
            simulate(built, layout.stages)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_stages_are_placed_where_torch_places_them(schedule: str) -> None:
    for layout in filter(is_allowed, layouts(schedule)):
        built = build(layout)
        if isinstance(built, _PipelineScheduleRuntime):
            assert dict(enumerate(stage_to_rank(layout))) == built.stage_index_to_group_rank
        else:
            assert stage_to_rank(layout) == list(range(layout.pp))
