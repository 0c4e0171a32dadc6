"""Seconds of an optimizer step: what each stage takes for a microbatch, the pipeline over them, and what follows once.
No torch.

The pipeline is summed up by closed forms (Narayanan et al., arXiv 2104.04473; Qi et al., arXiv 2401.10241), in which
the slowest rank sets the pace and the others are passed once; `project.planner.timeline` runs a schedule action by
action.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from operator import mul
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
from project.pipeline.partition import Costs, partition
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

    def held(self, what: Held) -> Durations:
        return Durations(*(sum(map(mul, what, unit)) for unit in zip(*self, strict=True)))


@lru_cache(maxsize=65536)
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


@lru_cache(maxsize=4096)
def _groups(tp: int, ep: int, etp: int) -> tuple[tuple[str, Group], ...]:
    """Those of a microbatch, which lie together whatever the replicas and stages are."""
    layout = ParallelLayout(tp=tp, dp=ep * etp, ep=ep, etp=etp)
    return tuple((axis, group_over(tuple(axis.split("_")), layout)) for axis in ("tp", "ep", "etp", "ep_etp"))


def layout_units(work: Workload, layout: ParallelLayout, cluster: Cluster) -> Units:
    groups = _groups(layout.tp, layout.ep, layout.etp)
    how = without_states(work.how)
    return units(work.config, how, work.arithmetic, work.shape(layout), groups, layout.recompute, cluster)


@lru_cache
def without_states(how: Implementation) -> Implementation:
    """What it keeps changes no microbatch's time."""
    return replace(how, state_bytes=0, sharded_state_bytes=0)


def stage_durations(work: Workload, layout: ParallelLayout, cluster: Cluster) -> list[Durations]:
    """Of every stage."""
    of = layout_units(work, layout, cluster)
    return [of.held(stage) for stage in stages_held(work, layout)]


def message_seconds(work: Workload, layout: ParallelLayout, cluster: Cluster) -> float:
    """One microbatch's activations, from one stage to the next. Each tensor-parallel rank sends its part."""
    shape = work.shape(layout)
    given = shape.tokens * work.config.d_model * work.how.element_bytes / layout.tp
    return collective_time.seconds("message", given, group_over(("pp",), layout), cluster) if layout.pp > 1 else 0.0


def step_time(work: Workload, layout: ParallelLayout, cluster: Cluster) -> StepTime:
    of = layout_units(work, layout, cluster)
    ranks = [of.held(rank) for rank in ranks_held(work, layout)]
    slowest = max(ranks, key=lambda rank: rank.total)
    bubble = (sum(idle(rank, layout) for rank in ranks) - idle(slowest, layout)) / layout.virtual_stages
    message = message_seconds(work, layout, cluster)
    exposed = layout.pp - 1 if work.how.overlaps_messages else layout.microbatches * layout.virtual_stages
    messages = 2 * message * exposed if layout.pp > 1 else 0.0
    pipeline = max(layout.microbatches * slowest.total + bubble, _one_microbatch(ranks, layout)) + messages
    gradients = gradient_seconds(work, layout, cluster)
    if work.how.overlaps_gradients:
        gradients = max(0.0, gradients - (slowest.inputs + slowest.weights))
    return StepTime(pipeline, bubble, messages, gradients, optimizer_seconds(work, layout, cluster))


ZERO_BUBBLE = ("InterleavedZeroBubble", "ZBVZeroBubble", "DualPipeV")


def idle(rank: Durations, layout: ParallelLayout) -> float:
    """What the slowest rank waits for another, with one stage a rank: zero-bubble schedules fill it with the weights'
    halves of the backward, which there are none of where layers are recomputed."""
    if layout.schedule not in ZERO_BUBBLE or layout.recompute != "none":
        return rank.total
    filled = 1 if layout.schedule == "InterleavedZeroBubble" else 2
    return max(0.0, rank.forward + rank.inputs - filled * rank.weights)


def _one_microbatch(ranks: list[Durations], layout: ParallelLayout) -> float:
    """All the way and back, which few microbatches do not fill."""
    split = layout.schedule in ZERO_BUBBLE and layout.recompute == "none"
    return sum(rank.forward + rank.inputs + (0.0 if split else rank.weights) for rank in ranks)


class Held(NamedTuple):
    """What a stage, or a rank with all its stages, has of the model: layers without and with experts, the embedding,
    the head."""

    dense: int
    experts: int
    first: int
    last: int

    @property
    def layers(self) -> int:
        return self.dense + self.experts


@lru_cache(maxsize=4096)
def _stages_held(config: ModelConfig, seq_len: int, split: ParallelLayout) -> tuple[Held, ...]:
    found = []
    for part in partition(Costs(*stage_costs(config, seq_len)), split):
        dense = len(range(part.layers.start, min(part.layers.stop, config.num_dense_layers)))
        found.append(Held(dense, len(part.layers) - dense, part.first, part.last))
    return tuple(found)


def stages_held(work: Workload, layout: ParallelLayout) -> tuple[Held, ...]:
    """As the trainer cuts the model."""
    split = ParallelLayout(pp=layout.pp, virtual_stages=layout.virtual_stages, partition=layout.partition)
    return _stages_held(work.config, work.seq_len, split)


@lru_cache(maxsize=4096)
def _ranks_held(config: ModelConfig, seq_len: int, split: ParallelLayout) -> tuple[Held, ...]:
    ranks = [Held(0, 0, 0, 0)] * split.pp
    alone = ParallelLayout(pp=split.pp, virtual_stages=split.virtual_stages, partition=split.partition)
    for rank, stage in zip(stage_to_rank(split), _stages_held(config, seq_len, alone), strict=True):
        ranks[rank] = Held(*(mine + its for mine, its in zip(ranks[rank], stage, strict=True)))
    return tuple(ranks)


def ranks_held(work: Workload, layout: ParallelLayout) -> tuple[Held, ...]:
    split = ParallelLayout(
        pp=layout.pp, virtual_stages=layout.virtual_stages, partition=layout.partition, schedule=layout.schedule
    )
    return _ranks_held(work.config, work.seq_len, split)


class Parameters(NamedTuple):
    """Of one rank: whole on every rank of tp, divided over tp, divided over ep and etp."""

    whole: float
    dense: float
    experts: float


@lru_cache(maxsize=65536)
def _rank_parameters(
    config: ModelConfig, how: Implementation, ranks: tuple[Held, ...], tp: int, over: int
) -> tuple[Parameters, ...]:
    matrices = 3 if how.gated else 2
    one_expert = matrices * config.d_model * config.d_ff
    return tuple(
        Parameters(
            held.experts * router_parameters(config) + (2 * held.layers + held.last) * config.d_model,
            (
                held.layers * attention_parameters(config)
                + held.dense * matrices * config.d_model * config.dense_d_ff
                + held.experts * config.num_shared_experts * one_expert
                + (held.first + held.last) * embedding_parameters(config)
            )
            / tp,
            held.experts * config.num_experts * one_expert / over,
        )
        for held in ranks
    )


def rank_parameters(work: Workload, layout: ParallelLayout) -> tuple[Parameters, ...]:
    """Of each pipeline rank, of whatever trainer; biases are too few to matter to time."""
    ranks = ranks_held(work, layout)
    return _rank_parameters(work.config, work.how, ranks, layout.tp, layout.ep * layout.etp)


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
