"""Bytes of the busiest rank of any trainer, other people's among them, by closed forms: what the layers' tables keep,
times the microbatches in flight, and the optimizer's states."""

from functools import lru_cache
from typing import NamedTuple

from project.planner.cost.parameters import Parameters
from project.planner.cost.workload import Workload, rank_parameters
from project.planner.memory.activations import bytes_kept
from project.spec.layer import transformer
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
    """Bytes of one layer and microbatch."""
    table = transformer.layer(config, how, shape, how.width, has_experts)
    return sum(bytes_kept(table, how, recompute).values())


def footprint(work: Workload, layout: ParallelLayout) -> Footprint:
    """Bytes of the rank with most."""
    how, config, shape = work.how, work.config, work.shape(layout)
    dense, experts = (
        layer_activation_bytes(config, how, shape, layout.recompute, has_experts) for has_experts in (False, True)
    )
    logits = bytes_kept(transformer.head(config, how, shape, how.width), how, "none").get("logits", 0)
    found = []
    for rank, (held, counts) in enumerate(zip(work.held_by_ranks(layout), rank_parameters(work, layout), strict=True)):
        activations = (held.dense * dense + held.experts * experts) * share_in_flight(layout, rank)
        found.append(Footprint(states(how, counts, layout), activations, held.last * logits))
    return max(found, key=lambda one: one.total)


def states(how: Implementation, counts: Parameters, layout: ParallelLayout) -> float:
    plain = counts.whole + counts.divided_over_tp
    kept_whole = how.state_bytes * (plain + counts.experts)
    return kept_whole + how.sharded_state_bytes * (plain / layout.dp + counts.experts / layout.edp)
