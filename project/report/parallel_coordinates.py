"""Every job of a sweep as a line through what was chosen and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from project.report.palette import AMOUNTS
from project.report.sweep import SweepJob

# Viridis without its ends, which are hard to see on light or on dark ground.
BETWEEN = sample_colorscale(AMOUNTS, [0.85, 0.7, 0.55, 0.4, 0.25])
# Column, heading, and what a value is multiplied by.
CHOSEN = ("pp", "dp", "tp", "ep", "etp", "virtual_stages", "microbatches")
CAME = (
    ("bubble", "bubble, %", 100),
    ("communication_bytes", "sent, MB", 1e-6),
    ("peak_memory_bytes", "memory, MiB", 2**-20),
    ("train_loss_last", "loss", 1),
    ("step_time_s", "step, ms", 1000),
)


def figure(jobs: Sequence[SweepJob]) -> go.Figure | None:
    """Of the jobs that were completed. A column that is the same for all is left out. The colour is the job's place by
    the time of its step: one slow job leaves the others theirs."""
    done = [job.row for job in jobs if job.completed]
    if len(done) < 2:
        return None
    dimensions = [degrees(name, [row[name] for row in done]) for name in CHOSEN if varies(done, name)]
    if varies(done, "schedule"):
        names = sorted({row["schedule"] for row in done})
        places = [names.index(row["schedule"]) for row in done]
        ticks = {"tickvals": [*range(len(names))], "ticktext": names}
        dimensions.insert(0, {"label": "schedule", "values": places, **ticks})
    for name, heading, scale in CAME:
        if varies(done, name):
            dimensions.append({"label": heading, "values": [float(f"{scale * row[name]:.4g}") for row in done]})
    if not dimensions:
        return None
    times = [row.get("step_time_s") or 0 for row in done]
    line = {"color": [sorted(times).index(time) for time in times], "colorscale": BETWEEN}
    lines = go.Parcoords(dimensions=dimensions, line=line, unselected={"line": {"opacity": 0.06}})
    chart = go.Figure(lines)
    least = {"least_width": 110 * len(dimensions)}
    chart.update_layout(height=420, margin={"l": 70, "r": 50, "t": 66, "b": 28}, meta=least)
    return chart


def varies(rows: Sequence[dict[str, Any]], name: str) -> bool:
    return all(row.get(name) is not None for row in rows) and len({row[name] for row in rows}) > 1


def degrees(name: str, values: Sequence[int]) -> dict[str, Any]:
    ticks = sorted(set(values))
    return {"label": name.replace("_", " "), "values": list(values), "tickvals": ticks, "ticktext": [*map(str, ticks)]}
