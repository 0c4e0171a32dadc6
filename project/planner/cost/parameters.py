"""Parameters of each rank, by kind of module: closed forms on the layout, held by the tests to the ranks' own.

All ranks of a stage hold as many: what is divided is divided evenly, or refused (`project.spec.legality.rules`).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from project.spec.cost import (
    attention_parameters,
    dense_parameters,
    embedding_parameters,
    expert_parameters,
    router_parameters,
    stage_costs,
)
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.partition import Costs, Part, partition
from project.spec.placement import stages_of


class Parameters(NamedTuple):
    """On one rank."""

    embedding: int = 0
    attention: int = 0
    router: int = 0
    experts: int = 0
    shared: int = 0
    feed_forward: int = 0
    norms: int = 0
    head: int = 0

    @property
    def total(self) -> int:
        return sum(self)

    @property
    def whole(self) -> int:
        """On every rank of tp, and on every replica."""
        return self.norms + self.router

    @property
    def divided_over_tp(self) -> int:
        return self.embedding + self.attention + self.shared + self.feed_forward + self.head

    def plus(self, other: Parameters) -> Parameters:
        return Parameters(*(here + there for here, there in zip(self, other, strict=True)))


@cache
def parts_of(config: ModelConfig, layout: ParallelLayout, seq_len: int) -> list[Part]:
    """By stage, as the trainer cuts the model (`MoEModule.layer_costs`)."""
    return partition(Costs(*stage_costs(config, seq_len)), layout)


def parameters_of(config: ModelConfig, layout: ParallelLayout, part: Part, sharded: bool | None = None) -> Parameters:
    """Of one stage on one rank. `sharded` says whether replicas hold shards; None: as the layout does."""
    shard = layout.dp_mode == "shard" if sharded is None else sharded
    with_experts = len([layer for layer in part.layers if layer in config.moe_layers])
    over_tp = layout.tp * (layout.dp if shard else 1)
    over_experts = layout.ep * layout.etp * (layout.edp if shard else 1)
    layers = len(part.layers)
    return Parameters(
        embedding=part.first * embedding_parameters(config) // over_tp,
        attention=layers * attention_parameters(config) // over_tp,
        router=with_experts * router_parameters(config),
        experts=with_experts * config.num_experts * expert_parameters(config) // over_experts,
        shared=with_experts * config.num_shared_experts * expert_parameters(config) // over_tp,
        feed_forward=(layers - with_experts) * dense_parameters(config) // over_tp,
        norms=(2 * layers + part.last) * config.d_model,
        head=part.last * embedding_parameters(config) // over_tp,
    )


def parameters_on(config: ModelConfig, layout: ParallelLayout, pp_rank: int, seq_len: int) -> Parameters:
    """Of all stages of a pipeline rank."""
    parts, held = parts_of(config, layout, seq_len), Parameters()
    for stage in stages_of(pp_rank, layout):
        held = held.plus(parameters_of(config, layout, parts[stage]))
    return held
