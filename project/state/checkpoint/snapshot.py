"""A rank's share of a run's tensors: the chunks that it writes, and a copy to write from while training goes on.

DCP's planners (`torch.distributed.checkpoint`) divide the work: one of the ranks that hold a box of a tensor writes it,
and ranks write equally many bytes. The division is made once, for it depends on names, shapes and placements alone.
"""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import SavePlan

from project.engine.parts import local_tensor
from project.state.checkpoint.reader import Checkpoint
from project.state.checkpoint.tensor_file import Chunk

Kinds = Mapping[str, Mapping[str, Tensor]]
"""Tensors by their names, by the kind of file that they go to."""


class Snapshot:
    """`kinds` are this rank's tensors; every rank makes its snapshot of the same kinds at once (collective)."""

    def __init__(self, kinds: Kinds) -> None:
        self.like = signature(kinds)
        self.chunks: dict[str, list[Chunk]] = {}
        for kind, tensors in kinds.items():
            self.chunks[kind] = [
                Chunk(item.index.fqn, data.properties.dtype, tuple(data.chunk.offsets), tuple(data.chunk.sizes))
                for item in divided(tensors).items
                if (data := item.tensor_data) is not None and data.chunk.sizes.numel()
            ]
        self.staged: list[Tensor] | None = None

    def fits(self, kinds: Kinds) -> bool:
        return self.like == signature(kinds)

    def tensors(self, kinds: Kinds) -> dict[str, Tensor]:
        """Returns this rank's share, in place."""
        return {
            chunk.name: local_tensor(kinds[kind][chunk.name]).detach()
            for kind, chunks in self.chunks.items()
            for chunk in chunks
        }

    @torch.no_grad()
    def copy(self, kinds: Kinds) -> dict[str, Tensor]:
        """Returns this rank's share, copied to memory that the next copy will use again."""
        here = self.tensors(kinds)
        if self.staged is None:
            pin = any(tensor.is_cuda for tensor in here.values())
            self.staged = [torch.empty_like(tensor, device="cpu", pin_memory=pin) for tensor in here.values()]
        for staged, tensor in zip(self.staged, here.values(), strict=True):
            staged.copy_(tensor, non_blocking=True)
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.current_stream().synchronize()
        return dict(zip(here, self.staged, strict=True))


def signature(kinds: Kinds) -> list[tuple]:
    return [(kind, name, tensor.dtype, tensor.shape) for kind in kinds for name, tensor in kinds[kind].items()]


def divided(tensors: Mapping[str, Tensor]) -> SavePlan:
    """Returns this rank's part of the plan of all; collective."""
    first = dist.get_rank() == 0
    planner = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(dict(tensors), is_coordinator=first)
    plans: list = [None] * dist.get_world_size()
    dist.gather_object(planner.create_local_plan(), plans if first else None)
    whole = planner.create_global_plan(plans)[0] if first else plans
    mine: list = [None]
    dist.scatter_object_list(mine, whole if first else None)
    return mine[0]


@torch.no_grad()
def fill(tensors: Mapping[str, Tensor], checkpoint: Checkpoint) -> None:
    """Fills each tensor, whichever part of the whole it is, from the checkpoint's chunks. No collective: each rank
    reads for itself."""
    planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(dict(tensors), metadata(tensors, checkpoint))
    for item in planner.create_local_plan().items:
        place = item.storage_index
        assert place.index is not None
        file = list(checkpoint.stored(place.fqn).chunks)[place.index]
        box = tuple(slice(o, o + n) for o, n in zip(item.storage_offsets, item.lengths, strict=True))
        planner.resolve_tensor(item).detach().copy_(checkpoint.read_chunk(file, place.fqn, box))


def metadata(names: Mapping[str, Tensor], checkpoint: Checkpoint) -> Metadata:
    """Returns DCP's metadata of these tensors. Chunks keep their order, to which a plan's indices refer."""
    described: dict[str, TensorStorageMetadata | BytesStorageMetadata] = {}
    for name in names:
        stored = checkpoint.stored(name)
        boxes = [
            ChunkStorageMetadata(torch.Size(chunk.offsets), torch.Size(chunk.sizes)) for chunk in stored.chunks.values()
        ]
        described[name] = TensorStorageMetadata(TensorProperties(dtype=stored.dtype), stored.shape, boxes)
    return Metadata(described)
