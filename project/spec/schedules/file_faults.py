"""Faults of a schedule's file: whether it can be read, and whether it can be run under a layout."""

import csv
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from project.spec.layout import ParallelLayout
from project.spec.schedules.action import parse_cell
from project.spec.schedules.file import read_table
from project.spec.schedules.soundness import Rows, count_faults, order_faults, stuck
from project.spec.schedules.table import SCHEDULES
from project.spec.untrusted import Unreadable

_TOLD = 3


def schedule_file_faults(path: str, layout: ParallelLayout) -> list[str]:
    """Sentences about the first kind of fault, for other kinds may follow from it. Rows and columns count from 1."""
    try:
        table = read_table(path)
    except Unreadable as error:
        if not os.path.lexists(path):
            return [f"does not exist; give a path, a relative one from {Path.cwd()}, or one of {', '.join(SCHEDULES)}"]
        return [error.problem]
    except csv.Error as error:
        return [f"is no CSV: {error}"]
    if len(table) != layout.pp:
        return [f"has {len(table)} rows, but parallel.pp={layout.pp} ranks, of which each needs one"]
    if found := _told(_unreadable(table)):
        return found
    rows = [[parse_cell(text) for text in row] for row in table]
    for faults in (_out_of_range, _misplaced, count_faults, order_faults, _deadlock):
        if found := _told(faults(rows, layout)):
            return found
    return []


def _told(faults: Iterator[str]) -> list[str]:
    """The first few: a file of another kind may have a million."""
    found = list(islice(faults, _TOLD + 1))
    return [*found[:_TOLD], *(["and more"] if found[_TOLD:] else [])]


def _unreadable(table: list[list[str]]) -> Iterator[str]:
    for row, texts in enumerate(table, 1):
        for column, text in enumerate(texts, 1):
            try:
                parse_cell(text)
            except ValueError as error:
                yield f"row {row}, column {column}: {error}"


def _out_of_range(rows: Rows, layout: ParallelLayout) -> Iterator[str]:
    for row, cells in enumerate(rows, 1):
        for column, cell in enumerate(cells, 1):
            for action in cell:
                if action.stage >= layout.stages:
                    last = f"the last stage (parallel.pp x parallel.virtual_stages) is {layout.stages - 1}"
                    yield f"row {row}, column {column}: {action} is of stage {action.stage}, but {last}"
                if action.microbatch >= layout.microbatches:
                    last = f"the last of parallel.microbatches={layout.microbatches} is {layout.microbatches - 1}"
                    yield f"row {row}, column {column}: {action} is of microbatch {action.microbatch}, but {last}"


def _misplaced(rows: Rows, layout: ParallelLayout) -> Iterator[str]:
    held = [sorted({action.stage for cell in cells for action in cell}) for cells in rows]
    for stage in sorted(set().union(*held)):
        holders = [row for row, stages in enumerate(held, 1) if stage in stages]
        if len(holders) > 1:
            yield f"stage {stage} is in rows {', '.join(map(str, holders))}, but a stage is on one rank"
    for row, stages in enumerate(held, 1):
        if len(stages) != layout.virtual_stages:
            named = ", ".join(map(str, stages)) or "none"
            yield f"row {row} has {len(stages)} stages ({named}), but parallel.virtual_stages={layout.virtual_stages}"


def _deadlock(rows: Rows, layout: ParallelLayout) -> Iterator[str]:
    if waiting := stuck(rows, layout.stages):
        at = ", ".join(f"row {rank + 1} at {action} for {needed}" for rank, action, needed in waiting)
        yield f"deadlocks: ranks would wait forever, {at}"
