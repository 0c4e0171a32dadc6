"""Reads files that others wrote: text, JSON, YAML. A file is read whole, or refused with its name and the reason.

It must be a regular file of bounded size. In a folder that others made, it must lie inside, wherever its links lead.
JSON and YAML must be UTF-8, without repeated keys, without numbers that are not finite, not nested too deeply; YAML
without aliases, which can make a small file large. What they hold is text: `${...}` is not resolved.
"""

import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import yaml

from project.spec.fault import Told

LARGEST = 256 << 20  # bytes
DEEPEST = 100
HUB_BLOBS, HUB_SNAPSHOTS = "blobs", "snapshots"


class Unreadable(Told, ValueError):
    """A file that cannot be read or trusted; `path` is the file and `problem` what is wrong with it."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path, self.problem = path, problem

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.problem)


def regular(path: Path, inside: Path | None = None, largest: int | None = None) -> Path:
    """The path, if it is a regular file of at most `largest` bytes whose links do not lead out of the folder `inside`.

    The Hugging Face hub's cache keeps the files of a `snapshots/REVISION` in the `blobs` beside `snapshots`, which
    count as inside.

    Raises:
        Unreadable: for any other file, or none.
    """
    try:
        status, real = path.stat(), path.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links that lead to each other
        raise Unreadable(path, _why(error)) from None
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable(path, f"is {'a folder' if stat.S_ISDIR(status.st_mode) else 'a device or a pipe'}, no file")
    if inside is not None and not any(real.is_relative_to(folder) for folder in _within(inside)):
        raise Unreadable(path, f"is a link out of its folder, to {real}; copy the file if you trust it")
    if largest is not None and status.st_size > largest:
        raise Unreadable(path, f"has {status.st_size} bytes; at most {largest} are read")
    return path


def read_bytes(path: Path, inside: Path | None = None, largest: int = LARGEST) -> bytes:
    """Raises `Unreadable` for what `regular` refuses."""
    regular(path, inside, largest)
    try:
        with _opened(path) as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise Unreadable(path, _why(error)) from None
    if len(content) > largest:
        raise Unreadable(path, f"has more than {largest} bytes, the most that are read")
    return content


def read_text(path: Path, inside: Path | None = None, largest: int = LARGEST) -> str:
    """Raises `Unreadable` also for a file that is not UTF-8."""
    try:
        return read_bytes(path, inside, largest).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(path, f"is not UTF-8 (at byte {error.start})") from None


def read_json(path: Path, inside: Path | None = None, largest: int = LARGEST) -> Any:
    """Raises `Unreadable` for what is no JSON of bounded depth."""
    return parsed_json(path, read_text(path, inside, largest))


def parsed_json(path: Path, text: str | bytes) -> Any:
    """The content of a file of JSON; `path` is named in errors.

    Raises:
        Unreadable: as `read_json`.
    """
    try:
        content = json.loads(
            text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant, parse_float=_finite
        )
        _refuse_depth(content)
        return content
    except RecursionError:
        raise Unreadable(path, f"is nested more than {DEEPEST} levels deep") from None
    except json.JSONDecodeError as error:
        raise Unreadable(path, f"is not JSON ({error.msg} in line {error.lineno})") from None
    except ValueError as error:
        raise Unreadable(path, f"is not JSON that can be used ({error})") from None


def read_yaml(path: Path, inside: Path | None = None) -> Any:
    """Raises `Unreadable` for what is no YAML, or has aliases, tags, or keys that are repeated or not plain."""
    text = read_text(path, inside, LARGEST >> 4)
    try:
        content = yaml.load(text, _Plain)
        _refuse_depth(content)
        return content
    except RecursionError:
        raise Unreadable(path, f"is nested more than {DEEPEST} levels deep") from None
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:
        raise Unreadable(path, f"is no YAML that can be used ({' '.join(str(error).split())[:300]})") from None


def as_mapping(path: Path, content: Any) -> dict[str, Any]:
    """The content, if it is an object with keys that are words.

    Raises:
        Unreadable: for any other content.
    """
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise Unreadable(path, "holds no object of keys and values")
    return content


class _Plain(yaml.SafeLoader):
    """Reads 1e-3 as a number and 2024-01-01 as text, as OmegaConf does."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - replaced, so that other loaders keep theirs
        first: [one for one in resolvers if one[0] != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "an alias; write out what it stands for", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        return _without_repeats([(key, None) for key in keys]) and super().construct_mapping(node, deep)


_Plain.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z"), list("-+.0123456789")
)


def _opened(path: Path) -> BinaryIO:
    """Opens without waiting: a pipe that took the file's place would otherwise block until somebody writes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.fdopen(descriptor, "rb")


def _within(folder: Path) -> list[Path]:
    real, named = folder.resolve(), folder.absolute()
    cached = named.parent.name == HUB_SNAPSHOTS
    return [real, (named.parent.parent / HUB_BLOBS).resolve()] if cached else [real]


def _why(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "is missing"
    return f"cannot be read ({getattr(error, 'strerror', None) or error})"


def _without_repeats(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        repeated = next(key for place, (key, _) in enumerate(pairs) if key in [other for other, _ in pairs[:place]])
        raise ValueError(f"the key {str(repeated)[:80]!r} occurs twice")
    return content


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"has {word}, which is no JSON")


def _finite(word: str) -> float:
    if not math.isfinite(number := float(word)):
        raise ValueError(f"the number {word[:40]} is too large")
    return number


def _refuse_depth(content: Any) -> None:
    """Raises `RecursionError` beyond `DEEPEST`, whatever Python's own limit is."""
    level, depth = [content], 0
    while level:
        if (depth := depth + 1) > DEEPEST:
            raise RecursionError
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
