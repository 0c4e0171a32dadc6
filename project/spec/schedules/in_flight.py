"""Peak number of microbatches in flight at each stage, for schedules of any length.

A schedule that is full repeats itself: a hundred rounds hold what two do. So the order that is looked at is that of as
many microbatches as fill it, whatever the step has; a search asks for thousands of steps, and they share a few hundred
orders.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from project.spec.layout import ParallelLayout
from project.spec.schedules.action import Action
from project.spec.schedules.order import order_of
from project.spec.schedules.table import schedule_of


class InFlight(NamedTuple):
    """A stage's microbatches whose forward has run and whose backward has not: not begun, or in its `second_half`, the
    weights'."""

    whole: int
    second_half: int = 0

    @property
    def all(self) -> int:
        return self.whole + self.second_half


def peaks_in_flight(actions: Sequence[Action], split_backward: bool = True) -> dict[int, set[InFlight]]:
    """By stage: most at once, after some forward; several where one has more microbatches and another more that are
    whole. Where layers are recomputed both halves of a backward run at the inputs' turn (`split_backward`, as
    `RecordedStage` has it)."""
    here: dict[int, InFlight] = defaultdict(lambda: InFlight(0))
    found: dict[int, set[InFlight]] = defaultdict(set)
    for stage, kind, _ in actions:
        whole, second_half = change(stage, kind, split_backward)
        here[stage] = InFlight(here[stage].whole + whole, here[stage].second_half + second_half)
        if kind == "F":
            found[stage].add(here[stage])
    return {stage: most(moments) for stage, moments in found.items()}


def change(stage: int, kind: str, split_backward: bool) -> InFlight:
    """The change that an action makes to the microbatches in flight. The first stage has no inputs' half: torch runs
    all of a backward at the weights' turn there."""
    if kind in "FB":
        return InFlight(1 if kind == "F" else -1)
    if not split_backward or stage == 0:
        return InFlight(-1 if (kind == "W") == split_backward else 0)
    return InFlight(-1, 1) if kind == "I" else InFlight(0, -1)


def most(moments: set[InFlight]) -> set[InFlight]:
    """The moments that no other surpasses."""
    return {
        one
        for one in moments
        if not any(other != one and other.whole >= one.whole and other.all >= one.all for other in moments)
    }


Peaks = tuple[tuple[InFlight, ...], ...]
"""By stage; several where one moment has more microbatches and another more that are whole."""


def in_flight(layout: ParallelLayout) -> Peaks:
    filled_by = schedule_of(layout).filled_by
    if filled_by is None:
        return ((InFlight(layout.microbatches),),) * layout.stages
    split_backward = layout.recompute == "none"
    return _peaks(layout.schedule, layout.pp, layout.virtual_stages, filled_by(layout), split_backward)


@lru_cache(maxsize=4096)
def _peaks(schedule: str, pp: int, virtual_stages: int, microbatches: int, split_backward: bool) -> Peaks:
    layout = ParallelLayout(pp=pp, virtual_stages=virtual_stages, schedule=schedule, microbatches=microbatches)
    found = {stage: peaks for row in order_of(layout) for stage, peaks in peaks_in_flight(row, split_backward).items()}
    return tuple(tuple(sorted(found[stage])) for stage in range(layout.stages))


def share_in_flight(layout: ParallelLayout, rank: int) -> float:
    """Microbatches of which a pipeline rank holds its whole share of the layers, when it holds most: those in flight at
    any of its stages, over the number of its stages."""
    filled_by = schedule_of(layout).filled_by
    if filled_by is None:
        return layout.microbatches
    filled = replace(layout, microbatches=filled_by(layout))
    steps = [change(stage, kind, layout.recompute == "none") for stage, kind, _ in order_of(filled)[rank]]
    return max(accumulate(step.all for step in steps)) / layout.virtual_stages
