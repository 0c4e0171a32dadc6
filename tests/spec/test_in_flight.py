"""A full schedule repeats itself: what is in flight at most is found from as many microbatches as fill it."""

import dataclasses

import pytest

from project.spec.layout import SCHEDULES, ParallelLayout
from project.spec.legality.schedules import STAGES_A_RANK, fills_pipeline
from project.spec.schedules.in_flight import filling, in_flight, peaks_in_flight
from project.spec.schedules.order import order_of


def is_filled(layout: ParallelLayout) -> bool:
    values = {"schedule": layout.schedule, "pp": layout.pp, "microbatches": layout.microbatches}
    return fills_pipeline({f"parallel.{key}": value for key, value in values.items()}) is None


@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_peak_in_flight_of_few_microbatches_is_that_of_many(schedule: str, recompute: str) -> None:
    """Held to the whole order, of up to six ranks and as many rounds."""
    stages = [STAGES_A_RANK[schedule]] if schedule in STAGES_A_RANK else [1, 2, 3]
    for pp in range(1, 7):
        for virtual in stages:
            for microbatches in range(1, 6 * pp + 1):
                layout = ParallelLayout(pp=pp, virtual_stages=virtual, schedule=schedule, microbatches=microbatches)
                layout = dataclasses.replace(layout, recompute=recompute)  # type: ignore[arg-type]
                if is_filled(layout):
                    rows = [peaks_in_flight(row, recompute == "none") for row in order_of(layout)]
                    whole = {stage: moments for row in rows for stage, moments in row.items()}
                    assert {stage: set(moments) for stage, moments in enumerate(in_flight(layout))} == whole, layout


@pytest.mark.parametrize("schedule", sorted(set(SCHEDULES) - {"GPipe", "LoopedBFS"}))  # which hold every one
def test_the_peak_in_flight_of_thousands_of_microbatches_is_computed_from_a_few(schedule: str) -> None:
    layout = ParallelLayout(
        pp=8, schedule=schedule, virtual_stages=STAGES_A_RANK.get(schedule, 3), microbatches=8 * 1024
    )
    assert filling(layout) <= 16
