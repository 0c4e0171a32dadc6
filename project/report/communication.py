"""Bytes that a rank sends in an optimizer step, by axis and collective, beside what was planned."""

from typing import Any

import plotly.graph_objects as go

from project.report.page import cells, table
from project.report.run import Run
from project.report.style import COLOURS, LEGEND, size

MB = 1e6


def figure(run: Run) -> go.Figure | None:
    """Bars in megabytes of the rank that sends most."""
    sides = [(words, sent) for words, sent in (("planned", planned(run)), ("measured", measured(run))) if sent]
    if not sides:
        return None
    rows = [
        (f"{axis} {words}" if len(sides) > 1 else axis, sent[axis])
        for axis in sorted({axis for _, sent in sides for axis in sent})
        for words, sent in sides
        if axis in sent
    ]
    names = sorted({name for _, by_name in rows for name in by_name})
    collectives = [name for name in names if any(entry(by_name, name)["bytes"] for _, by_name in rows)]
    chart = go.Figure()
    for name, colour in zip(collectives, COLOURS, strict=False):
        here = [(label, entry(by_name, name)) for label, by_name in rows]
        chart.add_trace(
            go.Bar(
                name=name,
                orientation="h",
                y=[label for label, _ in here],
                x=[one["bytes"] / MB for _, one in here],
                customdata=[one["calls"] for _, one in here],
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
        legend=LEGEND | {"traceorder": "normal"},
    )
    return chart


def numbers(run: Run) -> str:
    """The figure's numbers as an HTML table."""
    names = sorted({(axis, name) for sent in (measured(run), planned(run)) for axis in sent for name in sent[axis]})
    rows = []
    for axis, name in names:
        found, plan = (sent.get(axis, {}).get(name) for sent in (measured(run), planned(run)))
        row = [axis, name, *(text for one in (found, plan) for text in said(one))]
        seconds = (plan or {}).get("seconds")
        rows.append(cells([*row, "-" if seconds is None else f"{1000 * seconds:.3g} ms"]))
    return table(("axis", "collective", "calls", "sent", "planned calls", "planned bytes", "planned time"), rows)


def said(one: dict[str, Any] | None) -> tuple[str, str]:
    return (f"{one['calls']:,}", size(one["bytes"])) if one else ("-", "-")


def measured(run: Run) -> dict[str, dict[str, Any]]:
    """Measured calls and bytes by axis and collective."""
    return run.summary.get("communication") or {}


def planned(run: Run) -> dict[str, dict[str, Any]]:
    """Planned calls, bytes and seconds by axis and collective."""
    return run.plan.get("communication") or {}


def entry(by_name: dict[str, Any], name: str) -> dict[str, Any]:
    return {"calls": 0, "bytes": 0} | (by_name.get(name) or {})
