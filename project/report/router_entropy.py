"""How undecided each layer's router is."""

from __future__ import annotations

import math
import re

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from project.report.palette import AMOUNTS, GREY
from project.report.run import Run

MOST_POINTS = 5000  # of all lines
COLUMN = re.compile(r"router_entropy/layer_(\d+)")


def figure(run: Run) -> go.Figure | None:
    """Nats, a line a layer from dark (first) to light; dotted what a router that prefers no expert has."""
    layers = [(int(found[1]), name) for name in run.columns if (found := COLUMN.fullmatch(name))]
    if not layers:
        return None
    middle = [0.3 + 0.5 * place / max(1, len(layers) - 1) for place in range(len(layers))]  # seen on both grounds
    shades = sample_colorscale(AMOUNTS, middle)
    chart = go.Figure()
    for (layer, column), colour in zip(layers, shades, strict=True):
        steps, values = run.series(column, max(50, MOST_POINTS // len(layers)))
        line = {"color": colour}
        chart.add_trace(
            go.Scatter(x=steps, y=values, name=f"layer {layer}", mode="lines", line=line, hovertemplate="%{y:.3f}")
        )
    if experts := len([name for name in run.columns if name.startswith(f"expert_load/layer_{layers[0][0]}/")]):
        even = {"text": f"even over {experts} experts", "font": {"size": 11}}
        line = {"color": GREY, "dash": "dot", "width": 1}
        chart.add_hline(y=math.log(experts), line=line, annotation=even, annotation_position="bottom left")
    chart.update_xaxes(title_text="optimizer step")
    chart.update_yaxes(title_text="nats")
    chart.update_layout(
        height=330,
        hovermode="x unified",
        showlegend=len(layers) <= 12,
        margin={"l": 56, "r": 8, "t": 60 if len(layers) > 4 else 34, "b": 44},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    return chart
