"""Reads a user's file as documents: plain text, JSON, CSV or Parquet, possibly compressed; or tokens in `.bin` files.

The name's ending, in either case, determines the format; a file with another ending whose lines are JSON objects is
read as JSON lines, and one that is a list of JSON objects as JSON. A file that is not text is refused with its name and
the reason, before it is tokenized.
"""

import csv
import gzip
import io
import json
import re
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from project.data.chat_template import is_conversation
from project.data.corpus import CorpusError, Value
from project.data.file_kinds import CONTROLS, other_kind
from project.spec.fault import Fault

KEY = "data.files"
SNIFFED, SNIFFED_BYTES = 5, 4096  # lines that are not empty; bytes
COMPRESSED = (".gz", ".zst")
MOST_CONTROLS = 0.001  # of a text's bytes: many web pages have a stray one, and in binary data one byte in ten is one
ISO_2022 = b"\x1b$"  # an escape to two-byte characters, in bytes that are all ASCII; a terminal's begin otherwise
LONGEST_FIELD = 2**31 - 1  # of CSV, in characters; Python's default of 128 KiB is shorter than many documents


def kind_of(path: Path) -> str:
    """The last ending in lower case, without those of compression: `.jsonl` for `A.JSONL.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def is_compressed(path: Path) -> bool:
    return path.suffix.lower() in COMPRESSED or kind_of(path) == ".parquet"


def read_values(path: Path, text_key: str) -> Iterator[Value]:
    """Yields the documents of a file, including empty ones: texts, conversations, tokens.

    Raises:
        CorpusError: at the first document that cannot be read.
    """
    kind = kind_of(path)
    try:
        if kind == ".parquet":
            yield from _parquet(path, text_key)
        elif kind in (".jsonl", ".ndjson"):
            yield from _json_lines(path, text_key)
        elif kind == ".json":
            yield from _json(path, text_key)
        elif kind in (".bin", ".idx"):
            yield from _tokens(path)
        elif kind in (".csv", ".tsv", ".tab"):
            yield from _separated(path, text_key, "," if kind == ".csv" else "\t")
        elif _looks_like_json_lines(path):
            yield from _json_lines(path, text_key)
        elif _is_list_of_objects(path):
            yield from _json(path, text_key)
        else:
            with _opened(path) as file:
                yield _decoded(path, file.read())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise refused(path, f"is damaged, or not compressed as its name says ({error})") from None
    except OSError as error:
        if error.errno is not None:
            raise refused(path, f"cannot be read: {error.strerror}") from None
        raise refused(path, f"is damaged, or not compressed as its name says ({error})") from None  # pyarrow's


def _tokens(path: Path) -> Iterator[Value]:
    from project.data.token_formats import NotTokens, read_tokens

    try:
        yield from read_tokens(path)
    except NotTokens as error:
        raise refused(path, str(error)) from None


def refused(path: Path | str, reason: str) -> CorpusError:
    return CorpusError(Fault(KEY, str(path), reason))


def _opened(path: Path) -> BinaryIO:
    match path.suffix.lower():
        case ".gz":
            return gzip.open(path, "rb")  # type: ignore[return-value]
        case ".zst":
            return io.BufferedReader(_pyarrow(path).input_stream(str(path), compression="zstd"))
    return path.open("rb")


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise refused(path, "needs pyarrow to be read: pip install 'project[hf]'") from None
    return pyarrow


# -- text -----------------------------------------------------------------------------------------------------------


def _decoded(path: Path, content: bytes, offset: int = 0) -> str:
    try:
        text = content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        _refuse_other_kinds(path, content if offset == 0 else b"")
        where = f"byte 0x{content[error.start]:02x} at offset {offset + error.start}"
        raise refused(path, f"is not UTF-8 ({where}); convert it, for instance with iconv") from None
    _refuse_binary(path, content, offset)
    return text


def _refuse_other_kinds(path: Path, begin: bytes) -> None:
    if kind := other_kind(begin):
        raise refused(path, f"is not UTF-8, but {kind}")


def _refuse_binary(path: Path, content: bytes, offset: int) -> None:
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


def mended(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates replaced by U+FFFD, as a decoder does: JSON can hold
    them, UTF-8 cannot."""
    if not any("\ud800" <= character <= "\udfff" for character in text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def value_of(record: Any, text_key: str, fault: Callable[[str], CorpusError]) -> Value:
    """The text, the conversation or the tokens of a row; an empty text for null, as in Parquet."""
    if not isinstance(record, dict):
        raise fault(f"is no object but {_called(record)}; each needs a text under data.text_key={text_key}")
    if text_key not in record:
        raise fault(f"has no text under data.text_key={text_key}; it has {sorted(map(str, record))}")
    value = record[text_key]
    if value is None:
        return ""
    if isinstance(value, str):
        return mended(value)
    if is_conversation(value):
        return value
    if is_tokens(value):
        import numpy as np  # not at the top: the check of a config imports this file

        return np.asarray(value, np.int64)
    raise fault(f"has {_called(value)} under data.text_key={text_key}, which must be a text, messages or tokens")


def is_tokens(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int and 0 <= one < 2**32 for one in value)


def _called(value: Any) -> str:
    kinds = {
        dict: "an object",
        list: "a list",
        bool: "a truth value",
        int: "a number",
        float: "a number",
        str: "a text",
    }
    return kinds.get(type(value), "null")


# -- JSON -----------------------------------------------------------------------------------------------------------


def _looks_like_json_lines(path: Path) -> bool:
    """True if the file begins with several lines, of at most `SNIFFED`, each of which is a JSON object."""
    with _opened(path) as file:
        lines = list(islice((bare for line in file if (bare := line.removeprefix(BOM_UTF8).strip())), SNIFFED))
    return len(lines) > 1 and all(line.startswith(b"{") and _is_object(line) for line in lines)


def _is_list_of_objects(path: Path) -> bool:
    with _opened(path) as file:
        if not re.match(rb"\[\s*\{", file.read(SNIFFED_BYTES).removeprefix(BOM_UTF8).lstrip()):
            return False
        file.seek(0)
        try:
            content = json.loads(file.read().decode("utf-8-sig"))
        except (ValueError, RecursionError):
            return False
    return isinstance(content, list) and all(isinstance(record, dict) for record in content)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _json_lines(path: Path, text_key: str) -> Iterator[Value]:
    offset = 0
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            text = _decoded(path, line, offset)
            offset += len(line)
            if text.strip():
                fault = partial(refused, f"{path}:{number}")
                try:
                    record = json.loads(text)
                except (ValueError, RecursionError) as error:
                    said = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
                    raise fault(f"is not JSON ({said}); a .jsonl file holds one object a line") from None
                yield value_of(record, text_key, fault)


def _json(path: Path, text_key: str) -> Iterator[Value]:
    """Reads a list of objects, one object, or JSON lines in a file named `.json`."""
    with _opened(path) as file:
        text = _decoded(path, file.read())
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        if _looks_like_json_lines(path):
            yield from _json_lines(path, text_key)
            return
        said = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise refused(path, f"is not JSON ({said})") from None
    if not isinstance(content, list):
        yield value_of(content, text_key, partial(refused, path))
        return
    for number, record in enumerate(content):
        yield value_of(record, text_key, partial(refused, f"{path}:{number}"))


# -- tables ---------------------------------------------------------------------------------------------------------


def _separated(path: Path, text_key: str, separator: str) -> Iterator[str]:
    """The column `text_key` of a table whose first row names its columns."""
    csv.field_size_limit(LONGEST_FIELD)
    with io.TextIOWrapper(_opened(path), encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=separator, strict=True)
        try:
            names = next((row for row in rows if row), [])
            if names.count(text_key) != 1:
                many = "several columns" if text_key in names else "no column"
                raise refused(path, f"has {many} data.text_key={text_key}; it has {names}")
            column = names.index(text_key)
            for row in rows:
                if not row:
                    continue
                if len(row) != len(names):
                    said = f"has {len(row)} values, where the first row names {len(names)}"
                    raise refused(f"{path}:{rows.line_num}", f"{said}; a text that holds {separator!r} needs quotes")
                text = row[column]
                _refuse_binary(Path(f"{path}:{rows.line_num}"), text.encode(), 0)
                yield text
        except UnicodeDecodeError as error:
            raise refused(path, f"is not UTF-8 ({error}); convert it, for instance with iconv") from None
        except csv.Error as error:
            said = f"is no table of values separated by {separator!r}: line {rows.line_num}: {error}"
            raise refused(path, said) from None


def _parquet(path: Path, text_key: str) -> Iterator[Value]:
    pyarrow = _pyarrow(path)
    try:
        table = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowException as error:
        raise refused(path, f"is not Parquet ({error})") from None
    schema = table.schema_arrow
    if schema.names.count(text_key) != 1:
        many = "several columns" if text_key in schema.names else "no column"
        raise refused(path, f"has {many} data.text_key={text_key}; it has {schema.names}")
    column = schema.field(text_key).type
    kinds = pyarrow.types
    is_list = kinds.is_list(column) or kinds.is_large_list(column) or kinds.is_fixed_size_list(column)
    if not is_string(pyarrow, column) and not (
        is_list and (kinds.is_integer(column.value_type) or kinds.is_struct(column.value_type))
    ):
        must = "which must be of strings, of messages (role, content) or of tokens"
        raise refused(path, f"has {column} in the column data.text_key={text_key}, {must}")
    try:
        row = 0
        for batch in table.iter_batches(columns=[text_key]):
            for value in batch.column(0).to_pylist():
                fault = partial(refused, f"{path}:{row}")
                yield (value or "") if isinstance(value, str) else value_of({text_key: value or None}, text_key, fault)
                row += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise refused(path, f"is damaged ({str(error).splitlines()[0]})") from None
    except UnicodeDecodeError as error:
        raise refused(path, f"is not UTF-8 under data.text_key={text_key}, after row {row} ({error})") from None


def is_string(pyarrow: Any, column: Any) -> bool:
    value = column.value_type if pyarrow.types.is_dictionary(column) else column
    return pyarrow.types.is_string(value) or pyarrow.types.is_large_string(value) or str(value) == "string_view"
