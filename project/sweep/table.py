"""A sweep as a table of 80 columns: for each job the measured figures and, below them, the planned ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from project.sweep.jobs import Job

COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "step": ("step_time_s", lambda seconds: f"{seconds:.3f} s" if seconds < 1000 else f"{seconds:,.0f} s"),
    "tokens/s": ("tokens_per_second", lambda rate: f"{rate:,.0f}"),
    "bubble": ("bubble", lambda share: f"{share:.1%}"),
    "memory": ("peak_memory_bytes", lambda size: said_bytes(size)),
    "sent": ("communication_bytes", lambda size: said_bytes(size)),
    "loss": ("train_loss_last", lambda loss: f"{loss:.4f}"),
}


def sweep_table(jobs: list[Job]) -> Table:
    table = Table(title="measured, and below it planned", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("job", overflow="fold", max_width=8)
    table.add_column("layout, schedule", overflow="fold")
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for job in jobs:
        table.add_row(
            Text(job.name), Text("\n".join(_how(job))), *(_cell(job, name, form) for name, form in COLUMNS.values())
        )
    return table


def best(jobs: list[Job]) -> Iterator[str]:
    """One line for each question: the completed job that answers it."""
    done = [job for job in jobs if job.status == "completed"]
    for question, name, sign in (
        ("fastest", "tokens_per_second", -1),
        ("least memory", "peak_memory_bytes", 1),
        ("least sent", "communication_bytes", 1),
    ):
        known = [(sign * value, job) for job in done if (value := job.measured(name)) is not None]
        if len(known) > 1:
            job = min(known, key=lambda pair: pair[0])[1]
            yield f"{question}: job {job.name} ({', '.join(_how(job))})"


def print_sweep(found: list[Job], folder: Path) -> None:
    """The table, the best jobs, the unfinished ones with their reasons, and the folder."""
    from rich.console import Console

    console = Console()
    console.print(sweep_table(found))
    for line in best(found):
        console.print(line, highlight=False)
    unfinished = [job for job in found if job.status != "completed"]
    for job in unfinished:
        reason = f": {job.error}" if job.error else ""
        console.print(f"job {job.name} {job.status}{reason}", markup=False, highlight=False)
    count = f"{len(found) - len(unfinished)} of {len(found)} jobs completed"
    again = "; resume=auto with this hydra.sweep.dir runs the others again" if unfinished else ""
    console.print(f"{count}{again}\nsweep folder: {folder}", soft_wrap=True, highlight=False)


def said_bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1000
    return f"{size:.3g} TB"


def _how(job: Job) -> list[str]:
    """The degrees above 1, and the schedule; for a refused job, its overrides."""
    layout = job.layout
    if not layout:
        return list(job.overrides) or [job.status]
    degrees = [f"{axis}{layout[axis]}" for axis in ("pp", "dp", "tp", "ep", "etp") if layout[axis] > 1]
    stages = f" x{layout['virtual_stages']}" if layout["virtual_stages"] > 1 else ""
    return [" ".join(degrees) or "one rank", f"{layout['schedule']}{stages}, {layout['microbatches']} mb"]


def _cell(job: Job, name: str, form: Callable[[float], str]) -> str:
    if job.status != "completed" and name == "step_time_s":
        return job.status
    measured, planned = (None if value is None else form(value) for value in (job.measured(name), job.planned(name)))
    return "-" if measured is None and planned is None else "\n".join((measured or "-", planned or ""))
