"""A layout for a schedule, whatever the schedule asks of stages and microbatches."""

from typing import Any

from project.spec.layout import ParallelLayout
from project.spec.schedules.table import SCHEDULES


def layout_of(schedule: str, pp: int = 2, microbatches: int = 4, **others: Any) -> ParallelLayout:
    """Two stages a rank where it may have any number."""
    stages = SCHEDULES[schedule].stages_a_rank or 2
    return ParallelLayout(pp=pp, schedule=schedule, virtual_stages=stages, microbatches=microbatches, **others)
