"""A matrix product takes the longest of its arithmetic, its memory traffic, and full waves of tiles."""

import dataclasses

import pytest

from project.planner.cost.work import Work, gemm_seconds, launch_seconds, work_seconds
from project.planner.machine.cluster_file import load_cluster
from project.spec.layer.operation import Gemm

H100 = load_cluster("h100_8x")


def seconds(gemm: Gemm) -> float:
    return gemm_seconds(gemm, H100, "half", 2)


def test_a_large_matrix_product_reaches_the_cluster_s_achieved_share_of_the_peak():
    gemm = Gemm(16384, 8448, 16384)  # 64 x 66 tiles: 32 waves on 132 multiprocessors
    best = gemm.flops / (H100.peak_flops.half * H100.achieved.gemm)
    assert best <= seconds(gemm) < 1.02 * best


def test_a_thin_matrix_product_is_bound_by_memory_bandwidth():
    gemm = Gemm(1, 16384, 16384)
    assert seconds(gemm) == pytest.approx(
        (16384 + 16384 + 16384**2) * 2 / (H100.memory_bandwidth * H100.achieved.memory)
    )


def test_a_nearly_empty_last_wave_of_tiles_costs_as_much_as_a_full_one():
    full, more = Gemm(256 * 11, 128 * 12, 8192), Gemm(256 * 11 + 1, 128 * 12, 8192)
    assert seconds(more) > 1.3 * seconds(full)


def test_a_matrix_product_s_time_never_beats_the_peak_and_grows_with_the_work():
    for m in (1, 100, 1000, 10_000):
        gemm = Gemm(m, 3072, 1024)
        assert seconds(gemm) >= gemm.flops / (H100.peak_flops.half * H100.achieved.gemm)
        assert seconds(gemm) <= seconds(gemm._replace(m=2 * m)) <= seconds(gemm._replace(m=2 * m, batch=2))


def test_the_rate_of_small_tiles_is_the_cluster_s():
    assert H100.tiles is not None
    fraction, depth = H100.tiles.rate_64x64, H100.tiles.depth
    slower = dataclasses.replace(fraction, value=fraction.value / 1.1)
    deeper = dataclasses.replace(depth, value=2 * depth.value)
    one = Gemm(64, 64, 4096)  # a tile of the least size, and no other is better
    for changed, factor in (({"rate_64x64": slower}, 1.1), ({"depth": deeper}, (4096 + 128) / (4096 + 64))):
        there = dataclasses.replace(H100, tiles=dataclasses.replace(H100.tiles, **changed))
        assert gemm_seconds(one, there, "half", 2) == pytest.approx(factor * seconds(one))


def test_a_cpu_core_has_no_waves_of_tiles():
    core = dataclasses.replace(H100, multiprocessors=1, tiles=None)
    gemm = Gemm(100, 100, 1000)
    assert gemm_seconds(gemm, core, "fp32", 4) == pytest.approx(
        gemm.flops / (core.peak_flops.fp32 * core.achieved.gemm), rel=1e-9
    )


def test_the_host_s_launches_are_counted_operator_by_operator():
    work = Work(gemms=(Gemm(1, 1, 1),) * 3, moved=1e6, operations=10)
    assert launch_seconds(H100, work) == pytest.approx(13 * H100.launch_s.value)
    assert work_seconds(Work(moved=1e9), H100, "half", 2) == pytest.approx(
        1e9 / (H100.memory_bandwidth * H100.achieved.memory)
    )
