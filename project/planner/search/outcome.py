"""Everything that one search found: on all GPUs of a cluster and on fewer, and whether the ranking holds."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from project.planner.machine.cluster import Cluster
from project.planner.memory.peak import peak
from project.planner.search.branch_and_bound import SLACK, WANTED, Found, search, within
from project.planner.search.candidate import Candidate, Objective, objective_value, rank_by, settled_seconds
from project.planner.search.sensitivity import Turn, turns, unstable
from project.planner.search.space import overrides
from project.planner.step import Step

NEAR_THE_BEST = 300  # candidates that are ranked again at the ends of the stated intervals
AS_WELL = 1.05  # fewer GPUs do as well if they take (hold, cost) at most so many times as much
REACH: dict[Objective, float] = {"time": SLACK, "memory": SLACK, "cost": 1.2}
"""Candidates on fewer GPUs are looked at up to so many times the best of all."""
NEAREST = 1.05  # slack where only the best is wanted: candidates that may be it once they are simulated


@dataclass(frozen=True)
class Outcome:
    """`found` is the search on all GPUs of the cluster, `fewer` those on smaller numbers. `best` has the candidates to
    show, best first, those on fewer GPUs among them. `nearest` holds least where nothing fits. `asked` is the layout
    of the configuration, whether or not it fits. A step has `tokens`; `prefix` is the command line that a layout's
    overrides are added to."""

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
        """Cost of a million tokens: dollars where the cluster's file has a price, else GPU seconds."""
        seconds = one.seconds * one.layout.world_size / self.tokens * 1e6
        price = self.cluster.price_per_hour
        return f"{seconds:,.3g} GPU s" if price is None else f"${seconds * price / 3600:,.3g}"

    def command(self, one: Candidate) -> str:
        """The command that trains with this layout, quoted for a shell."""
        return f"{self.prefix} {shlex.join(overrides(one.layout).split())}"

    @property
    def every(self) -> list[Found]:
        """The searches on all numbers of GPUs."""
        return [self.found, *(there for _, there in self.fewer)]


def search_all(step: Step, cluster: Cluster, objective: Objective, prefix: str) -> Outcome:
    """Searches on all GPUs and on fewer, and asks whether the ranking holds. Where nothing fits, `best` is empty, and
    `nearest` is the candidate that holds least."""
    found = search(step, cluster, objective=objective)
    fewer = search_fewer(step, cluster, found, objective) if found.best else []
    nearest = [] if found.best else search(step, cluster, objective="memory", room=float("inf")).best
    best = sorted(
        (one for there in (found, *(smaller for _, smaller in fewer)) for one in there.best),
        key=lambda one: rank_by(one, objective),
    )
    asked = Candidate(
        step.layout,
        settled_seconds(step, step.layout, cluster),
        peak(step, int(cluster.reserved_bytes)),
        settled=True,
    )
    return Outcome(
        cluster,
        objective,
        asked,
        found,
        best,
        nearest=nearest[0] if nearest else None,
        fewer=fewer,
        turns=turns(best[:NEAR_THE_BEST], step, cluster, objective),
        tokens=step.batch * step.seq_len * step.accumulate,
        prefix=prefix,
    )


def smaller_counts(gpus: int) -> Iterator[int]:
    """Smaller numbers of GPUs to try: half as many where the number is even, else the next smaller power of two."""
    while gpus > 1:
        gpus = gpus // 2 if gpus % 2 == 0 else 2 ** (gpus.bit_length() - 1)
        yield gpus


def search_fewer(step: Step, cluster: Cluster, of_all: Found, objective: Objective) -> list[tuple[int, Found]]:
    """The same search on fewer and fewer GPUs, until legal layouts exist but none fits or none is within `REACH`; the
    `best` of the last one is then empty. By cost, which compares any numbers of GPUs, all candidates within `REACH` are
    found, and as many of the best as are wanted; otherwise only the best of each number."""
    reach, found = REACH[objective], []
    slack, wanted = (reach, WANTED) if objective == "cost" else (NEAREST, 1)
    best = sorted(objective_value(one, objective) for one in of_all.best)[:wanted]
    for gpus in smaller_counts(cluster.gpus):
        limit = max(within(reach, best[0], objective, cluster), best[-1])
        there = search(step, cluster, gpus, objective, slack, wanted, limit)
        found.append((gpus, there))
        if not there.best and there.splits:
            break
        best = sorted([*best, *(objective_value(one, objective) for one in there.best)])[:wanted]
    return found


def outcome_entries(outcome: Outcome) -> dict[str, Any]:
    """The content of `search.json`."""
    found = outcome.found

    def entry(one: Candidate) -> dict[str, Any]:
        numbers = {"seconds": one.seconds, "memory": one.memory, "settled": one.settled}
        return {"layout": asdict(one.layout), **numbers, "command": outcome.command(one)}

    return {
        "cluster": outcome.cluster.name,
        "objective": outcome.objective,
        "splits": sum(there.splits for there in outcome.every),
        "timed": sum(there.timed for there in outcome.every),
        "weighed": sum(there.weighed for there in outcome.every),
        "seconds": sum(there.seconds for there in outcome.every),
        "best": [entry(one) for one in outcome.best[:WANTED]],
        "asked": entry(outcome.asked),
        "front": [entry(one) for one in found.fronts],
        "fewer": {str(gpus): entry(there.best[0]) if there.best else None for gpus, there in outcome.fewer},
        "turns": [{**turn._asdict(), "winner": asdict(turn.winner.layout)} for turn in outcome.turns],
        "unstable": bool(unstable(outcome.turns)),
    }
