"""What a run of `planner_layouts` found: `planner_layouts.csv`, and the table of it that RESULTS.md shows.

Each row names the cluster file that planned it, with its checksum: a test holds the planned seconds to that file, so
that neither is changed without the other.
"""

import csv
import hashlib
import subprocess
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from statistics import mean
from typing import NamedTuple

RECORD = Path(__file__).with_name("planner_layouts.csv")
CALIBRATED = Path(__file__).with_name("clusters")
"""The cluster files of the machines that runs were measured on."""


class Row(NamedTuple):
    """Seconds are of a step, to the microsecond. `commit` is the one that the run was of."""

    layout: str
    ranks: int
    planned_s: float
    measured_s: float
    cluster: str
    sha256: str
    commit: str
    date: str


def row(layout: str, ranks: int, planned_s: float, measured_s: float, cluster: str) -> Row:
    """Of a run today, of the tree and the cluster file as they are."""
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, cwd=RECORD.parent).stdout.strip()
    seconds = round(planned_s, 6), round(measured_s, 6)
    return Row(layout, ranks, *seconds, cluster, checksum(cluster), commit, str(date.today()))


def checksum(cluster: str, folder: Path = CALIBRATED) -> str:
    """The first 12 digits of `sha256sum benchmarks/clusters/NAME.yaml`."""
    return hashlib.sha256((folder / f"{cluster}.yaml").read_bytes()).hexdigest()[:12]


def write(rows: Iterable[Row], path: Path = RECORD) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([Row._fields, *rows])


def read(path: Path = RECORD) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        kinds = Row.__annotations__
        return [Row(**{name: kinds[name](text) for name, text in entry.items()}) for entry in csv.DictReader(file)]


def table(rows: Sequence[Row], unit: str = "s") -> str:
    """In Markdown, with the file that planned it above and how far it was off below."""
    first = rows[0]
    errors = [one.planned_s / one.measured_s - 1 for one in rows]
    order = spearman([one.planned_s for one in rows], [one.measured_s for one in rows])
    return "\n".join(
        [
            f"Planned by `benchmarks/clusters/{first.cluster}.yaml` (sha256 {first.sha256}), measured on "
            f"{first.date} at commit {first.commit}.",
            "",
            f"| layout | ranks | planned {unit} | measured {unit} | error |",
            "|---|---|---|---|---|",
            *(
                f"| {one.layout} | {one.ranks} | {one.planned_s:.2f} | {one.measured_s:.2f} | {error:+.0%} |"
                for one, error in zip(rows, errors, strict=True)
            ),
            "",
            f"Spearman {order:.2f}, mean error {mean(map(abs, errors)):.0%}",
        ]
    )


def spearman(one: Sequence[float], two: Sequence[float]) -> float:
    """Correlation of the ranks; without ties."""

    def ranks(values: Sequence[float]) -> list[int]:
        return [sorted(values).index(value) for value in values]

    squares = sum((a - b) ** 2 for a, b in zip(ranks(one), ranks(two), strict=True))
    return 1 - 6 * squares / (len(one) * (len(one) ** 2 - 1))
