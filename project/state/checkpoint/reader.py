"""Reading a checkpoint: its content, whole tensors, and slices of tensors, each read when it is asked for.

The files are not trusted: sizes, names and shapes are checked before they are used.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from project.state.checkpoint.manifest import (
    ANOTHER,
    META,
    CheckpointError,
    check_hash,
    damaged,
    hash_of_bytes,
    rank_file,
    read_manifest,
    read_small,
)
from project.state.checkpoint.tensor_file import OFFSETS, SHARDING, Chunk
from project.state.checkpoint.values import DTYPES, loads

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Stored:
    """A tensor of a checkpoint: its global shape, and its chunks by file."""

    shape: torch.Size
    dtype: torch.dtype
    chunks: Mapping[str, Chunk]


class Checkpoint:
    """A finished checkpoint. A file is opened when a tensor is first read from it; only what is asked for is read.

        checkpoint = Checkpoint("step=10.ckpt")
        shapes = {name: (stored.shape, stored.dtype) for name, stored in checkpoint.weights.items()}
        wq = checkpoint.read("layers.0.attention.wq.weight")
        first_rows = checkpoint.read("head.weight", (slice(0, 16),))

    Raises: CheckpointError: if a file is missing, of another size, or not of a checkpoint. JSON is compared with its
    checksum when it is read, tensors only by `verify`, which reads everything.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self.files = read_manifest(self.path)
        self._open: dict[str, Any] = {}

    @cached_property
    def meta(self) -> dict[str, Any]:
        return self._json(META)

    def of_rank(self, rank: int) -> dict[str, Any]:
        return self._json(rank_file(rank))

    @cached_property
    def weights(self) -> dict[str, Stored]:
        """Weights and persistent buffers, by their global names."""
        return self._index("weights")

    @cached_property
    def optimizer(self) -> dict[str, Stored]:
        """The optimizer state by `optimizer.INDEX.KEY.NAME`; empty in a checkpoint of weights alone."""
        return self._index("optimizer")

    def stored(self, name: str) -> Stored:
        stored = self.weights.get(name) or self.optimizer.get(name)
        if stored is None:
            raise CheckpointError(self.path, f"has no tensor {name}", "resume with the model that it was saved of")
        return stored

    def read(self, name: str, slices: Slices = ()) -> Tensor:
        """The tensor on the CPU, or the box of it that `slices` select (with steps of 1; trailing dims that they leave
        out are whole). Only the box is read."""
        stored = self.stored(name)
        wanted = [range(size)[part] for size, part in zip(stored.shape, full(slices, stored.shape), strict=True)]
        out = torch.empty([len(part) for part in wanted], dtype=stored.dtype)
        for file, chunk in stored.chunks.items():
            begins = [max(w.start, o) for w, o in zip(wanted, chunk.offsets, strict=True)]
            ends = [min(w.stop, o + n) for w, o, n in zip(wanted, chunk.offsets, chunk.sizes, strict=True)]
            if all(begin < end for begin, end in zip(begins, ends, strict=True)):
                here = tuple(slice(b - o, e - o) for b, e, o in zip(begins, ends, chunk.offsets, strict=True))
                there = tuple(slice(b - w.start, e - w.start) for b, e, w in zip(begins, ends, wanted, strict=True))
                out[there] = self.read_chunk(file, name, here)
        return out

    def read_chunk(self, file: str, name: str, slices: Slices) -> Tensor:
        """A box of one file's chunk; `slices` count from the chunk's first element."""
        with self._refusing(file):
            opened = self._opened(file)
            return opened.get_slice(name)[slices] if slices else opened.get_tensor(name)

    def verify(self, share: int = 0, of: int = 1) -> None:
        """Compares the checksums of all files, or of share number `share` of `of` equal shares.

        Raises:
            CheckpointError: naming the first damaged file.
        """
        for name in sorted(self.files)[share::of]:
            check_hash(self.path / name, self.files[name])

    def close(self) -> None:
        """Closes the files and unmaps their memory."""
        self._open.clear()

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        if name not in self.files:
            raise CheckpointError(path, "is not in the manifest", ANOTHER)
        text = read_small(path)
        if hash_of_bytes(text) != self.files[name]:
            raise damaged(path)
        try:
            value = loads(text)
            if not isinstance(value, dict):
                raise ValueError("is no object")
        except ValueError as error:
            raise CheckpointError(path, f"is no JSON of a checkpoint ({error})", ANOTHER) from None
        return value

    def _opened(self, file: str) -> Any:
        if file not in self._open:
            self._open[file] = safe_open(self.path / file, framework="pt")
        return self._open[file]

    def _index(self, kind: str) -> dict[str, Stored]:
        found: dict[str, dict[str, Chunk]] = {}
        for file in (name for name in self.files if name.startswith(f"{kind}-")):
            with self._refusing(file):
                for chunk in chunks_of(self._opened(file)):
                    found.setdefault(chunk.name, {})[file] = chunk
        return {name: self._stored(name, chunks) for name, chunks in found.items()}

    def _stored(self, name: str, chunks: dict[str, Chunk]) -> Stored:
        """The tensor that the chunks make up. They have to leave no gap and no overlap, so that no shape is larger than
        the files' content."""
        boxes = list(chunks.values())
        first = boxes[0]
        if any(len(box.sizes) != len(first.sizes) or box.dtype != first.dtype for box in boxes):
            raise CheckpointError(self.path, f"has chunks of {name} that do not fit together", ANOTHER)
        ends = [[o + n for o, n in zip(box.offsets, box.sizes, strict=True)] for box in boxes]
        shape = torch.Size([max(column) for column in zip(*ends, strict=True)])
        if sum(prod(box.sizes) for box in boxes) != prod(shape) or overlapping(boxes):
            raise CheckpointError(self.path, f"has chunks of {name} that do not make up {list(shape)}", ANOTHER)
        return Stored(shape, first.dtype, chunks)

    @contextmanager
    def _refusing(self, file: str) -> Iterator[None]:
        try:
            yield
        except (SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
            if isinstance(error, CheckpointError):
                raise
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise CheckpointError(self.path / file, f"is no file of tensors ({reason})", ANOTHER) from None


def full(slices: Slices, shape: torch.Size) -> Slices:
    return (*slices, *(slice(None),) * (len(shape) - len(slices)))


def chunks_of(opened: Any) -> Iterator[Chunk]:
    """The chunks of an opened file. Raises `ValueError` or `KeyError` if the header lacks valid offsets for a
    tensor."""
    sharding = json.loads((opened.metadata() or {})[SHARDING])
    for name in opened.keys():  # noqa: SIM118 - no mapping
        described = opened.get_slice(name)
        sizes, offsets = tuple(described.get_shape()), tuple(sharding[name][OFFSETS])
        if len(offsets) != len(sizes) or not all(type(o) is int and 0 <= o < 2**62 for o in offsets):
            raise ValueError(f"{name} lies at {str(offsets)[:80]}")
        if (dtype := described.get_dtype()) not in DTYPES:
            raise ValueError(f"{name} is {dtype}, which no checkpoint has")
        yield Chunk(name, DTYPES[dtype], offsets, sizes)


def overlapping(boxes: list[Chunk]) -> bool:
    return any(overlap(one, other) for index, one in enumerate(boxes) for other in boxes[:index])


def overlap(one: Chunk, other: Chunk) -> bool:
    bounds = zip(one.offsets, one.sizes, other.offsets, other.sizes, strict=True)
    return all(max(a, b) < min(a + n, b + m) for a, n, b, m in bounds)
