"""Every job of a sweep as a line through what was chosen and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from project.report.palette import AMOUNTS
from project.report.sweep import SweepJob

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
    """Of the jobs that were completed. A column that is the same for all is left out. Colour: the step's time."""
    done = [job.row for job in jobs if job.completed]
    if len(done) < 2:
        return None
    dimensions = [dimension(name, [row[name] for row in done]) for name in CHOSEN if varies(done, name)]
    if varies(done, "schedule"):
        names = sorted({row["schedule"] for row in done})
        places = [names.index(row["schedule"]) for row in done]
        dimensions.insert(
            0, {"label": "schedule", "values": places, "tickvals": [*range(len(names))], "ticktext": names}
        )
    for name, heading, scale in CAME:
        if all(row.get(name) is not None for row in done):
            dimensions.append({"label": heading, "values": [float(f"{scale * row[name]:.4g}") for row in done]})
    times = [1000 * (row.get("step_time_s") or 0) for row in done]
    chart = go.Figure(
        go.Parcoords(
            dimensions=dimensions,
            line={
                "color": times,
                "colorscale": AMOUNTS,
                "reversescale": True,
                "showscale": True,
                "colorbar": {"title": {"text": "step, ms"}, "thickness": 12, "outlinewidth": 0},
            },
            labelangle=-25,
            labelside="bottom",
            unselected={"line": {"opacity": 0.05}},
        )
    )
    chart.update_layout(
        height=430, margin={"l": 70, "r": 20, "t": 24, "b": 90}, meta={"least_width": 90 * len(dimensions)}
    )
    return chart


def varies(rows: Sequence[dict[str, Any]], name: str) -> bool:
    return all(row.get(name) is not None for row in rows) and len({row[name] for row in rows}) > 1


def dimension(name: str, values: Sequence[int]) -> dict[str, Any]:
    ticks = sorted(set(values))
    return {"label": name.replace("_", " "), "values": list(values), "tickvals": ticks, "ticktext": [*map(str, ticks)]}
