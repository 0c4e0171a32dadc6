"""The user's own files as a corpus, and their faults."""

import glob
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from project.data.corpus import CorpusError, Document
from project.data.file_kinds import INDEX, TOKENS, beside
from project.data.text_files import is_compressed, read_values
from project.spec.fault import Fault, said

# Faults are looked for in this much text; the rest is checked when it is tokenized, still before any process starts.
_CHECKED_BYTES, _CHECKED_ROWS = 256 * 2**20, 10_000  # a wrong `text_key` shows at once


class TextCorpus:
    """Files and globs (`**` included) as a corpus.

    Each row of JSON lines, JSON, CSV, TSV or Parquet is a document, under the key `text_key`: a text, messages or
    tokens. `.bin` files hold tokens. Every other file is one document of UTF-8 text, unless its lines are JSON objects.
    All may be compressed (`project.data.text_files`).
    """

    name = "text"
    key = "data.files"

    def __init__(self, files: Sequence[str] | str, text_key: str = "text") -> None:
        self.value = [files] if isinstance(files, str) else [str(file) for file in files or ()]
        self.text_key = text_key

    @cached_property
    def files(self) -> list[Path]:
        """The files' absolute paths, sorted.

        Raises:
            CorpusError: for a pattern that matches no file.
        """
        found, faults = self._find()
        if faults:
            raise CorpusError(faults[0])
        return found

    def identity(self) -> dict[str, Any]:
        tokens = [path for path in self.files if path.suffix.lower() in (TOKENS, INDEX)]
        belonging = {file for path in tokens for suffix in (TOKENS, INDEX) if (file := beside(path, suffix))}
        read = sorted({*self.files, *belonging})
        stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in read]
        return {"corpus": self.name, "text_key": self.text_key, "files": stats}

    def size_bytes(self) -> int | None:
        if any(is_compressed(path) for path in self.files):
            return None
        return sum(path.stat().st_size for path in self.files)

    def documents(self) -> Iterator[Document]:
        root = Path(os.path.commonpath([path.parent for path in self.files]))
        for path in self.files:
            name = path.relative_to(root).as_posix()
            for row, value in enumerate(read_values(path, self.text_key)):
                if len(value):
                    yield Document.of(f"{name}:{row}", value)

    def faults(self) -> list[Fault]:
        found, faults = self._find()
        checked, empty = 0, True
        for path in found:
            try:
                if checked < _CHECKED_BYTES:
                    checked += path.stat().st_size
                    for value in islice(read_values(path, self.text_key), _CHECKED_ROWS):
                        empty = empty and not len(value)
            except CorpusError as error:
                faults.append(error.fault)
            except OSError as error:
                faults.append(Fault(self.key, str(path), f"cannot be read: {error.strerror or error}"))
        if found and empty and not faults and checked < _CHECKED_BYTES:
            faults.append(Fault(self.key, said(self.value), f"names {len(found)} files, none of which holds any text"))
        return faults

    def _find(self) -> tuple[list[Path], list[Fault]]:
        if not self.value:
            return [], [Fault(self.key, "[]", "names no file; give files or globs, as in data.files=[notes/**/*.txt]")]
        found: dict[Any, Path] = {}  # by what the file system knows a file by, so that links to it count once
        faults = []
        for pattern in self.value:
            path = Path(pattern).expanduser()
            # The literal name comes first, because brackets are legal in file names.
            matches = [path] if exists(path) else [Path(match) for match in glob.glob(str(path), recursive=True)]
            matched_files = {match.absolute() for match in matches if match.is_file()}
            if not matched_files:
                faults.append(Fault(self.key, pattern, _why_nothing(path)))
            for file in sorted(matched_files):
                status, resolved = file.stat(), file.resolve()
                linked = status.st_nlink > 1 and status.st_ino != 0  # some mounts give every file the same number
                found.setdefault((status.st_dev, status.st_ino) if linked else resolved, file)
        # Megatron's index belongs to the file beside it, if that is named too.
        files = set(found.values())
        indices = {path for path in files if path.suffix.lower() == INDEX and beside(path, TOKENS) in files}
        return sorted(files - indices), faults


def exists(path: Path) -> bool:
    """False also for a name that no file can have, such as one that is too long."""
    try:
        return path.exists()
    except OSError:
        return False


def _why_nothing(path: Path) -> str:
    if exists(path):
        if path.is_dir():
            return f"is a folder; name the files in it, as in '{path}/**/*.txt'"
        return "is a pipe or a device, which can be read only once; write it into a file"
    if glob.has_magic(str(path)):
        return f"matches no file; relative names start from {Path.cwd()}"
    return f"does not exist; relative names start from {Path.cwd()}"
