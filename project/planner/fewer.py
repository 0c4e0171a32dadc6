"""Whether fewer GPUs than a cluster has would do as well. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from project.planner.candidate import Candidate, Objective, value
from project.planner.cluster import Cluster
from project.planner.search import SLACK, Found, search, within
from project.planner.traffic import Step

AS_WELL = 1.05  # fewer GPUs do as well when they take (hold, cost) no more than this
NEAREST = 1.05  # only the best of so many GPUs is asked for: what may prove to be it when timed action by action


def counts(gpus: int) -> Iterator[int]:
    """Half as many as long as that is even, then the largest power of two below, and so on down to one."""
    while gpus > 1:
        gpus = gpus // 2 if gpus % 2 == 0 else 2 ** (gpus.bit_length() - 1)
        yield gpus


def fewer(step: Step, cluster: Cluster, best: Candidate, objective: Objective) -> list[tuple[int, Found]]:
    """The same search on fewer and fewer GPUs, until there are legal layouts of which none fits, or none comes within
    `SLACK` times the best of all: the last one's `best` is then empty."""
    least, found = value(best, objective), []
    for gpus in counts(cluster.gpus):
        there = search(step, cluster, gpus, objective, NEAREST, within(SLACK, least, objective, cluster))
        found.append((gpus, there))
        if there.best:
            least = min(least, value(there.best[0], objective))
        elif there.splits:
            break
    return found
