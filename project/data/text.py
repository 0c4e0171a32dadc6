"""The user's own files as a corpus: plain text, JSON lines and Parquet."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from project.data.corpus import CorpusError, Document
from project.spec.fault import Fault

# Faults are looked for in this much text; the rest is checked when it is tokenized, still before any process starts.
_CHECKED_BYTES = 256 * 2**20


class TextCorpus:
    """Files and globs (`**` included) as a corpus.

    Each line of a `.jsonl` file and each row of a `.parquet` file is a document, under the key `text_key`. Every other
    file is one document of UTF-8 text, whatever its name ends in.
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
        stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in self.files]
        return {"corpus": self.name, "text_key": self.text_key, "files": stats}

    def size_bytes(self) -> int | None:
        if any(path.suffix == ".parquet" for path in self.files):
            return None  # compressed
        return sum(path.stat().st_size for path in self.files)

    def documents(self) -> Iterator[Document]:
        root = Path(os.path.commonpath([path.parent for path in self.files]))
        for path in self.files:
            name = path.relative_to(root).as_posix()
            for row, text in enumerate(_texts(path, self.text_key)):
                if text:
                    yield Document(f"{name}:{row}", text)

    def faults(self) -> list[Fault]:
        found, faults = self._find()
        checked = 0
        for path in found:
            try:
                if path.stat().st_size == 0:
                    faults.append(Fault(self.key, str(path), "is empty"))
                elif checked < _CHECKED_BYTES:
                    checked += path.stat().st_size
                    for row, _ in enumerate(_texts(path, self.text_key)):
                        if row == 10_000:  # a wrong `text_key` shows at once, and rows after that cost too much
                            break
            except CorpusError as error:
                faults.append(error.fault)
            except OSError as error:
                faults.append(Fault(self.key, str(path), f"cannot be read: {error.strerror}"))
        return faults

    def _find(self) -> tuple[list[Path], list[Fault]]:
        if not self.value:
            return [], [Fault(self.key, "[]", "names no file; give files or globs, as in data.files=[notes/**/*.txt]")]
        found: set[Path] = set()
        faults = []
        for pattern in self.value:
            path = Path(pattern).expanduser()
            # The literal name comes first, because brackets are legal in file names.
            matches = [path] if path.exists() else [Path(match) for match in glob.glob(str(path), recursive=True)]
            matched_files = {match.absolute() for match in matches if match.is_file()}
            if not matched_files:
                faults.append(Fault(self.key, pattern, _why_nothing(path)))
            found |= matched_files
        return sorted(found), faults


def _why_nothing(path: Path) -> str:
    if path.is_dir():
        return f"is a folder; name the files in it, as in '{path}/**/*.txt'"
    if glob.has_magic(str(path)):
        return f"matches no file; relative names start from {Path.cwd()}"
    return f"does not exist; relative names start from {Path.cwd()}"


def _texts(path: Path, text_key: str) -> Iterator[str]:
    if path.suffix == ".parquet":
        yield from _parquet_texts(path, text_key)
    elif path.suffix == ".jsonl":
        yield from _json_lines_texts(path, text_key)
    else:
        yield _decode(path, path.read_bytes(), offset=0)


def _decode(path: Path, content: bytes, offset: int) -> str:
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        where = f"byte 0x{content[error.start]:02x} at offset {offset + error.start}"
        fault = Fault(TextCorpus.key, str(path), f"is not UTF-8 ({where}); convert it, for instance with iconv")
        raise CorpusError(fault) from None


def _json_lines_texts(path: Path, text_key: str) -> Iterator[str]:
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = _decode(path, line, offset)
            offset += len(line)
            if text.strip():
                yield _json_line_text(path, number, text, text_key)


def _json_line_text(path: Path, number: int, line: str, text_key: str) -> str:
    def fault(message: str) -> CorpusError:
        return CorpusError(Fault(TextCorpus.key, f"{path}:{number}", message))

    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise fault(f"is not JSON ({error.msg}); a .jsonl file holds one object a line") from None
    if not isinstance(record, dict) or not isinstance(record.get(text_key), str):
        keys = sorted(record) if isinstance(record, dict) else type(record).__name__
        raise fault(f"has no text under data.text_key={text_key}; it has {keys}")
    return str(record[text_key])


def _parquet_texts(path: Path, text_key: str) -> Iterator[str]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        fault = Fault(TextCorpus.key, str(path), "needs pyarrow to be read: pip install 'project[hf]'")
        raise CorpusError(fault) from None
    try:
        table = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise CorpusError(Fault(TextCorpus.key, str(path), f"is not Parquet ({error})")) from None
    if text_key not in table.schema_arrow.names:
        message = f"has no column data.text_key={text_key}; it has {table.schema_arrow.names}"
        raise CorpusError(Fault(TextCorpus.key, str(path), message))
    for batch in table.iter_batches(columns=[text_key]):
        for text in batch.column(0).to_pylist():
            yield text or ""
