"""A schedule that comes from a file, against the layout that it is for."""

from __future__ import annotations

from collections.abc import Iterator

from project.spec.fault import Fault
from project.spec.layout import ParallelLayout, is_schedule_file
from project.spec.schedules.file import schedule_file_faults


def schedule_faults(layout: ParallelLayout) -> Iterator[Fault]:
    """Says nothing where the layout's own numbers are unusable: those are faults already."""
    counts = (layout.pp, layout.virtual_stages, layout.microbatches)
    if not isinstance(layout.schedule, str) or not is_schedule_file(layout.schedule):
        return
    if all(type(count) is int and count > 0 for count in counts):
        found = schedule_file_faults(layout.schedule, layout)
        if found:
            yield Fault("parallel.schedule", layout.schedule, "; ".join(found))
