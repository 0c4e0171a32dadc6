"""V-Min (Qi et al., "Pipeline Parallelism with Controllable Memory", arXiv 2405.15362): the least activations that a
V-shaped schedule can hold, a third of 1F1B's on every rank, (p + 4) // 3 microbatches.

Where forward and gradients of inputs and of weights take as long, the bubble is about 4 (p - 1) actions of a stage, as
in the paper, against 6 (p - 1) for 1F1B. Ranks follow each other without slack: the longer one of forward and gradients
of the inputs sets the pace for all three, and a full pipeline stalls where they are uneven.
"""

from collections.abc import Sequence

from project.spec.layout import ParallelLayout
from project.spec.schedules.action import Action
from project.spec.schedules.building_block import BuildingBlock
from project.spec.schedules.schedule import Schedule, v_shaped


def block(pp: int) -> BuildingBlock:
    """Neighbours are 1 unit apart down the V and up, so that each rank's two stages together hold a microbatch for
    4 (p - 1) units and the turns. Odd turns keep ways down and ways up on units of their own; longer ones keep the two
    ways down apart, and the two ways up, where 2 p is a multiple of the block's period."""
    return BuildingBlock(down=1, up=1, turns=(1, 1, 1) if pp % 3 else (3, 1, 3))


def order(rank: int, stages: Sequence[int], layout: ParallelLayout) -> list[Action]:
    return block(layout.pp).order(rank, stages, layout)


def stall(forward: float, inputs: float, weights: float) -> float:
    return max(0.0, 3 * max(forward, inputs) - forward - inputs - weights)


V_MIN = Schedule(
    "VMin",
    "V-Min: a third of 1F1B's activations",
    order,
    placement=v_shaped,
    stages_a_rank=2,
    filled_by=lambda layout: min(layout.microbatches, 2 * layout.pp),
    splits_backward=True,
    wait=lambda forward, inputs, weights: forward + inputs + 2 * min(forward, inputs),
    stall=stall,
)
