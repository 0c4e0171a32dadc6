"""What was planned of a run against what it measured."""

from __future__ import annotations

from typing import Any

from project.planner.sheet import Sheet, number

UNITS = {
    "step_time_s": "s",
    "tokens_per_second": "tokens/s",
    "mfu": "1",
    "bubble": "1",
    "parameters_per_rank": "1",
    "peak_memory_bytes_per_rank": "B",
    "activation_bytes_peak_per_stage": "B",
}


def compare(summary: dict[str, Any]) -> Sheet:
    """Of lists each place. A ratio is measured over planned."""
    planned, rows = summary.get("planned") or {}, []
    for name, unit in UNITS.items():
        rows += _rows(name, planned.get(name), summary.get(name), unit)
    for axis, collective, kind in _lines(planned.get("communication")):
        here = planned["communication"][axis][collective][kind]
        there = ((summary.get("communication") or {}).get(axis) or {}).get(collective, {}).get(kind)
        rows.append(_row(f"{axis} {collective} {kind}", here, there, "B" if kind == "bytes" else "1"))
    return Sheet("Planned against measured", ("", "planned>", "measured>", "ratio>"), rows)


def _lines(table: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    return [(axis, of, kind) for axis in table or {} for of in (table or {})[axis] for kind in ("calls", "bytes")]


def _rows(name: str, planned: Any, measured: Any, unit: str) -> list[tuple[str, ...]]:
    if not isinstance(planned, list):
        return [_row(name, planned, measured, unit)]
    there = measured if isinstance(measured, list) and len(measured) == len(planned) else [None] * len(planned)
    pairs = list(zip(planned, there, strict=True))
    if len(set(pairs)) == 1:
        return [_row(f"{name} (all)", *pairs[0], unit)]
    return [_row(f"{name} {place}", *pair, unit) for place, pair in enumerate(pairs)]


def _row(name: str, planned: float | None, measured: float | None, unit: str) -> tuple[str, ...]:
    ratio = f"{measured / planned:.3f}" if measured is not None and planned else "-"
    return name, number(planned, unit), number(measured, unit), ratio
