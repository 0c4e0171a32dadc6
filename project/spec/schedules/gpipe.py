"""GPipe (Huang et al., arXiv 1811.06965): all forwards, then all backwards."""

from __future__ import annotations

from collections.abc import Sequence

from project.spec.layout import ParallelLayout
from project.spec.schedules.action import Action
from project.spec.schedules.schedule import Schedule


def order(rank: int, stages: Sequence[int], layout: ParallelLayout) -> list[Action]:
    (stage,) = stages
    return [Action(stage, kind, microbatch) for kind in "FB" for microbatch in range(layout.microbatches)]


def bubble(layout: ParallelLayout) -> float:
    """(p - 1) / (m + p - 1)."""
    return (layout.pp - 1) / (layout.microbatches + layout.pp - 1)


GPIPE = Schedule(
    "GPipe",
    "all forwards, then all backwards",
    order,
    stages_a_rank=1,
    bubble=bubble,
    torch_class="GPipe",
)
