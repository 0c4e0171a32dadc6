"""Values of a wrong type, which no rule can work with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from annotated_types import Ge

from project.spec.fault import Fault
from project.spec.layout import ParallelLayout
from project.spec.legal_values import is_number, legal, said
from project.spec.model import ModelConfig
from project.spec.record import Count, hints, rejected, words_of
from project.spec.schedules.table import SCHEDULES


@dataclass(frozen=True)
class Batch:
    """The batch of one iteration, over all ranks: its sequences, and the tokens of each."""

    batch_size: Count
    seq_len: Count


def unusable(layout: ParallelLayout, model: ModelConfig, batch: Batch) -> list[Fault]:
    return [fault for record in (layout, model, batch) for fault in _faults(record)]


def is_usable(layout: ParallelLayout, model: ModelConfig, batch: Batch) -> bool:
    """Whether `unusable` would find nothing, at less cost."""
    return not any(_names(record) for record in (layout, model, batch))


_SECTIONS: Mapping[type, str] = {ParallelLayout: "parallel", ModelConfig: "model", Batch: "data"}


def _faults(record: Any) -> Iterator[Fault]:
    for name in _names(record):
        value = getattr(record, name)
        yield Fault(f"{_SECTIONS[type(record)]}.{name}", said(value), _reason(type(record), name, value))


def _names(record: Any) -> list[str]:
    """The fields with values of a wrong type. A word that is not known is the fault of a rule instead."""
    values = vars(record)
    return [name for name in rejected(type(record), values) if not _is_word(type(record), name, values[name])]


def _is_word(kind: type, name: str, value: object) -> bool:
    return isinstance(value, str) and not hasattr(hints(kind)[name], "__metadata__")


def _reason(kind: type, name: str, value: object) -> str:
    hint = hints(kind)[name]
    if not hasattr(hint, "__metadata__"):
        return f"must be a word; {legal(value, get_args(get_type_hints(kind)[name]) or tuple(SCHEDULES))}"
    if hint.__origin__ is not int or not is_number(value):
        return f"must be {words_of(hint)}"
    least: Any = next(extra.ge for extra in hint.__metadata__ if isinstance(extra, Ge))
    return f"must be {words_of(hint)}; nearest {max(least, round(value))}"
