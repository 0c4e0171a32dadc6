"""A legal layout for every schedule."""

from typing import Any

from project.spec.layout import ParallelLayout
from project.spec.schedules.table import SCHEDULES


def layout_of(schedule: str, pp: int = 2, microbatches: int = 4, **others: Any) -> ParallelLayout:
    """A legal layout of the schedule, with two stages a rank if the schedule allows any number."""
    stages = SCHEDULES[schedule].stages_a_rank or 2
    return ParallelLayout(pp=pp, schedule=schedule, virtual_stages=stages, microbatches=microbatches, **others)
