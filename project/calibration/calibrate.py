"""This machine as a cluster: measured, and written as `configs/cluster/*.yaml` are.

On processors: products, memory and updates with all cores at it; what the trainer's program costs beside them, on up to
four ranks; collectives. On GPUs: products, memory and launches of one, and NCCL's collectives over all of them.
"""

import os
import platform
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import NamedTuple

import torch

from project.calibration import collectives, gpu_rates, overhead, rates
from project.calibration.ranks import on_ranks
from project.planner.cluster import Achieved, Cluster, Host, Link, Peak, Stated
from project.planner.cluster_file import load_cluster
from project.strategy.ranks import available_cores

Progress = Callable[[str], None]
STAGES = len(overhead.cases()) + len(collectives.RANKS) + 1
"""How often `progress` is called for a calibration of processors."""


GPU_STAGES = 3


class CoreRates(NamedTuple):
    """Of one core, all of them being at it: FLOP/s in fp32 by size and in bf16, bytes a second, seconds a parameter."""

    gemm: dict[tuple[int, int, int], float]
    half: float
    memory: float
    update_s: float


def calibrate_processors(name: str, progress: Progress, ranks_per_node: int = 16) -> Cluster:
    cores = available_cores()
    progress("products, memory and updates")
    core = core_rates(cores)
    program = overhead.measure(progress)
    points = collectives.measure(progress)
    costs = collectives.fit(points)
    peak = max(core.gemm.values())
    typical = median(core.gemm.values())
    products = wide_layer_flops() / typical
    host = Host(
        cores=cores,
        block_s=program.block_s,
        tensor_s=program.tensor_s,
        tensor_peer_s=program.tensor_peer_s,
        expert_s=program.expert_s,
        expert_peer_s=program.expert_peer_s,
        channel_s=max(0.0, program.wide_layer_s - program.block_s - products)
        / (overhead.WIDE_TOKENS * overhead.WIDE.d_model),
        ends_s=program.ends_s,
        tensor_ends_s=program.tensor_ends_s,
        tensor_ends_peer_s=program.tensor_ends_peer_s,
        message_s=program.message_s,
        byte_s=costs.byte_s,
        parameter_s=core.update_s,
        step_s=program.step_s,
        step_peer_s=program.step_peer_s,
    )
    link = Link(_around(costs.latency_s), _around(costs.bandwidth), achieved=1.0)
    return Cluster(
        name=name,
        nodes=1,
        gpus_per_node=ranks_per_node,
        peak_flops=Peak(half=core.half, tf32=peak, fp32=peak),
        memory_bytes=float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        reserved_bytes=0.4e9,
        memory_bandwidth=core.memory,
        multiprocessors=1,
        achieved=Achieved(gemm=typical / peak, attention=typical / peak, memory=1.0),
        launch_s=_around(program.block_s / 86),  # operators of a layer's forward: `implementation.OPERATIONS`
        intra=link,
        inter=link,
        host=host,
    )


def calibrate_gpus(name: str, progress: Progress) -> Cluster:
    """One node's. What is between nodes is taken from the data sheet's cluster of the same kind, for one node cannot
    measure it; fp32 and tf32 rates are in the ratio that it gives."""
    progress("products, memory and launches")
    gpu = gpu_rates.measure()
    devices = torch.cuda.device_count()
    sheet = load_cluster("b200" if "B200" in gpu.name else "a100_8x" if "A100" in gpu.name else "h100_8x")
    intra = sheet.intra
    if devices > 1:
        progress(f"collectives over {devices} GPUs")
        costs = collectives.fit(collectives.measure(lambda what: None, "nccl", tuple({2, devices})))
        intra = Link(_around(costs.latency_s), _around(costs.bandwidth), achieved=1.0)
    progress("writing")
    return replace(
        sheet,
        name=name,
        nodes=1,
        gpus_per_node=devices,
        memory_bytes=gpu.memory_bytes,
        memory_bandwidth=max(gpu.memory_rate, sheet.memory_bandwidth),
        multiprocessors=gpu.multiprocessors,
        achieved=Achieved(
            gemm=min(1.0, gpu.half_rate / sheet.peak_flops.half),
            attention=min(1.0, gpu.attention_rate / sheet.peak_flops.half),
            memory=min(1.0, gpu.memory_rate / max(gpu.memory_rate, sheet.memory_bandwidth)),
        ),
        launch_s=_around(gpu.launch_s),
        intra=intra,
    )


def core_rates(cores: int) -> CoreRates:
    by_core = on_ranks(cores, _core_rates)
    gemm = {size: median(one.gemm[size] for one in by_core) for size in rates.SIZES}
    return CoreRates(
        gemm,
        median(one.half for one in by_core),
        median(one.memory for one in by_core),
        median(one.update_s for one in by_core),
    )


def _core_rates(rank: int) -> CoreRates:
    return CoreRates(rates.gemm_rates(), rates.half_rate(), rates.memory_rate(), rates.update_seconds())


def wide_layer_flops() -> float:
    from project.model.cost import layer_flops_per_token

    return 3.0 * overhead.WIDE_TOKENS * layer_flops_per_token(overhead.WIDE, overhead.WIDE.max_seq_len, 0)


def heading() -> str:
    return f"Measured by `python project/plan.py calibrate=true`: {platform.processor() or platform.machine()}, " + (
        f"{available_cores()} cores, torch {torch.__version__}"
    )


def _around(value: float) -> Stated:
    """One machine was measured at one time: half and twice as much is not excluded."""
    value = float(value)
    return Stated(value, value / 2, value * 2)
