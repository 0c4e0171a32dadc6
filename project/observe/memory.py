"""A rank's memory in bytes: of the process, of tensors, and what autograd keeps from each stage's forward for its
backward.

Kept are the tensors that autograd saves for backward, those that selective recomputation keeps, and copies of weights
in the precision of matrix products, each storage counted once and whole, because a view keeps all of it. Not counted
are weights and buffers, the activations that a layer's recomputation brings back during its backward, and tensors that
are held for other reasons (messages in flight, the outputs of stages, gradients).
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from project.compat.torch_internals import plain_tensors, storage_id
from project.engine.local_shards import copies
from project.engine.parts import local_tensor
from project.engine.recompute import Recomputed


def peak_memory_bytes(device: torch.device) -> int:
    """The peak since this process began. On the CPU it includes pages that a forked rank shares with its parent;
    `proportional_set_bytes` counts those once over all ranks."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _kibibytes(Path("/proc/self/status"), "VmHWM") * 1024


GPU_MEMORY = ("allocated", "reserved", "device")


def gpu_memory_bytes(device: torch.device, cuda: Any = torch.cuda) -> tuple[int, int, int] | None:
    """Bytes of a GPU's memory, as `GPU_MEMORY` names them: the peak of tensors; the peak that torch's allocator has
    taken for them, with what it keeps for later and what is too small to be used; and what is not free on the device
    now, NCCL's buffers, the context and other processes included, which is what runs out. None on a CPU."""
    if device.type != "cuda":
        return None
    free, total = cuda.mem_get_info(device)
    return cuda.max_memory_allocated(device), cuda.max_memory_reserved(device), total - free


def proportional_set_bytes(pid: int | None = None) -> int:
    """The resident set now, with a page that n processes share counted as 1/n: the sum over ranks is the memory in
    use."""
    return _kibibytes(Path(f"/proc/{pid or 'self'}/smaps_rollup"), "Pss") * 1024


def bytes_held(tensors: Iterable[Tensor]) -> int:
    """The bytes of `tensors` on this rank; a DTensor counts with its local part."""
    return sum(local_tensor(tensor).nbytes for tensor in tensors)


def _kibibytes(file: Path, field: str) -> int:
    """A field of a file in /proc, in KiB; 0 if the system has no such file."""
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB", file.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


class Stage(Protocol):
    """A pipeline stage's global index and module."""

    stage_index: int
    submod: nn.Module


class Saved:
    """The object that autograd holds in place of a saved tensor, and frees when it would free the tensor. It holds the
    detached tensor: the tensor itself would hold the graph that holds it, and the part of a graph that a split backward
    does not free would never be freed."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()


class Activations:
    """Measures the peak of kept bytes; `peaks` has it by stage. Between forwards the graphs only shrink, so it is
    enough to measure at the end of each forward."""

    def __init__(self) -> None:
        self.peaks: dict[int, int] = {}
        self.saved: dict[int, WeakSet[Saved]] = defaultdict(WeakSet)

    @contextmanager
    def forward(self, stage: Stage) -> Iterator[None]:
        """Measures a forward of the stage, or the loss on its outputs, which runs in this context."""
        saved = self.saved[stage.stage_index]

        def pack(tensor: Tensor) -> Saved:
            entry = Saved(tensor)
            saved.add(entry)
            return entry

        with saved_tensors_hooks(pack, lambda entry: entry.tensor):
            yield
        kept = chain((entry.tensor for entry in saved), results_kept(stage.submod), copies(stage.submod))
        here = bytes_beside(kept, chain(stage.submod.parameters(), stage.submod.buffers()))
        self.peaks[stage.stage_index] = max(here, self.peaks.get(stage.stage_index, 0))


def results_kept(part: nn.Module) -> Iterator[Tensor]:
    """The tensors that selective recomputation keeps for the backward of `part`."""
    for module in part.modules():
        if isinstance(module.forward, Recomputed):
            yield from module.forward.results_kept()


def bytes_beside(tensors: Iterable[Tensor], weights: Iterable[Tensor]) -> int:
    """The bytes of the storages of `tensors`, without those of `weights`."""
    sizes, there = storages(tensors), storages(weights)
    return sum(size for storage, size in sizes.items() if storage not in there)


def storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """The bytes of each storage, by its number."""
    found = (plain.untyped_storage() for tensor in tensors for plain in plain_tensors(tensor))
    return {storage_id(storage): storage.nbytes() for storage in found}
