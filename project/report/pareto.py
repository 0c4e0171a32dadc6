"""Time against memory: of which jobs nothing is better in both."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from project.report.palette import BLUE, GREY, VERMILION
from project.report.sweep import SweepJob

MIB = 2**20


def figure(jobs: Sequence[SweepJob]) -> go.Figure | None:
    """`customdata` has the link to the job's page, which a click opens."""
    points = [
        job for job in jobs if job.completed and None not in (job.row["step_time_s"], job.row["peak_memory_bytes"])
    ]
    if not points:
        return None
    best = front(points)
    chart = go.Figure()
    chart.add_trace(
        go.Scatter(
            x=[job.row["step_time_s"] for job in best],
            y=[job.row["peak_memory_bytes"] / MIB for job in best],
            mode="lines",
            line={"color": VERMILION, "shape": "hv", "width": 1.5},
            name="Pareto front",
            hoverinfo="skip",
        )
    )
    for words, here, colour, symbol in (
        ("on the front", best, VERMILION, "diamond"),
        ("others", [job for job in points if job not in best], BLUE, "circle"),
    ):
        chart.add_trace(
            go.Scatter(
                x=[job.row["step_time_s"] for job in here],
                y=[job.row["peak_memory_bytes"] / MIB for job in here],
                mode="markers+text" if words == "on the front" else "markers",
                text=[job.layout for job in here],
                textposition="top center",
                textfont={"size": 11},
                cliponaxis=False,
                name=words,
                marker={"color": colour, "symbol": symbol, "size": 11, "line": {"width": 1, "color": GREY}},
                customdata=[{"link": job.link, "name": job.name, "schedule": job.schedule} for job in here],
                hovertemplate=(
                    "<b>job %{customdata.name}</b>: %{text}<br>%{customdata.schedule}<br>"
                    "%{x:.3~s}s a step, %{y:,.0f} MiB<extra></extra>"
                ),
            )
        )
    chart.update_xaxes(title_text="seconds a step, median")
    chart.update_yaxes(title_text="MiB, largest rank")
    chart.update_layout(
        height=430,
        margin={"l": 60, "r": 12, "t": 40, "b": 48},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    return chart


def front(jobs: Sequence[SweepJob]) -> list[SweepJob]:
    """From the quickest on, each that takes less memory than all quicker ones."""
    found: list[SweepJob] = []
    for job in sorted(jobs, key=lambda job: (job.row["step_time_s"], job.row["peak_memory_bytes"])):
        if not found or job.row["peak_memory_bytes"] < found[-1].row["peak_memory_bytes"]:
            found.append(job)
    return found
