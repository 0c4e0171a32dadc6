"""Calibration of GPUs, with processors in their place, and with invented rates."""

import dataclasses
import math

import pytest
import torch

from project.calibration import gpus
from project.calibration.collectives import Costs
from project.planner.cost.work import gemm_seconds
from project.planner.machine.cluster_file import load_cluster, read_cluster
from project.spec.layer.operation import Gemm

A100 = gpus.Gpu("NVIDIA A100-SXM4-80GB", 85e9, 108)
TINY = gpus.Loads(((16, 32, 16), (32, 32, 32), (64, 32, 64)), (2, 16, 8), 2**12)


def test_gpu_calibration_measures_matrix_products_of_several_sizes():
    sizes = gpus.LOADS.products
    assert len(sizes) == len({math.prod(size) for size in sizes}) >= 3
    found = gpus.measure(torch.device("cpu"), TINY)
    assert list(found.gemm) == list(TINY.products)
    assert all(value > 0 for value in (*found.gemm.values(), *found[1:]))


def test_gpu_calibration_finds_the_achieved_rate_from_sizes_that_fill_the_waves_badly():
    """Rates as the planner itself would time them, at 0.6 of the peak, come back as 0.6."""
    sheet = load_cluster("a100_8x")
    there = dataclasses.replace(sheet, achieved=dataclasses.replace(sheet.achieved, gemm=0.6))
    products = {size: Gemm(size[0], size[2], size[1]) for size in ((512, 4096, 512), (1000, 1024, 3000), (8192,) * 3)}
    by_size = {size: one.flops / gemm_seconds(one, there, "half", 2) for size, one in products.items()}
    assert min(by_size.values()) < 0.8 * max(by_size.values())
    found = gpus.GpuRates(by_size, 1.5e14, sheet.memory_bandwidth * sheet.achieved.memory, 4e-6)
    cluster = gpus.cluster_of("gpu_here", 8, A100, found, None)
    assert cluster.achieved.gemm == pytest.approx(0.6)
    assert cluster.measured == gpus.MEASURED, "no link, without collectives"


def test_a_cluster_file_calibrated_on_gpus_has_what_was_measured_and_the_rest_from_the_data_sheet():
    found = gpus.GpuRates({(8192, 8192, 8192): 2.4e14}, 1.56e14, 1.6e12, 4e-6)
    costs = Costs(0.0, 0.0, 0.0, 6e-6, 2.2e11)
    cluster, sheet = gpus.cluster_of("gpu_here", 4, A100, found, costs), load_cluster("a100_8x")
    assert read_cluster(dataclasses.asdict(cluster)) == cluster
    assert cluster.measured == (*gpus.MEASURED, "intra")
    assert (cluster.gpus, cluster.multiprocessors, cluster.memory_bytes) == (4, 108, 85e9)
    assert cluster.achieved.attention == pytest.approx(0.5)
    assert cluster.memory_bandwidth * cluster.achieved.memory == pytest.approx(1.6e12)
    assert (cluster.launch_s.value, cluster.intra.latency_s.value, cluster.intra.rate) == (4e-6, 6e-6, 2.2e11)
    assert (cluster.inter, cluster.peak_flops, cluster.tiles) == (sheet.inter, sheet.peak_flops, sheet.tiles)


@pytest.mark.parametrize(("devices", "sizes"), [(1, ()), (2, (2,)), (6, (2, 4, 6)), (8, (2, 4, 8))])
def test_gpu_calibration_measures_collectives_over_groups_of_several_sizes(devices, sizes):
    assert gpus.groups(devices) == sizes


def test_gpu_calibration_runs_end_to_end_with_processors_in_place_of_gpus(monkeypatch):
    monkeypatch.setattr(gpus, "describe", lambda device: A100)
    said = []
    cluster = gpus.calibrate("gpu_here", said.append, 2, "gloo", TINY, (2**10, 2**12))
    assert len(said) == gpus.stages(2)
    assert read_cluster(dataclasses.asdict(cluster)) == cluster
    assert (cluster.name, cluster.gpus, cluster.host) == ("gpu_here", 2, None)
