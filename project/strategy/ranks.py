"""The ranks of a run: how they join one process group, and what they share once they are up."""

import os
from collections.abc import Mapping
from datetime import timedelta

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import ClusterEnvironment
from torch.distributed.constants import default_pg_timeout

from project.compat.lightning_internals import connect_ranks
from project.engine.clock import Clock, common_clock
from project.engine.host import threads_of_a_rank
from project.engine.mesh import Mesh, build_mesh
from project.spec.layout import ParallelLayout


def meet(layout: ParallelLayout, device: torch.device, timeout: timedelta, processes_here: int) -> tuple[Mesh, Clock]:
    """Gives this process its threads. Returns the meshes, whose process groups have `timeout`, and the clock of all
    ranks. Collective; the ranks have joined before."""
    torch.set_num_threads(threads_of_a_rank(processes_here, os.environ))
    clock = common_clock(device)
    return build_mesh(layout, device.type, timeout), clock


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
