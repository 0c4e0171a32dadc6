"""How fast a core multiplies, moves memory and updates weights, with all cores at it."""

import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch

SIZES = ((64, 256, 256), (256, 256, 512), (512, 512, 512), (1024, 1024, 1024))  # rows, inner, columns
ROUNDS, LEAST_S = 5, 0.03


def seconds(call: Callable[[], object]) -> float:
    """Of this core, for one call."""
    call()
    laps = []
    for _ in range(ROUNDS):
        calls, began = 0, time.process_time()
        while (spent := time.process_time() - began) < LEAST_S:
            call()
            calls += 1
        laps.append(spent / calls)
    return median(laps)


def gemm_rates(rank: int = 0) -> dict[tuple[int, int, int], float]:
    """FLOP/s by size, fp32."""
    found = {}
    for rows, inner, columns in SIZES:
        left, right = torch.randn(rows, inner), torch.randn(inner, columns)
        found[rows, inner, columns] = 2 * rows * inner * columns / seconds(partial(torch.matmul, left, right))
    return found


def memory_rate(rank: int = 0) -> float:
    """Bytes a second that an elementwise sum of two arrays larger than the caches reads and writes."""
    one, two = torch.ones(8 * 2**20), torch.ones(8 * 2**20)
    out = torch.empty_like(one)
    return 3 * 4 * one.numel() / seconds(lambda: torch.add(one, two, out=out))


def half_rate(rank: int = 0) -> float:
    """FLOP/s in bf16, which few processors are built for."""
    left, right = torch.randn(128, 128).bfloat16(), torch.randn(128, 128).bfloat16()
    return 2 * 128**3 / seconds(lambda: left @ right)


def update_seconds(rank: int = 0) -> float:
    """Of fused AdamW and of zeroing and clipping the gradient, for one parameter."""
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
