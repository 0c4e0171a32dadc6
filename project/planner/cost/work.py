"""Work of one rank for one microbatch, read off the layers' tables: matrix products, bytes that elementwise kernels
move, kernels, and collectives; and the seconds that it computes.

A backward is in two halves, for the inputs and for the weights, as zero-bubble schedules run it. Seconds are those of a
router that drops nothing: slots that a capacity leaves empty are not timed.

A matrix product is cut into tiles, of which the device computes `multiprocessors` at once: the last wave may be nearly
empty. Smaller tiles fill it better and reach less of the peak, for they read more from memory for each product; the
best of four sizes is taken, as a library's heuristic does. The sizes are the library's; the rates that they reach are
in the cluster's file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil
from typing import NamedTuple

from project.planner.machine.cluster import Cluster, Tiles
from project.spec.layer import transformer
from project.spec.layer.implementation import Implementation
from project.spec.layer.operation import FUSED_BACKWARD, Gemm, Operation, Send, Shape, Table
from project.spec.model import ModelConfig
from project.spec.precision import Arithmetic


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


def gemm_seconds(gemm: Gemm, cluster: Cluster, arithmetic: Arithmetic, element_bytes: int) -> float:
    """Seconds of one matrix product without its launch: the longer of its arithmetic and its memory traffic."""
    peak = cluster.peak(arithmetic) * cluster.achieved.gemm
    moved = (gemm.m * gemm.k + gemm.k * gemm.n + gemm.m * gemm.n) * gemm.batch * element_bytes
    memory = moved / (cluster.memory_bandwidth * cluster.achieved.memory)
    if cluster.tiles is None:  # a core has no waves to fill
        return max(gemm.flops / peak, memory)
    return max(_tiled(gemm, cluster.multiprocessors, cluster.tiles) / peak, memory)


@lru_cache(maxsize=65536)
def _tiled(gemm: Gemm, multiprocessors: int, tiles: Tiles) -> float:
    """FLOPs of full waves over the relative rate of their tiles, for the best size of tiles."""
    costs = []
    for rows, columns, rate in _sizes(tiles):
        for tall, wide in {(rows, columns), (columns, rows)}:
            waves = ceil(ceil(gemm.m / tall) * ceil(gemm.n / wide) * gemm.batch / multiprocessors)
            costs.append(waves * multiprocessors * 2.0 * tall * wide * (gemm.k + tiles.depth.value) / rate)
    return min(costs)


def _sizes(tiles: Tiles) -> Iterator[tuple[int, int, float]]:
    """Rows, columns, and rate relative to the largest tile's: four of cuBLAS's, from the most efficient to the
    least (NVIDIA, "Matrix Multiplication Background User's Guide", DU-09799-001, section 2.3)."""
    yield 256, 128, 1.0
    yield 128, 128, tiles.rate_128x128.value
    yield 128, 64, tiles.rate_128x64.value
    yield 64, 64, tiles.rate_64x64.value


def work_seconds(work: Work, cluster: Cluster, arithmetic: Arithmetic, element_bytes: int) -> float:
    """Seconds that the device computes, collectives apart."""
    products = sum(gemm_seconds(gemm, cluster, arithmetic, element_bytes) for gemm in work.gemms)
    attention = work.attention_flops / (cluster.peak(arithmetic) * cluster.achieved.attention)
    return products + attention + work.moved / (cluster.memory_bandwidth * cluster.achieved.memory)


def launch_seconds(cluster: Cluster, *works: Work) -> float:
    """Seconds of the host, which runs ahead of the device where kernels are longer: the least that the work takes."""
    return cluster.launch_s.value * sum(work.launches for work in works)
