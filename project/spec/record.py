"""A section of a configuration held to a record: pydantic judges the values, the faults are in our words.

A record is a class whose fields are annotated with types and constraints that pydantic knows, and with the words of the
fault (`Must`). Nothing is converted: a word is no number.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, MinLen
from pydantic import AllowInfNan, Strict, TypeAdapter, ValidationError

from project.spec.fault import Fault, legal, said


@dataclass(frozen=True)
class Must:
    """The words of a field's fault, after "must be"."""

    be: str


Count = Annotated[int, Strict(), Ge(1), Must("a whole number of at least 1")]
Number = Annotated[float, Strict(), AllowInfNan(False)]
AboveZero = Annotated[Number, Gt(0), Must("a number above 0")]
Flag = Annotated[bool, Strict(), Must("true or false")]
FlagOrNull = Annotated[Flag | None, Must("true, false or null")]
FromZero = Annotated[int, Strict(), Ge(0), Must("a whole number, 0 or more")]
Word = Annotated[str, Strict(), MinLen(1)]


def record_faults(record: type, section: str, values: Mapping[str, Any]) -> Iterator[Fault]:
    """One fault for each key of `values` that the record has another kind of value for, in the order of its fields.

    Keys that either lacks are passed over. `section` is the key of the section, empty for the whole configuration.
    """
    for name in rejected(record, values):
        value, reason = values[name], _reason(hints(record)[name], values[name])
        yield Fault(f"{section}.{name}" if section else name, said(value), reason)


def rejected(record: type, values: Mapping[str, Any]) -> list[str]:
    """The fields whose value in `values` the record does not accept."""
    try:
        _adapter(record).validate_python(values)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return list(
            dict.fromkeys(str(one["loc"][0]) for one in found if one["type"] != "missing" or len(one["loc"]) > 1)
        )
    return []


@cache
def _adapter(record: type) -> TypeAdapter[Any]:
    return TypeAdapter(record)


@cache
def hints(record: type) -> dict[str, Any]:
    """The annotated types of the fields."""
    return get_type_hints(record, include_extras=True)


def choices(record: type, name: str) -> tuple[str, ...]:
    """The words that a field of literals may be."""
    return get_args(hints(record)[name])


def _reason(hint: Any, value: object) -> str:
    if get_origin(hint) is Literal:
        return f"is not known; {legal(value, get_args(hint))}"
    return f"must be {words_of(hint)}"


def words_of(hint: Any) -> str:
    """The words of an annotated type's fault; those of the outermost annotation where there are several."""
    return [extra.be for extra in hint.__metadata__ if isinstance(extra, Must)][-1]
