"""The order of a schedule's actions is torch's, and the one that ranks have executed."""

import itertools
from pathlib import Path

import pytest
from torch.distributed.pipelining.schedules import PipelineScheduleMulti, _Action, get_schedule_class

from project.engine.pipeline import leaves
from project.spec.layout import ParallelLayout
from project.spec.legality.layouts import layout_faults
from project.spec.model import ModelConfig
from project.spec.schedules.action import Action
from project.spec.schedules.in_flight import InFlight, peaks_in_flight
from project.spec.schedules.order import order_of
from project.spec.schedules.soundness import count_faults, order_faults, stuck
from project.spec.schedules.table import SCHEDULES
from tests.harness.case import SMALL, Case
from tests.harness.lowering import build
from tests.harness.measured import spans_of
from tests.harness.schedules import layout_of

SIZES = list(itertools.product((1, 2, 3, 4, 8), (1, 2, 3)))


def layouts(schedule: str) -> list[ParallelLayout]:
    every = [
        ParallelLayout(pp=pp, schedule=schedule, microbatches=microbatches, virtual_stages=virtual)
        for pp, virtual in SIZES
        for microbatches in range(1, 20)
    ]
    model = ModelConfig(num_layers=24)
    return [layout for layout in every if not layout_faults(layout, model, layout.microbatches, 256)]


def torchs(layout: ParallelLayout) -> list[list[str]]:
    schedule = build(layout)
    assert isinstance(schedule, PipelineScheduleMulti)
    rows = [schedule.pipeline_order[rank] for rank in range(layout.pp)]
    return [[str(action) for action in leaves([a for a in row if isinstance(a, _Action)])] for row in rows]


def has_a_list(schedule: str) -> bool:
    """1F1B and GPipe have no list in torch that it would run by: what ranks have executed stands for it. Schedules that
    torch does not have are given ours."""
    name = SCHEDULES[schedule].torch_class
    return name is not None and issubclass(get_schedule_class(name), PipelineScheduleMulti)


@pytest.mark.parametrize("schedule", [*filter(has_a_list, SCHEDULES)])
def test_a_schedule_s_order_is_torch_s(schedule: str) -> None:
    assert layouts(schedule)
    for layout in layouts(schedule):
        assert [[str(action) for action in row] for row in order_of(layout)] == torchs(layout), layout


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_s_order_is_whole_and_can_be_run(schedule: str) -> None:
    for layout in layouts(schedule):
        rows = [[(action,) for action in row] for row in order_of(layout)]
        assert not [*count_faults(rows, layout), *order_faults(rows, layout), *stuck(rows, layout.stages)]


INTERLEAVED = layout_of("Interleaved1F1B")
EXECUTED = [
    ParallelLayout(pp=4, microbatches=6),
    ParallelLayout(pp=4, microbatches=4, schedule="GPipe"),
    *(layout_of(schedule) for schedule in SCHEDULES),
]


def check_executed(ranks, layout: ParallelLayout) -> None:
    spans = ranks.run(layout.world_size, spans_of, Case(layout, SMALL, batch=layout.microbatches))
    executed = [[f"{span.stage}{span.action}{span.microbatch}" for span in row] for row in spans]
    assert executed == [[str(action) for action in row] for row in order_of(layout)]


@pytest.mark.parametrize("layout", EXECUTED, ids=lambda layout: f"{layout.schedule}, pp{layout.pp}")
def test_ranks_execute_a_schedule_s_order(ranks, layout: ParallelLayout) -> None:
    check_executed(ranks, layout)


def test_ranks_execute_a_schedule_file_s_order(ranks, tmp_path: Path) -> None:
    rows = reversed(order_of(INTERLEAVED))
    (tmp_path / "mine.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    check_executed(ranks, ParallelLayout(pp=2, virtual_stages=2, microbatches=4, schedule=str(tmp_path / "mine.csv")))


def test_1f1b_holds_a_microbatch_for_each_stage_from_here_on_and_gpipe_all() -> None:
    for stages, microbatches in ((4, 8), (4, 4), (3, 7)):
        layout = ParallelLayout(pp=stages, microbatches=microbatches)
        held = [peaks_in_flight(row) for row in order_of(layout)]
        assert held == [{stage: {InFlight(min(microbatches, stages - stage))}} for stage in range(stages)]
        all_ = ParallelLayout(pp=stages, microbatches=microbatches, schedule="GPipe")
        assert [peaks_in_flight(row) for row in order_of(all_)] == [
            {stage: {InFlight(microbatches)}} for stage in range(stages)
        ]


def test_interleaved_1f1b_holds_about_one_and_a_fraction_of_the_pipeline_s_layers() -> None:
    """Rank 0's chunks over v: p (1 + (p - 1) / (p v)) microbatches' worth of its layers (Narayanan et al., 2104.04473;
    Korthikanti et al., 2205.05198)."""
    for pp, virtual in ((4, 2), (4, 3), (8, 2)):
        layout = ParallelLayout(pp=pp, virtual_stages=virtual, microbatches=4 * pp, schedule="Interleaved1F1B")
        held, most = 0, 0
        for action in order_of(layout)[0]:
            held += {"F": 1, "B": -1}[action.kind]
            most = max(most, held)
        assert most == pp * virtual + pp - 1


def test_a_microbatch_is_in_flight_until_the_second_half_of_its_backward() -> None:
    def rows(stage: int, text: str) -> list[Action]:
        return [Action(stage, kind, int(microbatch)) for kind, microbatch in text.split()]

    text = "F0 F1 I0 F2 W0 I1 F3"
    assert peaks_in_flight(rows(1, text)) == {1: {InFlight(2, 1)}}
    assert peaks_in_flight(rows(0, text)) == {0: {InFlight(3)}}, "the first stage runs all of it at the weights' turn"
    assert peaks_in_flight(rows(1, text), split_backward=False) == {1: {InFlight(2)}}, "and recomputed ones none of it"
    assert peaks_in_flight(rows(1, "F0 F1 I0 I1 F2 W0 W1 F3 B2 B3")) == {1: {InFlight(2), InFlight(1, 2)}}
