"""The history of CUDA's caching allocator, as PyTorch's memory viewer reads it."""

from pathlib import Path

import torch


def record_memory_history(most_events: int) -> None:
    """Starts recording allocations and frees, the last `most_events` of them."""
    torch.cuda.memory._record_memory_history(max_entries=most_events)


def write_memory_history(path: Path) -> None:
    """Writes what was recorded into a pickle file, and stops recording."""
    torch.cuda.memory._dump_snapshot(str(path))
    torch.cuda.memory._record_memory_history(enabled=None)
