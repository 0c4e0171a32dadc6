"""Reads a user's file as documents: plain text, JSON, CSV or Parquet, possibly compressed; or tokens in `.bin` files.

The name's ending, in either case, determines the format; a file with another ending whose lines are JSON objects is
read as JSON lines, and one that is a list of JSON objects as JSON. A file that is not text is refused with its name and
the reason, before it is tokenized.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from project.data.columns import parquet, separated
from project.data.corpus import Value
from project.data.file_content import decoded, opened, refused
from project.data.records import is_list_of_objects, json_content, json_lines, looks_like_json_lines

COMPRESSED = (".gz", ".zst")


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
            yield from parquet(path, text_key)
        elif kind in (".jsonl", ".ndjson"):
            yield from json_lines(path, text_key)
        elif kind == ".json":
            yield from json_content(path, text_key)
        elif kind in (".bin", ".idx"):
            yield from _tokens(path)
        elif kind in (".csv", ".tsv", ".tab"):
            yield from separated(path, text_key, "," if kind == ".csv" else "\t")
        elif looks_like_json_lines(path):
            yield from json_lines(path, text_key)
        elif is_list_of_objects(path):
            yield from json_content(path, text_key)
        else:
            with opened(path) as file:
                yield decoded(path, file.read())
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
