"""A run folder, read for the figures of its page."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from project.observe.metrics_file import read_rows
from project.run_folder import read_summary

MOST_POINTS = 600  # a line on a screen has no room for more
Row = TypeVar("Row")


class TraceSpan(NamedTuple):
    """Of `trace.json`; milliseconds since its step began. `microbatch` is None for what is no action of a stage."""

    rank: int
    name: str
    kind: str
    start_ms: float
    length_ms: float
    microbatch: int | None


class PlannedSpan(NamedTuple):
    """Of `plan.json`; `rank` is along the pipeline."""

    rank: int
    name: str
    action: str
    start_ms: float
    length_ms: float
    microbatch: int


@dataclass(frozen=True)
class Run:
    """Whatever the folder does not have is empty: a run may have failed before, or be older than a file."""

    folder: Path
    summary: dict[str, Any]
    rows: list[dict[str, str]]
    trace: dict[str, Any]
    plan: dict[str, Any]
    config: str

    @classmethod
    def read(cls, folder: str | Path) -> Run:
        folder = Path(folder).absolute()
        config = folder / "config.yaml"
        return cls(
            folder,
            read_summary(folder) or {},
            read_rows(folder / "metrics.csv"),
            read_json(folder / "trace.json"),
            read_json(folder / "plan.json"),
            config.read_text(encoding="utf-8") if config.exists() else "",
        )

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def layout(self) -> dict[str, Any]:
        return self.summary.get("layout") or {}

    @property
    def planned(self) -> dict[str, Any]:
        return self.summary.get("planned") or {}

    @property
    def columns(self) -> list[str]:
        return list(self.rows[0]) if self.rows else []

    def series(self, name: str, most: int = MOST_POINTS) -> tuple[list[int], list[float]]:
        """Steps and values of a column of `metrics.csv`, where it was logged: all, or so many evenly chosen."""
        logged = evenly([row for row in self.rows if row.get(name)], most)
        return [int(row["step"]) for row in logged], [float(f"{float(row[name]):.6g}") for row in logged]

    @property
    def traced_steps(self) -> list[int]:
        return [int(step) for step in self.trace.get("metadata", {}).get("steps", {})]

    def trace_step(self, step: int) -> dict[str, Any]:
        """When it began, how long it took, its bubble."""
        return self.trace["metadata"]["steps"][str(step)]

    @cached_property
    def spans(self) -> dict[int, list[TraceSpan]]:
        """What fills each traced step."""
        spans: dict[int, list[TraceSpan]] = defaultdict(list)
        for event in self.trace.get("traceEvents", ()):
            step = event["args"].get("step")
            if event["ph"] == "X" and event["tid"] == 0 and step is not None:
                start = event["ts"] - self.trace_step(step)["start_us"]
                spans[step].append(
                    TraceSpan(
                        event["pid"],
                        event["name"],
                        event["cat"],
                        start / 1000,
                        event["dur"] / 1000,
                        event["args"].get("microbatch"),
                    )
                )
        return spans

    @cached_property
    def planned_spans(self) -> list[PlannedSpan]:
        return [
            PlannedSpan(
                one["rank"],
                f"{one['stage']}{one['action']}{one['microbatch']}",
                one["action"],
                1000 * one["start_s"],
                1000 * (one["end_s"] - one["start_s"]),
                one["microbatch"],
            )
            for one in self.plan.get("timeline") or ()
        ]


def evenly(rows: Sequence[Row], most: int) -> list[Row]:
    """At most so many, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(place * (len(rows) - 1) / (most - 1))] for place in range(most)]


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
