"""A sweep's jobs as its page reads them: `sweep.json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from project.report.run import read_json

DEGREES = ("pp", "dp", "tp", "ep", "etp")


@dataclass(frozen=True)
class SweepJob:
    """`row` is that of `sweep.json`."""

    row: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.row["job"])

    @property
    def completed(self) -> bool:
        return self.row["status"] == "completed"

    @property
    def layout(self) -> str:
        """The degrees above 1."""
        degrees = [f"{axis}{self.row[axis]}" for axis in DEGREES if (self.row.get(axis) or 1) > 1]
        return " ".join(degrees) or ("one rank" if self.row.get("pp") else "-")

    @property
    def schedule(self) -> str:
        if not self.row.get("schedule"):
            return "-"
        stages = f" x{self.row['virtual_stages']}" if (self.row.get("virtual_stages") or 1) > 1 else ""
        return f"{self.row['schedule']}{stages}, {self.row['microbatches']} microbatches"

    @property
    def link(self) -> str:
        """Relative to the sweep's folder."""
        return f"{quote(self.name)}/report.html"


def read_sweep(folder: Path) -> list[SweepJob]:
    return [SweepJob(row) for row in read_json(folder / "sweep.json").get("jobs", ())]
