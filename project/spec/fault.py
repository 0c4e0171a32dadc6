"""A fault in a configuration: the key at fault, its value, and the legal values ("legal: 1, 2, 4, 8; nearest 4")."""

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

_LISTED = 8  # more numbers than this do not help a reader; the nearest do
_LISTED_WORDS = 20
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class Told(Exception):
    """An error that is printed without its traceback: the message says what happened, where, and what to do."""


@dataclass(frozen=True)
class Fault:
    key: str
    value: object
    message: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}: {self.message}"


def legal(value: object, values: Iterable[object], every: bool = True) -> str:
    """Names legal values instead of `value`; empty where there are none. `every` says that `values` are all there are;
    otherwise they are examples.

    A number is given the one or two legal numbers nearest to it, a word the one that is spelled most like it, if any.
    """
    values = list(dict.fromkeys(values))
    numeric = bool(values) and all(is_number(v) for v in values)
    parts = []
    if values and every and len(values) <= (_LISTED if numeric else _LISTED_WORDS):
        parts.append(f"legal: {', '.join(map(said, values))}")
    if values and not every and not numeric:
        parts.append(f"for instance {either(values)}")
    elif near := nearest(value, values):
        parts.append(f"nearest {either(near)}")
    return "; ".join(parts)


def nearest(value: object, values: Sequence[object]) -> list[object]:
    """The legal numbers on both sides of a number, or the most similar word; empty where none is similar."""
    numbers = [v for v in values if is_number(v)]
    if is_number(value) and len(numbers) == len(values):
        return _nearest_numbers(value, numbers)
    if len(values) == 1:
        return list(values)
    alike = {said(v).lower(): v for v in values}
    return [alike[word] for word in difflib.get_close_matches(said(value).lower(), alike, n=1, cutoff=0.5)]


def either(values: Sequence[object]) -> str:
    """The values as "1, 2 or 4"."""
    words = [said(value) for value in values]
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def said(value: object) -> str:
    """The value as it is typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if value == "":
        return "''"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(said, value))}]"
    return str(value)


def plain(text: str) -> str:
    """The text for a terminal: control characters but tabs and line breaks are shown as escapes, because a terminal
    would obey them."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def is_number(value: object) -> TypeGuard[int | float]:
    """True for a finite number that fits a float: JSON and YAML may hold longer ones."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _nearest_numbers(value: int | float, numbers: Sequence[int | float]) -> list[object]:
    below = max((n for n in numbers if n <= value), default=None)
    above = min((n for n in numbers if n > value), default=None)
    sides = [n for n in (below, above) if n is not None]
    if len(numbers) <= _LISTED and len(sides) == 2 and abs(sides[0] - value) != abs(sides[1] - value):
        return [min(sides, key=lambda n: abs(n - value))]
    return list(sides)
