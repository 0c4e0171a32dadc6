"""What a search found, and what it is compared with."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from project.planner.machine.cluster import Cluster
from project.planner.search.candidate import Candidate, Objective
from project.planner.search.search import WANTED, Found, overrides
from project.planner.search.sensitivity import Turn, unstable


@dataclass(frozen=True)
class Searched:
    """`found` is on all GPUs of the cluster, `fewer` on so many; `best` of what counts, best first: a token may cost
    least on fewer. `nearest` holds least where nothing fits. `asked` is the layout of the configuration, whether or not
    it fits; `tokens` are of a step; `prefix` is the command line that a layout's overrides are added to."""

    cluster: Cluster
    objective: Objective
    asked: Candidate
    found: Found
    best: Sequence[Candidate]
    nearest: Candidate | None
    fewer: Sequence[tuple[int, Found]]
    turns: Sequence[Turn]
    tokens: int
    prefix: str

    def cost(self, one: Candidate) -> str:
        """Of a million tokens: dollars where the cluster's file has a price, else seconds of a GPU."""
        seconds = one.seconds * one.layout.world_size / self.tokens * 1e6
        price = self.cluster.price_per_hour
        return f"{seconds:,.3g} GPU s" if price is None else f"${seconds * price / 3600:,.3g}"

    def command(self, one: Candidate) -> str:
        """As a shell reads it."""
        return f"{self.prefix} {shlex.join(overrides(one.layout).split())}"

    @property
    def every(self) -> list[Found]:
        """On any number of GPUs."""
        return [self.found, *(there for _, there in self.fewer)]


def as_entries(searched: Searched) -> dict[str, Any]:
    """Plain values, for JSON."""
    found = searched.found

    def entry(one: Candidate) -> dict[str, Any]:
        numbers = {"seconds": one.seconds, "memory": one.memory, "settled": one.settled}
        return {"layout": asdict(one.layout), **numbers, "command": searched.command(one)}

    return {
        "cluster": searched.cluster.name,
        "objective": searched.objective,
        "splits": sum(there.splits for there in searched.every),
        "timed": sum(there.timed for there in searched.every),
        "weighed": sum(there.weighed for there in searched.every),
        "seconds": sum(there.seconds for there in searched.every),
        "best": [entry(one) for one in searched.best[:WANTED]],
        "asked": entry(searched.asked),
        "front": [entry(one) for one in found.fronts],
        "fewer": {str(gpus): entry(there.best[0]) if there.best else None for gpus, there in searched.fewer},
        "turns": [{**turn._asdict(), "winner": asdict(turn.winner.layout)} for turn in searched.turns],
        "unstable": bool(unstable(searched.turns)),
    }
