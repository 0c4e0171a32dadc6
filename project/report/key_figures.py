"""The numbers that a run is judged by, what was planned beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from html import escape
from typing import NamedTuple

from project.report.run import Run

Form = Callable[[float], str]


class KeyFigure(NamedTuple):
    name: str
    value: str
    beside: str


def key_figures(run: Run) -> Iterator[KeyFigure]:
    summary, planned = run.summary, run.planned
    yield compared("step time", summary.get("step_time_s"), planned.get("step_time_s"), seconds, "median")
    yield compared("pipeline bubble", summary.get("bubble"), planned.get("bubble"), percent, "of the schedule's time")
    yield compared(
        "tokens per second", summary.get("tokens_per_second"), planned.get("tokens_per_second"), count, "median"
    )
    without_peak = "the device's peak is unknown" if summary.get("device") else ""
    yield compared("MFU", summary.get("mfu"), planned.get("mfu"), percent, "" if summary.get("mfu") else without_peak)
    peaks = summary.get("peak_memory_bytes_per_rank")
    planned_peaks = planned.get("peak_memory_bytes_per_rank")
    yield compared("memory, largest rank", max(peaks) if peaks else None, largest(planned_peaks), size, "peak")
    first, last, validation = (summary.get(name) for name in ("train_loss_first", "train_loss_last", "val_loss"))
    beside = f"from {first:.3f}" if first is not None else ""
    if validation is not None:
        beside += f", validation {validation:.3f}"
    yield KeyFigure("loss", "-" if last is None else f"{last:.3f}", beside)


def largest(values: list[float] | float | None) -> float | None:
    return max(values) if isinstance(values, list) and values else None if isinstance(values, list) else values


def compared(name: str, value: float | None, planned: float | None, form: Form, note: str) -> KeyFigure:
    shown = "-" if value is None else form(value)
    if planned is None:
        return KeyFigure(name, shown, note)
    beside = f"planned {form(planned)}"
    if value is not None and planned:
        beside += f" ({value / planned - 1:+.0%})" if abs(value / planned - 1) < 10 else f" ({value / planned:.0f} x)"
    return KeyFigure(name, shown, beside)


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def percent(value: float) -> str:
    return f"{value:.1%}"


def count(value: float) -> str:
    return f"{value:,.0f}"


def size(value: float) -> str:
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.0f} B"


def tiles_of(figures: Iterable[KeyFigure]) -> str:
    """As HTML."""
    each = "".join(
        f'<div class="tile"><dt>{escape(one.name)}</dt><dd class="value">{escape(one.value)}</dd>'
        f'<dd class="beside">{escape(one.beside)}</dd></div>'
        for one in figures
    )
    return f'<dl class="tiles">{each}</dl>'
