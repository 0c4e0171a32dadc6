"""ZB1P (Qi et al., arXiv 2401.10241) over any number of stages a rank."""

from collections.abc import Sequence
from itertools import repeat

from project.spec.layout import ParallelLayout
from project.spec.schedules.action import Action
from project.spec.schedules.interleaved import turns, two_rounds, warm_up
from project.spec.schedules.row import Row
from project.spec.schedules.schedule import Schedule


def order(rank: int, stages: Sequence[int], layout: ParallelLayout) -> list[Action]:
    """Weight gradients are computed `rank` backwards late, and fill the end."""
    row = Row()
    forwards, backwards = turns(layout, stages), turns(layout, stages[::-1])
    before = warm_up(rank, layout, hop=1)
    for stage in forwards[:before]:
        row.forward(stage)
    ahead = [*forwards[before:], *repeat(None, before)]
    for turn, (following, back) in enumerate(zip(ahead, backwards, strict=True)):
        if following is not None:
            row.forward(following)
        row.backward(back, split=True)
        if turn >= rank:
            row.weights()
    while row.waiting:
        row.weights()
    return row.actions


INTERLEAVED_ZERO_BUBBLE = Schedule(
    "InterleavedZeroBubble",
    "ZB1P: weight gradients fill idle time",
    order,
    in_rounds=True,
    filled_by=two_rounds,
    splits_backward=True,
    wait=lambda forward, inputs, weights: max(0.0, forward + inputs - weights),
    torch_class="InterleavedZeroBubble",
)
