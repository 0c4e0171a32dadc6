"""Seconds that one rank computes: the most of arithmetic, memory and launches. No torch.

A matrix product is cut into tiles, of which the device works on `multiprocessors` at once: the last wave may be nearly
empty. Smaller tiles fill it better and reach less of the peak, for they read more from memory for each product; the
best of four sizes is taken, as a library's heuristic does.
"""

from __future__ import annotations

from math import ceil

from project.metrics.peak import Arithmetic
from project.planner.cluster import Cluster
from project.planner.work import Gemm, Work

# Rows, columns, and the part of the large tile's rate that is reached.
TILES = ((256, 128, 1.0), (128, 128, 0.93), (128, 64, 0.8), (64, 64, 0.6))
DEPTH = 64  # columns of the inner dimension that a tile spends on filling and draining its pipeline


def gemm_seconds(gemm: Gemm, cluster: Cluster, arithmetic: Arithmetic, element_bytes: int) -> float:
    """Without its launch."""
    peak = cluster.peak(arithmetic) * cluster.achieved.gemm
    moved = (gemm.m * gemm.k + gemm.k * gemm.n + gemm.m * gemm.n) * gemm.batch * element_bytes
    memory = moved / (cluster.memory_bandwidth * cluster.achieved.memory)
    if cluster.multiprocessors == 1:  # a core has no waves to fill
        return max(gemm.flops / peak, memory)
    return max(_tiled(gemm, cluster.multiprocessors) / peak, memory)


def _tiled(gemm: Gemm, multiprocessors: int) -> float:
    """FLOP of full waves, over the rate that their tiles reach."""
    costs = []
    for rows, columns, rate in TILES:
        for tall, wide in {(rows, columns), (columns, rows)}:
            waves = ceil(ceil(gemm.m / tall) * ceil(gemm.n / wide) * gemm.batch / multiprocessors)
            costs.append(waves * multiprocessors * 2.0 * tall * wide * (gemm.k + DEPTH) / rate)
    return min(costs)


def work_seconds(work: Work, cluster: Cluster, arithmetic: Arithmetic, element_bytes: int) -> float:
    """Without what is sent."""
    products = sum(gemm_seconds(gemm, cluster, arithmetic, element_bytes) for gemm in work.gemms)
    attention = work.attention_flops / (cluster.peak(arithmetic) * cluster.achieved.attention)
    return products + attention + work.moved / (cluster.memory_bandwidth * cluster.achieved.memory)


def launch_seconds(work: Work, cluster: Cluster) -> float:
    """The host's, which runs ahead of the device where kernels are longer: the least that the work takes."""
    return cluster.launch_s.value * (work.operations + len(work.gemms) + len(work.transfers))
