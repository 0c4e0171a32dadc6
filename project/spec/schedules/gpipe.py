"""GPipe (Huang et al., arXiv 1811.06965): all forwards, then all backwards."""

from collections.abc import Sequence

from project.spec.layout import ParallelLayout
from project.spec.schedules.action import Action
from project.spec.schedules.schedule import FILL_AND_DRAIN, Schedule, fill_and_drain


def order(rank: int, stages: Sequence[int], layout: ParallelLayout) -> list[Action]:
    (stage,) = stages
    return [Action(stage, kind, microbatch) for kind in "FB" for microbatch in range(layout.microbatches)]


GPIPE = Schedule(
    "GPipe",
    "all forwards, then all backwards",
    order,
    stages_a_rank=1,
    bubble=fill_and_drain,
    bubble_formula=FILL_AND_DRAIN,
    torch_class="GPipe",
)
