"""Prints `summary.json` as a table at the end."""

from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.table import Table

from project.run_folder import read_summary


class SummaryTable(Callback):
    """Stands after `RunSummary`."""

    def __init__(self, run_folder: str) -> None:
        self.run_folder = Path(run_folder)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        summary = read_summary(self.run_folder) if trainer.is_global_zero else None
        if summary is not None:
            console = Console()
            console.print(summary_table(summary))
            console.print(f"run folder: {self.run_folder}", soft_wrap=True)


def summary_table(summary: dict[str, Any]) -> Table:
    """Returns a table without the entries that are null."""
    table = Table(title="summary", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    rows = {
        "layout": "pp{pp} x dp{dp} x tp{tp}, experts ep{ep} x etp{etp}".format(**summary["layout"]),
        "steps": f"{summary['steps']:,}, {summary['tokens']:,} tokens",
        "loss": loss_line(summary),
        "validation loss": figure(summary["val_loss"], ".4f"),
        "step time, median": figure(summary["step_time_s"], ".3f", " s"),
        "throughput, median": figure(summary["tokens_per_second"], ",.0f", " tokens/s"),
        "MFU, median": figure(summary["mfu"], ".1%"),
        "first step after": figure(summary["time_to_first_step_s"], ".1f", " s"),
        "parameters": f"{summary['parameters_total']:,}, {summary['parameters_active']:,} active",
        "peak memory": memory_line(summary["peak_memory_bytes_per_rank"]),
        "expert load": load_line(summary["expert_load"]),
    }
    for name, text in rows.items():
        if text is not None:
            table.add_row(name, text)
    return table


def figure(value: float | None, form: str, unit: str = "") -> str | None:
    return None if value is None else f"{value:{form}}{unit}"


def loss_line(summary: dict[str, Any]) -> str | None:
    first, last = (figure(summary[f"train_loss_{which}"], ".4f") for which in ("first", "last"))
    return None if last is None else f"{first or '?'} at first, {last} at last"


def memory_line(peaks: list[int] | None) -> str | None:
    """Returns the largest rank's peak. A sum over ranks would count the pages that forked ranks share several times."""
    return f"{max(peaks) / 2**30:.2f} GiB on the largest rank" if peaks else None


def load_line(load: list[list[float] | None] | None) -> str | None:
    """Returns the range of the experts' shares. Null stands for a layer without experts."""
    shares = [share for layer in load or [] for share in layer or []]
    return f"{min(shares):.1%} to {max(shares):.1%} of a layer's tokens" if shares else None
