"""Whether fewer GPUs than a cluster has would do as well. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from project.planner.machine.cluster import Cluster
from project.planner.search.candidate import Objective, value
from project.planner.search.limit import within
from project.planner.search.search import SLACK, WANTED, Found, search
from project.planner.step import Step

AS_WELL = 1.05  # fewer GPUs do as well when they take (hold, cost) no more than this
REACH: dict[Objective, float] = {"time": SLACK, "memory": SLACK, "cost": 1.2}
"""How many times the best of all is still looked at, on fewer GPUs."""
NEAREST = 1.05  # only the best of so many GPUs is asked for: what may prove to be it when timed action by action


def counts(gpus: int) -> Iterator[int]:
    """Half as many as long as that is even, then the largest power of two below, and so on down to one."""
    while gpus > 1:
        gpus = gpus // 2 if gpus % 2 == 0 else 2 ** (gpus.bit_length() - 1)
        yield gpus


def fewer(step: Step, cluster: Cluster, of_all: Found, objective: Objective) -> list[tuple[int, Found]]:
    """The same search on fewer and fewer GPUs, until there are legal layouts of which none fits, or none is within
    `REACH`: the last one's `best` is then empty. By cost, which ranks any number of GPUs with all others, all that is
    within is found, and as many of the best as are wanted."""
    reach, found = REACH[objective], []
    slack, wanted = (reach, WANTED) if objective == "cost" else (NEAREST, 1)
    best = sorted(value(one, objective) for one in of_all.best)[:wanted]
    for gpus in counts(cluster.gpus):
        limit = max(within(reach, best[0], objective, cluster), best[-1])
        there = search(step, cluster, gpus, objective, slack, wanted, limit)
        found.append((gpus, there))
        if not there.best and there.splits:
            break
        best = sorted([*best, *(value(one, objective) for one in there.best)])[:wanted]
    return found
