"""Looped BFS (Lamy-Poirier, arXiv 2211.05953): GPipe with several stages a rank, breadth first."""

from collections.abc import Sequence

from project.spec.layout import ParallelLayout
from project.spec.schedules.action import Action
from project.spec.schedules.schedule import Schedule


def order(rank: int, stages: Sequence[int], layout: ParallelLayout) -> list[Action]:
    """All microbatches of a stage before the next stage, and back the way they came."""
    microbatches = range(layout.microbatches)
    forwards = (Action(stage, "F", microbatch) for stage in stages for microbatch in microbatches)
    backwards = (Action(stage, "B", microbatch) for stage in reversed(stages) for microbatch in reversed(microbatches))
    return [*forwards, *backwards]


LOOPED_BFS = Schedule(
    "LoopedBFS",
    "GPipe, one stage after the other",
    order,
    with_one_stage="GPipe",
    torch_class="LoopedBFS",
)
