"""Curves of a training run over its optimizer steps: losses and throughput."""

from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from project.report.run import Run
from project.report.style import AMBER, BLUE, GREEN, GREY, LEGEND

RATES = (
    ("train/step_time_s", "step_time_s", "seconds a step", BLUE, ".3~s", "s"),
    ("train/tokens_per_second", "tokens_per_second", "tokens/s", AMBER, ",.0f", ""),
    ("train/mfu", "mfu", "MFU", GREEN, ".1%", ""),
)
"""Column of `metrics.csv`, name in the plan, title, colour, number format and unit of each row of the chart."""


def losses(run: Run) -> go.Figure | None:
    """Training and validation loss, and the auxiliary loss in a row under them."""
    logged = run.series("train/loss")[0]
    if not logged:
        return None
    mode = "lines+markers" if len(logged) <= 30 else "lines"
    validated = "markers" if len(run.series("val/loss")[0]) == 1 else "lines+markers"
    diamonds = {"color": AMBER, "size": 10, "symbol": "diamond"}
    curves: tuple[tuple[int, str, str, dict[str, Any]], ...] = (
        (1, "training", "train/loss", {"mode": mode, "line": {"color": BLUE}}),
        (1, "validation", "val/loss", {"mode": validated, "marker": diamonds}),
        (2, "balance (auxiliary)", "train/aux_loss", {"mode": mode, "line": {"color": GREEN, "dash": "dot"}}),
    )
    chart = make_subplots(rows=2, shared_xaxes=True, row_heights=[0.72, 0.28], vertical_spacing=0.08)
    for row, name, column, style in curves:
        steps, values = run.series(column)
        if steps:
            hover = "step %{x}: %{y:.4f}"
            chart.add_trace(go.Scatter(x=steps, y=values, name=name, hovertemplate=hover, **style), row=row, col=1)
    chart.update_xaxes(title_text="optimizer step", row=2, col=1)
    chart.update_yaxes(title_text="loss", row=1, col=1)
    margin = {"l": 56, "r": 8, "t": 40, "b": 44}
    chart.update_layout(height=380, hovermode="x unified", margin=margin, legend=LEGEND)
    return chart


def throughput(run: Run) -> go.Figure | None:
    """Step time, tokens per second and, where the device's peak is known, MFU, with a dotted line where the plan put
    each. The first step, in which everything is built and connected, is left out."""
    rows = [row for row in RATES if run.series(row[0])[0]]
    if not rows:
        return None
    chart = make_subplots(rows=len(rows), shared_xaxes=True, vertical_spacing=0.08)
    for place, (column, planned, title, colour, form, unit) in enumerate(rows, 1):
        steps, values = run.series(column)
        if len(steps) > 2:
            steps, values = steps[1:], values[1:]
        line, mode = {"color": colour}, "lines" if len(steps) > 1 else "markers"
        hover = f"step %{{x}}: %{{y:{form}}}{unit}<extra>{title}</extra>"
        chart.add_trace(go.Scatter(x=steps, y=values, mode=mode, line=line, hovertemplate=hover), row=place, col=1)
        if (height := run.planned.get(planned)) is not None:
            dotted = {"color": GREY, "dash": "dot", "width": 1.5}
            note: dict[str, Any] = {"annotation": {"text": "planned", "font": {"size": 11}}}
            chart.add_hline(height, line=dotted, **note, annotation_position="bottom left", row=place, col=1)
        chart.update_yaxes(title_text=title, rangemode="tozero", row=place, col=1)
    chart.update_xaxes(title_text="optimizer step", row=len(rows), col=1)
    margin = {"l": 60, "r": 8, "t": 12, "b": 44}
    chart.update_layout(height=100 + 140 * len(rows), showlegend=False, margin=margin, hovermode="closest")
    return chart
