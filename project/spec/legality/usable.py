"""Values that no rule can work with, by the type of the key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args, get_type_hints

from project.spec.fault import Fault
from project.spec.layout import ParallelLayout
from project.spec.legal_values import is_number, legal, said
from project.spec.legality.size import Values
from project.spec.model import ModelConfig
from project.spec.schedules.table import SCHEDULES

_TYPES = {
    **{f"parallel.{name}": hint for name, hint in get_type_hints(ParallelLayout).items()},
    **{f"model.{name}": hint for name, hint in get_type_hints(ModelConfig).items()},
    **{"data.batch_size": int, "data.seq_len": int},
}
_FROM_ZERO = ("model.num_shared_experts", "model.num_dense_layers")
_ABOVE_ZERO = ("model.rope_theta", "model.capacity_factor")


def unusable(values: Values) -> Iterator[Fault]:
    for key, value in values.items():
        reason = _reason(key, value, _TYPES[key])
        if reason is not None:
            yield Fault(key, said(value), reason)


def _reason(key: str, value: object, wanted: object) -> str | None:
    if wanted is int:
        least = 0 if key in _FROM_ZERO else 1
        if type(value) is int and value >= least:
            return None
        near = f"; nearest {max(least, round(value))}" if is_number(value) else ""
        return f"must be a whole number of at least {least}{near}"
    if wanted is float or wanted == float | None:
        if (value is None and wanted is not float) or (is_number(value) and _is_enough(key, value)):
            return None
        null = "" if wanted is float else "null or "
        return f"must be {null}a number {'above' if key in _ABOVE_ZERO else 'of at least'} 0"
    if wanted == tuple[int, ...] | None:
        if value is None or (isinstance(value, tuple) and all(type(part) is int for part in value)):
            return None
        return "must be null or a list of whole numbers, as in [2,2,2,2]"
    return None if isinstance(value, str) else f"must be a word; {legal(value, get_args(wanted) or tuple(SCHEDULES))}"


def _is_enough(key: str, value: float) -> bool:
    return value > 0 if key in _ABOVE_ZERO else value >= 0
