"""A layout with its time and its memory, and what of two is better. No torch."""

from __future__ import annotations

from typing import Literal, NamedTuple

from project.planner.cost.step_time import step_time
from project.planner.cost.workload import workload
from project.planner.machine.cluster import Cluster
from project.planner.step import Step
from project.spec.layout import ParallelLayout

Objective = Literal["time", "memory", "cost"]


class Candidate(NamedTuple):
    """`memory` is the bytes of the rank with most, what the cluster's file reserves on a device included. `settled`
    says that the pipeline was timed again, action by action where that is not too many."""

    layout: ParallelLayout
    seconds: float
    memory: int
    settled: bool = False


def value(one: Candidate, objective: Objective) -> float:
    """What is to be least: seconds of a step, bytes, or what its tokens cost in seconds of a GPU."""
    if objective == "memory":
        return one.memory
    return one.seconds * (one.layout.world_size if objective == "cost" else 1)


def rank_by(one: Candidate, objective: Objective) -> tuple[float, float]:
    """Among equals the smaller, or the faster, is better."""
    return value(one, objective), one.seconds if objective == "memory" else one.memory


def closed_form_seconds(step: Step, layout: ParallelLayout, cluster: Cluster) -> float:
    """Of an optimizer step, with all batches that it accumulates."""
    once = step_time(workload(step, layout), layout, cluster)
    return step.accumulate * once.pipeline + once.gradients + once.optimizer
