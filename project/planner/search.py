"""The best layout of all that are legal. No torch.

Every candidate is timed by the closed forms of `step_time`; those that hold more than a device has are left out, and so
are, unseen, those of which even a pipeline without bubble would take more than `SLACK` times the best time so far. The
best are timed again, action by action (`project.planner.timeline`).
"""

from __future__ import annotations

import dataclasses
import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from project.parallel.layout import ParallelLayout
from project.planner import space
from project.planner.cluster import Cluster
from project.planner.footprint import footprint, least
from project.planner.order import order_of
from project.planner.pareto import front
from project.planner.step_time import (
    fastest,
    stage_durations,
    step_time,
    travel,
)
from project.planner.timeline import simulate
from project.planner.workload import Workload

Objective = Literal["time", "memory", "cost"]
SLACK = 1.5
KEPT = 2000  # candidates, of which the fastest are kept for the front and for other clusters
SETTLED = 20  # stay fastest when timed action by action
MOST_ACTIONS = 60_000  # of a schedule, for that


class Candidate(NamedTuple):
    """`memory` is the bytes of the rank with most. `simulated` says whether the pipeline was timed again,
    action by action where that is not too many."""

    layout: ParallelLayout
    seconds: float
    memory: float
    simulated: bool = False


@dataclass
class Found:
    """By the objective, best first. `tried` counts the candidates that were timed, `left_out` those that hold too much;
    `nearest` is of the latter the one that holds least; `seconds` are of one core."""

    best: list[Candidate] = field(default_factory=list)
    tried: int = 0
    left_out: int = 0
    nearest: Candidate | None = None
    seconds: float = 0.0

    def note(self, too_large: Candidate) -> None:
        self.left_out += 1
        if self.nearest is None or too_large.memory < self.nearest.memory:
            self.nearest = too_large

    @property
    def fronts(self) -> list[Candidate]:
        """Time against memory."""
        return front(self.best, lambda one: one.seconds, lambda one: one.memory)


How = Callable[[ParallelLayout], Workload]
"""The workload under a layout: what a trainer keeps depends on how replicas are held."""


def search(
    of: How,
    cluster: Cluster,
    gpus: int | None = None,
    objective: Objective = "time",
    memory_of: Callable[[ParallelLayout], float] | None = None,
) -> Found:
    """`memory_of` says more exactly than `footprint` what a rank holds; it is asked of the best."""
    began = time.process_time()
    gpus = cluster.gpus if gpus is None else gpus
    found = Found()
    candidates = sorted(_timed(of, cluster, gpus, found), key=lambda one: one.seconds)[:KEPT]
    found.best = sorted(
        _best_first(candidates, of, cluster, capacity(cluster, gpus), memory_of),
        key=lambda one: rank_by(one, objective),
    )
    found.seconds = time.process_time() - began
    return found


def rank_by(one: Candidate, objective: Objective) -> tuple[float, float]:
    """Of a fixed number of GPUs what a token costs is what the time is."""
    if objective == "memory":
        return one.memory, one.seconds
    gpus = one.layout.world_size if objective == "cost" else 1
    return one.seconds * gpus, one.memory


def capacity(cluster: Cluster, gpus: int) -> float:
    """Bytes that a rank may have. Ranks on processors share the node's memory."""
    sharing = 1 if cluster.host is None else -(-gpus // cluster.nodes)
    return cluster.memory_bytes / sharing - cluster.reserved_bytes


def _timed(of: How, cluster: Cluster, gpus: int, found: Found) -> Iterator[Candidate]:
    work = of(ParallelLayout())
    room = capacity(cluster, gpus)
    groups = list(space.degrees(work.config, gpus, work.batch, work.seq_len))
    best = float("inf")
    for bound, layout in sorted(_bounded(of, cluster, groups), key=lambda pair: pair[0]):
        if bound > SLACK * best:
            continue
        work = of(layout)
        for microbatches in space.microbatches(layout, work.batch):
            for recompute in space.RECOMPUTATIONS:  # each takes longer than the one before
                some = dataclasses.replace(layout, microbatches=microbatches, recompute=recompute)
                if fastest(work, some, cluster) > SLACK * best:
                    break
                if (held := least(work, some)) > room:
                    found.note(Candidate(some, 0.0, held))
                    continue
                for candidate in space.pipelines(some, work.config):
                    held = footprint(work, candidate).total
                    if held > room:
                        found.note(Candidate(candidate, 0.0, held))
                        continue
                    found.tried += 1
                    seconds = step_time(work, candidate, cluster).total
                    best = min(best, seconds)
                    if seconds <= SLACK * best:
                        yield Candidate(candidate, seconds, held)


def _bounded(of: How, cluster: Cluster, groups: Sequence[ParallelLayout]) -> Iterator[tuple[float, ParallelLayout]]:
    """With the least that each could take: as one large microbatch, which makes the most of everything but for the
    last wave of its tiles."""
    for layout in groups:
        yield 0.9 * fastest(of(layout), layout, cluster), layout


def _best_first(
    candidates: list[Candidate],
    of: How,
    cluster: Cluster,
    room: float,
    memory_of: Callable[[ParallelLayout], float] | None,
) -> Iterator[Candidate]:
    """Times the fastest again until as many as are wanted stay fastest; the others as they were."""
    queue = [(one.seconds, place, one) for place, one in enumerate(candidates)]
    heapq.heapify(queue)
    settled = 0
    while queue and settled < SETTLED:
        _, place, one = heapq.heappop(queue)
        if one.simulated:
            settled += 1
            yield one
            continue
        again = _again(of(one.layout), one, cluster, memory_of)
        if again.memory <= room:
            heapq.heappush(queue, (again.seconds, place, again))
    yield from (one for _, _, one in queue)


def _again(
    work: Workload, one: Candidate, cluster: Cluster, memory_of: Callable[[ParallelLayout], float] | None
) -> Candidate:
    """Action by action, unless that takes longer than it is worth."""
    layout = one.layout
    memory = one.memory if memory_of is None else memory_of(layout)
    actions = 3 * layout.pp * layout.virtual_stages * layout.microbatches
    seconds = one.seconds if actions > MOST_ACTIONS else simulated_seconds(work, layout, cluster)
    return Candidate(layout, seconds, memory, True)


def simulated_seconds(work: Workload, layout: ParallelLayout, cluster: Cluster) -> float:
    """Of a step, its pipeline action by action."""
    stages = stage_durations(work, layout, cluster)
    whole = layout.recompute != "none"  # a split backward then runs at the inputs' turn

    def duration_of(stage: int, kind: str) -> float:
        forward, inputs, weights = stages[stage]
        both = inputs + weights
        return {"F": forward, "B": both, "I": both if whole else inputs, "W": 0.0 if whole else weights}[kind]

    closed = step_time(work, layout, cluster)
    span = simulate(order_of(layout), duration_of, travel(work, layout, cluster)).span
    return span + closed.gradients + closed.optimizer


def fewer(
    of: How, cluster: Cluster, objective: Objective = "time", memory_of: Callable[[ParallelLayout], float] | None = None
) -> list[tuple[int, Found]]:
    """The same search over half as many GPUs, a quarter and so on, as long as anything fits."""
    found = []
    gpus = cluster.gpus
    while gpus % 2 == 0:
        gpus //= 2
        there = search(of, cluster, gpus, objective, memory_of)
        found.append((gpus, there))
        if not there.best:
            break
    return found


def overrides(layout: ParallelLayout) -> str:
    """The part of `project/train.py`'s command line that says it."""
    names = ("pp", "dp", "tp", "ep", "etp", "dp_mode", "schedule", "microbatches", "virtual_stages", "recompute")
    said = [f"parallel.{name}={getattr(layout, name)}" for name in names]
    sizes = "null" if layout.partition is None else f"[{','.join(map(str, layout.partition))}]"
    return " ".join([*said, f"parallel.partition={sizes}"])
