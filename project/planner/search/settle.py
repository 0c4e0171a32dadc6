"""The best of many candidates timed again, action by action. No torch."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from project.planner.machine.cluster import Cluster
from project.planner.search.candidate import Candidate, Objective, closed_form_seconds, rank_by
from project.planner.search.pareto import front
from project.planner.step import Step
from project.planner.timeline.simulated_step import simulate_step
from project.spec.layout import ParallelLayout

SETTLED = 20  # stay best when timed action by action
MOST_ACTIONS = 60_000  # of a schedule, for that


def settled(candidates: Iterable[Candidate], step: Step, cluster: Cluster, objective: Objective) -> list[Candidate]:
    """All of them, by the objective, best first. Timed again are the best, until as many as are wanted stay best, and
    what nothing beats in both time and memory; the others are as they were."""
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
    return front(candidates, lambda one: one.seconds, lambda one: one.memory)


def settled_seconds(step: Step, layout: ParallelLayout, cluster: Cluster) -> float:
    """By the closed form where action by action takes longer than it is worth."""
    if 3 * layout.stages * layout.microbatches > MOST_ACTIONS:
        return closed_form_seconds(step, layout, cluster)
    return simulate_step(step, layout, cluster).seconds
