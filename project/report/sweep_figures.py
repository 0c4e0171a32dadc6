"""Figures of a sweep: every job as a line through its choices and results, and time against memory."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from project.planner.search.pareto import front
from project.report.style import AMOUNTS, BLUE, GREY, LEGEND, MB, VERMILION, Form, count, percent, seconds, size
from project.sweep.jobs import Job

CHOICES = ("schedule", "pp", "dp", "tp", "ep", "etp", "virtual_stages", "microbatches")
RESULTS: dict[str, tuple[str, Form]] = {
    "step_time_s": ("step time", seconds),
    "tokens_per_second": ("tokens/s", count),
    "bubble": ("bubble", percent),
    "peak_memory_bytes": ("memory", size),
    "communication_bytes": ("sent", size),
    "train_loss_last": ("loss", lambda loss: f"{loss:.4f}"),
}
"""Words and number format of each result in a job's row."""
RESULT_AXES = (
    *("bubble", "communication_bytes", "peak_memory_bytes", "train_loss_last", "tokens_per_second", "step_time_s"),
)
BETWEEN = (0.85, 0.2)
"""Part of viridis that is used, from the quickest job to the slowest: its ends are hard to see on light or on dark
ground."""


class Axis(NamedTuple):
    """A vertical axis: each job's place from 0 to 1 and its value in words, and words beside the axis by height."""

    heading: str
    places: list[float]
    said: list[str]
    ticks: dict[float, str]


def parallel_coordinates(jobs: Sequence[Job]) -> go.Figure | None:
    """Lines of the completed jobs over the columns in which they differ; None for fewer than two axes. A colour is a
    job's rank by step time, so that one very slow job leaves the others theirs; one for all where a job has none.

    plotly's own parallel coordinates need WebGL, say nothing on hover and cannot be made out on a dark ground.
    """
    done = [job for job in jobs if job.status == "completed"]
    rows = [job.row for job in done]
    axes = [choice_axis(name, rows) for name in CHOICES if varies(rows, name, str)]
    axes += [result_axis(name, rows) for name in RESULT_AXES if varies(rows, name, RESULTS[name][1])]
    if len(axes) < 2:
        return None
    shades = by_step_time(done) if are_timed(done) else [BETWEEN[0]] * len(done)
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
            font = {"size": 11}
            chart.add_annotation(x=place, y=height, text=words, showarrow=False, yshift=shift, font=font, **side)
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


def are_timed(jobs: Sequence[Job]) -> bool:
    return all(job.row.get("step_time_s") is not None for job in jobs)


def by_step_time(jobs: Sequence[Job]) -> list[float]:
    """Each job's part of the colour scale by its rank."""
    order = sorted(range(len(jobs)), key=lambda index: jobs[index].row["step_time_s"])
    first, last = BETWEEN
    return [first + (last - first) * order.index(index) / max(1, len(jobs) - 1) for index in range(len(jobs))]


def varies(rows: Sequence[dict[str, Any]], name: str, form: Form) -> bool:
    """True if all rows have the value and at least two differ as they are shown."""
    return all(row.get(name) is not None for row in rows) and len({form(row[name]) for row in rows}) > 1


def choice_axis(name: str, rows: Sequence[dict[str, Any]]) -> Axis:
    """An axis of few values, evenly apart whatever lies between them."""
    values = sorted({row[name] for row in rows})
    places = {value: index / (len(values) - 1) for index, value in enumerate(values)}
    ticks = {place: str(value) for value, place in places.items()}
    return Axis(name.replace("_", " "), [places[row[name]] for row in rows], [str(row[name]) for row in rows], ticks)


def result_axis(name: str, rows: Sequence[dict[str, Any]]) -> Axis:
    heading, form = RESULTS[name]
    least, most = (choose(row[name] for row in rows) for choose in (min, max))
    places = [(row[name] - least) / (most - least) for row in rows]
    return Axis(heading, places, [form(row[name]) for row in rows], {0: form(least), 1: form(most)})


def time_against_memory(jobs: Sequence[Job]) -> go.Figure | None:
    """Completed jobs and their Pareto front. `customdata` has the link to a job's page, which a click opens."""
    points = [job for job in jobs if job.status == "completed" and None not in (step_time(job), peak_memory(job))]
    if not points:
        return None
    best = front(points, step_time, peak_memory)
    chart = go.Figure()
    chart.add_trace(
        go.Scatter(
            x=[step_time(job) for job in best],
            y=[peak_memory(job) / MB for job in best],
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
                x=[step_time(job) for job in here],
                y=[peak_memory(job) / MB for job in here],
                mode="markers+text" if words == "on the front" else "markers",
                text=[job.layout for job in here],
                textposition="top center",
                textfont={"size": 11},
                cliponaxis=False,
                name=words,
                marker={"color": colour, "symbol": symbol, "size": 11, "line": {"width": 1, "color": GREY}},
                customdata=[{"link": job.link, "name": job.name, "schedule": job.schedule()} for job in here],
                hovertemplate=(
                    "<b>job %{customdata.name}</b>: %{text}<br>%{customdata.schedule}<br>"
                    "%{x:.3~s}s a step, %{y:,.0f} MB<extra></extra>"
                ),
            )
        )
    chart.update_xaxes(title_text="seconds a step, median")
    chart.update_yaxes(title_text="MB, largest rank")
    chart.update_layout(height=430, margin={"l": 60, "r": 12, "t": 40, "b": 48}, legend=LEGEND)
    return chart


def step_time(job: Job) -> Any:
    return job.row["step_time_s"]


def peak_memory(job: Job) -> Any:
    return job.row["peak_memory_bytes"]
