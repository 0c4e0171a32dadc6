"""The memory sheet shows the microbatches in flight of every pipeline rank and stage."""

from dataclasses import replace

import pytest

from project.planner.document.layout_sheets import memory_sheet
from project.planner.document.plan import Plan, as_json, make_plan
from project.planner.machine.cluster_file import load_cluster
from project.planner.step import Step
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.schedules.order import order_of
from project.spec.schedules.table import SCHEDULES
from tests.harness.schedules import layout_of

FOUR = ParallelLayout(pp=4, microbatches=8)


def found(layout: ParallelLayout) -> Plan:
    return make_plan(Step(ModelConfig(), layout, 8, 256, "bf16-mixed"), load_cluster("h100_2x8"))


def flying(plan: Plan, whole: bool = True) -> list[tuple[str, ...]]:
    rows = memory_sheet(plan.derived, whole).rows
    first = next(place for place, row in enumerate(rows) if row[0] == "microbatches in flight")
    return [row[1:-1] for row in rows[first:]]


@pytest.mark.parametrize(
    "layout",
    [
        *(layout_of(schedule, pp=4, microbatches=8) for schedule in SCHEDULES),
        replace(FOUR, pp=8),
    ],
    ids=lambda one: f"{one.schedule} pp{one.pp}",
)
def test_plan_json_has_the_schedule_s_peak_of_microbatches_in_flight(layout: ParallelLayout) -> None:
    """The peak of forwards whose backward is not done yet, counted from the order of actions."""
    most: dict[int, int] = {}
    for row in order_of(layout):
        here: dict[int, int] = {}
        for stage, kind, _ in row:
            here[stage] = here.get(stage, 0) + {"F": 1, "B": -1, "I": 0, "W": -1}[kind]
            most[stage] = max(most.get(stage, 0), here[stage])
        assert not any(here.values())
    ranks = as_json(found(layout))["ranks"]
    told = {entry["stage"]: entry["microbatches"] for rank in ranks for entry in rank["in_flight"]}
    assert told == most


def test_the_memory_sheet_has_a_row_for_each_stage_of_a_rank() -> None:
    assert flying(found(FOUR)) == [("4", "3", "2", "1")]
    twice = flying(found(replace(FOUR, schedule="Interleaved1F1B", virtual_stages=2)))
    assert [[cell.partition(":")[0] for cell in row] for row in twice] == [
        ["s0", "s1", "s2", "s3"],
        ["s4", "s5", "s6", "s7"],
    ]
    folded = flying(found(replace(FOUR, schedule="ZBVZeroBubble", virtual_stages=2)))
    assert [cell.partition(":")[0] for cell in folded[1]] == ["s7", "s6", "s5", "s4"]


def test_the_memory_sheet_names_ranks_that_a_terminal_has_no_room_for() -> None:
    plan = found(replace(FOUR, pp=8))
    short, whole = (memory_sheet(plan.derived, whole) for whole in (False, True))
    assert short.columns[1:-1] == ("pp 0>", "pp 1>", "pp 7>")
    assert short.note.endswith("; pp 2-6 are in plan.md and plan.json")
    assert whole.columns[1:-1] == tuple(f"pp {rank}>" for rank in range(8))
    assert "are in plan.md" not in whole.note
    assert flying(plan) == [("8", "7", "6", "5", "4", "3", "2", "1")]
    assert flying(plan, whole=False) == [("8", "7", "1")]
