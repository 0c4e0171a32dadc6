"""A sweep's folder: its jobs and their figures, as `sweep.csv` and `sweep.json`.

Everything is read from the jobs' own folders, so that a job of an earlier start, or of another machine, counts as one
of this start does. Both files are replaced at once, after every job.
"""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from project.run_folder import read_summary, write_atomically
from project.spec.figures import FIGURES, figure

LAYOUT = ("pp", "dp", "tp", "ep", "etp", "world_size", "schedule", "microbatches", "virtual_stages")
PLANNED = ("step_time_s", "tokens_per_second", "mfu", "bubble", "peak_memory_bytes", "communication_bytes")


@dataclass(frozen=True)
class Job:
    """`name` is its folder, relative to the sweep's; `overrides` what sets it apart, as on the command line. `summary`
    is empty for a job that has not come to write one; `begun` is when it was last begun, as `time.time()`."""

    name: str
    folder: Path
    overrides: tuple[str, ...]
    summary: dict[str, Any]
    begun: float

    @property
    def status(self) -> str:
        return self.summary.get("status", "started")

    @property
    def error(self) -> str | None:
        return self.summary.get("error")

    @property
    def layout(self) -> dict[str, Any]:
        """Empty where the job was refused."""
        return self.summary.get("layout") or {}

    def measured(self, name: str) -> float | None:
        return figure(self.summary, name)

    def planned(self, name: str) -> float | None:
        return figure(self.summary.get("planned") or {}, name)

    def row(self) -> dict[str, Any]:
        return {
            "job": self.name,
            "status": self.status,
            "error": self.error,
            **{name: self.layout.get(name) for name in LAYOUT},
            "steps": self.summary.get("steps"),
            **{name: self.measured(name) for name in FIGURES},
            **{f"planned_{name}": self.planned(name) for name in PLANNED},
            "overrides": list(self.overrides),
        }


def jobs(sweep_folder: str | Path) -> list[Job]:
    """By number. What the jobs have in common is left out of their overrides."""
    folder = Path(sweep_folder)
    marks = sorted(folder.glob("**/.hydra/overrides.yaml"), key=lambda mark: _in_order(mark.relative_to(folder)))
    given = [[str(override) for override in OmegaConf.load(mark)] for mark in marks]
    common = set(given[0]).intersection(*given[1:]) if len(given) > 1 else set()
    return [
        Job(
            name=str(mark.parent.parent.relative_to(folder)),
            folder=mark.parent.parent,
            overrides=tuple(override for override in overrides if override not in common),
            summary=read_summary(mark.parent.parent) or {},
            begun=mark.stat().st_mtime,
        )
        for mark, overrides in zip(marks, given, strict=True)
    ]


def write_sweep(sweep_folder: str | Path, found: list[Job]) -> None:
    """A list in `sweep.json` is a cell of words in `sweep.csv`, and null an empty one."""
    folder, rows = Path(sweep_folder), [job.row() for job in found]
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]) if rows else ["job"], lineterminator="\n")
    table.writeheader()
    table.writerows(row | {"overrides": " ".join(row["overrides"])} for row in rows)
    write_atomically(folder / "sweep.csv", text.getvalue())
    write_atomically(folder / "sweep.json", json.dumps({"jobs": rows}, indent=2, allow_nan=False) + "\n")


def _in_order(path: Path) -> list[tuple[int, str]]:
    """10 after 9."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", str(path))]
