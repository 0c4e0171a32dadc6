"""How fast one GPU multiplies, attends, moves memory, and is given work."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

CALLS = 20


class GpuRates(NamedTuple):
    """FLOP/s in bf16 of a large product and of causal attention, bytes a second, seconds between two operators."""

    name: str
    memory_bytes: float
    multiprocessors: int
    half_rate: float
    attention_rate: float
    memory_rate: float
    launch_s: float


def measure() -> GpuRates:
    device = torch.device("cuda")
    properties = torch.cuda.get_device_properties(device)
    size = 8192
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    heads, length, width = 32, 4096, 128
    query = torch.randn(1, heads, length, width, device=device, dtype=torch.bfloat16)
    one = torch.ones(2**28, device=device)
    few = torch.ones(1, device=device)

    def attend() -> torch.Tensor:
        return F.scaled_dot_product_attention(query, query, query, is_causal=True)

    return GpuRates(
        properties.name,
        float(properties.total_memory),
        properties.multi_processor_count,
        2 * size**3 / seconds(lambda: left @ right),
        2 * heads * length * length * width / seconds(attend),
        2 * 4 * one.numel() / seconds(lambda: one.mul_(1.0)),
        seconds(lambda: [few.add_(1.0) for _ in range(1000)]) / 1000,
    )


def seconds(call: Callable[[], object]) -> float:
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(CALLS):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / CALLS
