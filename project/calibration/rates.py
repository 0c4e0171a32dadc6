"""The rates of a device, a core or a GPU: matrix products, memory bandwidth, launches and optimizer updates."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from statistics import median

import torch

from project.planner.machine.cluster import Stated

Size = tuple[int, int, int]  # of a matrix product: rows, inner, columns
Progress = Callable[[str], None]
CORE = torch.device("cpu")
ROUNDS, LEAST_S = 5, 0.03


def seconds(call: Callable[[], object], device: torch.device = CORE) -> float:
    """The seconds of one call, CPU time on a core and wall-clock time on a GPU: the median of `ROUNDS` laps of at least
    `LEAST_S` seconds."""
    call()
    calls, laps = 1, list[float]()
    while len(laps) < ROUNDS:
        spent = _lap(call, calls, device)
        if spent < LEAST_S:
            calls *= 2
        else:
            laps.append(spent / calls)
    return median(laps)


def _lap(call: Callable[[], object], calls: int, device: torch.device) -> float:
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    wait(device)
    began = clock()
    for _ in range(calls):
        call()
    wait(device)
    return clock() - began


def wait(device: torch.device) -> None:
    """Waits until the device has done its work; a no-op on a core."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def gemm_rates(
    sizes: Iterable[Size], device: torch.device = CORE, dtype: torch.dtype = torch.float32
) -> dict[Size, float]:
    """The FLOP/s of a matrix product of each size."""
    found = {}
    for rows, inner, columns in sizes:
        left = torch.randn(rows, inner, device=device).to(dtype)
        right = torch.randn(inner, columns, device=device).to(dtype)
        product = partial(torch.matmul, left, right)
        found[rows, inner, columns] = 2 * rows * inner * columns / seconds(product, device)
    return found


def memory_rate(numbers: int, device: torch.device = CORE) -> float:
    """The bytes a second that an elementwise sum reads and writes. `numbers` has to be larger than the caches."""
    one, two = torch.ones(numbers, device=device), torch.ones(numbers, device=device)
    out = torch.empty_like(one)
    return 3 * 4 * numbers / seconds(lambda: torch.add(one, two, out=out), device)


def launch_seconds(device: torch.device = CORE) -> float:
    """The seconds from one operator to the next, measured with operators on a single number."""
    one = torch.ones(1, device=device)
    return seconds(lambda: one.add_(1.0), device)


def update_seconds() -> float:
    """The seconds of an update for one parameter: fused AdamW, and clipping and zeroing the gradient."""
    parameter = torch.nn.Parameter(torch.zeros(2**20))
    parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW([parameter], fused=True)

    def update() -> None:
        assert parameter.grad is not None
        torch.linalg.vector_norm(parameter.grad)
        parameter.grad.mul_(0.5)
        optimizer.step()
        parameter.grad.zero_()

    return seconds(update) / parameter.numel()


def around(value: float) -> Stated:
    """A measured figure with an interval from half to twice its value, because one machine was measured once."""
    value = float(value)
    return Stated(value, value / 2, value * 2)
