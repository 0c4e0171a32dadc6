"""Seconds of an optimizer step: what each stage takes for a microbatch, the pipeline over them, and what follows once.

The pipeline is summed up by closed forms (Narayanan et al., arXiv 2104.04473; Qi et al., arXiv 2401.10241), in which
the slowest rank sets the pace and the others are passed once; `planner.timeline` runs a schedule action by action.
"""

from collections.abc import Callable
from functools import lru_cache
from operator import mul
from typing import NamedTuple

from project.planner.cost import host_time
from project.planner.cost.communication_time import collective_seconds, crossings, message_seconds
from project.planner.cost.stages import Held, ranks_of_stages
from project.planner.cost.work import Pass, Work, embedding, head, launch_seconds, layer, work_seconds
from project.planner.cost.workload import Durations, StepTime, Workload, rank_parameters
from project.planner.machine.cluster import Cluster
from project.planner.machine.group import Group, group_over
from project.spec.layer.implementation import Implementation, without_states
from project.spec.layer.operation import Axes, Shape
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.precision import Arithmetic
from project.spec.schedules.table import schedule_of


class Units(NamedTuple):
    """Durations of one microbatch by kind of layer; `first` is the embedding, `last` the head."""

    dense: Durations
    experts: Durations
    first: Durations
    last: Durations

    def held(self, what: Held) -> Durations:
        return Durations(*(sum(map(mul, what, unit)) for unit in zip(*self, strict=True)))


@lru_cache(maxsize=65536)
def units(
    config: ModelConfig,
    how: Implementation,
    arithmetic: Arithmetic,
    shape: Shape,
    groups: tuple[tuple[Axes, Group], ...],
    recompute: str,
    cluster: Cluster,
) -> Units:
    """Durations of each kind of layer for one shape, which thousands of pipelines of a search share."""
    among = dict(groups)

    def seconds(work: Work) -> float:
        sent = sum(
            send.calls * collective_seconds(send.collective, send.given, among[send.axes], cluster, send.copies)
            for send in work.sends
        )
        return work_seconds(work, cluster, arithmetic, how.element_bytes) + sent

    def backward(inputs: Work, weights: Work, again: Work) -> tuple[float, float]:
        """Its two halves, stretched evenly where the host is what it waits for."""
        device = seconds(inputs) + seconds(again), seconds(weights)
        stretch = max(1.0, launch_seconds(cluster, inputs, weights, again) / (sum(device) or 1.0))
        return device[0] * stretch, device[1] * stretch

    def of_pass(whole: Pass) -> Durations:
        forward = max(seconds(whole.forward), launch_seconds(cluster, whole.forward))
        return Durations(forward, *backward(whole.inputs, whole.weights, whole.again))

    has_experts, has_dense = config.num_dense_layers < config.num_layers, config.num_dense_layers > 0
    return Units(
        of_pass(layer(config, how, shape, False, recompute)) if has_dense else Durations(),
        of_pass(layer(config, how, shape, True, recompute)) if has_experts else Durations(),
        of_pass(embedding(config, how, shape)),
        of_pass(head(config, how, shape)),
    )


@lru_cache(maxsize=4096)
def _groups(tp: int, ep: int, etp: int) -> tuple[tuple[Axes, Group], ...]:
    """Groups of a microbatch's collectives, which lie together whatever the replicas and stages are."""
    layout = ParallelLayout(tp=tp, dp=ep * etp, ep=ep, etp=etp)
    return tuple((axes, group_over(axes, layout)) for axes in (("tp",), ("ep",), ("etp",), ("ep", "etp")))


def layout_units(work: Workload, layout: ParallelLayout, cluster: Cluster) -> Units:
    groups = _groups(layout.tp, layout.ep, layout.etp)
    how = without_states(work.how)
    return units(work.config, how, work.arithmetic, work.shape(layout), groups, layout.recompute, cluster)


def stage_durations(work: Workload, layout: ParallelLayout, cluster: Cluster) -> list[Durations]:
    """Durations of one microbatch on every stage; where ranks share cores, with the share that each has of them."""
    if cluster.host is not None:
        return host_time.host_stage_durations(work, layout, cluster)
    of = layout_units(work, layout, cluster)
    return [of.held(stage) for stage in work.held_by_stages(layout)]


def bubble_free_seconds(work: Workload, layout: ParallelLayout, cluster: Cluster) -> float:
    """Seconds of a pipeline without bubble, the layers spread over the ranks as if they could be cut."""
    if cluster.host is not None:
        return host_time.host_bubble_free_seconds(work, layout, cluster)
    of, config = layout_units(work, layout, cluster), work.config
    layers = config.num_dense_layers * of.dense.total + len(config.moe_layers) * of.experts.total
    return layout.microbatches * (layers + of.first.total + of.last.total) / layout.pp


def travel(work: Workload, layout: ParallelLayout, cluster: Cluster) -> Callable[[int, int], float]:
    """Seconds of the message of one microbatch from a stage to the next, as a function of both stages. Each
    tensor-parallel rank sends its part."""
    at, given = ranks_of_stages(layout), _sent_on(work, layout)
    if cluster.host is not None:
        return lambda here, there: 0.0 if at[here] == at[there] else cluster.intra.latency_s.value
    return lambda here, there: message_seconds(given, at[here], at[there], layout, cluster)


def _sent_on(work: Workload, layout: ParallelLayout) -> float:
    return work.shape(layout).tokens * work.config.d_model * work.how.element_bytes / layout.tp


def _message_seconds(work: Workload, layout: ParallelLayout, cluster: Cluster) -> float:
    """Seconds of messages, activations and gradients, that no computation hides: each rank's first message, which fills
    the pipeline; or every message of the rank with the slowest link where ranks wait for what they send."""
    if layout.pp == 1:
        return 0.0
    given, across = _sent_on(work, layout), crossings(layout, cluster)
    if work.how.overlaps_messages:
        return 2 * (across * cluster.inter.seconds(given) + (layout.pp - 1 - across) * cluster.intra.seconds(given))
    slowest = cluster.inter if across else cluster.intra
    return 2 * layout.microbatches * layout.virtual_stages * slowest.seconds(given)


def step_time(work: Workload, layout: ParallelLayout, cluster: Cluster) -> StepTime:
    if cluster.host is not None:
        return host_time.host_step_time(work, layout, cluster)
    of = layout_units(work, layout, cluster)
    what = work.held_by_ranks(layout)
    taken = {held: of.held(held) for held in set(what)}
    ranks = [taken[held] for held in what]
    slowest = max(ranks, key=lambda rank: rank.total)
    schedule = schedule_of(layout)
    waits = [schedule.wait(*_as_run(rank, layout)) for rank in ranks]
    bubble = (sum(waits) - schedule.wait(*_as_run(slowest, layout))) / layout.virtual_stages
    bubble += layout.microbatches * schedule.stall(*_as_run(slowest, layout))
    messages = _message_seconds(work, layout, cluster)
    pipeline = max(layout.microbatches * slowest.total + bubble, _one_microbatch(ranks, layout)) + messages
    gradients = gradient_seconds(work, layout, cluster)
    if work.how.overlaps_gradients:
        gradients = max(0.0, gradients - (slowest.inputs + slowest.weights))
    return StepTime(pipeline, bubble, messages, gradients, optimizer_seconds(work, layout, cluster))


def _as_run(rank: Durations, layout: ParallelLayout) -> tuple[float, float, float]:
    """Seconds of forward, gradients of inputs and gradients of weights. Where layers are recomputed the latter two are
    computed together, as the former, and nothing is left that could fill a bubble."""
    return rank.forward, rank.of("I", layout.recompute), rank.of("W", layout.recompute)


def _one_microbatch(ranks: list[Durations], layout: ParallelLayout) -> float:
    """Seconds of one microbatch through all ranks and back: the least that a step takes with few microbatches."""
    split = schedule_of(layout).splits_backward and layout.recompute == "none"
    return sum(rank.forward + rank.inputs + (0.0 if split else rank.weights) for rank in ranks)


def gradient_seconds(work: Workload, layout: ParallelLayout, cluster: Cluster) -> float:
    """Seconds of the sums of gradients once a step, on the rank with most: all-reduces over the replicas, or where the
    optimizer's state is divided over them a reduce-scatter, and an all-gather of the new weights."""
    if cluster.host is not None:
        return host_time.host_seconds_after_the_pipeline(work, layout, cluster)[0]
    how, most = work.how, 0.0
    replicas, expert_replicas, tp = (
        group_over(("dp",), layout),
        group_over(("edp",), layout),
        group_over(("tp",), layout),
    )
    for held in set(rank_parameters(work, layout)):
        spent = collective_seconds("all_reduce", held.whole * how.gradient_bytes, tp, cluster)
        for count, among in ((held.whole + held.divided_over_tp, replicas), (held.experts, expert_replicas)):
            if not count:
                continue
            if how.sharded_state_bytes:
                spent += collective_seconds("reduce_scatter", count * how.gradient_bytes, among, cluster)
                given = count * how.element_bytes / among.size
                spent += collective_seconds("all_gather", given, among, cluster)
            else:
                spent += collective_seconds("all_reduce", count * how.gradient_bytes, among, cluster)
        most = max(most, spent)
    return most


def optimizer_seconds(work: Workload, layout: ParallelLayout, cluster: Cluster) -> float:
    """Seconds of the optimizer's update on the rank with most, which memory bounds."""
    if cluster.host is not None:
        return host_time.host_seconds_after_the_pipeline(work, layout, cluster)[1]
    sharded = bool(work.how.sharded_state_bytes)
    dp, edp = (layout.dp, layout.edp) if sharded else (1, 1)
    ranks = set(rank_parameters(work, layout))
    counts = [(held.whole + held.divided_over_tp) / dp + held.experts / edp for held in ranks]
    return max(counts) * work.how.update_bytes / (cluster.memory_bandwidth * cluster.achieved.memory)
