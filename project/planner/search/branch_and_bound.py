"""The search for the best layout, by branch and bound.

Every candidate is timed by closed forms (`project.planner.cost.step_time`) and its memory is computed exactly
(`project.planner.memory`); those that hold more than a device has are left out. Degrees whose lower bound of time (or,
if that is the objective, of memory) exceeds the pruning threshold are never looked at: `SLACK` times the best so far,
once there are as many better candidates as are wanted. The best are simulated (`project.planner.search.candidate`).
"""

import time
from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from project.planner.cost.step_time import bubble_free_seconds
from project.planner.cost.workload import workload
from project.planner.machine.cluster import Cluster
from project.planner.memory.peak import least, peak
from project.planner.search import space
from project.planner.search.candidate import (
    Candidate,
    Objective,
    closed_form_seconds,
    objective_value,
    settled,
    time_against_memory,
)
from project.planner.step import Step
from project.spec.layout import RECOMPUTE, ParallelLayout

SLACK = 1.5
WANTED = 10
LAST_WAVE = 0.9  # of a microbatch's time, what remains where larger ones fill the last wave of tiles


def within(slack: float, best: float, objective: Objective, cluster: Cluster) -> float:
    """`slack` times the best value; for memory, of the bytes beside the reserved ones."""
    reserved = int(cluster.reserved_bytes) if objective == "memory" else 0
    return reserved + slack * (best - reserved)


class Threshold:
    """Pruning threshold of the search, by the objective: `now` is `slack` times the best value so far, at least the
    last of the `wanted` best values, and at most `at_first`."""

    def __init__(self, at_first: float, slack: float, wanted: int, objective: Objective, cluster: Cluster) -> None:
        self.at_first, self.now, self.slack, self.wanted = at_first, at_first, slack, wanted
        self.objective, self.cluster = objective, cluster
        self.best: list[float] = []

    def note(self, value: float) -> None:
        insort(self.best, value)
        del self.best[self.wanted :]
        if len(self.best) == self.wanted:
            near = within(self.slack, self.best[0], self.objective, self.cluster)
            self.now = min(self.at_first, max(near, self.best[-1]))


@dataclass
class Found:
    """`best` has the candidates that fit, by the objective, best first: at least all within `slack` times the best, and
    as many as were wanted, within the limit. `splits` counts the legal degrees, `timed` and `weighed` the candidates
    whose time and whose memory was computed; `cut` says whether any was pruned for its value rather than for its
    memory. `seconds` are of one core."""

    best: list[Candidate] = field(default_factory=list)
    slack: float = SLACK
    splits: int = 0
    timed: int = 0
    weighed: int = 0
    cut: bool = False
    seconds: float = 0.0

    @property
    def fronts(self) -> list[Candidate]:
        """Pareto front of time against memory."""
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
    """Searches all layouts of the step's model and batch (its own layout does not matter) on the cluster, or on `gpus`
    of its GPUs. Candidates with a value above `limit` are pruned. `room` is the bytes that a rank may hold, by default
    what the cluster has."""
    began = time.process_time()
    gpus = cluster.gpus if gpus is None else gpus
    room = cluster.memory_per_rank(gpus) if room is None else room
    state = _Search(step, cluster, gpus, objective, room, Threshold(limit, slack, wanted, objective, cluster))
    candidates = list(state.through())
    near = [one for one in candidates if objective_value(one, objective) <= state.threshold.now]
    state.found.best = settled(near, step, cluster, objective)
    state.found.seconds = time.process_time() - began
    return state.found


class _Search:
    """One search: goes through all candidates, and prunes."""

    def __init__(
        self, step: Step, cluster: Cluster, gpus: int, objective: Objective, room: float, threshold: Threshold
    ) -> None:
        self.step, self.cluster, self.gpus, self.objective = step, cluster, gpus, objective
        self.room, self.threshold, self.found = room, threshold, Found(slack=threshold.slack)
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
        """Lower bound of the value of any pipeline over these degrees: one large microbatch is the most efficient,
        except for the last wave of its tiles."""
        return self.smallest(degrees) if self.by_memory else LAST_WAVE * self.bubble_free(degrees)

    def shapes(self, degrees: ParallelLayout) -> Iterator[ParallelLayout]:
        """Adds microbatches and recomputation, and leaves out what cannot fit or come near the best."""
        if self.smallest(degrees) > self.room:
            return
        for microbatches in space.microbatches(degrees, self.step.batch):
            for recompute in RECOMPUTE:
                some = replace(degrees, microbatches=microbatches, recompute=recompute)
                if not self.by_memory and self.is_beyond(self.bubble_free(some)):
                    break  # each takes longer than the one before
                held = self.least(some)
                if held <= self.room and not (self.by_memory and self.is_beyond(held)):
                    yield some

    def bubble_free(self, layout: ParallelLayout) -> float:
        """Lower bound of time or cost, without a bubble."""
        return (
            self.price * self.step.accumulate * bubble_free_seconds(workload(self.step, layout), layout, self.cluster)
        )

    def least(self, layout: ParallelLayout) -> float:
        return least(replace(self.step, layout=layout), self.reserved)

    def smallest(self, degrees: ParallelLayout) -> float:
        """Least bytes over all microbatches and recomputations. Bytes are linear in the tokens of a microbatch, so
        one of the two ends is least."""
        ends = {1, self.step.batch // degrees.dp}
        return min(
            self.least(replace(degrees, microbatches=number, recompute=recompute))
            for number in ends
            for recompute in RECOMPUTE
        )

    def measured(self, layout: ParallelLayout) -> Candidate | None:
        """Computes first what the candidate is ranked by, which may be enough to prune it."""
        seconds = 0.0 if self.by_memory else self.time(layout)
        if self.is_beyond(seconds * self.price):
            return None
        held = self.weigh(layout)
        if held > self.room or (self.by_memory and self.is_beyond(held)):
            return None
        one = Candidate(layout, self.time(layout) if self.by_memory else seconds, held)
        self.threshold.note(objective_value(one, self.objective))
        return one

    def is_beyond(self, value: float) -> bool:
        self.found.cut |= value > self.threshold.now
        return value > self.threshold.now

    def time(self, layout: ParallelLayout) -> float:
        self.found.timed += 1
        return closed_form_seconds(self.step, layout, self.cluster)

    def weigh(self, layout: ParallelLayout) -> int:
        self.found.weighed += 1
        return peak(replace(self.step, layout=layout), self.reserved)
