"""A sweep as a table of 80 columns: for each job the measured figures and, below them, the planned ones."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from project.spec.fault import plain
from project.spec.units import number
from project.sweep.jobs import Job

COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "step": ("step_time_s", partial(number, unit="s")),
    "tokens/s": ("tokens_per_second", lambda rate: f"{rate:,.0f}"),
    "bubble": ("bubble", lambda share: f"{share:.1%}"),
    "memory": ("peak_memory_bytes", partial(number, unit="B")),
    "sent": ("communication_bytes", partial(number, unit="B")),
    "loss": ("train_loss_last", lambda loss: f"{loss:.4f}"),
}


def sweep_table(jobs: list[Job]) -> Table:
    table = Table(title="measured, and below it planned", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("job", overflow="fold", max_width=8)
    table.add_column("layout, schedule", overflow="fold")
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for job in jobs:
        figures = (_figure(job, name, form) for name, form in COLUMNS.values())
        table.add_row(Text(plain(job.name)), Text(plain("\n".join(_in_words(job)))), *figures)
    return table


def best(jobs: list[Job]) -> Iterator[str]:
    """One line for each question: the completed job that answers it."""
    for question, name, sign in (
        ("fastest", "tokens_per_second", -1),
        ("least memory", "peak_memory_bytes", 1),
        ("least sent", "communication_bytes", 1),
    ):
        known = [job for job in jobs if job.status == "completed" and job.row[name] is not None]
        if len(known) > 1:
            job = min(known, key=lambda job: sign * job.row[name])
            yield f"{question}: job {job.name} ({', '.join(_in_words(job))})"


def print_sweep(found: list[Job], folder: Path, number: int | None = None) -> None:
    """Prints the table, the best jobs, the unfinished ones with their reasons, and the folder. `number` is that of the
    sweep's jobs, begun or not, where it is known."""
    console = Console()
    console.print(sweep_table(found))
    for line in best(found):
        console.print(plain(line), markup=False, highlight=False)
    unfinished = [job for job in found if job.status != "completed"]
    for job in unfinished:
        reason = f": {job.row['error']}" if job.row["error"] else ""
        console.print(plain(f"job {job.name} {job.status}{reason}"), markup=False, highlight=False)
    not_begun = max((number or 0) - len(found), 0)
    count = f"{len(found) - len(unfinished)} of {len(found) + not_begun} jobs completed"
    count += f", {not_begun} not begun" if not_begun else ""
    again = "; resume=auto with this hydra.sweep.dir runs the others" if unfinished or not_begun else ""
    console.print(f"{count}{again}\nsweep folder: {folder}", soft_wrap=True, highlight=False)


def _in_words(job: Job) -> list[str]:
    """Layout and schedule; for a refused job, its overrides."""
    return [job.layout, job.schedule("mb")] if job.row["pp"] else job.row["overrides"] or [job.status]


def _figure(job: Job, name: str, form: Callable[[float], str]) -> str:
    """The measured figure, and the planned one in a second line; for an unfinished job its status as the first."""
    if job.status != "completed" and name == "step_time_s":
        return plain(job.status)
    measured, planned = (job.row.get(key) for key in (name, f"planned_{name}"))
    if measured is None and planned is None:
        return "-"
    return f"{'-' if measured is None else form(measured)}\n{'' if planned is None else form(planned)}"
