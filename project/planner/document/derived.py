"""The facts that follow from a model, a layout and a cluster: memory, traffic and the timeline of a step."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from project.planner.cost.communication_time import message_link
from project.planner.cost.parameters import parameters_on
from project.planner.cost.traffic import Transfer, traffic
from project.planner.cost.workload import Durations, workload
from project.planner.machine.cluster import Cluster
from project.planner.machine.source import source_of_seconds
from project.planner.memory.peak import Memory, by_module, memory, peaks
from project.planner.step import Step
from project.planner.timeline import Timeline, simulate, simulate_step
from project.spec.schedules.in_flight import InFlight
from project.spec.schedules.order import forwards, order_of


class Hop(NamedTuple):
    """The message of one microbatch from a stage to the next one, where that is on another rank. The message back takes
    as long."""

    stage: int
    link: str
    seconds: float


@dataclass(frozen=True)
class Derived:
    """Facts of one optimizer step, in bytes and seconds.

    `memories`, `in_flight`, `activations` (bytes by module) and `transfers` have one entry for each pipeline rank,
    whose ranks are alike; `in_flight` maps each of its stages to the microbatches at their peak. `stages` has one
    entry for each stage. `timeline` is the pipeline of one batch, `forward` that of its forward alone, `step_seconds`
    the whole step. All times have the source `seconds_source`.
    """

    step: Step
    cluster: Cluster
    memories: list[Memory]
    in_flight: list[dict[int, InFlight]]
    activations: list[dict[str, int]]
    transfers: list[list[Transfer]]
    stages: list[Durations]
    timeline: Timeline
    forward: Timeline
    hops: list[Hop]
    step_seconds: float
    seconds_source: str

    @property
    def busiest(self) -> list[Transfer]:
        """Transfers of the pipeline rank that sends the most bytes."""
        return max(self.transfers, key=lambda sent: sum(transfer.bytes for transfer in sent))

    @cached_property
    def parameters(self) -> list[int]:
        """Parameters on a rank of each pipeline rank."""
        step = self.step
        return [parameters_on(step.config, step.layout, rank, step.seq_len).total for rank in range(step.layout.pp)]


def derive(step: Step, cluster: Cluster) -> Derived:
    layout, simulated = step.layout, simulate_step(step, step.layout, cluster)
    ranks = range(layout.pp)
    return Derived(
        step,
        cluster,
        memories=[memory(step, rank, int(cluster.reserved_bytes)) for rank in ranks],
        in_flight=[peaks(step, rank) for rank in ranks],
        activations=[by_module(step, rank) for rank in ranks],
        transfers=[traffic(step, rank) for rank in ranks],
        stages=simulated.stages,
        timeline=simulated.pipeline,
        forward=simulate(forwards(order_of(layout)), simulated.duration, simulated.travel),
        hops=[
            Hop(stage, message_link(here, there, layout, cluster), simulated.travel(stage, stage + 1))
            for stage, (here, there) in enumerate(zip(step.rank_of_stage, step.rank_of_stage[1:], strict=False))
            if here != there
        ],
        step_seconds=simulated.seconds,
        seconds_source=source_of_seconds(cluster, layout, workload(step).arithmetic),
    )
