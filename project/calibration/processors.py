"""Calibrates a cluster from this machine's processors: matrix products of several sizes, memory bandwidth, launches and
optimizer updates with all cores busy; the overhead of the trainer's program on up to four ranks; gloo's collectives."""

import os
from statistics import median
from typing import NamedTuple

import torch

from project.calibration import collectives, overhead, rates
from project.calibration.ranks import on_ranks
from project.calibration.rates import Progress, around
from project.planner.machine.cluster import Achieved, Cluster, Host, Link, Peak
from project.planner.machine.this_host import available_cores
from project.spec.cost import layer_flops_per_token

STAGES = len(overhead.cases()) + len(collectives.RANKS) + 1
"""The number of times that `calibrate` calls `progress`."""

RANKS = 16  # of the cluster; they share the cores
PRODUCTS = ((64, 256, 256), (256, 256, 512), (512, 512, 512), (1024, 1024, 1024))
HALF = (128, 128, 128)  # small, because bf16 is slow on most processors
NUMBERS = 8 * 2**20  # larger than the caches
# The cluster's measured figures: all but the number of ranks and the reserved memory.
MEASURED = ("peak_flops", "achieved", "memory_bytes", "memory_bandwidth", "launch_s", "intra", "host")


class CoreRates(NamedTuple):
    """Rates of one core while all cores are busy: FLOP/s of matrix products in fp32 by size and in bf16, bytes a second
    of memory, seconds from one launch to the next, and seconds of an optimizer update for a parameter."""

    gemm: dict[rates.Size, float]
    half: float
    memory: float
    launch_s: float
    update_s: float


def calibrate(name: str, progress: Progress) -> Cluster:
    cores = available_cores()
    progress("products, memory, launches and updates")
    core = core_rates(cores)
    program = overhead.measure(progress)
    return cluster_of(name, cores, core, program, collectives.fit(collectives.measure(progress)))


def core_rates(cores: int) -> CoreRates:
    by_core = on_ranks(cores, _core_rates)
    gemm = {size: median(one.gemm[size] for one in by_core) for size in PRODUCTS}
    return CoreRates(gemm, *(median(values) for values in zip(*(one[1:] for one in by_core), strict=True)))


def _core_rates(rank: int) -> CoreRates:
    return CoreRates(
        rates.gemm_rates(PRODUCTS),
        rates.gemm_rates([HALF], dtype=torch.bfloat16)[HALF],
        rates.memory_rate(NUMBERS),
        rates.launch_seconds(),
        rates.update_seconds(),
    )


def cluster_of(name: str, cores: int, core: CoreRates, program: overhead.Overhead, costs: collectives.Costs) -> Cluster:
    peak, typical = max(core.gemm.values()), median(core.gemm.values())
    link = Link(around(costs.latency_s), around(costs.bandwidth), achieved=1.0)
    return Cluster(
        name=name,
        nodes=1,
        gpus_per_node=RANKS,
        peak_flops=Peak(half=core.half, tf32=peak, fp32=peak),
        memory_bytes=float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        reserved_bytes=0.4e9,
        memory_bandwidth=core.memory,
        multiprocessors=1,
        achieved=Achieved(gemm=typical / peak, attention=typical / peak, memory=1.0),
        launch_s=around(core.launch_s),
        intra=link,
        inter=link,
        host=host_of(cores, core, program, costs),
        measured=MEASURED,
    )


def host_of(cores: int, core: CoreRates, program: overhead.Overhead, costs: collectives.Costs) -> Host:
    products = wide_layer_flops() / median(core.gemm.values())
    seconds = program._asdict()
    channels = max(0.0, seconds.pop("wide_layer_s") - program.block_s - products)
    return Host(
        cores=cores,
        channel_s=channels / (overhead.WIDE_TOKENS * overhead.WIDE.d_model),
        byte_s=costs.byte_s,
        parameter_s=core.update_s,
        **seconds,
    )


def wide_layer_flops() -> float:
    return 3.0 * overhead.WIDE_TOKENS * layer_flops_per_token(overhead.WIDE, overhead.WIDE.max_seq_len, 0)
