"""Planned figures beside the measured ones of a run."""

from typing import Any

from project.planner.cost.traffic import by_axis
from project.planner.document.plan import Plan
from project.planner.document.sheet import Sheet
from project.planner.memory.peak import activation_peaks
from project.spec.units import number

UNITS = {
    "step_time_s": "s",
    "tokens_per_second": "tokens/s",
    "mfu": "1",
    "bubble": "1",
    "parameters_per_rank": "1",
    "peak_memory_bytes_per_rank": "B",
    "activation_bytes_peak_per_stage": "B",
}
ROUTED = ("peak_memory_bytes_per_rank", "activation_bytes_peak_per_stage")
BALANCED = (
    "* if each expert is chosen equally often. What a router prefers, its rank keeps and is sent more of, unless a "
    "capacity_factor fixes how much."
)


def planned_figures(plan: Plan) -> dict[str, Any]:
    """The planned figures that a run's summary has as measured, under the same names."""
    found, step, layout = plan.derived, plan.derived.step, plan.derived.step.layout
    at = [layout.coordinates(rank).pp for rank in range(layout.world_size)]
    keys = ("step_time_s", "tokens_per_second", "mfu", "bubble")
    return {
        **{key: plan.quantities[key].value for key in keys},
        "parameters_per_rank": [found.parameters[pp] for pp in at],
        "peak_memory_bytes_per_rank": [found.memories[pp].total for pp in at],
        "activation_bytes_peak_per_stage": activation_peaks(step),
        "communication": by_axis(found.busiest),
    }


def compare(summary: dict[str, Any]) -> Sheet:
    """A row for each figure, and for each place of a list; the ratio is measured over planned. A star marks what was
    planned for even routing."""
    planned, rows = summary.get("planned") or {}, []
    spread = (summary.get("layout") or {}).get("ep", 1) > 1  # else every rank has a share of all experts
    for name, unit in UNITS.items():
        rows += _rows(name, planned.get(name), summary.get(name), unit, spread and name in ROUTED)
    for axis, collective, kind in _lines(planned.get("communication")):
        here = planned["communication"][axis][collective][kind]
        there = ((summary.get("communication") or {}).get(axis) or {}).get(collective, {}).get(kind)
        routed = spread and collective == "all_to_all" and kind == "bytes"
        rows.append(_row(f"{axis} {collective} {kind}", here, there, "B" if kind == "bytes" else "1", routed))
    starred = any(row[1].endswith("*") for row in rows)
    columns = ("", "planned>", "measured>", "ratio>")
    return Sheet("Planned against measured", columns, rows, BALANCED if starred else "")


def _lines(table: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    return [(axis, of, kind) for axis in table or {} for of in (table or {})[axis] for kind in ("calls", "bytes")]


def _rows(name: str, planned: Any, measured: Any, unit: str, routed: bool) -> list[tuple[str, ...]]:
    if not isinstance(planned, list):
        return [_row(name, planned, measured, unit, routed)]
    there = measured if isinstance(measured, list) and len(measured) == len(planned) else [None] * len(planned)
    pairs = list(zip(planned, there, strict=True))
    if len(set(pairs)) == 1:
        return [_row(f"{name} (all)", *pairs[0], unit, routed)]
    return [_row(f"{name} {place}", *pair, unit, routed) for place, pair in enumerate(pairs)]


def _row(name: str, planned: float | None, measured: float | None, unit: str, routed: bool) -> tuple[str, ...]:
    ratio = f"{measured / planned:.3f}" if measured is not None and planned else "-"
    star = "*" if routed and planned is not None else ""
    return name, number(planned, unit) + star, number(measured, unit), ratio
