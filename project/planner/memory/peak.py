"""Bytes on a rank at the peak of an optimizer step, by what they are for.

Adam in this trainer: weights, gradients and two moments, each as wide as a weight (in mixed precision the fp32 weight
is the master). What autograd keeps is `activations`, exact; buffers are counted where the trainer allocates them.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from project.planner.cost.parameters import divided_on
from project.planner.cost.stages import Held, ranks_of_stages, stages_held, stages_of_ranks
from project.planner.memory.activations import kept_by_module, layer_bytes
from project.planner.step import Step
from project.spec.layout import ParallelLayout
from project.spec.precision import INT64, width_of
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


class Piece(NamedTuple):
    """Parameters and bytes of a stage on one rank, by what the stage is made of.

    held, whole, replicated: parameters: of shards this rank's; all once the shards are gathered; and of these what is
        on every rank of tp.
    microbatch, given_back: bytes that autograd keeps of one microbatch in flight, and that the first half of a split
        backward returns; logits and logits_given_back are the loss's part of both.
    batch, copies: bytes kept once for the batch: of its tokens and targets, and of weights in the precision of the
        products.
    """

    held: int
    whole: int
    replicated: int
    microbatch: int
    given_back: int
    logits: int
    logits_given_back: int
    batch: int
    copies: int

    def at(self, moment: InFlight) -> int:
        return moment.all * self.microbatch - moment.second_half * self.given_back + self.batch + self.copies

    def logits_at(self, moment: InFlight) -> int:
        return moment.all * self.logits - moment.second_half * self.logits_given_back

    def peak(self, moments: Iterable[InFlight]) -> InFlight:
        return max(moments, key=self.at)


class Pieces:
    """Pieces of all stages that a step may have, made when they are asked for, and bytes that all of them share. They
    follow from how a layer is split and how many tokens a microbatch has, not from the pipeline that a stage is in: all
    schedules of a search share them.

    stream: a microbatch between two stages (this rank's share of its sequences).
    rows: on their way to experts and come from there.
    recomputed_layer: what comes back while a layer is recomputed, all that the largest kind of layer would have kept.
    """

    def __init__(self, step: Step) -> None:
        layout, width = step.layout, width_of(step.precision)
        self.step, self._made = step, dict[Held, Piece]()
        self.stream = step.tokens // layout.tp * step.config.d_model * width.weight
        self.bytes = layer_bytes(step.config, step.how, step.shape, width, layout.recompute)
        self.rows = self.bytes.rows
        self.recomputed_layer = 0 if layout.recompute == "none" else self.bytes.largest

    def of(self, what: Held) -> Piece:
        if what not in self._made:
            self._made[what] = self._make(what)
        return self._made[what]

    def _make(self, what: Held) -> Piece:
        config, layout = self.step.config, self.step.layout
        whole = divided_on(config, layout, what, sharded=False)
        bytes_of = self.bytes
        after_experts = bytes_of.experts_given_back if what.experts else 0
        return Piece(
            held=divided_on(config, layout, what).total,
            whole=whole.total,
            replicated=whole.whole,
            microbatch=what.dense * bytes_of.dense + what.experts * bytes_of.experts + what.last * bytes_of.head,
            given_back=bytes_of.logits_given_back if what.last else after_experts,
            logits=what.last * bytes_of.logits,
            logits_given_back=what.last * bytes_of.logits_given_back,
            batch=(what.first + what.last) * (self.step.batch // layout.dp) * self.step.seq_len * INT64,
            copies=what.dense * bytes_of.dense_copies
            + what.experts * bytes_of.experts_copies
            + what.last * bytes_of.head_copies,
        )


def pieces(step: Step) -> Pieces:
    layout = step.layout
    split = ParallelLayout(
        dp=layout.dp,
        tp=layout.tp,
        ep=layout.ep,
        etp=layout.etp,
        dp_mode=layout.dp_mode,
        microbatches=layout.microbatches,
        recompute=layout.recompute,
    )
    return _pieces(replace(step, layout=split))


@lru_cache(maxsize=256)
def _pieces(step: Step) -> Pieces:
    return Pieces(step)


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
    """Bytes on one rank of a pipeline rank, by category; its stages are taken to peak together."""
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
    """The microbatches in flight of each stage of a rank, when they keep most."""
    ranks = Ranks(step)
    return {stage: ranks.made[stage].peak(ranks.in_flight[stage]) for stage in ranks.stages[pp_rank]}


def by_module(step: Step, pp_rank: int) -> dict[str, int]:
    """Bytes that the microbatches in flight keep on a rank, by the module that keeps them."""
    found, ranks = Counter[str](), Ranks(step)
    for stage, peak in peaks(step, pp_rank).items():
        found.update(kept_by_module(step, step.parts[stage], peak))
        found["tokens and targets"] += ranks.made[stage].batch
        if copies := ranks.made[stage].copies:
            found["weights to compute with"] += copies
    return dict(found)


def activation_peaks(step: Step) -> list[int]:
    """Bytes that autograd keeps on each stage, with as many microbatches in flight as keep most."""
    ranks = Ranks(step)
    return [max(map(piece.at, moments)) for piece, moments in zip(ranks.made, ranks.in_flight, strict=True)]


def buffers(step: Step, pp_rank: int) -> dict[str, int]:
    """Beside what autograd keeps: the messages that a stage holds a buffer for; rows on their way to experts and come
    from there; the flat gradients of an all-reduce."""
    ranks = Ranks(step)
    return {
        "messages": ranks.messages(pp_rank),
        "all-to-all": ranks.pieces.rows,
        "gradients": ranks.gradients(pp_rank),
    }
