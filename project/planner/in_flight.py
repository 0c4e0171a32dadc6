"""How many microbatches are in flight at each stage when it has most, for schedules of any length. No torch.

A schedule that is full repeats itself: a hundred rounds hold what two do. So the order that is looked at is that of as
many microbatches as fill it, whatever the step has; a search asks for thousands of steps, and they share a few hundred
orders.
"""

from __future__ import annotations

from functools import lru_cache

from project.parallel.layout import ParallelLayout, is_schedule_file
from project.parallel.schedule_rules import IN_ROUNDS
from project.pipeline.placement import V_SHAPED
from project.planner.order import InFlight, order_of, peaks_in_flight

Peaks = tuple[tuple[InFlight, ...], ...]
"""By stage; several where one moment has more microbatches and another more that are whole."""


def in_flight(layout: ParallelLayout) -> Peaks:
    if layout.schedule in ("GPipe", "LoopedBFS"):  # all of the forward comes first
        return ((InFlight(layout.microbatches),),) * layout.stages
    split_backward = layout.recompute == "none"
    return _peaks(layout.schedule, layout.pp, layout.virtual_stages, filling(layout), split_backward)


def filling(layout: ParallelLayout) -> int:
    """Of the layout's microbatches as many as its peaks need."""
    schedule, pp, microbatches = layout.schedule, layout.pp, layout.microbatches
    if is_schedule_file(schedule):
        return microbatches
    if schedule in IN_ROUNDS:
        rounds = max(1, microbatches // pp)
        return min(rounds, 2) * (microbatches // rounds)
    return min(microbatches, 2 * pp if schedule in V_SHAPED else pp)


@lru_cache(maxsize=4096)
def _peaks(schedule: str, pp: int, virtual_stages: int, microbatches: int, split_backward: bool) -> Peaks:
    layout = ParallelLayout(pp=pp, virtual_stages=virtual_stages, schedule=schedule, microbatches=microbatches)
    found = {stage: peaks for row in order_of(layout) for stage, peaks in peaks_in_flight(row, split_backward).items()}
    return tuple(tuple(sorted(found[stage])) for stage in range(layout.stages))
