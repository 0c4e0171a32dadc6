"""Schedules made of a building block that repeats (Qi et al., "Pipeline Parallelism with Controllable Memory", arXiv
2405.15362): one microbatch's way through a V of two stages a rank, begun anew every six units of time, as many as a
rank's two forwards, two gradients of inputs and two gradients of weights take. How long the block lives decides how
many microbatches are in flight.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from project.spec.layout import ParallelLayout
from project.spec.schedules.action import Action

PERIOD = 6


@dataclass(frozen=True)
class BuildingBlock:
    """One microbatch's times, in units of an action, all of which take one.

    `down` lies between the starts on two neighbours of what goes down the V, away from rank 0: the forward of a rank's
    first stage, and the gradient of its second. `up` lies between those of what comes back: the forward of the second
    stage, the gradient of the first. `turns` are those of one rank: from forward to forward on the last rank, from
    forward to gradient on rank 0, from gradient to gradient on the last rank.
    """

    down: int
    up: int
    turns: tuple[int, int, int]

    def starts(self, rank: int, pp: int) -> tuple[int, int, int, int]:
        """The starts of the forwards of a rank's first and second stage, and of the gradients of the inputs of the
        second and the first."""
        last = pp - 1
        way_down, way_up = self.down * rank, self.up * (last - rank)
        top = self.down * last + self.turns[0]
        bottom = top + self.up * last + self.turns[1]
        back = bottom + self.down * last + self.turns[2]
        return way_down, top + way_up, bottom + way_down, back + way_up

    def order(self, rank: int, stages: Sequence[int], layout: ParallelLayout) -> list[Action]:
        """The actions of all microbatches by their times, as early as their order lets them. Gradients of weights come
        in the first free unit after those of the inputs.

        ValueError if two actions of a rank fall on one unit of the period.
        """
        first, second = stages
        forward, forward_up, inputs_up, inputs = self.starts(rank, layout.pp)
        found = {forward: (first, "F"), forward_up: (second, "F"), inputs_up: (second, "I"), inputs: (first, "I")}
        taken = {start % PERIOD for start in found}
        if len(taken) < 4:
            raise ValueError(f"two actions of rank {rank} of {layout.pp} fall on one unit of {self}")
        for stage, after in ((second, inputs_up), (first, inputs)):
            start = next(time for time in range(after + 1, after + PERIOD + 1) if time % PERIOD not in taken)
            taken.add(start % PERIOD)
            found[start] = (stage, "W")
        timed = [
            (start + PERIOD * microbatch, Action(stage, kind, microbatch))
            for start, (stage, kind) in found.items()
            for microbatch in range(layout.microbatches)
        ]
        return [action for _, action in sorted(timed)]
