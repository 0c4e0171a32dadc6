"""A candidate of the search: a layout with its time and its memory, how it is timed, and which of two is better.

All candidates are timed by closed forms; the best are settled: their pipelines are simulated action by action.
"""

import heapq
from collections.abc import Iterable
from typing import Literal, NamedTuple

from project.planner.cost.step_time import step_time
from project.planner.cost.workload import workload
from project.planner.machine.cluster import Cluster
from project.planner.search.pareto import front
from project.planner.step import Step
from project.planner.timeline import simulate_step
from project.spec.layout import ParallelLayout

Objective = Literal["time", "memory", "cost"]
SETTLED = 20  # simulated candidates that have to stay best
MOST_ACTIONS = 60_000  # of a pipeline that is simulated


class Candidate(NamedTuple):
    """`seconds` of an optimizer step, and `memory`: bytes of the largest rank, including what the cluster's file
    reserves. `settled` says that the pipeline was simulated action by action, unless it has too many actions."""

    layout: ParallelLayout
    seconds: float
    memory: int
    settled: bool = False


def objective_value(one: Candidate, objective: Objective) -> float:
    """The value that the search minimises: seconds of a step, bytes, or GPU seconds of a step."""
    if objective == "memory":
        return one.memory
    return one.seconds * (one.layout.world_size if objective == "cost" else 1)


def rank_by(one: Candidate, objective: Objective) -> tuple[float, float]:
    """Sort key, best first; among equals the one that holds less, or is faster, is better."""
    return objective_value(one, objective), one.seconds if objective == "memory" else one.memory


def closed_form_seconds(step: Step, layout: ParallelLayout, cluster: Cluster) -> float:
    """Seconds of an optimizer step by closed forms, with all batches that it accumulates."""
    once = step_time(workload(step, layout), layout, cluster)
    return step.accumulate * once.pipeline + once.gradients + once.optimizer


def settled(candidates: Iterable[Candidate], step: Step, cluster: Cluster, objective: Objective) -> list[Candidate]:
    """All candidates, by the objective, best first. The best are simulated until `SETTLED` simulated ones stay best,
    and so is the Pareto front of time against memory; the others keep their closed-form time."""
    every = {one.layout: one for one in candidates}

    def settle(one: Candidate) -> Candidate:
        every[one.layout] = one._replace(seconds=settled_seconds(step, one.layout, cluster), settled=True)
        return every[one.layout]

    queue = [(rank_by(one, objective), place, one) for place, one in enumerate(every.values())]
    heapq.heapify(queue)
    best = 0
    while queue and best < SETTLED:
        _, place, one = heapq.heappop(queue)
        if one.settled:
            best += 1
        else:
            again = settle(one)
            heapq.heappush(queue, (rank_by(again, objective), place, again))
    while closed := [one for one in time_against_memory(every.values()) if not one.settled]:
        for one in closed:
            settle(one)
    return sorted(every.values(), key=lambda one: rank_by(one, objective))


def time_against_memory(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The Pareto front, by rising time."""
    return front(candidates, lambda one: one.seconds, lambda one: one.memory)


def settled_seconds(step: Step, layout: ParallelLayout, cluster: Cluster) -> float:
    """Seconds of an optimizer step, simulated; by closed forms for a pipeline of more than `MOST_ACTIONS` actions."""
    if 3 * layout.stages * layout.microbatches > MOST_ACTIONS:
        return closed_form_seconds(step, layout, cluster)
    return simulate_step(step, layout, cluster).seconds
