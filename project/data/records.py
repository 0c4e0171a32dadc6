"""Documents of records: a record's text, conversation or tokens; and JSON, a record a line or all in a list."""

import json
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from project.data.chat_template import is_conversation
from project.data.corpus import CorpusError, Value
from project.data.file_content import decoded, opened, refused

SNIFFED, SNIFFED_BYTES = 5, 4096  # lines that are not empty; bytes


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


def looks_like_json_lines(path: Path) -> bool:
    """True if the file begins with several lines, of at most `SNIFFED`, each of which is a JSON object."""
    with opened(path) as file:
        lines = list(islice((bare for line in file if (bare := line.removeprefix(BOM_UTF8).strip())), SNIFFED))
    return len(lines) > 1 and all(line.startswith(b"{") and _is_object(line) for line in lines)


def is_list_of_objects(path: Path) -> bool:
    with opened(path) as file:
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


def json_lines(path: Path, text_key: str) -> Iterator[Value]:
    offset = 0
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            text = decoded(path, line, offset)
            offset += len(line)
            if text.strip():
                fault = partial(refused, f"{path}:{number}")
                try:
                    record = json.loads(text)
                except (ValueError, RecursionError) as error:
                    said = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
                    raise fault(f"is not JSON ({said}); a .jsonl file holds one object a line") from None
                yield value_of(record, text_key, fault)


def json_content(path: Path, text_key: str) -> Iterator[Value]:
    """Reads a list of objects, one object, or JSON lines in a file named `.json`."""
    with opened(path) as file:
        text = decoded(path, file.read())
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        if looks_like_json_lines(path):
            yield from json_lines(path, text_key)
            return
        said = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise refused(path, f"is not JSON ({said})") from None
    if not isinstance(content, list):
        yield value_of(content, text_key, partial(refused, path))
        return
    for number, record in enumerate(content):
        yield value_of(record, text_key, partial(refused, f"{path}:{number}"))
