"""Forked processes that measure something together."""

import os
import socket
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def device_of(backend: str, rank: int) -> torch.device:
    """A rank's device: a GPU of its own with NCCL, the CPU with gloo."""
    return torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")


def on_ranks(ranks: int, measure: Callable[[int], Any], backend: str = "gloo") -> list[Any]:
    """The results of `measure(rank)` on every rank, in order. The ranks form one process group and have one thread
    each. An exception on a rank is raised here, and so is a rank's end without an answer."""
    port = _free_port()
    context = mp.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(ranks)]
    processes = [
        context.Process(target=_main, args=(rank, ranks, port, backend, measure, answer), daemon=True)
        for rank, (_, answer) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    try:
        answers = [_answer_of(rank, process, pipes[rank][0]) for rank, process in enumerate(processes)]
    finally:
        for process in processes:
            process.kill()
            process.join()
    return answers


def _answer_of(rank: int, process: BaseProcess, pipe: Connection) -> Any:
    wait([pipe, process.sentinel])
    if not pipe.poll():
        process.join()
        raise RuntimeError(f"rank {rank} of the measurement ended with status {process.exitcode}, and no answer")
    answer = pipe.recv()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _main(rank: int, ranks: int, port: int, backend: str, measure: Callable[[int], Any], answer: Connection) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    try:
        dist.init_process_group(backend, rank=rank, world_size=ranks, timeout=timedelta(seconds=60))
        measured = measure(rank)
        dist.barrier()
        answer.send(measured)
        dist.destroy_process_group()
    except Exception as error:
        answer.send(error)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
