"""Whether a ranking holds over all that a cluster's file leaves open: the intervals of launch cost, latency,
bandwidth, and what small tiles of a matrix product reach. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from project.planner.machine.cluster import Cluster, Link, Stated, Tiles
from project.planner.search.candidate import Candidate, Objective, closed_form_seconds, value
from project.planner.step import Step

S = TypeVar("S", bound=Stated)
NOTICEABLE = 0.01  # a winner that wins by less has won nothing


class Turn(NamedTuple):
    """At one end of one interval: what is best there, with its seconds there; by the objective its value, and that of
    the layout that is best as stated."""

    quantity: str
    end: str
    winner: Candidate
    best: float
    stated_best: float

    @property
    def loses(self) -> float:
        """By how much the layout that is best as stated is worse there."""
        return self.stated_best / self.best - 1


def turns(best: Sequence[Candidate], step: Step, cluster: Cluster, objective: Objective) -> list[Turn]:
    """`best` as `search` found it, the best first. What the action by action timing added to the closed form is taken
    to scale with it. None where the objective depends on none of the intervals."""
    found: list[Turn] = []
    if not best or not applying(cluster, objective):
        return found
    as_stated = [closed_form_seconds(step, one.layout, cluster) for one in best]
    for quantity, end, changed in ends(cluster):
        there = [
            one._replace(seconds=one.seconds * closed_form_seconds(step, one.layout, changed) / closed)
            for one, closed in zip(best, as_stated, strict=True)
        ]
        values = [value(one, objective) for one in there]
        least = min(range(len(best)), key=values.__getitem__)
        found.append(Turn(quantity, end, there[least], values[least], values[0]))
    return found


def unstable(found: Sequence[Turn]) -> list[Turn]:
    return [turn for turn in found if turn.loses > NOTICEABLE]


def applying(cluster: Cluster, objective: Objective = "time") -> tuple[str, ...]:
    """The intervals that a ranking depends on: of memory none. Where ranks share a node's cores launches and bytes are
    part of what was measured of a rank's program (`Host`), which has no interval."""
    if objective == "memory":
        return ()
    if cluster.host is not None:
        return ("latency",)
    return "launch cost", "latency", "bandwidth", *(() if cluster.tiles is None else ("small tiles", "tile depth"))


def ends(cluster: Cluster) -> Iterator[tuple[str, str, Cluster]]:
    for quantity in applying(cluster):
        for end in ("low", "high"):
            yield quantity, end, _changed(cluster, quantity, end)


def _changed(cluster: Cluster, quantity: str, end: str) -> Cluster:
    """Both tiers' links go to their ends together, and so does what tiles of all sizes reach."""
    if quantity == "launch cost":
        return replace(cluster, launch_s=_at(cluster.launch_s, end))
    if quantity in ("latency", "bandwidth"):
        return replace(cluster, intra=_link(cluster.intra, quantity, end), inter=_link(cluster.inter, quantity, end))
    assert cluster.tiles is not None, "else its intervals do not apply"
    return replace(cluster, tiles=_tiles(cluster.tiles, quantity, end))


def _link(link: Link, quantity: str, end: str) -> Link:
    if quantity == "latency":
        return replace(link, latency_s=_at(link.latency_s, end))
    return replace(link, bandwidth=_at(link.bandwidth, end))


def _tiles(tiles: Tiles, quantity: str, end: str) -> Tiles:
    if quantity == "tile depth":
        return replace(tiles, depth=_at(tiles.depth, end))
    return replace(
        tiles,
        rate_128x128=_at(tiles.rate_128x128, end),
        rate_128x64=_at(tiles.rate_128x64, end),
        rate_64x64=_at(tiles.rate_64x64, end),
    )


def _at(stated: S, end: str) -> S:
    return replace(stated, value=getattr(stated, end))
