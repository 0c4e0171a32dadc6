"""Which experts are used: a layer's tokens by expert, over time, and how far that is from even."""

from __future__ import annotations

import re
from collections.abc import Sequence

import plotly.graph_objects as go

from project.report.palette import AMOUNTS, BLUE, GREY, VERMILION
from project.report.run import Run, evenly

COLUMN = re.compile(r"expert_load/layer_(\d+)/expert_(\d+)")
MOST_STEPS, MOST_CELLS = 40, 40_000  # of all steps together
MOST_CELLS_WITH_TEXT = 160


def over_time(run: Run) -> dict[str, go.Figure]:
    """By step, evenly chosen; the colours are the same in all. Empty without experts."""
    columns = [(int(found[1]), int(found[2]), name) for name in run.columns if (found := COLUMN.fullmatch(name))]
    logged = [row for row in run.rows if columns and row.get(columns[0][2])]
    if not logged:
        return {}
    layers, experts = sorted({layer for layer, _, _ in columns}), sorted({expert for _, expert, _ in columns})
    names = {(layer, expert): name for layer, expert, name in columns}
    chosen = evenly(logged, max(2, min(MOST_STEPS, MOST_CELLS // (len(layers) * len(experts)))))
    shares = {
        f"step {row['step']}": [[round(float(row[names[layer, expert]]), 4) for expert in experts] for layer in layers]
        for row in chosen
    }
    highest = max(share for rows in shares.values() for row in rows for share in row)
    return {label: figure(layers, experts, rows, highest) for label, rows in shares.items()}


def figure(
    layers: Sequence[int], experts: Sequence[int], shares: Sequence[Sequence[float]], highest: float
) -> go.Figure:
    """`shares[layer][expert]` of the layer's tokens."""
    with_text = len(layers) * len(experts) <= MOST_CELLS_WITH_TEXT
    chart = go.Figure(
        go.Heatmap(
            x=[f"expert {expert}" for expert in experts],
            y=[f"layer {layer}" for layer in layers],
            z=shares,
            zmin=0,
            zmax=highest,
            colorscale=AMOUNTS,
            colorbar={"tickformat": ".0%", "thickness": 12, "outlinewidth": 0},
            texttemplate="%{z:.0%}" if with_text else None,
            hovertemplate="%{y}, %{x}: %{z:.1%} of the layer's tokens<extra></extra>",
            xgap=2,
            ygap=2,
        )
    )
    chart.update_xaxes(showgrid=False, fixedrange=True)
    chart.update_yaxes(autorange="reversed", showgrid=False, fixedrange=True, ticksuffix=" ")
    chart.update_layout(height=min(640, max(220, 32 * len(layers) + 70)), margin={"l": 60, "r": 6, "t": 12, "b": 34})
    return chart


def imbalance(run: Run) -> go.Figure | None:
    """The busiest expert's load over the mean: the mean over layers and the worst layer's."""
    lines = [
        ("mean over layers", "train/expert_imbalance", BLUE, "solid"),
        ("worst layer", "train/expert_imbalance_worst_layer", VERMILION, "dash"),
    ]
    chart = go.Figure()
    for name, column, colour, dash in lines:
        steps, values = run.series(column)
        if steps:
            line = {"color": colour, "dash": dash}
            hover = "%{y:.3f}"
            chart.add_trace(go.Scatter(x=steps, y=values, name=name, mode="lines", line=line, hovertemplate=hover))
    if not chart.data:
        return None
    chart.add_hline(y=1, line={"color": GREY, "dash": "dot", "width": 1})
    chart.update_xaxes(title_text="optimizer step")
    chart.update_yaxes(title_text="busiest / mean")
    chart.update_layout(
        height=330,
        hovermode="x unified",
        margin={"l": 56, "r": 8, "t": 34, "b": 44},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    return chart
