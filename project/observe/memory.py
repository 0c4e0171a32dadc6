"""A rank's memory in bytes: on CUDA that of the caching allocator, elsewhere the resident set."""

import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def peak_memory_bytes(device: torch.device) -> int:
    """The peak since this process began. On the CPU it includes pages that a forked rank shares with its parent;
    `proportional_set_bytes` counts those once over all ranks."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _kibibytes(Path("/proc/self/status"), "VmHWM") * 1024


def proportional_set_bytes(pid: int | None = None) -> int:
    """The resident set now, with a page that n processes share counted as 1/n: the sum over ranks is the memory in
    use."""
    return _kibibytes(Path(f"/proc/{pid or 'self'}/smaps_rollup"), "Pss") * 1024


def bytes_held(tensors: Iterable[Tensor]) -> int:
    """The bytes of `tensors` on this rank; a DTensor counts with its local part."""
    return sum((tensor.to_local() if isinstance(tensor, DTensor) else tensor).nbytes for tensor in tensors)


def _kibibytes(file: Path, field: str) -> int:
    """A field of a file in /proc, in KiB; 0 if the system has no such file."""
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB", file.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0
