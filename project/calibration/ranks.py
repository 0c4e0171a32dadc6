"""Forked processes that measure something together."""

import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def device_of(backend: str, rank: int) -> torch.device:
    """A rank's device: a GPU of its own with NCCL, the CPU with gloo."""
    return torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")


def on_ranks(ranks: int, measure: Callable[[int], Any], backend: str = "gloo") -> list[Any]:
    """The results of `measure(rank)` on every rank, in order. The ranks form one process group and have one thread
    each. An exception on a rank is raised here."""
    port = _free_port()
    context = mp.get_context("fork")
    results = context.SimpleQueue()
    processes = [
        context.Process(target=_main, args=(rank, ranks, port, backend, measure, results)) for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    answers = dict(results.get() for _ in processes)
    for process in processes:
        process.join()
    for answer in answers.values():
        if isinstance(answer, Exception):
            raise answer
    return [answers[rank] for rank in range(ranks)]


def _main(rank: int, ranks: int, port: int, backend: str, measure: Callable[[int], Any], results: Any) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group(backend, rank=rank, world_size=ranks, timeout=timedelta(seconds=60))
    try:
        results.put((rank, measure(rank)))
        dist.barrier()
    except Exception as error:
        results.put((rank, error))  # the parent waits for an answer of every rank
    finally:
        dist.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
