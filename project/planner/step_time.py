"""Seconds of an optimizer step: what each stage takes for a microbatch, the pipeline over them, and what follows once.
No torch.

The pipeline is summed up by closed forms (Narayanan et al., arXiv 2104.04473; Qi et al., arXiv 2401.10241), in which
the slowest rank sets the pace and the others are passed once; `project.planner.timeline` runs a schedule action by
action.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from project.metrics.peak import Arithmetic
from project.model.config import ModelConfig
from project.model.cost import (
    attention_parameters,
    embedding_parameters,
    router_parameters,
    stage_costs,
)
from project.parallel.layout import ParallelLayout
from project.pipeline.partition import Costs, Part, partition
from project.pipeline.placement import stage_to_rank
from project.planner import collective_time
from project.planner.cluster import Cluster
from project.planner.compute import launch_seconds, work_seconds
from project.planner.group import Group, group_over
from project.planner.implementation import Implementation
from project.planner.work import NOTHING, Layer, Pass, Shape, Transfer, Work, embedding, head, layer


@dataclass(frozen=True)
class Workload:
    """`batch` counts the sequences of one optimizer step over all replicas; `imbalance` is the load of the busiest
    rank's experts over the mean."""

    config: ModelConfig
    batch: int
    seq_len: int
    how: Implementation
    arithmetic: Arithmetic = "half"
    imbalance: float = 1.0

    def shape(self, layout: ParallelLayout) -> Shape:
        sequences = self.batch // (layout.dp * layout.microbatches)
        return Shape(sequences, self.seq_len, layout.tp, layout.ep, layout.etp, self.imbalance)


class Durations(NamedTuple):
    """Seconds of one microbatch: forward; backward of the inputs, what is computed again included; of the weights."""

    forward: float = 0.0
    inputs: float = 0.0
    weights: float = 0.0

    def plus(self, other: Durations, times: int = 1) -> Durations:
        return Durations(*(mine + times * its for mine, its in zip(self, other, strict=True)))

    @property
    def total(self) -> float:
        return self.forward + self.inputs + self.weights


class StepTime(NamedTuple):
    """Seconds. `bubble` is the part of `pipeline` in which the slowest rank waits for others to fill it or to empty;
    `messages` of it is spent on what stages send each other."""

    pipeline: float
    bubble: float
    messages: float
    gradients: float
    optimizer: float

    @property
    def total(self) -> float:
        return self.pipeline + self.gradients + self.optimizer


class Units(NamedTuple):
    """What a stage is made of."""

    dense: Durations
    experts: Durations
    first: Durations
    last: Durations


@lru_cache(maxsize=4096)
def units(
    config: ModelConfig,
    how: Implementation,
    arithmetic: Arithmetic,
    shape: Shape,
    groups: tuple[tuple[str, Group], ...],
    recompute: str,
    cluster: Cluster,
) -> Units:
    """Of one shape, of which a search asks for thousands of pipelines."""
    among = dict(groups)

    def seconds(work: Work) -> float:
        sent = sum(transfer_seconds(transfer, among, cluster) for transfer in work.transfers)
        return work_seconds(work, cluster, arithmetic, how.element_bytes) + sent

    def backward(inputs: Work, weights: Work, again: Work) -> tuple[float, float]:
        """Its two halves, stretched evenly where the host is what it waits for."""
        device = seconds(inputs) + seconds(again), seconds(weights)
        stretch = max(1.0, launch_seconds(inputs + weights + again, cluster) / (sum(device) or 1.0))
        return device[0] * stretch, device[1] * stretch

    def of_pass(whole: Pass, again: Work) -> Durations:
        forward = max(seconds(whole.forward), launch_seconds(whole.forward, cluster))
        return Durations(forward, *backward(whole.inputs, whole.weights, again))

    def of_layer(piece: Layer) -> Durations:
        return of_pass(piece.work, piece.again(recompute, how))

    has_experts, has_dense = config.num_dense_layers < config.num_layers, config.num_dense_layers > 0
    return Units(
        of_layer(layer(config, how, shape, False)) if has_dense else Durations(),
        of_layer(layer(config, how, shape, True)) if has_experts else Durations(),
        of_pass(embedding(config, how, shape), NOTHING),
        of_pass(head(config, how, shape), NOTHING),
    )


def transfer_seconds(transfer: Transfer, among: dict[str, Group], cluster: Cluster) -> float:
    return collective_time.seconds(transfer.collective, transfer.given, among[transfer.axis], cluster, transfer.copies)


def layout_units(work: Workload, layout: ParallelLayout, cluster: Cluster) -> Units:
    groups = tuple((axis, group_over(tuple(axis.split("_")), layout)) for axis in ("tp", "ep", "etp", "ep_etp"))
    return units(work.config, work.how, work.arithmetic, work.shape(layout), groups, layout.recompute, cluster)


def stage_durations(work: Workload, layout: ParallelLayout, cluster: Cluster) -> list[Durations]:
    """Of every stage."""
    of, first_moe = layout_units(work, layout, cluster), work.config.num_dense_layers
    found = []
    for part in parts(work.config, layout):
        dense = len(range(part.layers.start, min(part.layers.stop, first_moe)))
        whole = Durations().plus(of.dense, dense).plus(of.experts, len(part.layers) - dense)
        found.append(whole.plus(of.first, part.first).plus(of.last, part.last))
    return found


def message_seconds(work: Workload, layout: ParallelLayout, cluster: Cluster) -> float:
    """One microbatch's activations, from one stage to the next. Each tensor-parallel rank sends its part."""
    shape = work.shape(layout)
    given = shape.tokens * work.config.d_model * work.how.element_bytes / layout.tp
    return collective_time.seconds("message", given, group_over(("pp",), layout), cluster) if layout.pp > 1 else 0.0


def step_time(work: Workload, layout: ParallelLayout, cluster: Cluster) -> StepTime:
    stages = stage_durations(work, layout, cluster)
    at = ranks_of_stages(layout)
    ranks = [Durations()] * layout.pp
    for rank, stage in zip(at, stages, strict=True):
        ranks[rank] = ranks[rank].plus(stage)
    slowest = max(ranks, key=lambda rank: rank.total)
    bubble = (sum(map(idle(layout), ranks)) - idle(layout)(slowest)) / layout.virtual_stages
    message = message_seconds(work, layout, cluster)
    exposed = layout.pp - 1 if work.how.overlaps_messages else layout.microbatches * layout.virtual_stages
    messages = 2 * message * exposed if layout.pp > 1 else 0.0
    pipeline = layout.microbatches * slowest.total + bubble + messages
    gradients = gradient_seconds(work, layout, cluster)
    if work.how.overlaps_gradients:
        gradients = max(0.0, gradients - (slowest.inputs + slowest.weights))
    return StepTime(pipeline, bubble, messages, gradients, optimizer_seconds(work, layout, cluster))


def idle(layout: ParallelLayout):
    """What the slowest rank waits for another, with one stage a rank: zero-bubble schedules fill it with the weights'
    halves of the backward."""
    zero_bubble = layout.schedule in ("InterleavedZeroBubble", "ZBVZeroBubble", "DualPipeV")
    if not zero_bubble or layout.recompute != "none":
        return lambda rank: rank.total
    if layout.schedule == "InterleavedZeroBubble":
        return lambda rank: max(0.0, rank.forward + rank.inputs - rank.weights)
    return lambda rank: max(0.0, rank.forward + rank.inputs - 2 * rank.weights)


@lru_cache(maxsize=4096)
def _parts(config: ModelConfig, layout: ParallelLayout) -> tuple[Part, ...]:
    return tuple(partition(Costs(*stage_costs(config, config.max_seq_len)), layout))


def parts(config: ModelConfig, layout: ParallelLayout) -> tuple[Part, ...]:
    """As the trainer cuts it."""
    split = ParallelLayout(pp=layout.pp, virtual_stages=layout.virtual_stages, partition=layout.partition)
    return _parts(config, split)


@lru_cache(maxsize=4096)
def _ranks_of_stages(pp: int, virtual_stages: int, schedule: str) -> tuple[int, ...]:
    return tuple(stage_to_rank(ParallelLayout(pp=pp, virtual_stages=virtual_stages, schedule=schedule)))


def ranks_of_stages(layout: ParallelLayout) -> tuple[int, ...]:
    return _ranks_of_stages(layout.pp, layout.virtual_stages, layout.schedule)


class Parameters(NamedTuple):
    """Of one rank: whole on every rank of tp, divided over tp, divided over ep and etp."""

    whole: float
    dense: float
    experts: float

    @property
    def total(self) -> float:
        return self.whole + self.dense + self.experts


def rank_parameters(work: Workload, layout: ParallelLayout) -> list[Parameters]:
    """Of each pipeline rank; norms and biases apart from the router's are too few to matter to time."""
    config, matrices = work.config, 3 if work.how.gated else 2
    one_expert = matrices * config.d_model * config.d_ff
    found = [Parameters(0, 0, 0)] * layout.pp
    for rank, part in zip(ranks_of_stages(layout), parts(config, layout), strict=True):
        moe = len(range(max(part.layers.start, config.num_dense_layers), part.layers.stop))
        dense = len(part.layers) - moe
        divided = (
            len(part.layers) * attention_parameters(config)
            + dense * matrices * config.d_model * config.dense_d_ff
            + moe * config.num_shared_experts * one_expert
            + (part.first + part.last) * embedding_parameters(config)
        ) / layout.tp
        before = found[rank]
        found[rank] = Parameters(
            before.whole + moe * router_parameters(config) + 2 * len(part.layers) * config.d_model,
            before.dense + divided,
            before.experts + moe * config.num_experts * one_expert / (layout.ep * layout.etp),
        )
    return found


def gradient_seconds(work: Workload, layout: ParallelLayout, cluster: Cluster) -> float:
    """Once a step, the rank with most: sums over the replicas, and where the optimizer's state is divided over them a
    reduce-scatter, and an all-gather of the new weights."""
    how, most = work.how, 0.0
    replicas, expert_replicas, tp = (
        group_over(("dp",), layout),
        group_over(("edp",), layout),
        group_over(("tp",), layout),
    )
    for held in rank_parameters(work, layout):
        spent = collective_time.seconds("all_reduce", held.whole * how.gradient_bytes, tp, cluster)
        for count, among in ((held.whole + held.dense, replicas), (held.experts, expert_replicas)):
            if not count:
                continue
            if how.sharded_state_bytes:
                spent += collective_time.seconds("reduce_scatter", count * how.gradient_bytes, among, cluster)
                given = count * how.element_bytes / among.size
                spent += collective_time.seconds("all_gather", given, among, cluster)
            else:
                spent += collective_time.seconds("all_reduce", count * how.gradient_bytes, among, cluster)
        most = max(most, spent)
    return most


def optimizer_seconds(work: Workload, layout: ParallelLayout, cluster: Cluster) -> float:
    """Bound by memory."""
    sharded = bool(work.how.sharded_state_bytes)
    dp, edp = (layout.dp, layout.edp) if sharded else (1, 1)
    counts = [(held.whole + held.dense) / dp + held.experts / edp for held in rank_parameters(work, layout)]
    return max(counts) * work.how.update_bytes / (cluster.memory_bandwidth * cluster.achieved.memory)
