"""Which pipeline rank holds which stage. No torch: the check and the planner read it."""

from __future__ import annotations

from project.spec.layout import ParallelLayout, is_schedule_file
from project.spec.schedules.file import read_schedule

V_SHAPED = ("ZBVZeroBubble", "DualPipeV")


def stage_to_rank(layout: ParallelLayout) -> list[int]:
    """The rank along pp of each stage: round and round, or down and up again, or as a schedule's file says."""
    if is_schedule_file(layout.schedule):
        rank_of = {action.stage: rank for rank, row in enumerate(read_schedule(layout.schedule)) for action in row}
        return [rank_of[stage] for stage in range(layout.stages)]
    ranks = range(layout.pp)
    if layout.schedule in V_SHAPED:
        return [*ranks, *reversed(ranks)]
    return [stage % layout.pp for stage in range(layout.stages)]


def stages_of(rank: int, layout: ParallelLayout) -> list[int]:
    return [stage for stage, holder in enumerate(stage_to_rank(layout)) if holder == rank]
