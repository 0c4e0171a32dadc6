"""Faults and warnings as a person reads them: one block on stderr, in colour only on a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from project.spec.fault import Fault


def report_faults(faults: Sequence[Fault], heading: str = "Nothing was started") -> None:
    lines = [str(fault) if fault.value != "" else f"{fault.key}: {fault.message}" for fault in faults]
    report_lines(lines, f"{heading}: the config has {counted(faults)}")


def report_lines(lines: Sequence[str], heading: str) -> None:
    _print([f"{heading}."], "bold red")
    _print(lines, None)


def counted(faults: Sequence[object]) -> str:
    return "1 fault" if len(faults) == 1 else f"{len(faults)} faults"


def report_warnings(warnings: Iterable[str]) -> None:
    _print([f"Warning: {warning}" for warning in warnings], "yellow")


def _print(paragraphs: Sequence[str], style: str | None) -> None:
    from rich.console import Console

    console = Console(stderr=True)
    width = min(console.width, 100) - 2
    for paragraph in paragraphs:
        # Wrapped here, because rich would break a path in two, which could then not be copied.
        lines = textwrap.wrap(
            paragraph, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )
        indent = "" if style else "  "
        for line in lines:
            console.print(indent + line, style=style, markup=False, highlight=False, soft_wrap=True)
