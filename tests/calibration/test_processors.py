"""Invented measurements of processors become a cluster with those figures."""

from dataclasses import asdict

import pytest

from project.calibration import overhead, processors
from project.calibration.collectives import Costs
from project.planner.machine.cluster_file import read_cluster

CORE = processors.CoreRates(dict.fromkeys(processors.PRODUCTS, 100000000000.0), 2e11, 4e10, 1.5e-6, 5e-10)
PROGRAM = overhead.Overhead(*(1e-3 * (place + 1) for place in range(len(overhead.Overhead._fields))))
COSTS = Costs(1e-4, 1e-5, 4e-10, 2e-4, 1.5e9)


def test_a_cpu_s_launch_time_is_that_of_one_operator():
    cluster = processors.cluster_of("cpu_here", 2, CORE, PROGRAM, COSTS)
    assert cluster.launch_s.value == 1.5e-6
    assert cluster.launch_s.low < 1.5e-6 < cluster.launch_s.high


def test_a_cluster_file_calibrated_on_processors_is_sound_and_has_what_was_measured():
    cluster = processors.cluster_of("cpu_here", 2, CORE, PROGRAM, COSTS)
    assert read_cluster(asdict(cluster)) == cluster
    assert cluster.measured == processors.MEASURED
    assert cluster.host is not None
    for name in set(PROGRAM._fields) - {"wide_layer_s"}:
        assert getattr(cluster.host, name) == getattr(PROGRAM, name)
    assert (cluster.host.byte_s, cluster.host.parameter_s) == (COSTS.byte_s, CORE.update_s)
    assert cluster.intra.latency_s.value == COSTS.latency_s
    assert cluster.intra.rate == pytest.approx(COSTS.bandwidth)


def test_a_cpu_s_rate_of_matrix_products_is_the_median_of_several_sizes():
    assert len(processors.PRODUCTS) >= 3
    by_size = dict(zip(processors.PRODUCTS, (4e10, 8e10, 1e11, 1e11), strict=True))
    cluster = processors.cluster_of("cpu_here", 2, CORE._replace(gemm=by_size), PROGRAM, COSTS)
    assert cluster.peak_flops.fp32 * cluster.achieved.gemm == pytest.approx(9e10)
