"""How near the best a candidate has to come to be of interest. No torch."""

from __future__ import annotations

from bisect import insort

from project.planner.machine.cluster import Cluster
from project.planner.search.candidate import Objective


def within(slack: float, best: float, objective: Objective, cluster: Cluster) -> float:
    """So many times the best; of memory, of what the trainer holds beside what is reserved."""
    reserved = int(cluster.reserved_bytes) if objective == "memory" else 0
    return reserved + slack * (best - reserved)


class Limit:
    """By the objective, what a candidate may take or hold: `now` is so near the best so far, or as good as the last of
    the `wanted` best, and no more than `at_first`."""

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
