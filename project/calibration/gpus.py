"""Calibrates a cluster from a node's GPUs: matrix products of several sizes, attention, memory bandwidth and the
host's time for an operator on the first GPU, and NCCL's collectives over two GPUs and more.

The link between nodes, the rate in fp32, and the rate of small tiles are not measured; they are taken from the data
sheet, that is, from the cluster file of the same kind of GPU.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import NamedTuple

import torch
import torch.nn.functional as F

from project.calibration import collectives, rates
from project.calibration.operators import operator_seconds
from project.calibration.ranks import device_of, on_ranks
from project.calibration.rates import Progress, around
from project.planner.cost.work import gemm_seconds
from project.planner.machine.cluster import Achieved, Cluster, Link
from project.planner.machine.cluster_file import load_cluster
from project.spec.layer.operation import Gemm

# Cluster files by a part of the device's name; H100's for others.
SHEETS = {"B200": "b200", "H200": "h200", "A100": "a100_8x"}
SIZES = (2**14, 2**20, 2**26)  # bytes that a rank gives a collective
# The cluster's measured figures, with `intra` if there are several GPUs. Peaks, memory bandwidth and tiles are the data
# sheet's; the fraction of them that the machine achieves is measured, in half precision alone.
MEASURED = (
    *("nodes", "gpus_per_node", "multiprocessors", "memory_bytes", "memory_bandwidth", "launch_s"),
    *("peak_flops.half", "achieved"),
)


class Loads(NamedTuple):
    """The timed loads: the sizes of matrix products in bf16; heads, length and head dimension of causal attention; the
    numbers in an elementwise sum."""

    products: tuple[rates.Size, ...]
    attention: tuple[int, int, int]
    numbers: int


LOADS = Loads(((1024, 4096, 4096), (2048, 2048, 2048), (4096, 4096, 4096), (8192, 8192, 8192)), (32, 4096, 128), 2**28)


class Gpu(NamedTuple):
    name: str
    memory_bytes: float
    multiprocessors: int


class GpuRates(NamedTuple):
    """Measured rates: FLOP/s of matrix products by size and of attention, bytes a second of memory, and seconds from
    one operator of a trained layer to the next."""

    gemm: dict[rates.Size, float]
    attention: float
    memory: float
    launch_s: float


def groups(devices: int) -> tuple[int, ...]:
    """The numbers of GPUs over which collectives are measured: powers of two, and all."""
    return tuple(
        sorted({2**power for power in range(1, devices.bit_length()) if 2**power <= devices} | {devices} - {1})
    )


def stages(devices: int) -> int:
    """The number of times that `calibrate` calls `progress`."""
    return 1 + len(groups(devices))


def calibrate(
    name: str,
    progress: Progress,
    devices: int,
    backend: str = "nccl",
    loads: Loads = LOADS,
    sizes: Iterable[int] = SIZES,
) -> Cluster:
    """Measures everything in forked processes, because a process that has used CUDA cannot fork others that use it."""
    progress("products, attention, memory and operators")
    [(gpu, found)] = on_ranks(1, partial(_first, backend, loads))
    points = collectives.measure(progress, backend, groups(devices), tuple(sizes))
    return cluster_of(name, devices, gpu, found, collectives.fit(points) if points else None)


def _first(backend: str, loads: Loads, rank: int) -> tuple[Gpu, GpuRates]:
    device = device_of(backend, rank)
    return describe(device), measure(device, loads)


def describe(device: torch.device) -> Gpu:
    properties = torch.cuda.get_device_properties(device)
    return Gpu(properties.name, float(properties.total_memory), properties.multi_processor_count)


def measure(device: torch.device, loads: Loads) -> GpuRates:
    heads, length, width = loads.attention
    query = torch.randn(1, heads, length, width, device=device).bfloat16()
    attend = partial(F.scaled_dot_product_attention, query, query, query, is_causal=True)
    return GpuRates(
        rates.gemm_rates(loads.products, device, torch.bfloat16),
        2 * heads * length * length * width / rates.seconds(attend, device),
        rates.memory_rate(loads.numbers, device),
        operator_seconds(device),
    )


def cluster_of(name: str, devices: int, gpu: Gpu, found: GpuRates, costs: collectives.Costs | None) -> Cluster:
    """The cluster with the measured figures. `costs` is None for one GPU, which has no collectives."""
    sheet = load_cluster(next((file for word, file in SHEETS.items() if word in gpu.name), "h100_8x"))
    bandwidth = max(found.memory, sheet.memory_bandwidth)
    cluster = replace(
        sheet,
        name=name,
        nodes=1,
        gpus_per_node=devices,
        memory_bytes=gpu.memory_bytes,
        memory_bandwidth=bandwidth,
        multiprocessors=gpu.multiprocessors,
        achieved=Achieved(1.0, min(1.0, found.attention / sheet.peak_flops.half), found.memory / bandwidth),
        launch_s=around(found.launch_s),
        intra=Link(around(costs.latency_s), around(costs.bandwidth), achieved=1.0) if costs else sheet.intra,
        measured=(*MEASURED, "intra") if costs else MEASURED,
    )
    return replace(cluster, achieved=replace(cluster.achieved, gemm=achieved_of_products(found.gemm, cluster)))


def achieved_of_products(found: dict[rates.Size, float], cluster: Cluster) -> float:
    """The fraction of the peak that matrix products achieve beyond the losses to waves and memory bandwidth, which the
    planner computes: the median over all sizes. `cluster` achieves its peak."""

    def reached(size: rates.Size, rate: float) -> float:
        rows, inner, columns = size
        product = Gemm(rows, columns, inner)
        return gemm_seconds(product, cluster, "half", 2) * rate / product.flops

    return min(1.0, median(reached(size, rate) for size, rate in found.items()))
