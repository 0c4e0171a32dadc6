"""The content of a user's file: opened whatever it is compressed by, decoded as UTF-8, refused where it is no text."""

import gzip
import io
from pathlib import Path
from typing import Any, BinaryIO

from project.data.corpus import CorpusError
from project.data.file_kinds import CONTROLS, other_kind
from project.spec.fault import Fault

KEY = "data.files"
MOST_CONTROLS = 0.001  # of a text's bytes: many web pages have a stray one, and in binary data one byte in ten is one
ISO_2022 = b"\x1b$"  # an escape to two-byte characters, in bytes that are all ASCII; a terminal's begin otherwise


def refused(path: Path | str, reason: str) -> CorpusError:
    return CorpusError(Fault(KEY, str(path), reason))


def opened(path: Path) -> BinaryIO:
    match path.suffix.lower():
        case ".gz":
            return gzip.open(path, "rb")  # type: ignore[return-value]
        case ".zst":
            return io.BufferedReader(pyarrow_for(path).input_stream(str(path), compression="zstd"))
    return path.open("rb")


def pyarrow_for(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise refused(path, "needs pyarrow to be read: pip install 'project[hf]'") from None
    return pyarrow


def decoded(path: Path, content: bytes, offset: int = 0) -> str:
    try:
        text = content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        _refuse_other_kinds(path, content if offset == 0 else b"")
        where = f"byte 0x{content[error.start]:02x} at offset {offset + error.start}"
        raise refused(path, f"is not UTF-8 ({where}); convert it, for instance with iconv") from None
    refuse_binary(path, content, offset)
    return text


def _refuse_other_kinds(path: Path, begin: bytes) -> None:
    if kind := other_kind(begin):
        raise refused(path, f"is not UTF-8, but {kind}")


def refuse_binary(path: Path, content: bytes, offset: int) -> None:
    """Refuses content with control characters: tokens, pictures and programs may be valid UTF-8, but texts have
    none."""
    if (place := content.find(ISO_2022)) >= 0:
        where = f"bytes 0x1b 0x24 at offset {offset + place}"
        raise refused(path, f"is ISO-2022, not UTF-8 ({where}); convert it, as iconv -f ISO-2022-JP -t UTF-8 does")
    controls = len(content) - len(content.translate(None, CONTROLS))
    if not controls or (b"\0" not in content and controls <= 1 + MOST_CONTROLS * len(content)):
        return
    _refuse_other_kinds(path, content if offset == 0 else b"")
    place = next(index for index, byte in enumerate(content) if byte in CONTROLS)
    where = f"byte 0x{content[place]:02x} at offset {offset + place}"
    if content.count(b"\0") > len(content) // 5:
        raise refused(
            path,
            f"is no text ({where}): it may be UTF-16 without a byte order mark, which iconv -f UTF-16LE -t UTF-8 "
            "converts, or tokens",
        )
    raise refused(path, f"is binary, no text ({where})")
