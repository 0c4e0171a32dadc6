"""Which pipeline rank holds which stage."""

from __future__ import annotations

from project.spec.layout import ParallelLayout
from project.spec.schedules.table import schedule_of


def stage_to_rank(layout: ParallelLayout) -> list[int]:
    """The rank along pp of each stage."""
    return schedule_of(layout).placement(layout)


def stages_of(rank: int, layout: ParallelLayout) -> list[int]:
    return [stage for stage, holder in enumerate(stage_to_rank(layout)) if holder == rank]
