"""How many bytes autograd keeps from the forward of each stage for its backward, at most, over a schedule.

Counted: what autograd saves for backward, and what selective recomputation keeps beside it; each storage once and
whole, a view of it keeping it all. Not counted: weights and buffers, which are there anyway; what a layer's
recomputation brings back while its backward runs; and what is held for other reasons (messages on their way, the
outputs of stages, gradients).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Protocol
from weakref import WeakSet

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from project.engine.recompute import Recomputed


class Stage(Protocol):
    stage_index: int
    submod: nn.Module


class Saved:
    """What autograd holds in a saved tensor's place, and drops when it would drop the tensor. The tensor itself would
    hold the graph that holds it, and what a split backward does not use up would live for ever."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()


class Activations:
    """`peaks` are the bytes by stage. Between forwards the graphs only shrink, so that the end of each is where a peak
    may be."""

    def __init__(self) -> None:
        self.peaks: dict[int, int] = {}
        self.saved: dict[int, WeakSet[Saved]] = defaultdict(WeakSet)

    @contextmanager
    def forward(self, stage: Stage) -> Iterator[None]:
        """Around a forward of the stage, or around the loss on its outputs."""
        saved = self.saved[stage.stage_index]

        def pack(tensor: Tensor) -> Saved:
            entry = Saved(tensor)
            saved.add(entry)
            return entry

        with saved_tensors_hooks(pack, lambda entry: entry.tensor):
            yield
        kept = chain((entry.tensor for entry in saved), results_kept(stage.submod))
        here = bytes_beside(kept, chain(stage.submod.parameters(), stage.submod.buffers()))
        self.peaks[stage.stage_index] = max(here, self.peaks.get(stage.stage_index, 0))


def results_kept(part: nn.Module) -> Iterator[Tensor]:
    for module in part.modules():
        if isinstance(module.forward, Recomputed):
            yield from module.forward.results_kept()


def bytes_beside(tensors: Iterable[Tensor], weights: Iterable[Tensor]) -> int:
    """Of the storages under `tensors` that are not those under `weights`."""
    sizes, there = storages(tensors), storages(weights)
    return sum(size for storage, size in sizes.items() if storage not in there)


def storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Bytes by storage."""
    found = (plain.untyped_storage() for tensor in tensors for plain in inner(tensor))
    return {storage._cdata: storage.nbytes() for storage in found}


def inner(tensor: Tensor) -> Iterator[Tensor]:
    """The plain tensors under a DTensor, or under one that a collective is still filling."""
    if is_traceable_wrapper_subclass(tensor):
        parts = (getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
        yield from (plain for part in parts if isinstance(part, Tensor) for plain in inner(part))
    else:
        yield tensor
