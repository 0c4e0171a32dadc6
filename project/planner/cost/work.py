"""Work of one rank for one microbatch, in counts and not seconds, read off the layers' tables: matrix products, bytes
that elementwise kernels move, kernels, and collectives.

A backward is in two halves, for the inputs and for the weights, as zero-bubble schedules run it. Seconds are those of a
router that drops nothing: slots that a capacity leaves empty are not timed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from project.spec.layer import transformer
from project.spec.layer.implementation import Implementation
from project.spec.layer.operation import FUSED_BACKWARD, Gemm, Operation, Send, Shape, Table
from project.spec.model import ModelConfig


@dataclass(frozen=True)
class Work:
    """`attention_flops` are of a fused attention; `moved` are bytes that elementwise kernels read and write;
    `operations` are the operators that the host dispatches beside matrix products and collectives; `sends` are
    collectives among more than one rank."""

    gemms: tuple[Gemm, ...] = ()
    attention_flops: float = 0
    moved: float = 0
    operations: int = 0
    sends: tuple[Send, ...] = ()

    @property
    def flops(self) -> float:
        return self.attention_flops + sum(gemm.flops for gemm in self.gemms)

    @property
    def launches(self) -> int:
        """Operators, matrix products and collectives."""
        return self.operations + len(self.gemms) + sum(send.calls for send in self.sends)


NOTHING = Work()


class Pass(NamedTuple):
    """Forward, backward for the inputs, backward for the weights; and what of the forward the backward runs again where
    the layer is recomputed."""

    forward: Work = NOTHING
    inputs: Work = NOTHING
    weights: Work = NOTHING
    again: Work = NOTHING


@lru_cache(maxsize=4096)
def layer(config: ModelConfig, how: Implementation, shape: Shape, has_experts: bool, recompute: str = "none") -> Pass:
    table = transformer.layer(_dropless(config), how, shape, how.width, has_experts)
    return work_of(table, how, shape, recompute)


def embedding(config: ModelConfig, how: Implementation, shape: Shape) -> Pass:
    return work_of(transformer.embedding(config, how, shape, how.width), how, shape)


def head(config: ModelConfig, how: Implementation, shape: Shape) -> Pass:
    return work_of(transformer.head(config, how, shape, how.width), how, shape)


@lru_cache
def _dropless(config: ModelConfig) -> ModelConfig:
    return replace(config, capacity_factor=None)


def work_of(table: Table, how: Implementation, shape: Shape, recompute: str = "none") -> Pass:
    timed = [send for operation in table for send in operation.sends if send.payload and shape.ranks(send.axes) > 1]
    sent = tuple(send for send in timed if send.direction == "forward")
    forward = _forward(table, sent)
    inputs = Work(
        tuple(gemm for operation in table for gemm in operation.products.inputs),
        FUSED_BACKWARD * forward.attention_flops,
        sum(operation.moved[1] for operation in table),
        sum(operation.kernels[1] for operation in table),
        tuple(send for send in timed if send.direction == "backward"),
    )
    weights = Work(tuple(gemm for operation in table for gemm in operation.products.weights))
    repeated = how.repeats(recompute)
    if not repeated:
        return Pass(forward, inputs, weights)
    if recompute == "selective":
        sent = tuple(send for send in sent if not send.is_kept) if how.selective == "layer" else ()
    return Pass(forward, inputs, weights, _forward([one for one in table if one.recomputed in repeated], sent))


def _forward(operations: Sequence[Operation], sends: tuple[Send, ...]) -> Work:
    return Work(
        tuple(gemm for operation in operations for gemm in operation.products.forward),
        sum(operation.products.fused for operation in operations),
        sum(operation.moved[0] for operation in operations),
        sum(operation.kernels[0] for operation in operations),
        sends,
    )
