"""What a rank sends in an optimizer step, by axis and collective, beside what was planned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import plotly.graph_objects as go

from project.report.key_figures import size
from project.report.palette import CATEGORIES
from project.report.run import Run
from project.report.section import Table

MB = 1e6


def figure(run: Run) -> go.Figure | None:
    """Megabytes, of the rank that sends most."""
    measured, planned = run.summary.get("communication"), run.plan.get("communication")
    if not measured and not planned:
        return None
    sides = [(words, table) for words, table in (("planned", planned), ("measured", measured)) if table]
    rows = [
        (f"{axis} {words}" if len(sides) > 1 else axis, axis, table)
        for axis in sorted({axis for _, table in sides for axis in table})
        for words, table in sides
        if axis in table
    ]
    collectives = [name for name in names(sides) if any(sent(table, axis, name) for _, axis, table in rows)]
    chart = go.Figure()
    for name, colour in zip(collectives, (*CATEGORIES, *CATEGORIES), strict=False):
        here = [(label, sent(table, axis, name), calls(table, axis, name)) for label, axis, table in rows]
        chart.add_trace(
            go.Bar(
                name=name,
                orientation="h",
                y=[label for label, _, _ in here],
                x=[sent_bytes / MB for _, sent_bytes, _ in here],
                customdata=[times for _, _, times in here],
                marker={"color": colour, "line": {"width": 0}},
                hovertemplate=f"%{{y}}: {name}<br>%{{x:,.3f}} MB in %{{customdata}} calls<extra></extra>",
            )
        )
    chart.update_xaxes(title_text="megabytes a rank and step")
    chart.update_yaxes(type="category", autorange="reversed", showgrid=False, ticksuffix=" ")
    chart.update_layout(
        barmode="stack",
        bargap=0.3,
        height=110 + 44 * len(rows),
        margin={"l": 60, "r": 8, "t": 44, "b": 44},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
    )
    return chart


def numbers(run: Run) -> Table:
    measured, planned = run.summary.get("communication") or {}, run.plan.get("communication") or {}
    rows = []
    for axis in sorted(measured.keys() | planned.keys()):
        for name in sorted(measured.get(axis, {}).keys() | planned.get(axis, {}).keys()):
            there, plan = axis in measured and name in measured[axis], planned.get(axis, {}).get(name)
            rows.append(
                [
                    axis,
                    name,
                    f"{calls(measured, axis, name):,}" if there else "-",
                    size(sent(measured, axis, name)) if there else "-",
                    f"{plan['calls']:,}" if plan else "-",
                    size(plan["bytes"]) if plan else "-",
                    f"{1000 * plan['seconds']:.3g} ms" if plan and plan.get("seconds") is not None else "-",
                ]
            )
    return Table(("axis", "collective", "calls", "sent", "planned calls", "planned bytes", "planned time"), rows)


def names(sides: list[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    yield from sorted({name for _, table in sides for collectives in table.values() for name in collectives})


def sent(table: dict[str, Any], axis: str, name: str) -> float:
    return (table.get(axis, {}).get(name) or {}).get("bytes") or 0


def calls(table: dict[str, Any], axis: str, name: str) -> int:
    return (table.get(axis, {}).get(name) or {}).get("calls") or 0
