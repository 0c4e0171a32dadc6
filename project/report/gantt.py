"""The pipeline's Gantt chart: what each rank did when in a step, under what was planned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median_low

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from project.report.palette import KINDS
from project.report.run import PlannedSpan, Run, TraceSpan

ROW = 24  # pixels
MOST_ROWS = 16
MOST_BARS = 8000
PLANNED_KINDS = {"F": "forward", "B": "backward", "I": "backward", "W": "weight gradient"}
HOVER = "<b>%{{customdata[0]}}</b>  {kind}<br>%{{x:.3~f}} ms, from %{{base:.3~f}} ms<br>%{{y}}<extra></extra>"
SAME_SCALE = 4.0
"""Planned and measured share their axis unless one takes so many times the other's time."""


def figure(run: Run, step: int | None = None) -> go.Figure | None:
    """Of a traced step, by default the typical one. None without a trace and without a plan."""
    step = typical_step(run) if step is None else step
    measured = shown(run, run.spans.get(step, [])) if step is not None else []
    planned = run.planned_spans
    if not measured and not planned:
        return None
    ranks = sorted({span.rank for span in measured}, reverse=True)
    pipeline_ranks = sorted({span.rank for span in planned}, reverse=True)
    rows = [len(one) for one in (pipeline_ranks, ranks) if one]
    titles = [title for title, there in (("planned", planned), (f"measured, step {step}", measured)) if there]
    chart = make_subplots(
        rows=len(rows),
        row_heights=rows,
        subplot_titles=titles,
        shared_xaxes=comparable(planned, measured),
        vertical_spacing=70 / (ROW * sum(rows) + 140) if len(rows) > 1 else 0,
    )
    if planned:
        for bar in bars(planned_as_measured(planned), "pp {}", legend=not measured):
            chart.add_trace(bar, row=1, col=1)
        label_rows(chart, 1, "pp {}", pipeline_ranks)
    if measured:
        for bar in bars(measured, "rank {}", legend=True):
            chart.add_trace(bar, row=len(rows), col=1)
        label_rows(chart, len(rows), "rank {}", ranks)
    chart.update_xaxes(title_text="milliseconds", row=len(rows), col=1)
    chart.update_xaxes(rangemode="tozero")
    chart.update_annotations(x=0, xanchor="left")
    chart.update_layout(
        meta={"kind": "gantt"},
        barmode="overlay",
        bargap=0.12,
        height=ROW * sum(rows) + 130 + 60 * (len(rows) - 1),
        hovermode="closest",
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        uniformtext={"mode": "hide", "minsize": 9},
        margin={"l": 62, "r": 8, "t": 30, "b": 84},
    )
    return chart


def typical_step(run: Run) -> int | None:
    """Of the traced steps after the first two the one of median length."""
    steps = [step for step in run.traced_steps if run.spans.get(step)]
    settled = [step for step in steps if step > run.traced_steps[0] + 1] or steps
    if not settled:
        return None
    middle = median_low(run.trace_step(step)["seconds"] for step in settled)
    return next(step for step in settled if run.trace_step(step)["seconds"] == middle)


def shown(run: Run, spans: Sequence[TraceSpan]) -> list[TraceSpan]:
    """Of many ranks, or bars, one rank of each stage: the others do the same work."""
    world, pp = run.layout.get("world_size", 1), run.layout.get("pp", 1)
    every = 1 if world <= MOST_ROWS and len(spans) <= MOST_BARS // 2 else world // pp
    return [span for span in spans if span.rank % every == 0]


def steps_shown(run: Run) -> list[int]:
    """The traced steps that a page has room for: the typical one, and as many others as do not make it slow."""
    typical, bars_left = typical_step(run), MOST_BARS
    chosen: list[int] = []
    steps = [step for step in run.traced_steps if run.spans.get(step)]
    for step in sorted(steps, key=lambda step: (step != typical, -step)):
        bars_left -= len(shown(run, run.spans[step]))
        if bars_left >= 0 or not chosen:
            chosen.append(step)
    return sorted(chosen)


def comparable(planned: Sequence[PlannedSpan], measured: Sequence[TraceSpan]) -> bool:
    if not planned or not measured:
        return False
    lengths = [max(span.start_ms + span.length_ms for span in spans) for spans in (planned, measured)]
    return max(lengths) <= SAME_SCALE * min(lengths)


def planned_as_measured(spans: Sequence[PlannedSpan]) -> list[TraceSpan]:
    """With the idle time between them."""
    out: list[TraceSpan] = []
    end = max(span.start_ms + span.length_ms for span in spans)
    for rank in sorted({span.rank for span in spans}):
        at = 0.0
        for span in sorted((one for one in spans if one.rank == rank), key=lambda one: one.start_ms):
            if span.start_ms > at:
                out.append(TraceSpan(rank, "idle", "idle", at, span.start_ms - at, None))
            kind = PLANNED_KINDS[span.action]
            out.append(TraceSpan(rank, span.name, kind, span.start_ms, span.length_ms, span.microbatch))
            at = span.start_ms + span.length_ms
        if end > at:
            out.append(TraceSpan(rank, "idle", "idle", at, end - at, None))
    return out


def bars(spans: Sequence[TraceSpan], label: str, legend: bool) -> Iterator[go.Bar]:
    """One trace for each kind; `customdata` is [name, microbatch], the latter for highlighting it."""
    for kind, colour in KINDS.items():
        here = [span for span in spans if span.kind == kind]
        if here:
            yield go.Bar(
                name=kind,
                orientation="h",
                y=[label.format(span.rank) for span in here],
                x=[round(span.length_ms, 3) for span in here],
                base=[round(span.start_ms, 3) for span in here],
                marker={"color": colour, "line": {"width": 0}},
                text=["" if span.microbatch is None else str(span.microbatch) for span in here],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                textfont={"size": 10},
                constraintext="none",
                customdata=[[span.name, span.microbatch] for span in here],
                hovertemplate=HOVER.format(kind=kind),
                legendgroup=kind,
                showlegend=legend,
            )


def label_rows(chart: go.Figure, row: int, label: str, ranks: Sequence[int]) -> None:
    """The first rank on top."""
    chart.update_yaxes(
        type="category",
        categoryorder="array",
        categoryarray=[label.format(rank) for rank in ranks],
        showgrid=False,
        ticksuffix=" ",
        row=row,
        col=1,
    )
