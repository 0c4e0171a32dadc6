"""How much memory a rank has taken: on CUDA what the allocator handed out, elsewhere what the system holds resident."""

import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def peak_memory_bytes(device: torch.device) -> int:
    """The highest since this process began. Of a forked rank on CPU, pages still shared with its parent are included:
    `proportional_set_bytes` counts those once over all ranks."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _kibibytes(Path("/proc/self/status"), "VmHWM") * 1024


def proportional_set_bytes(pid: int | None = None) -> int:
    """Resident now, a page shared by n processes counted as 1/n: sums over ranks to what the machine gave."""
    return _kibibytes(Path(f"/proc/{pid or 'self'}/smaps_rollup"), "Pss") * 1024


def bytes_held(tensors: Iterable[Tensor]) -> int:
    """Of a DTensor what is on this rank."""
    return sum((tensor.to_local() if isinstance(tensor, DTensor) else tensor).nbytes for tensor in tensors)


def _kibibytes(file: Path, field: str) -> int:
    """0 where the system keeps no such file."""
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB", file.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0
