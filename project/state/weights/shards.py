"""Writes tensors into several safetensors files with an index, in Hugging Face's format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from torch import Tensor

from project.state.checkpoint.tensor_file import Chunk, write_tensors
from project.state.weights.hf_folder import INDEX


def write_shards(folder: Path, chunks: Sequence[Chunk], tensor: Callable[[Chunk], Tensor], shard_bytes: int) -> None:
    """Writes files of at most `shard_bytes` each (more if one tensor is larger), and their index."""
    shards = list(into_shards(chunks, shard_bytes))
    names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        write_tensors(folder / name, aligned(shard), tensor)
    index = {
        "metadata": {"total_size": sum(chunk.nbytes for chunk in chunks)},
        "weight_map": {chunk.name: name for name, shard in zip(names, shards, strict=True) for chunk in shard},
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def into_shards(chunks: Iterable[Chunk], shard_bytes: int) -> Iterator[list[Chunk]]:
    shard: list[Chunk] = []
    for chunk in chunks:
        if shard and sum(held.nbytes for held in shard) + chunk.nbytes > shard_bytes:
            yield shard
            shard = []
        shard.append(chunk)
    yield shard


def aligned(chunks: Iterable[Chunk]) -> list[Chunk]:
    """The chunks with the widest dtypes first, so that every tensor is aligned for memory mapping."""
    return sorted(chunks, key=lambda chunk: -chunk.dtype.itemsize)
