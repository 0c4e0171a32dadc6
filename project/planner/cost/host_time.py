"""Seconds of a step where ranks share a node's cores.

A rank's program is then what takes time: how many layers, microbatches and collectives it goes through, more than what
they compute. Its seconds of a core are counted (`Host`), and the cores are shared evenly by the ranks that have
something to do; one that waits for another leaves its core to the others. So does one inside a collective whose peers
are not there yet: an action takes as long as its seconds of a core and those of waiting, or longer where others want
the core.
"""

from __future__ import annotations

from typing import NamedTuple

from project.planner.cost.parameters import Parameters
from project.planner.cost.shared_cores import shared_span
from project.planner.cost.stages import Held, ranks_of_stages
from project.planner.cost.transfer import on_the_wire
from project.planner.cost.work import Pass, Work, embedding, head, layer
from project.planner.cost.workload import Durations, StepTime, Workload, rank_parameters
from project.planner.machine.cluster import Cluster, Host
from project.planner.machine.group import Group, group_over
from project.spec.layout import ParallelLayout

FORWARD = 1 / 3  # of a layer's forward and backward; the backward's halves take as much each


class Cost(NamedTuple):
    """Seconds of one core of a rank, for one microbatch; `products` may be spread over several threads."""

    program: float
    products: float


def step_time(work: Workload, layout: ParallelLayout, cluster: Cluster) -> StepTime:
    host = _host(cluster)
    stages, waits = alone(work, layout, cluster), waiting(work, layout, cluster)
    span, busy = shared_span(layout, stages, host.cores, cluster.intra.latency_s.value, waits)
    gradients, optimizer = after_the_pipeline(work, layout, cluster)
    return StepTime(span, span - busy / min(host.cores, layout.world_size), 0.0, gradients, optimizer)


def stage_durations(work: Workload, layout: ParallelLayout, cluster: Cluster) -> list[Durations]:
    """As long as they take on average with the cores shared: stretched so that a pipeline in which nobody shares takes
    as long as it does."""
    stages, latency = alone(work, layout, cluster), cluster.intra.latency_s.value
    shared, _ = shared_span(layout, stages, _host(cluster).cores, latency, waiting(work, layout, cluster))
    unshared, _ = shared_span(layout, stages, layout.world_size, latency)
    stretch = shared / unshared
    return [Durations(*(stretch * seconds for seconds in stage)) for stage in stages]


def fastest(work: Workload, layout: ParallelLayout, cluster: Cluster) -> float:
    """No bubble; either the ranks or the cores are busy all the time."""
    cores = sum(stage.total for stage in alone(work, layout, cluster))
    of_ranks = (cores + sum(waiting(work, layout, cluster))) / layout.pp
    return layout.microbatches * max(of_ranks, cores * layout.dp * layout.tp / _host(cluster).cores)


def _host(cluster: Cluster) -> Host:
    assert cluster.host is not None
    return cluster.host


def alone(work: Workload, layout: ParallelLayout, cluster: Cluster) -> list[Durations]:
    """Of a rank of each stage that has a core to itself, messages to its neighbours included."""
    host, at = _host(cluster), ranks_of_stages(layout)
    threads = max(1, host.cores // layout.world_size)
    again = 0.0 if layout.recompute == "none" else FORWARD
    found = []
    for stage, held in enumerate(work.held_by_stages(layout)):
        program, products = stage_cost(work, layout, cluster, held)
        both = program + products / threads
        beside = [other for other in (stage - 1, stage + 1) if 0 <= other < layout.stages]
        messages = host.message_s / 2 * sum(at[other] != at[stage] for other in beside)
        found.append(Durations(both * FORWARD + messages, both * (FORWARD + again) + messages, both * FORWARD))
    return found


def waiting(work: Workload, layout: ParallelLayout, cluster: Cluster) -> list[float]:
    """Seconds of each stage's microbatch, forward and backward, that a rank spends without a core in collectives."""
    host = _host(cluster)
    tensor = peers(host.tensor_wait_s, host.tensor_wait_peer_s, layout.tp)
    expert = peers(host.expert_wait_s, host.expert_wait_peer_s, layout.ep * layout.etp)
    return [held.layers * tensor + held.experts * expert for held in work.held_by_stages(layout)]


def stage_cost(work: Workload, layout: ParallelLayout, cluster: Cluster, held: Held) -> Cost:
    """Of a microbatch, forward and backward."""
    host, shape, config, how = _host(cluster), work.shape(layout), work.config, work.how
    over_experts = layout.ep * layout.etp
    tensor = peers(host.tensor_s, host.tensor_peer_s, layout.tp)
    expert = peers(host.expert_s, host.expert_peer_s, over_experts)
    ends = host.ends_s + peers(host.tensor_ends_s, host.tensor_ends_peer_s, layout.tp)
    channels = shape.tokens / layout.tp * config.d_model * host.channel_s
    program = held.layers * (host.block_s + tensor + channels) + held.experts * expert
    program += (held.first + held.last) / 2 * ends
    products = 0.0
    for count, whole in (
        (held.dense, layer(config, how, shape, False) if held.dense else Pass()),
        (held.experts, layer(config, how, shape, True) if held.experts else Pass()),
        (held.first, embedding(config, how, shape)),
        (held.last, head(config, how, shape)),
    ):
        for half in (whole.forward, whole.inputs, whole.weights):
            program += count * sent_bytes(half, layout) * host.byte_s
            products += count * half.flops / (cluster.peak(work.arithmetic) * cluster.achieved.gemm)
    return Cost(program, products)


def peers(first: float, further: float, ranks: int) -> float:
    """Nothing for one rank, `first` for two."""
    return 0.0 if ranks == 1 else first + (ranks - 2) * further


def sent_bytes(work: Work, layout: ParallelLayout) -> float:
    return sum(
        send.calls * on_the_wire(send.collective, send.given, group_over(send.axes, layout).size) for send in work.sends
    )


def after_the_pipeline(work: Workload, layout: ParallelLayout, cluster: Cluster) -> tuple[float, float]:
    """Summing gradients over replicas; the update and the rest of a step. All ranks at once, of that with most."""
    host = _host(cluster)
    share = max(1.0, layout.world_size / host.cores)
    gradients, update = max(
        (gradient_seconds(work, layout, host, held), update_seconds(work, layout, host, held))
        for held in rank_parameters(work, layout)
    )
    return share * gradients, share * update


def gradient_seconds(work: Workload, layout: ParallelLayout, host: Host, held: Parameters) -> float:
    element = work.how.gradient_bytes
    sums: tuple[tuple[float, Group], ...] = (
        (held.whole, group_over(("tp",), layout)),
        (held.whole + held.divided_over_tp, group_over(("dp",), layout)),
        (held.experts, group_over(("edp",), layout)),
    )
    return sum(on_the_wire("all_reduce", int(count * element), among.size) * host.byte_s for count, among in sums)


def update_seconds(work: Workload, layout: ParallelLayout, host: Host, held: Parameters) -> float:
    sharded = work.how.sharded_state_bytes > 0
    dp, edp = (layout.dp, layout.edp) if sharded else (1, 1)
    count = held.whole + held.divided_over_tp / dp + held.experts / edp
    return host.step_s + (layout.world_size - 1) * host.step_peer_s + count * host.parameter_s
