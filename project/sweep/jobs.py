"""A sweep's folder: its jobs and their figures, as `sweep.csv` and `sweep.json`.

Everything is read from the jobs' own folders, so that a job of an earlier start, or of another machine, counts as one
of this start does. Both files are replaced atomically after every job.
"""

import csv
import io
import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from project.configs import CONFIGS
from project.run_folder import LAYOUT_KEYS, read_summary, write_atomically
from project.spec.fault import plain, said
from project.spec.figures import FIGURES, figure
from project.spec.run_files import Sweep, read_form
from project.spec.untrusted import Unreadable, as_mapping, read_yaml

DEGREES = ("pp", "dp", "tp", "ep", "etp")
PLANNED = ("step_time_s", "tokens_per_second", "mfu", "bubble", "peak_memory_bytes", "communication_bytes")
OVERRIDES = ".hydra/overrides.yaml"
FORMULA = ("=", "+", "-", "@", "\t")
"""What a spreadsheet takes for the beginning of a formula."""


@dataclass(frozen=True)
class Job:
    """A job by its row in `sweep.json`: `job` is its folder relative to the sweep's, `overrides` the ones that not all
    jobs have, and a measured figure or a planned one (`planned_` before its name) is None where it is not known."""

    row: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.row["job"])

    @property
    def status(self) -> str:
        return str(self.row["status"])

    @property
    def layout(self) -> str:
        """The degrees above 1 in words."""
        degrees = [f"{axis}{self.row[axis]}" for axis in DEGREES if (self.row.get(axis) or 1) > 1]
        return " ".join(degrees) or ("one rank" if self.row.get("pp") else "-")

    def schedule(self, microbatches: str = "microbatches") -> str:
        """The schedule in words, of which `microbatches` is one."""
        if not self.row.get("schedule"):
            return "-"
        stages = f" x{self.row['virtual_stages']}" if (self.row.get("virtual_stages") or 1) > 1 else ""
        return f"{self.row['schedule']}{stages}, {self.row.get('microbatches')} {microbatches}"

    @property
    def link(self) -> str:
        """URL of the job's report, relative to the sweep's folder."""
        return f"{quote(self.name)}/report.html"


def jobs(sweep_folder: str | Path) -> list[Job]:
    """The jobs in the order of their numbers. Overrides that all have in common are left out of their rows."""
    folder = Path(sweep_folder)
    found = sorted((path.parent.parent for path in folder.glob(f"**/{OVERRIDES}")), key=_in_order)
    given = [_overrides(job / OVERRIDES, folder) for job in found]
    common = set(given[0]).intersection(*given[1:]) if len(given) > 1 else set()
    return [
        Job(_row(str(job.relative_to(folder)), _summary(job), [one for one in overrides if one not in common]))
        for job, overrides in zip(found, given, strict=True)
    ]


def _overrides(path: Path, sweep_folder: Path) -> list[str]:
    """The job's overrides as they can be typed; none where the file holds something else."""
    try:
        content = read_yaml(path, sweep_folder)
        if not isinstance(content, list):
            return []
        return [typed for override in content for typed in _typed(str(override), path.parent, sweep_folder)]
    except Unreadable as error:
        warnings.warn(f"skipped {error}", stacklevel=2)
        return []


def _typed(override: str, hydra: Path, sweep_folder: Path) -> list[str]:
    """The override; in place of the choice of a layout that the sweep itself has made, the keys by which it differs
    from `parallel=single`."""
    group, _, name = override.partition("=")
    config = hydra / "config.yaml"
    if group != "parallel" or (CONFIGS / "parallel" / f"{name}.yaml").exists() or not config.exists():
        return [override]
    made = as_mapping(config, read_yaml(config, sweep_folder)).get("parallel")
    single = as_mapping(config, read_yaml(CONFIGS / "parallel" / "single.yaml"))
    if not isinstance(made, dict):
        return [override]
    changed = {key: value for key, value in made.items() if key in single and value != single[key]}
    return ["parallel=single", *(f"parallel.{key}={said(value)}" for key, value in changed.items())]


def _summary(job: Path) -> dict[str, Any]:
    """The job's summary; one that cannot be read is a failure that says so."""
    try:
        return read_summary(job) or {}
    except Unreadable as error:
        return {"status": "unreadable", "error": str(error)}


def _row(name: str, summary: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    layout, planned = summary.get("layout") or {}, summary.get("planned") or {}
    return {
        "job": name,
        "status": summary.get("status", "started"),
        "error": summary.get("error"),
        **{key: layout.get(key) for key in LAYOUT_KEYS},
        "steps": summary.get("steps"),
        **{key: figure(summary, key) for key in FIGURES},
        **{f"planned_{key}": figure(planned, key) for key in PLANNED},
        "overrides": overrides,
    }


def begun_since(sweep_folder: str | Path, time: float) -> bool:
    """True if a job was begun at or after `time`, in seconds since the epoch."""
    return any(path.stat().st_mtime >= time for path in Path(sweep_folder).glob(f"**/{OVERRIDES}"))


def read_sweep(sweep_folder: str | Path) -> tuple[list[Job], int]:
    """The jobs as `sweep.json` has them, and how many there were to be.

    Raises:
        Unreadable: for a file that no sweep has written so.
    """
    content = read_form(Sweep, Path(sweep_folder) / "sweep.json", Path(sweep_folder))
    return [Job(row) for row in content["jobs"]], max(content.get("number") or 0, len(content["jobs"]))


def write_sweep(sweep_folder: str | Path, found: Sequence[Job], number: int | None = None) -> None:
    """Writes both files. `number` is that of the sweep's jobs, begun or not, where it is known. A list in `sweep.json`
    is a cell of words in `sweep.csv`, and null an empty one. Words that a spreadsheet would take for a formula begin
    with an apostrophe in `sweep.csv`."""
    folder, rows = Path(sweep_folder), [job.row for job in found]
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]) if rows else ["job"], lineterminator="\n")
    table.writeheader()
    table.writerows(
        {key: _cell(value) for key, value in (row | {"overrides": " ".join(row["overrides"])}).items()} for row in rows
    )
    write_atomically(folder / "sweep.csv", text.getvalue())
    write_atomically(
        folder / "sweep.json", json.dumps({"jobs": rows, "number": number}, indent=2, allow_nan=False) + "\n"
    )


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    shown = plain(value)
    return f"'{shown}" if shown.startswith(FORMULA) else shown


def _in_order(path: Path) -> list[tuple[int, str]]:
    """Sort key of a path by the numbers in it, so that 10 comes after 9."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", str(path))]
