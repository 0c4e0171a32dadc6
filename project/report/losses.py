"""Training and validation loss, and the auxiliary loss under them."""

from __future__ import annotations

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from project.report.palette import BLUE, GREEN, ORANGE
from project.report.run import Run


def figure(run: Run) -> go.Figure | None:
    steps, train = run.series("train/loss")
    if not steps:
        return None
    auxiliary_steps, auxiliary = run.series("train/aux_loss")
    chart = make_subplots(rows=2, shared_xaxes=True, row_heights=[0.72, 0.28], vertical_spacing=0.08)
    hover = "step %{x}: %{y:.4f}"
    mode = "lines+markers" if len(steps) <= 30 else "lines"
    chart.add_trace(
        go.Scatter(x=steps, y=train, name="training", mode=mode, line={"color": BLUE}, hovertemplate=hover),
        row=1,
        col=1,
    )
    validated, losses = run.series("val/loss")
    if validated:
        chart.add_trace(
            go.Scatter(
                x=validated,
                y=losses,
                name="validation",
                mode="markers" if len(validated) == 1 else "lines+markers",
                marker={"color": ORANGE, "size": 10, "symbol": "diamond"},
                hovertemplate=hover,
            ),
            row=1,
            col=1,
        )
    if auxiliary_steps:
        chart.add_trace(
            go.Scatter(
                x=auxiliary_steps,
                y=auxiliary,
                name="balance (auxiliary)",
                mode=mode,
                line={"color": GREEN, "dash": "dot"},
                hovertemplate=hover,
            ),
            row=2,
            col=1,
        )
    chart.update_xaxes(title_text="optimizer step", row=2, col=1)
    chart.update_yaxes(title_text="loss", row=1, col=1)
    chart.update_layout(
        height=380,
        hovermode="x unified",
        margin={"l": 56, "r": 8, "t": 40, "b": 44},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    return chart
