"""The ranks of a run: how they join one process group, and what they share once they are up."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import ClusterEnvironment
from torch.distributed.constants import default_pg_timeout

from project.compat.lightning_strategy import connect_ranks
from project.engine.clock import Clock, common_clock
from project.engine.mesh import Mesh, build_mesh
from project.spec.layout import ParallelLayout


@dataclass(frozen=True)
class Ranks:
    """`clock` is the one of all ranks."""

    mesh: Mesh
    clock: Clock


def meet(layout: ParallelLayout, device: torch.device, timeout: timedelta, processes_here: int) -> Ranks:
    """Gives this process its share of the machine's cores, sets the clock and builds the meshes, whose process groups
    have `timeout`. Collective; the ranks have joined before."""
    # The same under every launcher: how many threads share a sum decides its last bit.
    torch.set_num_threads(max(1, available_cores() // processes_here))
    clock = common_clock(device)
    return Ranks(build_mesh(layout, device.type, timeout), clock)


def join(environment: ClusterEnvironment, device: torch.device, timeout: timedelta) -> None:
    """Joins the process group of all ranks; returns at once if this process is in it already."""
    connect_ranks(
        environment,
        dist.get_default_backend_for_device(device),
        timeout=timeout,
        device_id=None if device.type == "cpu" else device,
        store=None if dist.is_initialized() else store_of_this_attempt(os.environ, timeout),
    )


def store_of_this_attempt(environ: Mapping[str, str], timeout: timedelta | None) -> dist.Store | None:
    """torchrun's store with keys of this restart's own; None where torchrun did not start this process. torchrun keeps
    its store over a restart: without a prefix the ranks would find the addresses that those before have left."""
    if environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    address, port = environ["MASTER_ADDR"], int(environ["MASTER_PORT"])
    wait = timeout or default_pg_timeout
    store = dist.TCPStore(address, port, int(environ["WORLD_SIZE"]), is_master=False, timeout=wait)
    return dist.PrefixStore(f"attempt {environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def gathered(value: Any) -> list[Any]:
    """Every rank's value, on all ranks; collective."""
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
