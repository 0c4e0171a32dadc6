"""Whether a ranking holds over all that a cluster's file leaves open: the intervals of latency, bandwidth and launch
cost. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from project.parallel.layout import ParallelLayout
from project.planner.cluster import Cluster, Link, Stated
from project.planner.search import Candidate
from project.planner.step_time import step_time
from project.planner.workload import Workload

NOTICEABLE = 0.01  # a winner that wins by less has won nothing


class Turn(NamedTuple):
    """At one end of one interval: the fastest, its seconds, and those of the layout that is best as stated."""

    quantity: str
    end: str
    winner: ParallelLayout
    seconds: float
    stated_best: float

    @property
    def loses(self) -> float:
        """By how much the layout that is best as stated is slower there."""
        return self.stated_best / self.seconds - 1


def turns(best: Sequence[Candidate], of: Callable[[ParallelLayout], Workload], cluster: Cluster) -> list[Turn]:
    """`best` as `search` found it, the best first. What the action by action timing added to the closed form is taken
    to scale with it."""
    found = []
    as_stated = [step_time(of(one.layout), one.layout, cluster).total for one in best]
    for quantity, end, there in ends(cluster):
        seconds = [
            one.seconds * step_time(of(one.layout), one.layout, there).total / closed
            for one, closed in zip(best, as_stated, strict=True)
        ]
        fastest = min(range(len(best)), key=seconds.__getitem__)
        found.append(Turn(quantity, end, best[fastest].layout, seconds[fastest], seconds[0]))
    return found


def unstable(found: Sequence[Turn]) -> list[Turn]:
    return [turn for turn in found if turn.loses > NOTICEABLE]


def ends(cluster: Cluster) -> Iterator[tuple[str, str, Cluster]]:
    """Both tiers' links are taken to their ends together."""
    for end in ("low", "high"):
        yield "launch cost", end, replace(cluster, launch_s=_at(cluster.launch_s, end))
        for quantity in ("latency", "bandwidth"):
            yield (
                quantity,
                end,
                replace(cluster, intra=_link(cluster.intra, quantity, end), inter=_link(cluster.inter, quantity, end)),
            )


def _link(link: Link, quantity: str, end: str) -> Link:
    if quantity == "latency":
        return replace(link, latency_s=_at(link.latency_s, end))
    return replace(link, bandwidth=_at(link.bandwidth, end))


def _at(stated: Stated, end: str) -> Stated:
    return replace(stated, value=getattr(stated, end))
