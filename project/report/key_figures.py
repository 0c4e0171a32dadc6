"""The numbers that a run is judged by, beside what was planned."""

from collections.abc import Iterator

from project.report.page import Tile
from project.report.run import Run
from project.report.style import Form, count, percent, seconds, size
from project.spec.figures import figure


def key_figures(run: Run) -> Iterator[Tile]:
    summary = run.summary
    yield compared(run, "step time", "step_time_s", seconds, "median")
    yield compared(run, "pipeline bubble", "bubble", percent, "of the schedule's time")
    yield compared(run, "tokens per second", "tokens_per_second", count, "median")
    no_peak = summary.get("device") and not summary.get("mfu")
    yield compared(run, "MFU", "mfu", percent, "the device's peak is unknown" if no_peak else "")
    yield compared(run, "memory, largest rank", "peak_memory_bytes", size, "peak")
    first, last, validation = (summary.get(name) for name in ("train_loss_first", "train_loss_last", "val_loss"))
    beside = f"from {first:.3f}" if first is not None else ""
    if validation is not None:
        beside += f", validation {validation:.3f}"
    yield Tile("loss", "-" if last is None else f"{last:.3f}", beside)


def compared(run: Run, words: str, name: str, form: Form, note: str) -> Tile:
    """A figure and how far the plan was off; `note` where nothing was planned."""
    value, planned = figure(run.summary, name), figure(run.planned, name)
    shown = "-" if value is None else form(value)
    if planned is None:
        return Tile(words, shown, note)
    beside = f"planned {form(planned)}"
    if value is not None and planned:
        beside += f" ({value / planned - 1:+.0%})" if abs(value / planned - 1) < 10 else f" ({value / planned:.0f} x)"
    return Tile(words, shown, beside)
