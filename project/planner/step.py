"""The optimizer step that a plan is made for: a model, its layout and the batch."""

from dataclasses import dataclass
from functools import cached_property

from project.planner.cost.stages import parts_of
from project.spec.layer import transformer
from project.spec.layer.implementation import Implementation, ours, without_states
from project.spec.layer.operation import Shape
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.partition import Part, stage_to_rank
from project.spec.precision import width_of


@dataclass(frozen=True)
class Step:
    """`batch` is the number of sequences of one batch over all replicas; an optimizer step accumulates the gradients
    of `accumulate` batches."""

    config: ModelConfig
    layout: ParallelLayout
    batch: int
    seq_len: int
    precision: str = "32-true"
    accumulate: int = 1

    @property
    def microbatches(self) -> int:
        """Microbatches of an optimizer step on one replica."""
        return self.layout.microbatches * self.accumulate

    @property
    def sequences(self) -> int:
        """Sequences of a microbatch on one replica."""
        return self.batch // (self.layout.dp * self.layout.microbatches)

    @property
    def tokens(self) -> int:
        """Tokens of a microbatch on one replica. Between the matrices each rank of tp holds `tokens / tp` of them."""
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
        """This trainer's choices, as far as a microbatch depends on them."""
        return without_states(ours(self.precision, self.layout.dp_mode))

    @property
    def tables(self) -> transformer.Tables:
        """Tables of one rank and microbatch."""
        return transformer.tables(self.config, self.how, self.shape, width_of(self.precision))

    def parts_on(self, pp_rank: int) -> list[Part]:
        return [part for part in self.parts if self.rank_of_stage[part.stage] == pp_rank]

    @property
    def expert_axes_are_tp(self) -> bool:
        return (self.layout.ep, self.layout.etp) == (self.layout.tp, 1)
