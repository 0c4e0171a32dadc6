"""The subject of a plan: a model, its layout, and the batch of an optimizer step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from project.planner.cost.stages import parts_of
from project.spec.cost import Tables
from project.spec.layer import transformer
from project.spec.layer.implementation import Implementation, ours, without_states
from project.spec.layer.operation import Shape
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.partition import Part, stage_to_rank
from project.spec.precision import width_of


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
    def parts(self) -> tuple[Part, ...]:
        return parts_of(self.config, self.layout, self.seq_len)

    @cached_property
    def rank_of_stage(self) -> list[int]:
        return stage_to_rank(self.layout)

    @property
    def shape(self) -> Shape:
        layout = self.layout
        return Shape(self.sequences, self.seq_len, layout.tp, layout.ep, layout.etp)

    @property
    def how(self) -> Implementation:
        return without_states(ours(self.precision))

    @cached_property
    def tables(self) -> Tables:
        """Tables of one rank and microbatch; that of a kind of layer that the model has not is empty."""
        config = self.config
        args = config, self.how, self.shape, width_of(self.precision)
        return Tables(
            transformer.layer(*args, False) if config.num_dense_layers else (),
            transformer.layer(*args, True) if config.moe_layers else (),
            transformer.embedding(*args),
            transformer.head(*args),
        )

    def parts_on(self, pp_rank: int) -> list[Part]:
        return [part for part in self.parts if self.rank_of_stage[part.stage] == pp_rank]

    @property
    def expert_axes_are_tp(self) -> bool:
        return (self.layout.ep, self.layout.etp) == (self.layout.tp, 1)
