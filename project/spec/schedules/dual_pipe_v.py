"""DualPipe (DeepSeek-V3, arXiv 2412.19437, section 3.2.1) folded to a V, in the eight steps of its authors' code
(github.com/deepseek-ai/DualPipe).
"""

from collections.abc import Sequence

from project.spec.layout import ParallelLayout
from project.spec.schedules.action import Action
from project.spec.schedules.row import Row
from project.spec.schedules.schedule import Schedule, v_shaped


def order(rank: int, stages: Sequence[int], layout: ParallelLayout) -> list[Action]:
    row, (down, up) = Row(), stages
    after, half = layout.pp - 1 - rank, (rank + 1) // 2
    for _ in range(2 * after):
        row.forward(down)
    for _ in range(rank + 1):
        row.forward(down)
        row.forward(up)
    for _ in range(after):
        row.backward(up, split=True)
        row.weights()
        row.forward(up)
    for _ in range(layout.microbatches - 2 * layout.pp + rank + 1):
        row.forward(down)
        row.backward(up)
        row.forward(up)
        row.backward(down)
    for _ in range(after):
        row.backward(up)
        row.forward(up)
        row.backward(down)
    for turn in range(rank + 1):
        row.backward(up, split=turn > half or (turn == half and rank % 2 == 1))
        row.backward(down, split=turn >= half)
    for _ in range(after):
        row.weights()
        row.backward(down, split=True)
    for _ in range(rank + 1):
        row.weights()
    return row.actions


DUAL_PIPE_V = Schedule(
    "DualPipeV",
    "DeepSeek's DualPipe, folded to a V",
    order,
    placement=v_shaped,
    stages_a_rank=2,
    for_fewer_microbatches="ZBVZeroBubble",
    filled_by=lambda layout: min(layout.microbatches, 2 * layout.pp),
    splits_backward=True,
    wait=lambda forward, inputs, weights: max(0.0, forward + inputs - 2 * weights),
    torch_class="DualPipeV",
)
