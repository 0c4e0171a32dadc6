"""Gantt chart of the pipeline: the planned actions of each rank in a step and, below them, the measured ones."""

from collections.abc import Iterator, Sequence
from statistics import median_low

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from project.report.run import Run, Span
from project.report.style import FAINT, KINDS, ink

ROW = 24  # pixels
MOST_ROWS = 16
MOST_BARS = 8000
HOVER = (
    "<b>%{{customdata[0]}}</b>  {kind}<br>%{{customdata[2]:.3~f}} ms, from %{{base:.3~f}} ms<br>%{{y}}<extra></extra>"
)
"""The length is in `customdata`: a bar's `x` is where it ends."""
SAME_SCALE = 4.0
"""Largest ratio of planned to measured time, or the reverse, at which both share one time axis."""


def figure(run: Run, step: int | None = None) -> go.Figure | None:
    """Chart of a traced step, by default the typical one. None with neither a trace nor a plan."""
    step = typical_step(run) if step is None else step
    measured = shown(run, run.spans.get(step, [])) if step is not None else []
    sides = (("planned", "pp {}", with_idle_time(run.planned_spans)), (f"measured, step {step}", "rank {}", measured))
    panels = [(title, label, spans) for title, label, spans in sides if spans]
    if not panels:
        return None
    ranks = [sorted({span.rank for span in spans}, reverse=True) for _, _, spans in panels]
    heights = [len(one) for one in ranks]
    chart = make_subplots(
        rows=len(panels),
        row_heights=heights,
        subplot_titles=[title for title, _, _ in panels],
        shared_xaxes=comparable([spans for _, _, spans in panels]),
        vertical_spacing=70 / (ROW * sum(heights) + 140) if len(panels) > 1 else 0,
    )
    for row, (_, label, spans) in enumerate(panels, 1):
        for bar in bars(spans, label, legend=row == len(panels)):
            chart.add_trace(bar, row=row, col=1)
        labels = [label.format(rank) for rank in ranks[row - 1]]  # from the bottom
        order = {"type": "category", "categoryorder": "array", "categoryarray": labels}
        chart.update_yaxes(**order, showgrid=False, ticksuffix=" ", row=row, col=1)
    chart.update_xaxes(title_text="milliseconds", row=len(panels), col=1)
    chart.update_xaxes(rangemode="tozero")
    chart.update_annotations(x=0, xanchor="left")
    chart.update_layout(
        meta={"kind": "gantt"},
        barmode="overlay",
        bargap=0.12,
        height=ROW * sum(heights) + 130 + 60 * (len(panels) - 1),
        hovermode="closest",
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        uniformtext={"mode": "hide", "minsize": 9},
        margin={"l": 62, "r": 8, "t": 30, "b": 84},
    )
    return chart


def typical_step(run: Run) -> int | None:
    """The traced step of median length, without the first two where there are others."""
    steps = [step for step in run.traced_steps if run.spans.get(step)]
    settled = [step for step in steps if step > run.traced_steps[0] + 1] or steps
    if not settled:
        return None
    middle = median_low(run.trace_step(step)["seconds"] for step in settled)
    return next(step for step in settled if run.trace_step(step)["seconds"] == middle)


def shown(run: Run, spans: Sequence[Span]) -> list[Span]:
    """The spans to draw: of many ranks, or bars, those of one rank of each stage, as the others do the same work."""
    world, pp = run.layout.get("world_size", 1), run.layout.get("pp", 1)
    every = 1 if world <= MOST_ROWS and len(spans) <= MOST_BARS // 2 else world // pp
    return [span for span in spans if span.rank % every == 0]


def steps_shown(run: Run) -> list[int]:
    """The typical step and as many of the last ones as together have at most `MOST_BARS` bars."""
    typical, bars_left = typical_step(run), MOST_BARS
    chosen: list[int] = []
    steps = [step for step in run.traced_steps if run.spans.get(step)]
    for step in sorted(steps, key=lambda step: (step != typical, -step)):
        bars_left -= len(shown(run, run.spans[step]))
        if bars_left >= 0 or not chosen:
            chosen.append(step)
    return sorted(chosen)


def comparable(panels: Sequence[Sequence[Span]]) -> bool:
    """True if there are two panels whose lengths are within `SAME_SCALE` of each other."""
    lengths = [end_of(spans) for spans in panels]
    return len(panels) > 1 and max(lengths) <= SAME_SCALE * min(lengths)


def end_of(spans: Sequence[Span]) -> float:
    return max((span.start_ms + span.length_ms for span in spans), default=0.0)


def with_idle_time(spans: Sequence[Span]) -> list[Span]:
    """The spans, and idle ones that fill each rank's gaps up to the last rank's end."""
    out, end = list[Span](), end_of(spans)
    for rank in sorted({span.rank for span in spans}):
        at = 0.0
        for span in sorted((one for one in spans if one.rank == rank), key=lambda one: one.start_ms):
            if span.start_ms > at:
                out.append(Span(rank, "idle", "idle", at, span.start_ms - at, None))
            out.append(span)
            at = span.start_ms + span.length_ms
        if end > at:
            out.append(Span(rank, "idle", "idle", at, end - at, None))
    return out


def bars(spans: Sequence[Span], label: str, legend: bool) -> Iterator[go.Bar]:
    """One plotly trace for each kind of span. `customdata` is [name, microbatch, milliseconds]; the page's script
    highlights the bars of one microbatch."""
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
                textfont={"size": 10, "color": None if colour == FAINT else ink(colour)},
                constraintext="none",
                customdata=[[span.name, span.microbatch, round(span.length_ms, 3)] for span in here],
                hovertemplate=HOVER.format(kind=kind),
                legendgroup=kind,
                showlegend=legend,
            )
