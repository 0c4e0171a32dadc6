"""The forward of a batch takes no less than any rank's own part of it, and no more than inside a step."""

from dataclasses import replace

import pytest

from project.planner.document.derived import Derived, derive
from project.planner.document.quantities import quantities
from project.planner.machine.cluster_file import load_cluster
from project.planner.step import Step
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.partition import stages_of
from project.spec.schedules.table import SCHEDULES
from tests.harness.schedules import layout_of

ONE_STAGE = ParallelLayout(pp=4, tp=4, ep=4, microbatches=8)
LAYOUTS = [
    *(
        layout_of(name, pp=4, tp=4, ep=4, microbatches=microbatches)
        for name, schedule in SCHEDULES.items()
        for microbatches in (4, 8)
        if schedule.takes(4, microbatches)
    ),
    replace(ONE_STAGE, pp=2, virtual_stages=4, schedule="Interleaved1F1B"),
    ParallelLayout(microbatches=8),
]


def found(layout: ParallelLayout) -> Derived:
    return derive(Step(ModelConfig(), layout, 8, 256, "bf16-mixed"), load_cluster("h100_2x8"))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda one: f"{one.schedule} v{one.virtual_stages} m{one.microbatches}")
def test_forward_latency_equals_the_simulation_of_the_forwards(layout: ParallelLayout) -> None:
    derived = found(layout)
    latency = quantities(derived)["forward_latency_s"].value
    assert latency == derived.forward.span
    of_stage = [stage.forward for stage in derived.stages]
    own = [layout.microbatches * sum(of_stage[stage] for stage in stages_of(rank, layout)) for rank in range(layout.pp)]
    assert derived.forward.busy == pytest.approx(own)
    assert latency >= max(own)
    assert latency >= sum(of_stage) + sum(hop.seconds for hop in derived.hops)
    in_the_step = max(timed.end for timed in derived.timeline.actions if timed.action.kind == "F")
    assert latency <= in_the_step
    if SCHEDULES[layout.schedule].filled_by is None:  # no backward comes between
        assert latency == in_the_step


def test_forward_latency_of_one_stage_a_rank_is_fill_plus_the_slowest_stage_s_pace() -> None:
    derived = found(ONE_STAGE)
    forward = [stage.forward for stage in derived.stages]
    fill = sum(forward) + sum(hop.seconds for hop in derived.hops)
    assert derived.forward.span == pytest.approx(fill + 7 * max(forward))


def test_forward_latency_of_interleaved_stages_is_at_least_one_rank_s_compute() -> None:
    """Two stages a rank, eight microbatches: the slowest stage's pace is half of its rank's."""
    derived = found(layout_of("Interleaved1F1B", pp=4, tp=4, ep=4, microbatches=8))
    assert derived.forward.span > 2 * 7 * max(stage.forward for stage in derived.stages)
