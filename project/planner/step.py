"""What a plan is of: a model, its layout, and the batch of an optimizer step. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from project.planner.cost.parameters import parts_of
from project.spec.cost import expert_slots
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.partition import Part
from project.spec.placement import stage_to_rank


@dataclass(frozen=True)
class Step:
    """`batch` counts the sequences over all replicas and of one batch, of which a step accumulates `accumulate`."""

    config: ModelConfig
    layout: ParallelLayout
    batch: int
    seq_len: int
    precision: str = "32-true"
    accumulate: int = 1

    @property
    def microbatches(self) -> int:
        return self.layout.microbatches * self.accumulate

    @property
    def sequences(self) -> int:
        """Of a microbatch of one replica."""
        return self.batch // (self.layout.dp * self.layout.microbatches)

    @property
    def tokens(self) -> int:
        """Of a microbatch of one replica; a rank of tp has its share of them between the matrices."""
        return self.sequences * self.seq_len

    @cached_property
    def parts(self) -> list[Part]:
        return parts_of(self.config, self.layout, self.seq_len)

    @cached_property
    def rank_of_stage(self) -> list[int]:
        return stage_to_rank(self.layout)

    def parts_on(self, pp_rank: int) -> list[Part]:
        return [part for part in self.parts if self.rank_of_stage[part.stage] == pp_rank]

    @property
    def expert_axes_are_tp(self) -> bool:
        return (self.layout.ep, self.layout.etp) == (self.layout.tp, 1)


def rows_sent(step: Step) -> int:
    """Rows that a rank hands to the experts' dispatch for one microbatch: each token's assignments, each to all slices
    of its expert; with a capacity, all slots of all experts, full or not."""
    config, layout = step.config, step.layout
    tokens = step.tokens // layout.tp
    if config.capacity_factor is None:
        return tokens * config.top_k * layout.etp
    slots = expert_slots(config.capacity_factor, config.capacity_group, config.top_k, config.num_experts)
    return tokens // config.capacity_group * slots * config.num_experts * layout.etp
