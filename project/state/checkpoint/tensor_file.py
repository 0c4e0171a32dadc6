"""Writes a file of tensors: safetensors with DCP's sharding metadata, written and hashed in one pass.

The library's writer takes all tensors at once; this one asks for each when it is written, so that a model need not fit
into memory.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from project.state.checkpoint.manifest import Hashed, HashedFile
from project.state.checkpoint.values import DTYPE_NAMES

SHARDING = "DCP_SHARDING_INFO"
OFFSETS = "saved_offsets"
ALIGNMENT = 8


@dataclass(frozen=True)
class Chunk:
    """A box of a tensor: its offsets in the whole tensor, and its sizes."""

    name: str
    dtype: torch.dtype
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.sizes) * self.dtype.itemsize


def write_tensors(path: Path, chunks: Sequence[Chunk], tensor: Callable[[Chunk], Tensor]) -> Hashed:
    """Writes `chunks` in order; `tensor` returns the values of each, on any device. A name occurs once in a file."""
    with HashedFile(path) as file:
        file.write(header(chunks))
        for chunk in chunks:
            values = tensor(chunk).detach()
            assert values.shape == chunk.sizes, f"{chunk.name}: {tuple(values.shape)}, not {chunk.sizes}"
            assert values.dtype == chunk.dtype, f"{chunk.name}: {values.dtype}, not {chunk.dtype}"
            if chunk.nbytes:
                file.write(values.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return file.hashed


def header(chunks: Sequence[Chunk]) -> bytes:
    """The header of a safetensors file, padded to `ALIGNMENT` bytes."""
    sharding = {chunk.name: {OFFSETS: list(chunk.offsets)} for chunk in chunks}
    assert len(sharding) == len(chunks), "a tensor has one chunk in a file"
    entries: dict[str, object] = {"__metadata__": {"format": "pt", SHARDING: json.dumps(sharding)}}
    end = 0
    for chunk in chunks:
        begin, end = end, end + chunk.nbytes
        entries[chunk.name] = {
            "dtype": DTYPE_NAMES[chunk.dtype],
            "shape": list(chunk.sizes),
            "data_offsets": [begin, end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
