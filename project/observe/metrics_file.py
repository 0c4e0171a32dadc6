"""`metrics.csv`: one row per optimizer step, every number at full precision, consistent after a kill at any moment.

A row is one write to the end of the file. Metrics that are logged later for the same step, those of the validation,
overwrite the last row. A new metric gets a column at the end, for which the file is replaced atomically.
"""

import csv
import errno
import io
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

from project.run_folder import write_atomically
from project.spec.disk import writing

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?|[-+]?(nan|inf)|", re.ASCII)
STEP = re.compile(r"\d{1,18}", re.ASCII)


class MetricsFile:
    """Writes `metrics.csv`. The file is created with the first row; if it exists, a resumed run continues it, and the
    rows from that step on are dropped."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._columns: list[str] = []
        self._row: dict[str, str] = {}
        self._row_start = 0

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Raises NotWritten; the rows before stay whole."""
        if not self._columns:
            self._begin(step)
        cells = {name: repr(float(value)) for name, value in metrics.items()}
        same_step = self._row.get("step") == str(step)
        self._row = (self._row if same_step else {"step": str(step)}) | cells
        if not same_step:
            self._row_start = self.path.stat().st_size
        if self._row.keys() <= set(self._columns):
            self._put(self._line(self._row))
        else:
            self._widen()

    def _begin(self, step: int) -> None:
        rows = [row for row in read_rows(self.path) if int(row["step"]) < step]
        self._columns = list(rows[0]) if rows else ["step"]
        self._replace(rows)

    def _widen(self) -> None:
        self._columns += [name for name in self._row if name not in self._columns]
        self._replace([row for row in read_rows(self.path) if row["step"] != self._row["step"]])
        self._row_start = self.path.stat().st_size
        self._put(self._line(self._row))

    def _put(self, line: bytes) -> None:
        """Writes a row in one system call, so that a killed process leaves all of it or nothing, and cuts off what a
        longer row before it would leave behind."""
        with writing(self.path):
            descriptor = os.open(self.path, os.O_WRONLY)
            try:
                written = os.pwrite(descriptor, line, self._row_start)
                if written < len(line):  # a disk that is full takes a part
                    os.ftruncate(descriptor, self._row_start)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.ftruncate(descriptor, self._row_start + len(line))
            finally:
                os.close(descriptor)

    def _replace(self, rows: Iterable[Mapping[str, str]]) -> None:
        header = self._line({name: name for name in self._columns})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, (header + b"".join(map(self._line, rows))).decode())

    def _line(self, row: Mapping[str, str]) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow([row.get(name, "") for name in self._columns])
        return text.getvalue().encode()


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """The rows of a file as text by column name, where an empty cell was not logged at that step; no rows if there is
    no file. Rows that no run has written so, as a torn disk leaves them, are left out with a warning."""
    if not Path(path).exists():
        return []
    text = Path(path).read_bytes().decode("utf-8", errors="replace")
    whole, _, rest = text.rpartition("\n")  # a row's end is the end of its line
    header, *lines = [line for line in whole.split("\n") if line] or [""]
    columns = next(csv.reader([header]), [])
    rows = [cells for line in lines if len(cells := cells_of(line)) == len(columns) and "step" in columns]
    found = [row for cells in rows if is_written(row := dict(zip(columns, cells, strict=True)))]
    if lost := len(lines) + bool(rest) - len(found):
        warnings.warn(f"{path}: {lost} lines that are no rows are left out", stacklevel=2)
    return found


def cells_of(line: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error:
        return []


def is_written(row: Mapping[str, str]) -> bool:
    """Says whether a row has a step that counts from zero, and a number or nothing in every cell."""
    return STEP.fullmatch(row["step"]) is not None and all(map(NUMBER.fullmatch, row.values()))
