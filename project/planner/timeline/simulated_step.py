"""An optimizer step on a cluster: its pipeline simulated action by action, and what follows once."""

from __future__ import annotations

from dataclasses import dataclass

from project.planner.cost.step_time import gradient_seconds, optimizer_seconds, stage_durations, travel
from project.planner.cost.workload import Durations, workload
from project.planner.machine.cluster import Cluster
from project.planner.step import Step
from project.planner.timeline.timeline import Duration, Timeline, Travel, simulate
from project.spec.layout import ParallelLayout
from project.spec.schedules.order import order_of


@dataclass(frozen=True)
class SimulatedStep:
    """`pipeline` is the timeline of one batch; `seconds` is the whole step, with all batches that it accumulates.
    `stages`, `duration` and `travel` are what the simulation was given."""

    stages: list[Durations]
    duration: Duration
    travel: Travel
    pipeline: Timeline
    seconds: float


def simulate_step(step: Step, layout: ParallelLayout, cluster: Cluster) -> SimulatedStep:
    """Simulates the step's model and batch under `layout`."""
    work = workload(step, layout)
    stages, journey = stage_durations(work, layout, cluster), travel(work, layout, cluster)

    def duration(stage: int, kind: str) -> float:
        return stages[stage].of(kind, layout.recompute)

    pipeline = simulate(order_of(layout), duration, journey)
    once = gradient_seconds(work, layout, cluster) + optimizer_seconds(work, layout, cluster)
    return SimulatedStep(stages, duration, journey, pipeline, step.accumulate * pipeline.span + once)
