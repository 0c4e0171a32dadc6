"""Bytes of the busiest rank by closed forms, for trainers that are not ours.

Activations after Korthikanti et al., arXiv 2205.05198, counted kernel by kernel, so that the same sum holds for fused
attention, gated networks and grouped queries: per layer `sbh(34 + 5as/h)` with dropout and no parallelism,
`(sb/t)[16h + k(4h + gf)]` of a mixture of experts in half precision.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from project.planner.cost.parameters import Parameters
from project.planner.cost.workload import Workload, rank_parameters
from project.spec.layer.implementation import Implementation
from project.spec.layer.operation import Shape
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.schedules.in_flight import share_in_flight


class Footprint(NamedTuple):
    """Bytes: weights, gradients and optimizer's states; what autograd keeps of all microbatches in flight; logits."""

    states: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        return self.states + self.activations + self.logits


@lru_cache(maxsize=65536)
def layer_activation_bytes(
    config: ModelConfig, how: Implementation, shape: Shape, recompute: str, has_experts: bool
) -> float:
    """Of one layer and microbatch."""
    tokens, element, tp = shape.tokens, how.element_bytes, shape.tp
    stream = tokens * config.d_model * element
    around = tp if how.sequence_parallel else 1
    if recompute == "full":
        return stream / around
    # Inputs of both norms, of both halves' first matrices; a mask for each half's dropout.
    between = 4 * stream + (2 * stream / element if how.dropout else 0)
    heads, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    projections = tokens * (2 * heads + 2 * kv) * element / tp
    kernels = recompute == "selective" and how.selective == "kernels"
    if kernels:
        between -= 2 * stream
    return (
        between / around
        + projections
        + _core_bytes(config, how, shape, recompute)
        + (_expert_bytes if has_experts else _dense_bytes)(config, how, shape, kernels)
    )


def _core_bytes(config: ModelConfig, how: Implementation, shape: Shape, recompute: str) -> float:
    """Softmax's output; its dropped version and the mask."""
    again = recompute == "selective" and how.selective == "attention core"
    if how.fused_attention or again:
        return 0.0
    scores = config.num_heads * shape.seq_len * shape.tokens / shape.tp
    return scores * ((2 * how.element_bytes + 1) if how.dropout else how.element_bytes)


def _kept_widths(how: Implementation, kernels: bool) -> int:
    """How often the width of a network is kept a token: the nonlinearity's inputs, and its output."""
    return (2 if how.gated else 1) + (0 if kernels else 1)


def _dense_bytes(config: ModelConfig, how: Implementation, shape: Shape, kernels: bool) -> float:
    return shape.tokens * config.dense_d_ff * _kept_widths(how, kernels) * how.element_bytes / shape.tp


def _expert_bytes(config: ModelConfig, how: Implementation, shape: Shape, kernels: bool) -> float:
    """Rows on their way in and out, what the experts keep of them, and the shared experts."""
    rows = shape.tokens * config.top_k * shape.imbalance / shape.tp
    widths = _kept_widths(how, kernels)
    routed = rows * (2 * config.d_model * shape.etp + widths * config.d_ff)
    shared = shape.tokens * config.num_shared_experts * config.d_ff * widths / shape.tp
    return (routed + shared) * how.element_bytes


def footprint(work: Workload, layout: ParallelLayout) -> Footprint:
    """Of the rank with most."""
    how, config, shape = work.how, work.config, work.shape(layout)
    kept = {
        kind: layer_activation_bytes(config, how, shape, layout.recompute, kind)
        for kind in (False, True)
        if kind is False or config.num_dense_layers < config.num_layers
    }
    found = []
    for rank, (held, counts) in enumerate(zip(work.held_by_ranks(layout), rank_parameters(work, layout), strict=True)):
        activations = held.dense * kept[False] + held.experts * kept.get(True, 0.0)
        logits = held.last * shape.tokens * config.vocab_size * 4 / layout.tp
        found.append(Footprint(states(how, counts, layout), activations * share_in_flight(layout, rank), logits))
    return max(found, key=lambda one: one.total)


def states(how: Implementation, counts: Parameters, layout: ParallelLayout) -> float:
    plain = counts.whole + counts.divided_over_tp
    kept_whole = how.state_bytes * (plain + counts.experts)
    return kept_whole + how.sharded_state_bytes * (plain / layout.dp + counts.experts / layout.edp)
