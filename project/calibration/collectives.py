"""The cost of collectives over gloo or NCCL by kind, size and number of ranks, in seconds of CPU and of wall-clock
time."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from project.calibration.ranks import device_of, on_ranks
from project.calibration.rates import wait
from project.compat.torch_internals import all_gather_single, reduce_scatter_single

SIZES = (2**10, 2**16, 2**19)  # bytes that a rank gives to a collective
RANKS = (2, 4)
CALLS, ROUNDS = 8, 3


class Point(NamedTuple):
    """A measured collective. A rank gives `given` bytes and sends `sent` bytes in one call, which takes `core_s`
    seconds of a core and `clock_s` seconds of wall-clock time."""

    collective: str
    ranks: int
    given: int
    sent: float
    core_s: float
    clock_s: float


class Costs(NamedTuple):
    """The fitted costs of a collective.

    `call_s`, `peer_s` and `byte_s` are seconds of a core for a call, for each further rank in it, and for each byte
    sent; `latency_s` is wall-clock seconds for a step to a neighbour, and `bandwidth` is bytes a second.
    """

    call_s: float
    peer_s: float
    byte_s: float
    latency_s: float
    bandwidth: float


def measure(
    progress: Callable[[str], None],
    backend: str = "gloo",
    ranks: tuple[int, ...] = RANKS,
    sizes: tuple[int, ...] = SIZES,
) -> list[Point]:
    """Measures every kind of collective in every size over every number of ranks."""
    found = []
    for size in ranks:
        progress(f"collectives over {size} ranks")
        by_rank = on_ranks(size, partial(_points, size, sizes, backend), backend)
        for points in zip(*by_rank, strict=True):
            core = sum(point.core_s for point in points) / size
            found.append(points[0]._replace(core_s=core, clock_s=max(point.clock_s for point in points)))
    return found


def fit(points: list[Point]) -> Costs:
    """Fits the costs to `points` by least squares of the relative error."""
    collectives = [point for point in points if point.collective != "message"]
    rows = np.array([[1.0, point.ranks - 1.0, point.sent] for point in collectives])
    core = np.array([point.core_s for point in collectives])
    call, peer, byte = np.linalg.lstsq(rows / core[:, None], np.ones(len(core)), rcond=None)[0].tolist()
    steps = np.array([[point.ranks - 1.0, point.sent] for point in collectives])
    clock = np.array([point.clock_s for point in collectives])
    latency, per_byte = np.linalg.lstsq(steps / clock[:, None], np.ones(len(clock)), rcond=None)[0].tolist()
    least = 1e-9
    return Costs(max(call, 0.0), max(peer, 0.0), max(byte, 0.0), max(latency, least), 1 / max(per_byte, 1e-13))


def _points(ranks: int, sizes: tuple[int, ...], backend: str, rank: int) -> list[Point]:
    device = device_of(backend, rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL carries the barriers too
    found = []
    for given in sizes:
        for name, sent, call in _calls(ranks, rank, given, device):
            laps = [_lap(call, device) for _ in range(ROUNDS)]
            core, clock = (median(values) for values in zip(*laps, strict=True))
            found.append(Point(name, ranks, given, sent, core, clock))
    return found


def _lap(call: Callable[[], object], device: torch.device) -> tuple[float, float]:
    call()
    dist.barrier()
    wait(device)
    core, clock = time.process_time(), time.perf_counter()
    for _ in range(CALLS):
        call()
    wait(device)
    return (time.process_time() - core) / CALLS, (time.perf_counter() - clock) / CALLS


def _calls(
    ranks: int, rank: int, given: int, device: torch.device
) -> Iterator[tuple[str, float, Callable[[], object]]]:
    numbers = given // 4 // ranks * ranks
    one, out = torch.zeros(numbers, device=device), torch.zeros(numbers, device=device)
    large, part = torch.zeros(numbers * ranks, device=device), torch.zeros(numbers // ranks, device=device)
    away = 4 * numbers * (ranks - 1) / ranks
    yield "all_reduce", 2 * away, lambda: dist.all_reduce(one)
    yield "all_gather", 4 * numbers * (ranks - 1), lambda: all_gather_single(large, one)
    yield "reduce_scatter", away, lambda: reduce_scatter_single(part, one)
    yield "all_to_all", away, lambda: dist.all_to_all_single(out, one)

    def message() -> None:
        ahead, behind = (rank + 1) % ranks, (rank - 1) % ranks
        ops = [dist.P2POp(dist.isend, one, ahead), dist.P2POp(dist.irecv, out, behind)]
        for work in dist.batch_isend_irecv(ops):
            work.wait()

    yield "message", 4.0 * numbers, message
