"""The best layout of all that are legal. No torch.

Every candidate is timed by the closed forms of `step_time` and weighed exactly (`planner.memory`); those that
hold more than a device has are left out. Left out unseen are those that a lower bound shows to take (or, if that is the
objective, to hold) more than `SLACK` times the best so far, once there are as many better ones as are wanted. The best
are timed again, action by action (`project.planner.search.settle`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from project.planner.cost.step_time import fastest
from project.planner.cost.workload import workload
from project.planner.machine.cluster import Cluster
from project.planner.memory.memory import least, peak
from project.planner.search import space
from project.planner.search.candidate import Candidate, Objective, closed_form_seconds, value
from project.planner.search.limit import Limit
from project.planner.search.settle import settled, time_against_memory
from project.planner.step import Step
from project.spec.layout import ParallelLayout

SLACK = 1.5
WANTED = 10
LAST_WAVE = 0.9  # of a microbatch's time, what remains where larger ones fill the last wave of tiles


@dataclass
class Found:
    """`best` is what was looked at and fits, by the objective, best first: all that is within `slack` of the best, and
    as many as were wanted, within a limit. `splits` counts the legal degrees, `timed` and `weighed` the candidates
    whose time and whose memory was worked out; `cut` is whether any was left out for what it takes, rather than for
    its memory. `seconds` are of one core."""

    best: list[Candidate] = field(default_factory=list)
    slack: float = SLACK
    splits: int = 0
    timed: int = 0
    weighed: int = 0
    cut: bool = False
    seconds: float = 0.0

    @property
    def fronts(self) -> list[Candidate]:
        """Time against memory."""
        return time_against_memory(self.best)


def search(
    step: Step,
    cluster: Cluster,
    gpus: int | None = None,
    objective: Objective = "time",
    slack: float = SLACK,
    wanted: int = WANTED,
    limit: float = float("inf"),
    room: float | None = None,
) -> Found:
    """Of the step's model and batch, whatever its layout is, on the cluster or so many of its `gpus`. Nothing beyond
    `limit` by the objective is of interest. `room` is the bytes of a device, the cluster's unless given."""
    began = time.process_time()
    gpus = cluster.gpus if gpus is None else gpus
    room = cluster.memory_per_rank(gpus) if room is None else room
    looking = _Looking(step, cluster, gpus, objective, room, Limit(limit, slack, wanted, objective, cluster))
    candidates = list(looking.through())
    near = [one for one in candidates if value(one, objective) <= looking.limit.now]
    looking.found.best = settled(near, step, cluster, objective)
    looking.found.seconds = time.process_time() - began
    return looking.found


class _Looking:
    """Through all candidates for those within the limit."""

    def __init__(
        self, step: Step, cluster: Cluster, gpus: int, objective: Objective, room: float, limit: Limit
    ) -> None:
        self.step, self.cluster, self.gpus, self.objective = step, cluster, gpus, objective
        self.room, self.limit, self.found = room, limit, Found(slack=limit.slack)
        self.by_memory = objective == "memory"
        self.price = gpus if objective == "cost" else 1  # of a second
        self.reserved = int(cluster.reserved_bytes)

    def through(self) -> Iterator[Candidate]:
        step = self.step
        every = space.degrees(step.config, self.gpus, step.batch, step.seq_len)
        degrees = [(self.bound(layout), place, layout) for place, layout in enumerate(every)]
        self.found.splits = len(degrees)
        for bound, _, layout in sorted(degrees):
            if self.is_beyond(bound):
                return
            for some in self.shapes(layout):
                for candidate in space.pipelines(some, step.config):
                    one = self.measured(candidate)
                    if one is not None:
                        yield one

    def bound(self, degrees: ParallelLayout) -> float:
        """What any pipeline over them takes, or holds, at least: one large microbatch makes the most of everything but
        for the last wave of its tiles."""
        return self.smallest(degrees) if self.by_memory else LAST_WAVE * self.fastest(degrees)

    def shapes(self, degrees: ParallelLayout) -> Iterator[ParallelLayout]:
        """With microbatches and recomputation: those that may come near the best, and fit."""
        if self.smallest(degrees) > self.room:
            return
        for microbatches in space.microbatches(degrees, self.step.batch):
            for recompute in space.RECOMPUTATIONS:
                some = replace(degrees, microbatches=microbatches, recompute=recompute)
                if not self.by_memory and self.is_beyond(self.fastest(some)):
                    break  # each takes longer than the one before
                held = self.least(some)
                if held <= self.room and not (self.by_memory and self.is_beyond(held)):
                    yield some

    def fastest(self, layout: ParallelLayout) -> float:
        """By the objective: what its time costs."""
        return self.price * self.step.accumulate * fastest(workload(self.step, layout), layout, self.cluster)

    def least(self, layout: ParallelLayout) -> float:
        return least(replace(self.step, layout=layout), self.reserved)

    def smallest(self, degrees: ParallelLayout) -> float:
        """Of all microbatches and recomputations: what is held is a constant and a part for each token of a
        microbatch, or of the batch but one."""
        ends = {1, self.step.batch // degrees.dp}
        return min(
            self.least(replace(degrees, microbatches=number, recompute=recompute))
            for number in ends
            for recompute in space.RECOMPUTATIONS
        )

    def measured(self, layout: ParallelLayout) -> Candidate | None:
        """What it is ranked by first, for that may be enough to leave it out."""
        seconds = 0.0 if self.by_memory else self.time(layout)
        if self.is_beyond(seconds * self.price):
            return None
        held = self.weigh(layout)
        if held > self.room or (self.by_memory and self.is_beyond(held)):
            return None
        one = Candidate(layout, self.time(layout) if self.by_memory else seconds, held)
        self.limit.note(value(one, self.objective))
        return one

    def is_beyond(self, value: float) -> bool:
        self.found.cut |= value > self.limit.now
        return value > self.limit.now

    def time(self, layout: ParallelLayout) -> float:
        self.found.timed += 1
        return closed_form_seconds(self.step, layout, self.cluster)

    def weigh(self, layout: ParallelLayout) -> int:
        self.found.weighed += 1
        return peak(replace(self.step, layout=layout), self.reserved)


def overrides(layout: ParallelLayout) -> str:
    """The part of `project/train.py`'s command line that says it."""
    names = ("pp", "dp", "tp", "ep", "etp", "dp_mode", "schedule", "microbatches", "virtual_stages", "recompute")
    said = [f"parallel.{name}={getattr(layout, name)}" for name in names]
    sizes = "null" if layout.partition is None else f"[{','.join(map(str, layout.partition))}]"
    return " ".join([*said, f"parallel.partition={sizes}"])
