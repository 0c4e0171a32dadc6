"""The source of the running Python's standard library, a corpus that every machine has."""

import hashlib
import platform
import sysconfig
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from project.data.corpus import Document
from project.spec.fault import Fault

# Folders and files that are left out: installed packages, the library's tests (which are larger than itself), tables of
# characters, and files that the build of this Python generated.
_SKIPPED_FOLDERS = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "__pycache__"}
)
_GENERATED_PREFIXES = ("config-", "_sysconfigdata_")


class StdlibCorpus:
    """Every module of the standard library, each file a document: about 600 files, 11 MB, depending on the version."""

    name = "stdlib"
    key = "data"
    value = "stdlib"

    @cached_property
    def files(self) -> dict[str, Path]:
        """The files by relative POSIX path, sorted, so that machines with the same Python read them in the same
        order."""
        root = Path(sysconfig.get_path("stdlib"))
        found = {path.relative_to(root).as_posix(): path for path in _python_files(root)}
        return dict(sorted(found.items()))

    def identity(self) -> dict[str, Any]:
        listing = [(name, path.stat().st_size) for name, path in self.files.items()]
        digest = hashlib.sha256(repr(listing).encode()).hexdigest()
        return {"corpus": self.name, "python": platform.python_version(), "files": digest}

    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files.values())

    def documents(self) -> Iterator[Document]:
        for name, path in self.files.items():
            # A few old modules declare Latin-1; they are not worth a second way of decoding.
            text = path.read_bytes().decode("utf-8", errors="ignore")
            if text:
                yield Document(name, text)

    def faults(self) -> list[Fault]:
        if self.files:
            return []
        root = sysconfig.get_path("stdlib")
        return [
            Fault(self.key, self.value, f"this Python ships no .py files in {root}; use data=text data.files=[...]")
        ]


def _python_files(folder: Path) -> Iterator[Path]:
    # rglob would descend into site-packages, which is ten times as large.
    for entry in folder.iterdir():
        if entry.name.startswith(_GENERATED_PREFIXES):
            continue
        if entry.is_dir():
            if entry.name not in _SKIPPED_FOLDERS:
                yield from _python_files(entry)
        elif entry.suffix == ".py":
            yield entry
