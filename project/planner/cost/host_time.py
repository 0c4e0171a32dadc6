"""Seconds of a step where ranks share a node's cores.

A rank's program is then what takes time: how many layers, microbatches and collectives it goes through, more than what
they compute. Its seconds of a core are counted (`Host`), and the cores are shared evenly by the ranks that have
something to do; one that waits for another leaves its core to the others. So does one inside a collective whose peers
are not there yet: an action takes as long as its seconds of a core and those of waiting, or longer where others want
the core.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

from project.planner.cost.parameters import Parameters
from project.planner.cost.stages import Held, ranks_of_stages
from project.planner.cost.traffic import on_the_wire
from project.planner.cost.work import Pass, Work, embedding, head, layer
from project.planner.cost.workload import Durations, StepTime, Workload, rank_parameters
from project.planner.machine.cluster import Cluster, Host
from project.planner.machine.group import Group, group_over
from project.spec.layout import ParallelLayout
from project.spec.schedules.action import Action
from project.spec.schedules.order import order_of

FORWARD = 1 / 3  # of a layer's forward and backward; the backward's halves take as much each


class Cost(NamedTuple):
    """Seconds of one core of a rank, for one microbatch; `products` may be spread over several threads."""

    program: float
    products: float


def host_step_time(work: Workload, layout: ParallelLayout, cluster: Cluster) -> StepTime:
    host = _host(cluster)
    stages, waits = uncontended_durations(work, layout, cluster), collective_waits(work, layout, cluster)
    span, busy = shared_span(layout, stages, host.cores, cluster.intra.latency_s.value, waits)
    gradients, optimizer = host_seconds_after_the_pipeline(work, layout, cluster)
    return StepTime(span, span - busy / min(host.cores, layout.world_size), 0.0, gradients, optimizer)


def host_stage_durations(work: Workload, layout: ParallelLayout, cluster: Cluster) -> list[Durations]:
    """Stage durations with the cores shared, in seconds on average: the durations without contention, stretched so that
    a pipeline without contention takes as long as the one that shares."""
    stages, latency = uncontended_durations(work, layout, cluster), cluster.intra.latency_s.value
    shared, _ = shared_span(layout, stages, _host(cluster).cores, latency, collective_waits(work, layout, cluster))
    unshared, _ = shared_span(layout, stages, layout.world_size, latency)
    stretch = shared / unshared
    return [Durations(*(stretch * seconds for seconds in stage)) for stage in stages]


def host_bubble_free_seconds(work: Workload, layout: ParallelLayout, cluster: Cluster) -> float:
    """Seconds of a pipeline without a bubble: either the ranks or the cores are busy all the time."""
    cores = sum(stage.total for stage in uncontended_durations(work, layout, cluster))
    of_ranks = (cores + sum(collective_waits(work, layout, cluster))) / layout.pp
    return layout.microbatches * max(of_ranks, cores * layout.dp * layout.tp / _host(cluster).cores)


def _host(cluster: Cluster) -> Host:
    assert cluster.host is not None
    return cluster.host


def uncontended_durations(work: Workload, layout: ParallelLayout, cluster: Cluster) -> list[Durations]:
    """Stage durations without contention for cores, in seconds, messages to neighbours included."""
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


def collective_waits(work: Workload, layout: ParallelLayout, cluster: Cluster) -> list[float]:
    """Seconds of each stage's microbatch, forward and backward, that a rank spends without a core in collectives."""
    host = _host(cluster)
    tensor = cost_among(host.tensor_wait_s, host.tensor_wait_peer_s, layout.tp)
    expert = cost_among(host.expert_wait_s, host.expert_wait_peer_s, layout.ep * layout.etp)
    return [held.layers * tensor + held.experts * expert for held in work.held_by_stages(layout)]


def stage_cost(work: Workload, layout: ParallelLayout, cluster: Cluster, held: Held) -> Cost:
    """Cost of one microbatch on a stage, forward and backward."""
    host, shape, config, how = _host(cluster), work.shape(layout), work.config, work.how
    over_experts = layout.ep * layout.etp
    tensor = cost_among(host.tensor_s, host.tensor_peer_s, layout.tp)
    expert = cost_among(host.expert_s, host.expert_peer_s, over_experts)
    ends = host.ends_s + cost_among(host.tensor_ends_s, host.tensor_ends_peer_s, layout.tp)
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


def cost_among(first: float, further: float, ranks: int) -> float:
    """Cost among so many ranks: 0 for one, `first` for two, `further` more for each beyond two."""
    return 0.0 if ranks == 1 else first + (ranks - 2) * further


def sent_bytes(work: Work, layout: ParallelLayout) -> float:
    return sum(
        send.calls * on_the_wire(send.collective, send.given, group_over(send.axes, layout).size) for send in work.sends
    )


def host_seconds_after_the_pipeline(work: Workload, layout: ParallelLayout, cluster: Cluster) -> tuple[float, float]:
    """Seconds of the sums of gradients over replicas, and of the update and the rest of a step, on the pipeline rank
    with most; all ranks compute at once."""
    host = _host(cluster)
    share = max(1.0, layout.world_size / host.cores)
    gradients, update = max(
        (gradient_core_seconds(work, layout, host, held), update_core_seconds(work, layout, host, held))
        for held in rank_parameters(work, layout)
    )
    return share * gradients, share * update


def gradient_core_seconds(work: Workload, layout: ParallelLayout, host: Host, held: Parameters) -> float:
    element = work.how.gradient_bytes
    sums: tuple[tuple[float, Group], ...] = (
        (held.whole, group_over(("tp",), layout)),
        (held.whole + held.divided_over_tp, group_over(("dp",), layout)),
        (held.experts, group_over(("edp",), layout)),
    )
    return sum(on_the_wire("all_reduce", int(count * element), among.size) * host.byte_s for count, among in sums)


def update_core_seconds(work: Workload, layout: ParallelLayout, host: Host, held: Parameters) -> float:
    sharded = work.how.sharded_state_bytes > 0
    dp, edp = (layout.dp, layout.edp) if sharded else (1, 1)
    count = held.whole + held.divided_over_tp / dp + held.experts / edp
    return host.step_s + (layout.world_size - 1) * host.step_peer_s + count * host.parameter_s


def shared_span(
    layout: ParallelLayout, stages: list[Durations], cores: int, latency: float, waits: Sequence[float] = ()
) -> tuple[float, float]:
    """Seconds from the first action's start to the last one's end, and seconds of a core that all ranks spend.

    A rank that runs an action wants a core for all of it but what it waits (`waits`, of each stage's microbatch). All
    get what they want, or the same part of it where that is more than there are cores; the ranks of a stage run
    together.
    """
    wanted = [1.0 if not wait else one.total / (one.total + wait) for one, wait in zip_longest(stages, waits)]
    order, at = order_of(layout), ranks_of_stages(layout)
    together, last = layout.dp * layout.tp, layout.stages - 1
    done: dict[tuple[int, bool, int], float] = {}
    place = [0] * layout.pp
    left: list[float | None] = [None] * layout.pp
    clock, spent = 0.0, 0.0
    while any(place[rank] < len(order[rank]) for rank in range(layout.pp)):
        waking: list[float] = []
        for rank in range(layout.pp):
            if left[rank] is None and place[rank] < len(order[rank]):
                action = order[rank][place[rank]]
                ready = _ready(action, done, last, at, latency)
                if ready is not None and ready <= clock:
                    left[rank] = stages[action.stage].of(action.kind, layout.recompute)
                elif ready is not None:
                    waking.append(ready)
        running = [rank for rank in range(layout.pp) if left[rank] is not None]
        if not running:
            clock = min(waking)
            continue
        wants = {rank: wanted[order[rank][place[rank]].stage] for rank in running}
        part = min(1.0, cores / (sum(wants.values()) * together))
        until = min(clock + (left[rank] or 0.0) / (part * wants[rank]) for rank in running)
        until = min([until, *waking])
        for rank in running:
            remains = (left[rank] or 0.0) - (until - clock) * part * wants[rank]
            left[rank] = remains
            if remains <= max(1e-12, 4e-15 * until):  # of long actions what rounding leaves is longer
                action = order[rank][place[rank]]
                if action.kind != "W":
                    done[action.stage, action.kind == "F", action.microbatch] = until
                left[rank], place[rank] = None, place[rank] + 1
        spent += (until - clock) * part * sum(wants.values()) * together
        clock = until
    return clock, spent


def _ready(
    action: Action, done: dict[tuple[int, bool, int], float], last: int, at: tuple[int, ...], latency: float
) -> float | None:
    """Time at which the input of an action arrives; None while its source has not ended."""
    forward = action.kind == "F"
    if action.kind == "W" or action.stage == (0 if forward else last):
        return 0.0
    source = action.stage - 1 if forward else action.stage + 1
    ended = done.get((source, forward, action.microbatch))
    return None if ended is None else ended + (latency if at[source] != at[action.stage] else 0.0)
