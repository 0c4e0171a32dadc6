"""V-Half (Qi et al., "Pipeline Parallelism with Controllable Memory", arXiv 2405.15362): half of 1F1B's activations on
every rank, (p + 2) // 2 microbatches, and about half of its bubble.

Where forward and gradients of inputs and of weights take as long, the bubble is 3.5 p - 4 actions of a stage for even p
(the paper, which also moves actions at the ends, has about 3 p), against 6 (p - 1) for 1F1B. A full pipeline does not
stall as long as 2 max(F, I) <= F + I + W / 2 (the paper's condition W + 2 B >= 2 F and W + 2 F >= 2 B).
"""

from collections.abc import Sequence

from project.spec.layout import ParallelLayout
from project.spec.schedules.action import Action
from project.spec.schedules.building_block import BuildingBlock
from project.spec.schedules.schedule import Schedule, v_shaped


def block(pp: int) -> BuildingBlock:
    """Neighbours are 1 unit apart down the V and 2 units up, so that each rank's two stages together hold a microbatch
    for 6 (p - 1) units and the turns. Actions of a rank fall on units of their own whatever the rank if no turn is a
    multiple of 3; the turns that are shortest then depend on whether p is even."""
    return BuildingBlock(down=1, up=2, turns=(2, 1, 1) if pp % 2 else (5, 1, 4))


def order(rank: int, stages: Sequence[int], layout: ParallelLayout) -> list[Action]:
    return block(layout.pp).order(rank, stages, layout)


def stall(forward: float, inputs: float, weights: float) -> float:
    return max(0.0, 2 * max(forward, inputs) - forward - inputs - weights / 2)


V_HALF = Schedule(
    "VHalf",
    "V-Half: half of 1F1B's activations",
    order,
    placement=v_shaped,
    stages_a_rank=2,
    filled_by=lambda layout: min(layout.microbatches, 2 * layout.pp),
    splits_backward=True,
    wait=lambda forward, inputs, weights: max(0.0, (3 * forward + 5 * inputs - weights) / 2),
    stall=stall,
)
