"""Sensitivity of a ranking to the intervals that a cluster's file states: launch cost, latency, bandwidth, and the
efficiency of small tiles of a matrix product."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from project.planner.machine.cluster import Cluster, Link, Stated, Tiles
from project.planner.search.candidate import Candidate, Objective, closed_form_seconds, objective_value
from project.planner.step import Step

S = TypeVar("S", bound=Stated)
NOTICEABLE = 0.01  # a winner that wins by less has won nothing


class Turn(NamedTuple):
    """One end of one interval: the layout that is best there, with its seconds there, its value by the objective, and
    the value there of the layout that is best as stated."""

    quantity: str
    end: str
    winner: Candidate
    best: float
    stated_best: float

    @property
    def loses(self) -> float:
        """Fraction by which the layout that is best as stated is worse there."""
        return self.stated_best / self.best - 1


def turns(best: Sequence[Candidate], step: Step, cluster: Cluster, objective: Objective) -> list[Turn]:
    """Ranks candidates again at both ends of each interval; `best` is sorted, the best first. The difference between
    simulated and closed-form time is taken to scale with the latter. Empty where the objective depends on no
    interval."""
    found: list[Turn] = []
    if not best or not applying(cluster, objective):
        return found
    as_stated = [closed_form_seconds(step, one.layout, cluster) for one in best]
    for quantity, end, changed in ends(cluster):
        there = [
            one._replace(seconds=one.seconds * closed_form_seconds(step, one.layout, changed) / closed)
            for one, closed in zip(best, as_stated, strict=True)
        ]
        values = [objective_value(one, objective) for one in there]
        least = min(range(len(best)), key=values.__getitem__)
        found.append(Turn(quantity, end, there[least], values[least], values[0]))
    return found


def unstable(found: Sequence[Turn]) -> list[Turn]:
    return [turn for turn in found if turn.loses > NOTICEABLE]


def applying(cluster: Cluster, objective: Objective = "time") -> tuple[str, ...]:
    """The intervals that a ranking depends on; memory depends on none. Where ranks share a node's cores, launches and
    bytes are part of the measured cost of a rank's program (`Host`), which has no interval."""
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
    """The cluster at one end of an interval. Both links change together, and so do the tiles of all sizes."""
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
