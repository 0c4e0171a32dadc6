"""Bytes on a rank at the peak of an optimizer step, by what they are for.

Adam in this trainer: weights, gradients and two moments, each as wide as a weight (in mixed precision the fp32 weight
is the master). What autograd keeps is `activations`, exact; buffers are counted where the trainer allocates them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import NamedTuple

from project.planner.cost.stages import ranks_of_stages, stages_held, stages_of_ranks
from project.planner.memory.activations import kept
from project.planner.memory.piece import pieces
from project.planner.step import Step
from project.spec.precision import width_of
from project.spec.schedules.in_flight import InFlight, in_flight


class Memory(NamedTuple):
    """Bytes. `activations` is what the microbatches in flight keep, logits apart; `buffers` what collectives and
    messages need besides; `framework` is assumed, the cluster's."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    recomputation: int
    buffers: int
    framework: int

    @property
    def total(self) -> int:
        return sum(self)


class Ranks:
    """The pipeline ranks of a step, and what each has of the model."""

    def __init__(self, step: Step) -> None:
        self.step, self.pieces = step, pieces(step)
        self.width = width_of(step.precision)
        self.at = ranks_of_stages(step.layout)
        self.stages = stages_of_ranks(step.layout)
        self.made = [self.pieces.of(what) for what in stages_held(step.config, step.layout, step.seq_len)]
        self.in_flight = in_flight(step.layout)

    def memory(self, pp_rank: int, framework: int) -> Memory:
        width, held, whole, activations, logits = self.width.weight, 0, 0, 0, 0
        for stage in self.stages[pp_rank]:
            piece = self.made[stage]
            peak = piece.peak(self.in_flight[stage])
            of_logits = piece.logits_at(peak)
            activations += piece.at(peak) - of_logits
            logits += of_logits
            held += piece.held
            whole += piece.whole
        gathered = whole > held  # of shards, until the step ends
        return Memory(
            weights=whole * width,
            gradients=(whole + (held if gathered else 0)) * width,
            optimizer=2 * held * width,
            activations=activations,
            logits=logits,
            recomputation=self.pieces.recomputed_layer,
            buffers=self.messages(pp_rank) + self.pieces.rows + self.gradients(pp_rank),
            framework=framework,
        )

    def messages(self, pp_rank: int) -> int:
        """One buffer a microbatch and direction (`torch.distributed.pipelining`); those in flight are kept activations
        by then."""
        microbatches, buffers = self.step.layout.microbatches, 0
        for stage in self.stages[pp_rank]:
            if stage > 0 and self.at[stage - 1] != pp_rank:
                buffers += microbatches - max(moment.all for moment in self.in_flight[stage])
            if stage + 1 < len(self.at) and self.at[stage + 1] != pp_rank:
                buffers += microbatches
        return buffers * self.pieces.stream

    def gradients(self, pp_rank: int) -> int:
        """The flat ones of an all-reduce: over replicas of all, else of what every rank of tp has."""
        layout, parts = self.step.layout, [self.made[stage] for stage in self.stages[pp_rank]]
        if layout.dp > 1 and layout.dp_mode == "replicate":
            return sum(part.whole for part in parts) * self.width.weight
        return sum(part.replicated for part in parts) * self.width.weight * (layout.dp > 1 or layout.tp > 1)


def memory(step: Step, pp_rank: int, framework: int = 0) -> Memory:
    """Of one rank of that pipeline rank; stages of one rank are taken to peak together."""
    return Ranks(step).memory(pp_rank, framework)


def peak(step: Step, framework: int) -> int:
    """Bytes of the largest rank."""
    ranks = Ranks(step)
    return max(ranks.memory(rank, framework).total for rank in range(step.layout.pp))


def least(step: Step, framework: int) -> float:
    """Bytes that the largest rank holds at least, whatever the schedule and however the layers are cut: an even share
    of what one rank with all layers would hold, with a microbatch in flight, and of the messages between pp stages."""
    layout = step.layout
    alone = Ranks(replace(step, layout=replace(layout, pp=1, schedule="1F1B", virtual_stages=1, partition=None)))
    everywhere = alone.pieces.recomputed_layer + alone.pieces.rows
    messages = (layout.pp - 1) * (2 * layout.microbatches - 1) * alone.pieces.stream
    return (alone.memory(0, 0).total - everywhere + messages) / layout.pp + everywhere + framework


def peaks(step: Step, pp_rank: int) -> dict[int, InFlight]:
    """Of each stage of a rank, when its microbatches in flight keep most."""
    ranks = Ranks(step)
    return {stage: ranks.made[stage].peak(ranks.in_flight[stage]) for stage in ranks.stages[pp_rank]}


def by_module(step: Step, pp_rank: int) -> dict[str, int]:
    """What the microbatches in flight keep on a rank, by the module that keeps it."""
    found: Counter[str] = Counter()
    for stage, peak in peaks(step, pp_rank).items():
        here = kept(step, step.parts[stage])
        found.update(here.by_module(peak))
        found["tokens and targets"] += here.batch
    return dict(found)


def buffers(step: Step, pp_rank: int) -> dict[str, int]:
    """Beside what autograd keeps: the messages that a stage holds a buffer for; rows on their way to experts and come
    from there; the flat gradients of an all-reduce."""
    ranks = Ranks(step)
    return {
        "messages": ranks.messages(pp_rank),
        "all-to-all": ranks.pieces.rows,
        "gradients": ranks.gradients(pp_rank),
    }
