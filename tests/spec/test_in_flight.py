"""A full schedule repeats itself: what is in flight at most is found from as many microbatches as fill it."""

import dataclasses
from itertools import accumulate

import pytest

from project.spec.layout import ParallelLayout
from project.spec.schedules.in_flight import in_flight, peaks_in_flight, share_in_flight
from project.spec.schedules.order import order_of
from project.spec.schedules.table import SCHEDULES
from tests.harness.schedules import layout_of


@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_peak_in_flight_of_few_microbatches_is_that_of_many(schedule: str, recompute: str) -> None:
    """Compares with the whole order, for up to six ranks and six rounds."""
    record = SCHEDULES[schedule]
    stages = [record.stages_a_rank] if record.stages_a_rank else [1, 2, 3]
    for pp in range(1, 7):
        for virtual in stages:
            for microbatches in range(1, 6 * pp + 1):
                layout = ParallelLayout(pp=pp, virtual_stages=virtual, schedule=schedule, microbatches=microbatches)
                layout = dataclasses.replace(layout, recompute=recompute)  # type: ignore[arg-type]
                if record.takes(pp, microbatches):
                    rows = [peaks_in_flight(row, recompute == "none") for row in order_of(layout)]
                    whole = {stage: moments for row in rows for stage, moments in row.items()}
                    assert {stage: set(moments) for stage, moments in enumerate(in_flight(layout))} == whole, layout


@pytest.mark.parametrize("schedule", [name for name, record in SCHEDULES.items() if record.filled_by is not None])
def test_the_peak_in_flight_of_thousands_of_microbatches_is_computed_from_a_few(schedule: str) -> None:
    filled_by = SCHEDULES[schedule].filled_by
    assert filled_by is not None
    assert filled_by(layout_of(schedule, pp=8, microbatches=8 * 1024)) <= 16


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_rank_s_peak_in_flight_is_the_most_that_its_stages_hold_together(schedule: str) -> None:
    layout = layout_of(schedule, pp=4, microbatches=16)
    for rank, row in enumerate(order_of(layout)):
        at_once = accumulate({"F": 1, "B": -1, "I": 0, "W": -1}[action.kind] for action in row)
        assert share_in_flight(layout, rank) == max(at_once) / layout.virtual_stages
