"""Bytes and parameters of a stage on one rank, by what the stage is made of.

They follow from how a layer is split and how many tokens a microbatch has, not from the pipeline that the stage is in:
all schedules of a search share them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from project.planner.cost.parameters import parameters_of
from project.planner.cost.stages import Held
from project.planner.memory.activations import kept, recomputed_layer
from project.planner.step import Step, rows_sent
from project.spec.layout import ParallelLayout
from project.spec.partition import Part
from project.spec.precision import width_of
from project.spec.schedules.in_flight import InFlight


class Piece(NamedTuple):
    """`held` parameters, of shards this rank's; `whole` once they are gathered, of which `replicated` are on every rank
    of tp. Bytes: `microbatch` is what autograd keeps of one in flight, and `given_back` what of it the first half of a
    split backward returns (`logits` and `logits_given_back` of both); `batch` is kept once."""

    held: int
    whole: int
    replicated: int
    microbatch: int
    given_back: int
    logits: int
    logits_given_back: int
    batch: int

    def at(self, moment: InFlight) -> int:
        return moment.all * self.microbatch - moment.second_half * self.given_back + self.batch

    def logits_at(self, moment: InFlight) -> int:
        return moment.all * self.logits - moment.second_half * self.logits_given_back

    def peak(self, moments: Iterable[InFlight]) -> InFlight:
        return max(moments, key=self.at)


class Pieces:
    """Of all stages that a step may have, made when they are asked for; and the bytes that are the same for all:
    `stream` of a microbatch between two stages (this rank's share of its sequences), `rows` on their way to experts
    and come from there, `recomputed_layer` of one layer whose activations are back."""

    def __init__(self, step: Step) -> None:
        self.step = step
        config, layout, width = step.config, step.layout, width_of(step.precision)
        exchanges = bool(config.moe_layers) and layout.ep * layout.etp > 1
        self.stream = step.tokens // layout.tp * config.d_model * width.weight
        self.rows = 2 * rows_sent(step) * config.d_model * width.compute if exchanges else 0
        self.recomputed_layer = recomputed_layer(step)
        self._made: dict[Held, Piece] = {}

    def of(self, what: Held) -> Piece:
        if what not in self._made:
            self._made[what] = self._make(what)
        return self._made[what]

    def _make(self, what: Held) -> Piece:
        config, layout = self.step.config, self.step.layout
        first_with_experts = config.num_dense_layers
        layers = range(first_with_experts - what.dense, first_with_experts + what.experts)
        part = Part(0, layers, bool(what.first), bool(what.last))
        bytes_kept = kept(self.step, part)
        whole = parameters_of(config, layout, part, sharded=False)
        return Piece(
            held=parameters_of(config, layout, part).total,
            whole=whole.total,
            replicated=whole.whole,
            microbatch=sum(bytes_kept.microbatch.values()),
            given_back=sum(bytes_kept.first_half.values()),
            logits=bytes_kept.microbatch.get("logits", 0),
            logits_given_back=bytes_kept.first_half.get("logits", 0),
            batch=bytes_kept.batch,
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
