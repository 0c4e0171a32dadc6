"""A cluster as the mapping that its file is: read, and held to what is legal. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, get_args, get_type_hints

from project.planner.machine.cluster import Achieved, Cluster, Host, Stated, StatedFraction
from project.spec.fault import Fault
from project.spec.legal_values import is_number, legal, said


class ImpossibleCluster(ValueError):
    """`faults` says of each key what is wrong with it."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(f"{fault.key}={fault.value}: {fault.message}" for fault in faults))
        self.faults = faults


def read_cluster(entries: Mapping[str, Any]) -> Cluster:
    """From the mapping that a file is.

    Raises:
        ImpossibleCluster: with every fault, each under its key.
    """
    entries = {key: value for key, value in entries.items() if key != "_target_"}
    faults = list(_faults(Cluster, "cluster", entries))
    if faults:
        raise ImpossibleCluster(faults)
    return _build(Cluster, entries)


def cluster_faults(entries: Mapping[str, Any]) -> list[Fault]:
    return list(_faults(Cluster, "cluster", {key: value for key, value in entries.items() if key != "_target_"}))


def as_entries(cluster: Cluster) -> dict[str, Any]:
    """What `read_cluster` reads."""
    return dataclasses.asdict(cluster)


_OPTIONAL = ("tiles", "host", "price_per_hour", "measured")
_COUNTS = ("nodes", "gpus_per_node", "multiprocessors", "cores")
_FROM_ZERO = ("reserved_bytes", "price_per_hour")


def _faults(kind: type, at: str, entries: Any) -> Iterator[Fault]:
    if not isinstance(entries, Mapping):
        yield Fault(at, said(entries), f"must have the keys {', '.join(_names(kind))}")
        return
    for key in entries:
        if key not in _names(kind):
            yield Fault(f"{at}.{key}", said(entries[key]), f"is no key of it; {legal(key, _names(kind))}")
    for name in _names(kind):
        key, value = f"{at}.{name}", entries.get(name)
        if value is None:
            if name not in _OPTIONAL:
                yield Fault(key, "null", "must be given")
        elif (part := _part(kind, name)) is not None:
            yield from _faults(part, key, value)
        elif (reason := _reason(kind, name, value)) is not None:
            yield Fault(key, said(value), reason)
    if kind is Cluster and entries.get("multiprocessors") != 1 and entries.get("tiles") is None:
        yield Fault(f"{at}.tiles", "null", "must be given where multiprocessors is not 1")
    if issubclass(kind, Stated) and all(is_number(entries.get(name)) for name in _names(kind)):
        low, value, high = entries["low"], entries["value"], entries["high"]
        if not low <= value <= high:
            yield Fault(f"{at}.value", said(value), f"is not between low={low} and high={high}")


def _reason(kind: type, name: str, value: Any) -> str | None:
    if name == "name":
        return None if isinstance(value, str) and value else "must be a word"
    if name == "measured":
        return _no_figures(value)
    if name in _COUNTS:
        return None if type(value) is int and value >= 1 else "must be a whole number of at least 1"
    if kind in (Achieved, StatedFraction) or name == "achieved":
        return None if is_number(value) and 0 < value <= 1 else "must be a number above 0 and at most 1"
    if name in _FROM_ZERO or kind is Host:
        return None if is_number(value) and value >= 0 else "must be a number of at least 0"
    return None if is_number(value) and value > 0 else "must be a number above 0"


def _no_figures(value: Any) -> str | None:
    figures = [name for name in _names(Cluster) if name not in ("name", "measured")]
    figures += [f"{name}.{under}" for name in figures if (part := _part(Cluster, name)) for under in _names(part)]
    if not isinstance(value, list | tuple):
        return "must be a list of the figures that were measured"
    unknown = [f"{said(name)} is no figure of it; {legal(name, figures)}" for name in value if name not in figures]
    return "; ".join(unknown) or None


def _names(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _part(kind: type, name: str) -> type | None:
    """The dataclass that an entry is, if it is one."""
    hint = get_type_hints(kind)[name]
    return next((one for one in get_args(hint) or (hint,) if isinstance(one, type) and is_dataclass(one)), None)


def _build(kind: type, entries: Mapping[str, Any]) -> Any:
    made = {}
    for key, value in entries.items():
        part = _part(kind, key)
        made[key] = _build(part, value) if part is not None and value is not None else value
        if key == "measured":
            made[key] = tuple(value or ())
    return kind(**made)
