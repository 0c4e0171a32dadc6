"""A table that is printed on a terminal and written as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from project.spec.fault import plain

if TYPE_CHECKING:
    from rich.table import Table


@dataclass
class Sheet:
    """A table of text cells. A column whose name ends in `>` is aligned to the right."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]] = ()
    note: str = ""
    sections: set[int] = field(default_factory=set)
    """Indices of rows after which a line is drawn."""

    def table(self) -> Table:
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=self.title, title_justify="left", caption=self.note or None, caption_justify="left")
        for column in self.columns:
            right = column.endswith(">")
            table.add_column(column.rstrip(">"), justify="right" if right else "left", overflow="fold")
        for place, row in enumerate(self.rows):
            table.add_row(*(escape(plain(cell)) for cell in row), end_section=place in self.sections)
        return table

    def markdown(self) -> str:
        rule = ["---:" if column.endswith(">") else "---" for column in self.columns]
        names = [column.rstrip(">") for column in self.columns]
        lines = [f"| {' | '.join(cells)} |" for cells in (names, rule, *map(_escaped, self.rows))]
        return "\n".join([f"## {self.title}", "", *lines, *(["", self.note] if self.note else []), ""])


def _escaped(row: tuple[str, ...]) -> list[str]:
    return [cell.replace("|", "\\|").replace("\n", " ") for cell in row]


def spans(numbers: list[int]) -> str:
    """Runs of consecutive numbers by their ends, as in `0-2, 5`; `-` where there are none."""
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)) or "-"
