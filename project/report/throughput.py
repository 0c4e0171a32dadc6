"""Step time, tokens per second and, where the device's peak is known, MFU."""

from __future__ import annotations

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from project.report.palette import BLUE, GREEN, GREY, ORANGE
from project.report.run import Run

ROWS = (
    ("train/step_time_s", "step_time_s", "seconds a step", BLUE, ".3~s", "s"),
    ("train/tokens_per_second", "tokens_per_second", "tokens/s", ORANGE, ",.0f", ""),
    ("train/mfu", "mfu", "MFU", GREEN, ".1%", ""),
)


def figure(run: Run) -> go.Figure | None:
    """Dotted what was planned. Without the first step, which builds and connects."""
    rows = [row for row in ROWS if run.series(row[0])[0]]
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
        if run.planned.get(planned) is not None:
            dotted = {"color": GREY, "dash": "dot", "width": 1.5}
            said = {"text": "planned", "font": {"size": 11}}
            chart.add_hline(
                y=run.planned[planned],
                line=dotted,
                annotation=said,
                annotation_position="bottom left",
                row=place,
                col=1,
            )
        chart.update_yaxes(title_text=title, rangemode="tozero", row=place, col=1)
    chart.update_xaxes(title_text="optimizer step", row=len(rows), col=1)
    chart.update_layout(
        height=100 + 140 * len(rows), showlegend=False, margin={"l": 60, "r": 8, "t": 12, "b": 44}, hovermode="closest"
    )
    return chart
