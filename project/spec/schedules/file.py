"""A schedule written by hand or by another program: the compute-only CSV of `torch.distributed.pipelining`, in which a
row is a pipeline rank and a cell an action. `file_faults` says what is wrong with one.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from project.spec.layout import ParallelLayout
from project.spec.schedules.action import Action, parse_cell
from project.spec.schedules.schedule import Schedule
from project.spec.untrusted import read_text


def is_schedule_file(schedule: str) -> bool:
    return schedule.endswith(".csv")


def read_table(path: str) -> list[list[str]]:
    """The cells of each row. Unreadable or csv.Error for a file that is none."""
    text = read_text(Path(path))
    if "\0" in text:
        raise csv.Error("it has a NUL character")
    return list(csv.reader(io.StringIO(text, newline="")))


def read_schedule(path: str) -> list[list[Action]]:
    """The actions of each pipeline rank, in its order. A relative path starts where the command was started.

    ValueError for a file that cannot be read: `schedule_file_faults` says why.
    """
    return [[action for cell in map(parse_cell, row) for action in cell] for row in read_table(path)]


def from_file(path: str) -> Schedule:
    """The record of the schedule in a file. It is for one number of stages and microbatches, which the file's own check
    holds against the layout. Errors as of `read_schedule`."""
    rows = read_schedule(path)
    rank_of = {action.stage: rank for rank, row in enumerate(rows) for action in row}

    def order(rank: int, stages: Sequence[int], layout: ParallelLayout) -> list[Action]:
        return rows[rank]

    return Schedule(
        path,
        "a file has a row for each pipeline rank",
        order,
        placement=lambda layout: [rank_of[stage] for stage in range(layout.stages)],
        filled_by=lambda layout: layout.microbatches,
    )
