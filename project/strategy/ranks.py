"""The ranks of a run: how they join one process group, and what they share once they are up."""

import errno
import os
import socket
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import ClusterEnvironment
from torch.distributed.constants import default_pg_timeout

from project.compat.lightning_internals import connect_ranks
from project.engine.clock import Clock, common_clock
from project.engine.host import threads_of_a_rank
from project.engine.mesh import Mesh, build_mesh
from project.spec.fault import Told
from project.spec.layout import ParallelLayout


def meet(layout: ParallelLayout, device: torch.device, timeout: timedelta, processes_here: int) -> tuple[Mesh, Clock]:
    """Gives this process its threads. Returns the meshes, whose process groups have `timeout`, and the clock of all
    ranks. Collective; the ranks have joined before."""
    torch.set_num_threads(threads_of_a_rank(processes_here, os.environ))
    clock = common_clock(device)
    return build_mesh(layout, device.type, timeout), clock


NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETDOWN}


class NotMet(Told, RuntimeError):
    """Ranks that cannot meet one another."""


FLIGHT_RECORD = ("TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE")
"""Either says where NCCL's watchdog leaves its record of the last collectives, to which it adds the rank's number."""


@contextmanager
def flight_record_in(folder: str | Path, environ: MutableMapping[str, str]) -> Iterator[None]:
    """Has the record left in the folder meanwhile, unless the environment says where."""
    if any(name in environ for name in FLIGHT_RECORD):
        yield
        return
    environ[FLIGHT_RECORD[0]] = str(Path(folder).absolute() / "nccl_trace_rank_")
    try:
        yield
    finally:
        del environ[FLIGHT_RECORD[0]]


def join(environment: ClusterEnvironment, device: torch.device, timeout: timedelta) -> None:
    """Joins the process group of all ranks; returns at once if this process is in it already.

    Raises:
        NotMet: where they cannot meet, `timeout` at the latest after the first one has come.
    """
    if dist.is_initialized():
        return
    host, port = environment.main_address, environment.main_port
    where = f"rank {environment.global_rank()} cannot meet the others at {host}:{port} (MASTER_ADDR, MASTER_PORT)"
    if unreachable := why_unreachable(host, port):
        raise NotMet(f"{where}: {unreachable}")
    try:
        connect_ranks(
            environment,
            dist.get_default_backend_for_device(device),
            timeout=timeout,
            device_id=None if device.type == "cpu" else device,
            store=store_of_this_attempt(os.environ, timeout),
        )
    except RuntimeError as error:  # torch's, and gloo's, which are of no kind of their own
        reason = str(error).strip().splitlines()[0]
        raise NotMet(f"{where}, waiting at most {timeout.total_seconds():g} s: {reason}") from None


def why_unreachable(host: str, port: int) -> str | None:
    """Why an address will never answer: it has no name, or no network leads there; None where it may yet. Returns at
    once, but for what a name server takes."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return f"the address is not known: {error.strerror or error}"
    reasons = []
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as attempt:
                attempt.setblocking(False)
                reasons.append(attempt.connect_ex(address))
        except OSError as error:  # a machine without this family of addresses
            reasons.append(error.errno or errno.EAFNOSUPPORT)
    return os.strerror(reasons[0]) if reasons and set(reasons) <= NO_WAY else None


def loopback() -> str:
    """The address by which ranks of one machine meet: IPv4's, or IPv6's where there is no other."""
    only_new = why_unreachable("127.0.0.1", 1) is not None and why_unreachable("::1", 1) is None
    return "::1" if only_new else "127.0.0.1"


def store_of_this_attempt(environ: Mapping[str, str], timeout: timedelta | None) -> dist.Store | None:
    """torchrun's store with keys of this restart's own; None where torchrun did not start this process. torchrun keeps
    its store over a restart: without a prefix the ranks would find the addresses that those before have left."""
    if environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    address, port = environ["MASTER_ADDR"], int(environ["MASTER_PORT"])
    wait = timeout or default_pg_timeout
    store = dist.TCPStore(address, port, int(environ["WORLD_SIZE"]), is_master=False, timeout=wait)
    return dist.PrefixStore(f"attempt {environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
