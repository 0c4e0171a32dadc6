"""A run folder, read for the figures of its page."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from project.observe.metrics_file import read_rows
from project.run_folder import read_summary
from project.spec.run_files import Plan, Trace, read_form
from project.spec.untrusted import LARGEST, read_text, regular

MOST_POINTS = 600  # a line on a screen has no room for more
Row = TypeVar("Row")
PLANNED_KINDS = {"F": "forward", "B": "backward", "I": "backward", "W": "weight gradient"}


class Span(NamedTuple):
    """A bar of a Gantt chart, in milliseconds since its step began. `rank` is a global rank in a trace and a pipeline
    rank in a plan; `kind` is a key of `style.KINDS`; `microbatch` is None except for an action of a stage."""

    rank: int
    name: str
    kind: str
    start_ms: float
    length_ms: float
    microbatch: int | None


@dataclass(frozen=True)
class Run:
    """Contents of a run folder, empty for files that are missing: a run may have failed early, or be older than a
    file."""

    folder: Path
    summary: dict[str, Any]
    rows: list[dict[str, str]]
    trace: dict[str, Any]
    plan: dict[str, Any]
    config: str

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        folder = Path(folder).absolute()
        config = folder / "config.yaml"
        return cls(
            folder,
            read_summary(folder) or {},
            _rows(folder / "metrics.csv"),
            _read(Trace, folder / "trace.json"),
            _read(Plan, folder / "plan.json"),
            read_text(config, folder) if os.path.lexists(config) else "",
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
        """Steps and values of a column of `metrics.csv` where it was logged, at most `most` of them, evenly chosen."""
        logged = evenly([row for row in self.rows if row.get(name)], most)
        return [int(row["step"]) for row in logged], [float(f"{float(row[name]):.6g}") for row in logged]

    @property
    def traced_steps(self) -> list[int]:
        return [int(step) for step in self.trace.get("metadata", {}).get("steps", {})]

    def trace_step(self, step: int) -> dict[str, Any]:
        """Start, duration and bubble of a traced step."""
        return self.trace["metadata"]["steps"][str(step)]

    @cached_property
    def spans(self) -> dict[int, list[Span]]:
        """The spans of each traced step, which leave no gap."""
        spans: dict[int, list[Span]] = defaultdict(list)
        for event in self.trace.get("traceEvents", ()):
            step = event.get("args", {}).get("step")
            if event["ph"] == "X" and event.get("tid") == 0 and step is not None:
                start, length = (event["ts"] - self.trace_step(step)["start_us"]) / 1000, event["dur"] / 1000
                microbatch = event["args"].get("microbatch")
                spans[step].append(Span(event["pid"], event["name"], event["cat"], start, length, microbatch))
        return spans

    @cached_property
    def planned_spans(self) -> list[Span]:
        """The actions of the plan's timeline, without the idle time between them."""
        return [
            Span(
                one["rank"],
                f"{one['stage']}{one['action']}{one['microbatch']}",
                PLANNED_KINDS[one["action"]],
                1000 * one["start_s"],
                1000 * (one["end_s"] - one["start_s"]),
                one["microbatch"],
            )
            for one in self.plan.get("timeline") or ()
        ]


def evenly(rows: Sequence[Row], most: int) -> list[Row]:
    """At most `most` of the rows, evenly apart, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(place * (len(rows) - 1) / (most - 1))] for place in range(most)]


def _read(form: type[Trace | Plan], path: Path) -> dict[str, Any]:
    return read_form(form, path, path.parent) if os.path.lexists(path) else {}


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of `metrics.csv`, each cell of which is a number or empty."""
    if not os.path.lexists(path):
        return []
    return read_rows(regular(path, path.parent, LARGEST))
