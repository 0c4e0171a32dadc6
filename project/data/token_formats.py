"""Tokens that others have made: Megatron's `.bin` with its `.idx`, and the `.bin` of nanoGPT and llm.c.

Their numbers are ids of the tokenizer that made them, which `data.tokenizer` has to name.
"""

import codecs
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from project.data.file_kinds import CONTROLS, beside, other_kind

Tokens = npt.NDArray[Any]

MEGATRON = b"MMIDIDX\x00\x00"
MEGATRON_DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
LLM_C = {20240520: "<u2", 20240801: "<u4"}
"""Magic numbers of llm.c's header of 256 int32 (magic, version, number of tokens), and the tokens after it."""
LLM_C_HEADER = 256 * 4
SNIFFED_BYTES, SHORTEST_TEXT = 4096, 64
LARGEST_HIGH_HALF = 15  # of a token of four bytes: vocabularies have fewer than a million entries


class NotTokens(ValueError):
    """A file that is none of these formats; the message says why."""


def index_of(path: Path) -> Path | None:
    """Megatron's index of a `.bin` file; None if there is none beside it."""
    return beside(path, ".idx")


def read_tokens(path: Path) -> Iterator[Tokens]:
    """Yields the documents of a `.bin` file, or of the one beside an `.idx`.

    Raises:
        NotTokens: for a file that is damaged or of another format.
    """
    if path.suffix.lower() not in (".bin", ".idx"):
        raise NotTokens("is compressed, and tokens are mapped from their file; unpack it")
    file = path if path.suffix.lower() == ".bin" else beside(path, ".bin")
    if file is None:
        raise NotTokens(f"is an index without {path.with_suffix('.bin').name} beside it")
    index = index_of(file)
    yield from _megatron(file, index) if index else _stream(file)


def _megatron(file: Path, index: Path) -> Iterator[Tokens]:
    content = index.read_bytes()
    if content[: len(MEGATRON)] != MEGATRON:
        raise NotTokens(f"has {index.name} beside it, which does not begin as Megatron's index does")
    try:
        version, code, sequences, ends = struct.unpack_from("<QBQQ", content, len(MEGATRON))
        start = len(MEGATRON) + struct.calcsize("<QBQQ")
        sizes = np.frombuffer(content, "<i4", sequences, start).astype(np.int64)
        places = np.frombuffer(content, "<i8", sequences, start + 4 * sequences)
        documents = np.frombuffer(content, "<i8", ends, start + 12 * sequences)
    except (struct.error, ValueError, OverflowError):
        raise NotTokens(f"has {index.name} beside it, which is cut off") from None
    if version != 1 or code not in MEGATRON_DTYPES:
        raise NotTokens(f"has {index.name} beside it, of version {version} and token type {code}, unknown here")
    dtype = np.dtype(MEGATRON_DTYPES[code])
    tokens = _mapped(file, dtype)
    stops = places // dtype.itemsize + sizes
    ordered = len(documents) > 0 and documents[0] == 0 and (np.diff(documents) >= 0).all()
    if not ordered or documents[-1] != sequences or (sizes < 0).any() or (places < 0).any():
        raise NotTokens(f"has {index.name} beside it, whose documents are not in order")
    if len(stops) and stops.max() > len(tokens):
        raise NotTokens(f"has {len(tokens)} tokens, and {index.name} speaks of {stops.max()}: it is cut off")
    if (
        (places % dtype.itemsize).any()
        or sizes.sum() != len(tokens)
        or (stops[:-1] > places[1:] // dtype.itemsize).any()
    ):
        raise NotTokens(f"has {len(tokens)} tokens, which are not those that {index.name} speaks of: it is another's")
    for first, last in zip(documents[:-1].tolist(), documents[1:].tolist(), strict=True):
        if first < last:
            starts = (places[first:last] // dtype.itemsize).tolist()
            pieces = [tokens[a:b] for a, b in zip(starts, stops[first:last].tolist(), strict=True)]
            yield pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _stream(file: Path) -> Iterator[Tokens]:
    """The tokens end to end, one document."""
    with file.open("rb") as opened:
        begin = opened.read(SNIFFED_BYTES)
    magic, count = (int.from_bytes(begin[place : place + 4], "little") for place in (0, 8))
    header = LLM_C_HEADER if magic in LLM_C else 0
    if not header:
        refuse_other_kinds(begin)
    if header:
        dtype = np.dtype(LLM_C[magic])
    else:
        if file.stat().st_size % 2:
            raise NotTokens("has an odd number of bytes, where tokens have two or four")
        dtype = np.dtype(_width(file))
    tokens = _mapped(file, dtype, header)
    if header and len(tokens) != count:
        raise NotTokens(f"has {len(tokens)} tokens, and its header speaks of {count}: it is cut off, or another's")
    yield tokens


def refuse_other_kinds(begin: bytes) -> None:
    """Raises NotTokens for the beginning of a text, or of a file that can be told: as numbers of two bytes these too
    lie within a large vocabulary."""
    if kind := other_kind(begin):
        raise NotTokens(f"holds no tokens, but is {kind}")
    if len(begin) >= SHORTEST_TEXT and len(begin.translate(None, CONTROLS)) == len(begin) and is_utf_8(begin):
        raise NotTokens("holds no tokens, but text; give it a name that does not end in .bin")


def is_utf_8(begin: bytes) -> bool:
    """True also for bytes that end within a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(begin)
    except UnicodeDecodeError:
        return False
    return True


def _width(file: Path) -> str:
    """Two bytes a token, or four where every second number of two bytes is as small as a high half is."""
    halves = np.fromfile(file, "<u2", 1 << 16)
    high, low = halves[1::2], halves[0::2]
    if file.stat().st_size % 4 == 0 and len(high) and high.max() <= LARGEST_HIGH_HALF < low.max():
        return "<u4"
    return "<u2"


def _mapped(file: Path, dtype: np.dtype[Any], offset: int = 0) -> Tokens:
    size = file.stat().st_size - offset
    if size % dtype.itemsize:
        raise NotTokens(f"has {size} bytes, which are no tokens of {dtype.itemsize} bytes each: it is cut off")
    return np.memmap(file, dtype, mode="r", offset=offset) if size else np.empty(0, dtype)
