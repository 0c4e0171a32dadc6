"""1F1B (Narayanan et al., arXiv 2104.04473, section 2.2): as few microbatches in flight as keep the pipeline full."""

from collections.abc import Sequence

from project.spec.layout import ParallelLayout
from project.spec.schedules.action import Action
from project.spec.schedules.row import Row
from project.spec.schedules.schedule import FILL_AND_DRAIN, Schedule, fill_and_drain


def order(rank: int, stages: Sequence[int], layout: ParallelLayout) -> list[Action]:
    """As many forwards as there are stages from here to the end, then one backward and one forward in turn."""
    (stage,) = stages
    row, warm_up = Row(), min(layout.microbatches, layout.pp - rank)
    for _ in range(warm_up):
        row.forward(stage)
    for _ in range(layout.microbatches - warm_up):
        row.backward(stage)
        row.forward(stage)
    for _ in range(warm_up):
        row.backward(stage)
    return row.actions


ONE_F_ONE_B = Schedule(
    "1F1B",
    "a forward and a backward in turn",
    order,
    stages_a_rank=1,
    for_fewer_microbatches="GPipe",
    filled_by=lambda layout: min(layout.microbatches, layout.pp),
    bubble=fill_and_drain,
    bubble_formula=FILL_AND_DRAIN,
    torch_class="1F1B",
)
