"""Token files: the tokens of many documents, end to end in one memory-mapped file.

A folder holds `tokens.bin` (little-endian, two bytes a token where the vocabulary fits, else four), `documents.bin`
(int64: the position where each document starts, and where the last one ends) and `header.json`, which has the XXH3
checksums of both. Processes that read the same file share its pages.
"""

import array
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import xxhash

from project.spec.untrusted import Unreadable, read_json

VERSION = 3
FILES = ("tokens.bin", "documents.bin")


class TokenFile:
    """A token file for reading.

    Raises:
        ValueError: if the header is damaged, of another version, or does not match the files' sizes.
    """

    def __init__(self, folder: Path) -> None:
        try:
            header: dict[str, Any] = read_json(folder / "header.json", folder)
            version, self.fingerprint = header["version"], str(header["fingerprint"])
            self.num_tokens, self.num_documents = int(header["num_tokens"]), int(header["num_documents"])
            self.vocab_size, dtype = int(header["vocab_size"]), np.dtype(header["dtype"])
            self.checksums = {name: str(header["xxh3"][name]) for name in FILES}
        except Unreadable as error:
            if not (folder / "header.json").exists():
                raise FileNotFoundError(str(error)) from error
            raise ValueError(f"{folder}: damaged header.json ({error.problem})") from error
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{folder}: damaged header.json") from error
        if version != VERSION:
            raise ValueError(f"{folder}: version {version} of a token file, where {VERSION} is understood")
        for name, size in (
            ("tokens.bin", self.num_tokens * dtype.itemsize),
            ("documents.bin", (self.num_documents + 1) * 8),
        ):
            if (folder / name).stat().st_size != size:
                raise ValueError(f"{folder / name}: {(folder / name).stat().st_size} bytes, where {size} were written")
        self.folder = folder
        # numpy cannot map an empty file.
        self.tokens: npt.NDArray[Any] = (
            np.memmap(folder / "tokens.bin", dtype=dtype, mode="r") if self.num_tokens else np.empty(0, dtype)
        )
        self.document_offsets: npt.NDArray[np.int64] = np.fromfile(folder / "documents.bin", dtype="<i8")

    def verify(self) -> None:
        """Reads the files and compares their checksums.

        Raises:
            ValueError: if a checksum differs.
        """
        for name, checksum in self.checksums.items():
            if checksum_of(self.folder / name) != checksum:
                raise ValueError(f"{self.folder / name}: its bytes are not those that were written")


class TokenWindows:
    """The windows of a token file, a map-style dataset. They do not overlap, and run across the ends of documents."""

    def __init__(self, file: TokenFile, seq_len: int) -> None:
        self._file, self._seq_len = file, seq_len

    def __len__(self) -> int:
        """The number of windows of `seq_len` inputs. The last window needs one token more, its last target."""
        return max(0, (self._file.num_tokens - 1) // self._seq_len)

    def __getitem__(self, index: int) -> npt.NDArray[np.int64]:
        """The window's `[seq_len + 1]` int64 tokens: all but the last are inputs, all but the first are targets.

        Raises:
            ValueError: for a token beyond the vocabulary, for which the embedding has no row.
        """
        file, start = self._file, index * self._seq_len
        window = file.tokens[start : start + self._seq_len + 1].astype(np.int64)
        if len(window) and window.max() >= file.vocab_size:
            token, place = window.max(), start + int(window.argmax())
            raise ValueError(
                f"{file.folder / 'tokens.bin'}: token {token} at {place} is beyond the vocabulary of "
                f"{file.vocab_size}: the file is damaged; remove {file.folder.parent}, and it is made again"
            )
        return window


class TokenFileWriter:
    """Writes a token file into the new folder `folder`; it can be read after `close`."""

    def __init__(self, folder: Path, vocab_size: int, fingerprint: str) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._vocab_size = vocab_size
        self._fingerprint = fingerprint
        self._dtype = np.dtype("<u2" if vocab_size <= 2**16 else "<u4")
        self._file = (folder / "tokens.bin").open("w+b")
        self._starts = array.array("q")
        self.num_tokens = 0

    def add(self, tokens: Sequence[int] | npt.NDArray[Any], starts_document: bool = True) -> None:
        """Appends tokens, as a new document or as a continuation of the last one."""
        if starts_document:
            self._starts.append(self.num_tokens)
        self._file.write(np.asarray(tokens, dtype=self._dtype).tobytes())
        self.num_tokens += len(tokens)

    def cut_tail(self, num_tokens: int) -> npt.NDArray[Any]:
        """Removes the last `num_tokens` tokens and returns them."""
        self.num_tokens -= num_tokens
        self._file.seek(self.num_tokens * self._dtype.itemsize)
        tail = np.frombuffer(self._file.read(), dtype=self._dtype)
        self._file.seek(self.num_tokens * self._dtype.itemsize)
        self._file.truncate()
        while self._starts and self._starts[-1] >= self.num_tokens:
            self._starts.pop()
        return tail

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def close(self) -> None:
        """Completes the file. One that is left without has no header, and is none."""
        self._file.close()
        np.array([*self._starts, self.num_tokens], dtype="<i8").tofile(self._folder / "documents.bin")
        header = {
            "version": VERSION,
            "dtype": self._dtype.str,
            "num_tokens": self.num_tokens,
            "num_documents": len(self._starts),
            "vocab_size": self._vocab_size,
            "fingerprint": self._fingerprint,
            "xxh3": {name: checksum_of(self._folder / name) for name in FILES},
        }
        (self._folder / "header.json").write_text(json.dumps(header, indent=1), encoding="utf-8")


def checksum_of(path: Path) -> str:
    """The XXH3 checksum (64 bits) of a file. It finds damage, not forgery."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_64).hexdigest()
