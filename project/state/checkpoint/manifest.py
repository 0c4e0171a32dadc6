"""The files of a checkpoint: their names, sizes and checksums, which the manifest states. It is written last and read
first. A file is hashed while it is written, by XXH3 (128 bits), as fast as memory, which finds damage, not forgery.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple, Self

import xxhash
from annotated_types import Ge, Le

from project.spec.fault import Told
from project.spec.run_files import Form, hold
from project.spec.untrusted import Unreadable, as_mapping, parsed_json

FORMAT = 1
MANIFEST, META, TOKENIZER = "manifest.json", "meta.json", "tokenizer.json"
LEGAL_NAME = re.compile(
    r"(meta|tokenizer|tokenizer_config)\.json|rank-\d{5}\.json|(weights|optimizer)-\d{5}\.safetensors", re.ASCII
)
LARGEST_JSON = 256 << 20  # bytes
ANOTHER = "resume from another checkpoint"
"""The remedy for a damaged checkpoint."""
BEGIN = "begin with them by init_from"
"""The remedy for a checkpoint of weights alone."""


class CheckpointError(Told, ValueError):
    """A checkpoint that cannot be read or used; `path` is the file or folder at fault."""

    def __init__(self, path: str | Path, problem: str, remedy: str) -> None:
        super().__init__(f"{path}: {problem}; {remedy}")
        self.path, self.problem, self.remedy = Path(path), problem, remedy

    def __reduce__(self) -> tuple:
        return type(self), (self.path, self.problem, self.remedy)


class Hashed(NamedTuple):
    """A file's size in bytes, and its checksum in hexadecimal."""

    bytes: int
    xxh3: str


class Entry(Form):
    """A file's entry in the manifest."""

    bytes: Annotated[int, Ge(0), Le(2**62)]
    xxh3: str


class Manifest(Form):
    """The form of `manifest.json`."""

    format: int
    files: dict[str, Entry]


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
    with path.open("rb", buffering=0) as file:
        checksum = hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
        return Hashed(file.tell(), checksum)


def weights_alone(files: Mapping[str, Hashed]) -> bool:
    """True for a checkpoint without optimizer state. A run that saves its optimizer writes a file for each rank, if
    only an empty one."""
    return not any(name.startswith("optimizer-") for name in files)


def rank_file(rank: int) -> str:
    return f"rank-{rank:05d}.json"


def tensor_file(kind: str, index: int) -> str:
    return f"{kind}-{index:05d}.safetensors"


def manifest_text(files: Mapping[str, Hashed]) -> bytes:
    entries = {name: files[name]._asdict() for name in sorted(files)}
    return (json.dumps({"format": FORMAT, "files": entries}, indent=1) + "\n").encode()


def read_manifest(folder: Path) -> dict[str, Hashed]:
    """Reads a checkpoint's manifest and checks the sizes of its files.

    Raises:
        CheckpointError: if the manifest is missing or malformed, or does not fit the folder's files.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise CheckpointError(folder, "is no folder", "give the path of a checkpoint's folder")
    if not path.exists():
        raise CheckpointError(path, "is missing, so this is no whole checkpoint", ANOTHER)
    text = read_small(path)
    try:
        content = as_mapping(path, parsed_json(path, text))
        if (version := content.get("format")) != FORMAT:
            said = f"has format {str(version)[:20]}, not {FORMAT}"
            raise CheckpointError(path, said, "open it with the version that wrote it")
        hold(Manifest, path, content)
    except Unreadable as error:
        raise CheckpointError(path, f"is no manifest of a checkpoint ({error.problem})", ANOTHER) from None
    files = {name: Hashed(entry["bytes"], entry["xxh3"]) for name, entry in content["files"].items()}
    for name, expected in files.items():
        if not LEGAL_NAME.fullmatch(name):
            raise CheckpointError(path, f"names a file {name[:80]!r}, which no checkpoint has", "do not trust it")
        check_size(folder / name, expected)
    if META not in files:
        raise CheckpointError(path, f"names no {META}", ANOTHER)
    return files


def check_size(path: Path, expected: Hashed) -> None:
    """Raises `CheckpointError` unless `path` is a regular file of the expected size."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        raise CheckpointError(path, "is missing", ANOTHER) from None
    except OSError as error:
        raise unreadable(path, error) from None
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(path, "is no regular file", "do not trust it")
    if status.st_size != expected.bytes:
        raise CheckpointError(path, f"has {status.st_size} bytes instead of {expected.bytes}", ANOTHER)


def check_hash(path: Path, expected: Hashed) -> None:
    """Raises `CheckpointError` unless the file has the expected checksum."""
    try:
        found = hash_of(path)
    except OSError as error:
        raise unreadable(path, error) from None
    if found != expected:
        raise damaged(path)


def read_small(path: Path) -> bytes:
    """Reads a file of JSON; refuses one that is larger than `LARGEST_JSON`."""
    try:
        size = path.lstat()
        if not stat.S_ISREG(size.st_mode) or size.st_size > LARGEST_JSON:
            raise CheckpointError(path, "is no file of JSON", "do not trust it")
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


def damaged(path: Path) -> CheckpointError:
    return CheckpointError(path, "is damaged: its checksum is not the manifest's", ANOTHER)


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """The error of a file that cannot be read: no permission, a failing disk, or removed by another run meanwhile."""
    return CheckpointError(path, f"cannot be read ({error.strerror})", ANOTHER)
