"""Seconds that one rank computes: the most of arithmetic, memory and launches.

A matrix product is cut into tiles, of which the device works on `multiprocessors` at once: the last wave may be nearly
empty. Smaller tiles fill it better and reach less of the peak, for they read more from memory for each product; the
best of four sizes is taken, as a library's heuristic does. The sizes are the library's; what they reach is the
device's, and in its cluster's file.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import ceil

from project.planner.cost.work import Work
from project.planner.machine.cluster import Cluster, Tiles
from project.spec.layer.operation import Gemm
from project.spec.precision import Arithmetic


def gemm_seconds(gemm: Gemm, cluster: Cluster, arithmetic: Arithmetic, element_bytes: int) -> float:
    """Without its launch."""
    peak = cluster.peak(arithmetic) * cluster.achieved.gemm
    moved = (gemm.m * gemm.k + gemm.k * gemm.n + gemm.m * gemm.n) * gemm.batch * element_bytes
    memory = moved / (cluster.memory_bandwidth * cluster.achieved.memory)
    if cluster.tiles is None:  # a core has no waves to fill
        return max(gemm.flops / peak, memory)
    return max(_tiled(gemm, cluster.multiprocessors, cluster.tiles) / peak, memory)


@lru_cache(maxsize=65536)
def _tiled(gemm: Gemm, multiprocessors: int, tiles: Tiles) -> float:
    """FLOP of full waves, over the rate that their tiles reach."""
    costs = []
    for rows, columns, rate in _sizes(tiles):
        for tall, wide in {(rows, columns), (columns, rows)}:
            waves = ceil(ceil(gemm.m / tall) * ceil(gemm.n / wide) * gemm.batch / multiprocessors)
            costs.append(waves * multiprocessors * 2.0 * tall * wide * (gemm.k + tiles.depth.value) / rate)
    return min(costs)


def _sizes(tiles: Tiles) -> Iterator[tuple[int, int, float]]:
    """Rows, columns, and what is reached of the largest one's rate: four of cuBLAS's, from the most efficient to the
    least (NVIDIA, "Matrix Multiplication Background User's Guide", DU-09799-001, section 2.3)."""
    yield 256, 128, 1.0
    yield 128, 128, tiles.rate_128x128.value
    yield 128, 64, tiles.rate_128x64.value
    yield 64, 64, tiles.rate_64x64.value


def work_seconds(work: Work, cluster: Cluster, arithmetic: Arithmetic, element_bytes: int) -> float:
    """Without what is sent."""
    products = sum(gemm_seconds(gemm, cluster, arithmetic, element_bytes) for gemm in work.gemms)
    attention = work.attention_flops / (cluster.peak(arithmetic) * cluster.achieved.attention)
    return products + attention + work.moved / (cluster.memory_bandwidth * cluster.achieved.memory)


def launch_seconds(cluster: Cluster, *works: Work) -> float:
    """Seconds of the host, which runs ahead of the device where kernels are longer: the least that the work takes."""
    return cluster.launch_s.value * sum(work.launches for work in works)
