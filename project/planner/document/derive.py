"""The strategy document as numbers: what follows from a model, a layout and a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from project.planner.cost import message
from project.planner.cost.step_time import (
    Durations,
    gradient_seconds,
    optimizer_seconds,
    stage_durations,
    travel,
)
from project.planner.cost.traffic import traffic
from project.planner.cost.transfer import Transfer
from project.planner.cost.workload import workload
from project.planner.document.predictions import predictions
from project.planner.document.quantities import Quantity, counts
from project.planner.machine.cluster import Cluster
from project.planner.machine.source import source_of_seconds
from project.planner.memory.memory import Memory, by_module, memory, peaks
from project.planner.step import Step
from project.planner.timeline.timeline import Duration, Timeline, simulate
from project.spec.layout import ParallelLayout
from project.spec.schedules.in_flight import InFlight
from project.spec.schedules.order import forwards, order_of


class Hop(NamedTuple):
    """A microbatch's message from a stage to the next one, which is on another rank; that back takes as long."""

    stage: int
    link: str
    seconds: float


@dataclass(frozen=True)
class Derived:
    """All that the document is made from. Lists are by pipeline rank, whose ranks are alike; `in_flight` and `stages`
    by stage. `forward` is the timeline of a batch's forward alone. `seconds_source` is where every time in it is
    from."""

    step: Step
    cluster: Cluster
    quantities: dict[str, Quantity]
    memories: list[Memory]
    in_flight: list[dict[int, InFlight]]
    activations: list[dict[str, int]]
    transfers: list[list[Transfer]]
    timeline: Timeline
    forward: Timeline
    stages: list[Durations]
    hops: list[Hop]
    seconds_source: str
    claims: list[dict[str, Any]] = field(default_factory=list)

    @property
    def busiest(self) -> list[Transfer]:
        """What the rank sends that sends most."""
        return max(self.transfers, key=lambda sent: sum(transfer.bytes for transfer in sent))


def derive(step: Step, cluster: Cluster) -> Derived:
    layout, work = step.layout, workload(step)
    stages, order = stage_durations(work, layout, cluster), order_of(layout)
    duration, journey = duration_of(stages, layout), travel(work, layout, cluster)
    timeline = simulate(order, duration, journey)
    ranks = range(layout.pp)
    found = Derived(
        step,
        cluster,
        {},
        memories=[memory(step, rank, int(cluster.reserved_bytes)) for rank in ranks],
        in_flight=[peaks(step, rank) for rank in ranks],
        activations=[by_module(step, rank) for rank in ranks],
        transfers=[traffic(step, rank) for rank in ranks],
        timeline=timeline,
        forward=simulate(forwards(order), duration, journey),
        stages=stages,
        hops=[
            Hop(stage, message.tier(here, there, layout, cluster), journey(stage, stage + 1))
            for stage, (here, there) in enumerate(zip(step.rank_of_stage, step.rank_of_stage[1:], strict=False))
            if here != there
        ],
        seconds_source=source_of_seconds(cluster, layout, work.arithmetic),
    )
    once = gradient_seconds(work, layout, cluster) + optimizer_seconds(work, layout, cluster)
    found.quantities.update(counts(found))
    found.quantities.update(predictions(found, step.accumulate * timeline.span + once))
    return found


def duration_of(stages: list[Durations], layout: ParallelLayout) -> Duration:
    return lambda stage, kind: stages[stage].of(kind, layout.recompute)
