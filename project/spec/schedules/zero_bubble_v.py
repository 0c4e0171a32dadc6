"""ZB-V (Qi et al., arXiv 2401.10241, section 6): ranks idle at its ends alone, where forward, gradients of inputs and
gradients of weights take as long.
"""

from collections.abc import Sequence

from project.spec.layout import ParallelLayout
from project.spec.schedules.action import Action
from project.spec.schedules.row import Row
from project.spec.schedules.schedule import Schedule, v_shaped


def order(rank: int, stages: Sequence[int], layout: ParallelLayout) -> list[Action]:
    """Fewer microbatches than fill the pipeline are run as if there were enough, and those that are not there left
    out."""
    row, (down, up) = Row(), stages
    after = layout.pp - rank
    filling = max(2 * layout.pp - 1, layout.microbatches)

    def whole(stage: int) -> None:
        row.backward(stage, split=True)
        row.weights(stage)

    for _ in range(2 * after - 1):
        row.forward(down)
    for _ in range(rank):
        row.forward(up)
        row.forward(down)
    for _ in range(after):
        row.forward(up)
        whole(up)
    while row.begun[up] < filling:
        if row.begun[down] < filling:
            row.forward(down)
        whole(down)
        row.forward(up)
        whole(up)
    for _ in range(rank):
        row.backward(down, split=True)
        row.backward(up, split=True)
    for _ in range(after):
        whole(down)
    for stage in (up, down):
        for _ in range(rank):
            row.weights(stage)
    return [action for action in row.actions if action.microbatch < layout.microbatches]


ZERO_BUBBLE_V = Schedule(
    "ZBVZeroBubble",
    "ZB-V: weight gradients fill all idling",
    order,
    placement=v_shaped,
    stages_a_rank=2,
    filled_by=lambda layout: min(layout.microbatches, 2 * layout.pp),
    splits_backward=True,
    wait=lambda forward, inputs, weights: max(0.0, forward + inputs - 2 * weights),
    torch_class="ZBVZeroBubble",
)
