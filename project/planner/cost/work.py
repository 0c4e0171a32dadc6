"""What a rank does, in counts and not seconds: matrix products, bytes that elementwise kernels move, kernels, and what
it sends. No torch.

The backward is in two halves, of the inputs and of the weights, as zero-bubble schedules run it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from project.planner.cost.implementation import Implementation


class Gemm(NamedTuple):
    """`batch` products of `[m, k]` with `[k, n]`."""

    m: float
    n: float
    k: float
    batch: int = 1

    @property
    def flops(self) -> float:
        return 2.0 * self.m * self.n * self.k * self.batch


class Transfer(NamedTuple):
    """One collective that every rank of the axis gives `given` bytes to. `copies` is of a dispatch that sends a token
    once to a node: how many of its copies `given` counts."""

    axis: str
    collective: str
    given: float
    copies: int = 1


@dataclass(frozen=True)
class Work:
    """`attention_flops` are of a fused attention; `moved` are bytes that elementwise kernels read and write;
    `operations` are the operators that the host dispatches beside the matrix products."""

    gemms: tuple[Gemm, ...] = ()
    attention_flops: float = 0.0
    moved: float = 0.0
    operations: int = 0
    transfers: tuple[Transfer, ...] = ()

    def __add__(self, other: Work) -> Work:
        return Work(
            self.gemms + other.gemms,
            self.attention_flops + other.attention_flops,
            self.moved + other.moved,
            self.operations + other.operations,
            self.transfers + other.transfers,
        )

    @property
    def flops(self) -> float:
        return self.attention_flops + sum(gemm.flops for gemm in self.gemms)


NOTHING = Work()


class Pass(NamedTuple):
    """Forward, backward of the inputs, backward of the weights."""

    forward: Work = NOTHING
    inputs: Work = NOTHING
    weights: Work = NOTHING

    def after(self, *others: Pass) -> Pass:
        every = (self, *others)
        return Pass(*(total(getattr(one, field) for one in every) for field in Pass._fields))


def total(works: Iterable[Work]) -> Work:
    whole = NOTHING
    for work in works:
        whole = whole + work
    return whole


class Shape(NamedTuple):
    """One microbatch under a layout. `imbalance` is the load of the busiest rank's experts over the mean."""

    sequences: int
    seq_len: int
    tp: int
    ep: int
    etp: int
    imbalance: float = 1.0

    @property
    def tokens(self) -> int:
        return self.sequences * self.seq_len


def linear(tokens: float, out: float, inner: float, batch: int = 1) -> Pass:
    """`[T, inner]` to `[T, out]`; `batch` of them with weights of their own."""
    return Pass(
        Work((Gemm(tokens, out, inner, batch),)),
        Work((Gemm(tokens, inner, out, batch),)),
        Work((Gemm(out, inner, tokens, batch),)),
    )


def elementwise(forward: float, backward: float, operations: int = 1) -> Pass:
    """Kernels that move so many bytes."""
    return Pass(Work(moved=forward, operations=operations), Work(moved=backward, operations=operations))


def exchanged(axis: str, forward: str, backward: str, forward_given: float, backward_given: float) -> Pass:
    return Pass(
        Work(transfers=(Transfer(axis, forward, forward_given),)),
        Work(transfers=(Transfer(axis, backward, backward_given),)),
    )


@dataclass(frozen=True)
class Layer:
    """`again` is what is computed a second time, by the mode of recomputation."""

    work: Pass
    core: Work
    kernels: Work
    experts_exchange: Work

    def again(self, recompute: str, implementation: Implementation) -> Work:
        if recompute == "none":
            return NOTHING
        if recompute == "full":
            return self.work.forward
        if implementation.selective == "kernels":
            return self.kernels
        if implementation.selective == "attention core":
            return NOTHING if implementation.fused_attention else self.core
        kept = set(self.experts_exchange.transfers)
        forward = self.work.forward
        left = tuple(transfer for transfer in forward.transfers if transfer not in kept)
        return Work(forward.gemms, forward.attention_flops, forward.moved, forward.operations, left)
