"""Use of the experts: the tokens of each layer by expert, how far they are from even, and how undecided routers are."""

import math
import re
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from project.report.run import Run, evenly
from project.report.style import AMOUNTS, BLUE, DASHES, GREY, LEGEND, LINE_AMOUNTS, VERMILION, ink

LOAD = re.compile(r"expert_load/layer_(\d+)/expert_(\d+)")
ENTROPY = re.compile(r"router_entropy/layer_(\d+)")
MOST_STEPS, MOST_CELLS = 40, 40_000  # of the heat maps of all steps together
MOST_CELLS_WITH_TEXT = 160
MOST_POINTS = 5000  # of all layers' entropies together


def load_over_time(run: Run) -> dict[str, go.Figure]:
    """Heat maps of the expert load by step, evenly chosen and on one colour scale. Empty without experts."""
    columns = [(int(found[1]), int(found[2]), name) for name in run.columns if (found := LOAD.fullmatch(name))]
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
    return {label: load(layers, experts, rows, highest) for label, rows in shares.items()}


def load(layers: Sequence[int], experts: Sequence[int], shares: Sequence[Sequence[float]], highest: float) -> go.Figure:
    """Heat map of `shares[layer][expert]`, the fraction of a layer's tokens that go to an expert."""
    chart = go.Figure(
        go.Heatmap(
            x=[f"expert {expert}" for expert in experts],
            y=[f"layer {layer}" for layer in layers],
            z=shares,
            zmin=0,
            zmax=highest,
            colorscale=AMOUNTS,
            colorbar={"tickformat": ".0%", "thickness": 12, "outlinewidth": 0},
            text=written(shares, highest) if len(layers) * len(experts) <= MOST_CELLS_WITH_TEXT else None,
            texttemplate="%{text}" if len(layers) * len(experts) <= MOST_CELLS_WITH_TEXT else None,
            hovertemplate="%{y}, %{x}: %{z:.1%} of the layer's tokens<extra></extra>",
            xgap=2,
            ygap=2,
        )
    )
    chart.update_xaxes(showgrid=False, fixedrange=True)
    chart.update_yaxes(autorange="reversed", showgrid=False, fixedrange=True, ticksuffix=" ")
    chart.update_layout(height=min(640, max(220, 32 * len(layers) + 70)), margin={"l": 60, "r": 6, "t": 12, "b": 34})
    return chart


def written(shares: Sequence[Sequence[float]], highest: float) -> list[list[str]]:
    """Each share in percent, black or white by its cell's colour: plotly's choice is too faint on some."""
    marked = "<span style='color:{}'>{:.0%}</span>"
    return [
        [marked.format(ink(sample_colorscale(AMOUNTS, [share / (highest or 1)])[0]), share) for share in row]
        for row in shares
    ]


def imbalance(run: Run) -> go.Figure | None:
    """Load of the busiest expert over the mean: averaged over layers, and of the worst layer."""
    chart = go.Figure()
    for name, column, line in (
        ("mean over layers", "train/expert_imbalance", {"color": BLUE, "dash": "solid"}),
        ("worst layer", "train/expert_imbalance_worst_layer", {"color": VERMILION, "dash": "dash"}),
    ):
        steps, values = run.series(column)
        if steps:
            chart.add_trace(curve(name, steps, values, line))
    if not chart.data:
        return None
    chart.add_hline(y=1, line={"color": GREY, "dash": "dot", "width": 1})
    return over_steps(chart, "busiest / mean", top=34)


def entropy(run: Run) -> go.Figure | None:
    """Entropy of each layer's router in nats, from dark (first layer) to light and in four dashes by turns, with a
    dotted line at the entropy of an even choice."""
    layers = [(int(found[1]), name) for name in run.columns if (found := ENTROPY.fullmatch(name))]
    if not layers:
        return None
    low, high = LINE_AMOUNTS
    middle = [low + (high - low) * place / max(1, len(layers) - 1) for place in range(len(layers))]
    chart = go.Figure()
    for place, ((layer, column), colour) in enumerate(zip(layers, sample_colorscale(AMOUNTS, middle), strict=True)):
        steps, values = run.series(column, max(50, MOST_POINTS // len(layers)))
        chart.add_trace(curve(f"layer {layer}", steps, values, {"color": colour, "dash": DASHES[place % len(DASHES)]}))
    if experts := len([name for name in run.columns if name.startswith(f"expert_load/layer_{layers[0][0]}/")]):
        even = {"text": f"even over {experts} experts", "font": {"size": 11}}
        line = {"color": GREY, "dash": "dot", "width": 1}
        chart.add_hline(y=math.log(experts), line=line, annotation=even, annotation_position="bottom left")
    return over_steps(chart, "nats", top=60 if len(layers) > 4 else 34, showlegend=len(layers) <= 12)


def curve(name: str, steps: list[int], values: list[float], line: dict[str, str]) -> go.Scatter:
    return go.Scatter(x=steps, y=values, name=name, mode="lines", line=line, hovertemplate="%{y:.3f}")


def over_steps(chart: go.Figure, title: str, top: int, **layout: Any) -> go.Figure:
    """The chart with its axes titled; `top` is the margin for the legend, in pixels."""
    chart.update_xaxes(title_text="optimizer step")
    chart.update_yaxes(title_text=title)
    margin = {"l": 56, "r": 8, "t": top, "b": 44}
    chart.update_layout(height=330, hovermode="x unified", **layout, margin=margin, legend=LEGEND)
    return chart
