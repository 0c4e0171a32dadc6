"""Files that are hashed while they are written, and synchronised to the disk when they are closed.

The checksum is XXH3 (128 bits), as fast as memory. It finds damage, not forgery.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

import xxhash

BLOCK = 1 << 22  # bytes


class Hashed(NamedTuple):
    """A file's size in bytes, and its checksum in hexadecimal."""

    bytes: int
    xxh3: str


class HashedFile:
    """A new file that hashes what is written to it. Its errors name the file, which an OSError of a write does not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("xb", buffering=0)
        self.hash, self.size = xxhash.xxh3_128(), 0

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        self.hash.update(view)
        self.size += len(view)
        with self.named():
            while view:
                view = view[self.file.write(view) :]

    @property
    def hashed(self) -> Hashed:
        return Hashed(self.size, self.hash.hexdigest())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        with self.named(), self.file:
            if kind is None:
                os.fsync(self.file.fileno())

    @contextmanager
    def named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None


def hash_of_bytes(data: bytes) -> Hashed:
    return Hashed(len(data), xxhash.xxh3_128_hexdigest(data))


def hash_of(path: Path) -> Hashed:
    hash, size = xxhash.xxh3_128(), 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            hash.update(block)
            size += len(block)
    return Hashed(size, hash.hexdigest())


def sync_folder(path: Path) -> None:
    """Synchronises a folder's entries, the names of its files, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
