"""Pools of forked processes in one process group, which are reused and run the functions that they are sent.

The processes are forked from a server that has the imports and nothing else, because a process that has run a backward
cannot be forked and run another. Between two runs they are stopped: each of gloo's groups has a thread that wakes a
hundred times a second, and idle pools would take a good part of the machine.
"""

import contextlib
import multiprocessing as mp
import os
import pickle
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any

AFTER_AN_ERROR = 5.0  # seconds
PRELOAD = ["project.training.module", "tests.harness.training"]


class RankError(AssertionError):
    """An exception on a rank, with its traceback."""


class Ranks:
    """A pool of processes in one process group."""

    def __init__(self, world_size: int, backend: str = "gloo") -> None:
        context = mp.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        port = free_port()
        self.pipes: list[Connection] = []
        self.processes = []
        for rank in range(world_size):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(rank, world_size, port, theirs, backend), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def run(self, function: Callable, *args: Any, timeout: float = 240.0) -> list[Any]:
        """Calls `function(rank, world_size, *args)` on every rank and returns the results in order.

        Raises:
            RankError: with every failed rank's traceback.
        """
        self.signal(signal.SIGCONT)
        for pipe in self.pipes:
            pipe.send((function, args))
        answers: dict[int, tuple[str | None, Any]] = {}
        until = time.monotonic() + timeout
        while len(answers) < len(self.pipes) and (left := until - time.monotonic()) > 0:
            for rank in self.answering(set(range(len(self.pipes))) - answers.keys(), left):
                answers[rank] = pickle.loads(self.pipes[rank].recv_bytes())
                if answers[rank][0]:  # the others may wait for this one forever
                    until = min(until, time.monotonic() + AFTER_AN_ERROR)
        errors = [f"rank {rank}:\n{error}" for rank, (error, _) in sorted(answers.items()) if error]
        missing = sorted(set(range(len(self.pipes))) - answers.keys())
        if errors or missing:
            silent = [f"ranks {missing} have not answered"] if missing else []
            raise RankError("\n".join([*errors, *silent]))
        self.signal(signal.SIGSTOP)
        return [answers[rank][1] for rank in range(len(self.pipes))]

    def signal(self, number: signal.Signals) -> None:
        for process in self.processes:
            if process.is_alive():
                os.kill(process.pid, number)

    def answering(self, ranks: set[int], timeout: float) -> list[int]:
        ready = wait([self.pipes[rank] for rank in ranks], timeout)
        return [rank for rank in ranks if self.pipes[rank] in ready]

    def close(self) -> None:
        self.signal(signal.SIGCONT)
        for pipe in self.pipes:
            with contextlib.suppress(BrokenPipeError):  # a rank that died has nothing to close
                pipe.send(None)
        for process in self.processes:
            process.join(5)
            if process.is_alive():
                process.kill()


def serve(rank: int, world_size: int, port: int, pipe: Connection, backend: str) -> None:
    import torch
    import torch.distributed as dist

    from project.strategy.launcher import die_with
    from tests.harness import staged_gloo

    die_with(os.getppid())
    staged_gloo.register()
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group(backend, rank=rank, world_size=world_size, timeout=timedelta(seconds=60))
    for function, args in iter(pipe.recv, None):
        try:
            answer = None, function(rank, world_size, *args)
        except BaseException:
            answer = traceback.format_exc(), None
        # As bytes, because multiprocessing would pass the memory of each tensor as a file descriptor.
        pipe.send_bytes(pickle.dumps(answer))
    dist.destroy_process_group()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RankPools:
    """One pool for each world size and backend, created at the first use. A pool is replaced after a failure, because
    some of its ranks may still be waiting for the others."""

    def __init__(self) -> None:
        self.pools: dict[tuple[int, str], Ranks] = {}
        self.answers: dict[Any, Any] = {}

    def once(self, key: Any, ask: Callable[[], Any]) -> Any:
        """Computes the answer for `key` once a session."""
        if key not in self.answers:
            self.answers[key] = ask()
        return self.answers[key]

    def run(self, world_size: int, function: Callable, *args: Any, backend: str = "gloo") -> list[Any]:
        pool = (world_size, backend)
        if pool not in self.pools:
            self.pools[pool] = Ranks(world_size, backend)
        try:
            return self.pools[pool].run(function, *args)
        except RankError:
            self.pools.pop(pool).close()
            raise


@contextlib.contextmanager
def rank_pools() -> Iterator[RankPools]:
    pools = RankPools()
    try:
        yield pools
    finally:
        for pool in pools.pools.values():
            pool.close()
