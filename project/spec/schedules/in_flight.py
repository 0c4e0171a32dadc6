"""How many microbatches are in flight at each stage when it has most, for schedules of any length. No torch.

A schedule that is full repeats itself: a hundred rounds hold what two do. So the order that is looked at is that of as
many microbatches as fill it, whatever the step has; a search asks for thousands of steps, and they share a few hundred
orders.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from project.spec.layout import ParallelLayout, is_schedule_file
from project.spec.legality.schedules import IN_ROUNDS
from project.spec.placement import V_SHAPED
from project.spec.schedules.action import Action
from project.spec.schedules.order import order_of


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
    """What an action does to the microbatches in flight. The first stage has no inputs' half: torch runs all of a
    backward at the weights' turn there."""
    if kind in "FB":
        return InFlight(1 if kind == "F" else -1)
    if not split_backward or stage == 0:
        return InFlight(-1 if (kind == "W") == split_backward else 0)
    return InFlight(-1, 1) if kind == "I" else InFlight(0, -1)


def most(moments: set[InFlight]) -> set[InFlight]:
    """Those that no other surpasses."""
    return {
        one
        for one in moments
        if not any(other != one and other.whole >= one.whole and other.all >= one.all for other in moments)
    }


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
