"""Every job of a sweep as a line through what was chosen and what came of it.

Drawn as lines over axes of one height, and not with plotly's own parallel coordinates: those need WebGL and a compiler
in the browser, say nothing on hover and cannot be made out on a dark ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from project.report.key_figures import Form, count, percent, seconds, size
from project.report.palette import AMOUNTS, GREY
from project.report.sweep import SweepJob

CHOSEN = ("schedule", "pp", "dp", "tp", "ep", "etp", "virtual_stages", "microbatches")
CAME: tuple[tuple[str, str, Form], ...] = (
    ("bubble", "bubble", percent),
    ("communication_bytes", "sent", size),
    ("peak_memory_bytes", "memory", size),
    ("train_loss_last", "loss", lambda loss: f"{loss:.4f}"),
    ("tokens_per_second", "tokens/s", count),
    ("step_time_s", "step time", seconds),
)
BETWEEN = (0.85, 0.2)
"""Of viridis, from the quickest job to the slowest: its ends are hard to see on light or on dark ground."""


class Axis(NamedTuple):
    """`places` of the jobs from 0 to 1, `said` what they stand for, `ticks` the words beside the axis."""

    heading: str
    places: list[float]
    said: list[str]
    ticks: dict[float, str]


def figure(jobs: Sequence[SweepJob]) -> go.Figure | None:
    """Of the jobs that were completed; a column that is the same for all is left out. None for fewer than two. The
    colour is a job's place by the time of its step: one that is very slow leaves the others theirs."""
    done = [job for job in jobs if job.completed]
    rows = [job.row for job in done]
    axes = [one_of(name, rows) for name in CHOSEN if varies(rows, name, str)]
    axes += [amount(name, heading, form, rows) for name, heading, form in CAME if varies(rows, name, form)]
    if len(axes) < 2:
        return None
    order = sorted(range(len(done)), key=lambda index: rows[index].get("step_time_s") or 0)
    first, last = BETWEEN
    shades = [first + (last - first) * order.index(index) / max(1, len(done) - 1) for index in range(len(done))]
    chart = go.Figure()
    for index, (job, colour) in enumerate(zip(done, sample_colorscale(AMOUNTS, shades), strict=True)):
        chart.add_trace(
            go.Scatter(
                x=[*range(len(axes))],
                y=[axis.places[index] for axis in axes],
                mode="lines+markers",
                line={"color": colour, "width": 2.5},
                marker={"size": 7},
                name=f"job {job.name}",
                customdata=[{"link": job.link, "said": f"{axis.heading}: {axis.said[index]}"} for axis in axes],
                hovertemplate=f"<b>job {job.name}</b>: {job.layout}<br>%{{customdata.said}}<extra></extra>",
            )
        )
    for place, axis in enumerate(axes):
        chart.add_shape(type="line", x0=place, x1=place, y0=0, y1=1, line={"color": GREY, "width": 1}, layer="below")
        chart.add_annotation(x=place, y=1, text=f"<b>{axis.heading}</b>", showarrow=False, yshift=30)
        for height, words in axis.ticks.items():
            shift = 13 if height == 1 else -13 if height == 0 else 0
            side = {"xanchor": "center"} if shift else {"xanchor": "left", "xshift": 6}
            chart.add_annotation(
                x=place, y=height, text=words, showarrow=False, yshift=shift, font={"size": 11}, **side
            )
    hidden = {"visible": False, "fixedrange": True}
    chart.update_xaxes(range=[-0.4, len(axes) - 0.6], **hidden)
    chart.update_yaxes(range=[-0.1, 1.18], **hidden)
    chart.update_layout(
        height=400,
        showlegend=False,
        hovermode="closest",
        hoverdistance=30,
        margin={"l": 4, "r": 4, "t": 8, "b": 8},
        meta={"kind": "lines", "least_width": 86 * len(axes)},
    )
    return chart


def varies(rows: Sequence[dict[str, Any]], name: str, form: Form) -> bool:
    """Known of all, and seen to be different."""
    return all(row.get(name) is not None for row in rows) and len({form(row[name]) for row in rows}) > 1


def one_of(name: str, rows: Sequence[dict[str, Any]]) -> Axis:
    """Few values, evenly apart, whatever lies between them."""
    values = sorted({row[name] for row in rows})
    places = {value: index / (len(values) - 1) for index, value in enumerate(values)}
    ticks = {place: str(value) for value, place in places.items()}
    return Axis(name.replace("_", " "), [places[row[name]] for row in rows], [str(row[name]) for row in rows], ticks)


def amount(name: str, heading: str, form: Form, rows: Sequence[dict[str, Any]]) -> Axis:
    least, most = (choose(row[name] for row in rows) for choose in (min, max))
    places = [(row[name] - least) / (most - least) for row in rows]
    return Axis(heading, places, [form(row[name]) for row in rows], {0: form(least), 1: form(most)})
