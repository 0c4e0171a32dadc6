"""Ranks that are forked once and reused: a pool of processes joined in one gloo group, running what they are sent.

They are forked from a server that has the imports and nothing else, because a process that has run a backward cannot
be forked and run another.
"""

import contextlib
import multiprocessing as mp
import os
import socket
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

PRELOAD = ["project.training.module", "tests.parity.training"]


class RankError(AssertionError):
    """What went wrong on a rank, with its traceback."""


class Ranks:
    def __init__(self, world_size: int) -> None:
        context = mp.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        port = free_port()
        self.pipes: list[Connection] = []
        self.processes = []
        for rank in range(world_size):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(rank, world_size, port, theirs), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def run(self, function: Callable, *args: Any, timeout: float = 240.0) -> list[Any]:
        """`function(rank, world_size, *args)` on every rank; their results, in order.

        Raises:
            RankError: with every failed rank's traceback.
        """
        for pipe in self.pipes:
            pipe.send((function, args))
        answers = []
        for rank, pipe in enumerate(self.pipes):
            if not pipe.poll(timeout):
                raise RankError(f"rank {rank} has not answered within {timeout} s")
            answers.append(pipe.recv())
        errors = [f"rank {rank}:\n{error}" for rank, (error, _) in enumerate(answers) if error]
        if errors:
            raise RankError("\n".join(errors))
        return [result for _, result in answers]

    def close(self) -> None:
        for pipe in self.pipes:
            with contextlib.suppress(BrokenPipeError):  # a rank that died has nothing to close
                pipe.send(None)
        for process in self.processes:
            process.join(5)
            if process.is_alive():
                process.kill()


def serve(rank: int, world_size: int, port: int, pipe: Connection) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=world_size, timeout=timedelta(seconds=60))
    for function, args in iter(pipe.recv, None):
        try:
            pipe.send((None, function(rank, world_size, *args)))
        except BaseException:
            pipe.send((traceback.format_exc(), None))
    dist.destroy_process_group()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RankPools:
    """One pool for each world size, made when first asked for. A pool whose ranks failed is replaced: some of them may
    still be waiting for the others."""

    def __init__(self) -> None:
        self.pools: dict[int, Ranks] = {}
        self.answers: dict[Any, Any] = {}

    def once(self, key: Any, ask: Callable[[], Any]) -> Any:
        """What several tests ask for is computed for the first."""
        if key not in self.answers:
            self.answers[key] = ask()
        return self.answers[key]

    def run(self, world_size: int, function: Callable, *args: Any) -> list[Any]:
        if world_size not in self.pools:
            self.pools[world_size] = Ranks(world_size)
        try:
            return self.pools[world_size].run(function, *args)
        except RankError:
            self.pools.pop(world_size).close()
            raise


@contextlib.contextmanager
def rank_pools() -> Iterator[RankPools]:
    pools = RankPools()
    try:
        yield pools
    finally:
        for pool in pools.pools.values():
            pool.close()
