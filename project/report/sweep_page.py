"""`report.html` of a sweep's folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from project.report import parallel_coordinates, pareto
from project.report.key_figures import Form, KeyFigure, count, percent, seconds, size, tiles_of
from project.report.page import page
from project.report.section import Section
from project.report.sweep import SweepJob, read_sweep
from project.run_folder import write_atomically

COLUMNS: tuple[tuple[str, str, Form], ...] = (
    ("step time", "step_time_s", seconds),
    ("tokens/s", "tokens_per_second", count),
    ("bubble", "bubble", percent),
    ("memory", "peak_memory_bytes", size),
    ("sent", "communication_bytes", size),
    ("loss", "train_loss_last", lambda loss: f"{loss:.4f}"),
)
BEST: tuple[tuple[str, str, Callable, Form], ...] = (
    ("fastest", "step_time_s", min, seconds),
    ("most tokens per second", "tokens_per_second", max, count),
    ("least memory", "peak_memory_bytes", min, size),
    ("least sent", "communication_bytes", min, size),
    ("lowest loss", "train_loss_last", min, lambda loss: f"{loss:.4f}"),
)


def write_sweep_page(folder: str | Path) -> Path:
    """From the folder's `sweep.json`."""
    folder = Path(folder).absolute()
    jobs = read_sweep(folder)
    path = folder / "report.html"
    write_atomically(path, page(f"{folder.name}: sweep report", header(folder.name, jobs), sections(jobs)))
    return path


def header(name: str, jobs: Sequence[SweepJob]) -> str:
    done = sum(job.completed for job in jobs)
    status = "completed" if done == len(jobs) else "failed"
    return (
        f'<h1>{escape(name)}<span class="status {status}">{done} of {len(jobs)} jobs completed</span></h1>'
        f"{tiles_of(best(jobs))}"
    )


def best(jobs: Sequence[SweepJob]) -> list[KeyFigure]:
    found = []
    for words, name, choose, form in BEST:
        known = [job for job in jobs if job.completed and job.row.get(name) is not None]
        if known:
            job = choose(known, key=lambda job: job.row[name])
            found.append(KeyFigure(words, form(job.row[name]), f"job {job.name}: {job.layout}, {job.schedule}"))
    return found


def sections(jobs: Sequence[SweepJob]) -> list[Section]:
    too_few = "Fewer than two jobs were completed."
    return [
        Section(
            "coordinates",
            "Choices and results",
            "A line is a job, from green for the quickest step to blue for the slowest. Hover to follow one, click to "
            "open its report.",
            figure=parallel_coordinates.figure(jobs),
            absent=too_few,
            wide=True,
        ),
        Section(
            "pareto",
            "Time against memory",
            "Nothing is better in both than a job on the front. A click opens a job's report.",
            figure=pareto.figure(jobs),
            absent="No job was completed.",
            wide=True,
        ),
        Section(
            "jobs", "Jobs", "Measured, and under it planned. Each job opens its report.", body=table(jobs), wide=True
        ),
    ]


def table(jobs: Sequence[SweepJob]) -> str:
    if not jobs:
        return ""
    names = ("job", "status", "layout", "schedule", *(name for name, _, _ in COLUMNS), "sets")
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    rows = "".join(f"<tr>{row(job)}</tr>" for job in jobs)
    return f'<div class="table"><table class="jobs"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def row(job: SweepJob) -> str:
    status = str(job.row["status"])
    error = f'<br><span class="error">{escape(job.row["error"])}</span>' if job.row.get("error") else ""
    cells = [
        f'<th scope="row"><a href="{escape(job.link)}">{escape(job.name)}</a></th>',
        f'<td><span class="{escape(status)}">{escape(status)}</span>{error}</td>',
        f"<td>{escape(job.layout)}</td>",
        f"<td>{escape(job.schedule)}</td>",
        *(cell(job, name, form) for _, name, form in COLUMNS),
        f'<td><span class="sets">{escape(" ".join(job.row.get("overrides") or ()))}</span></td>',
    ]
    return "".join(cells)


def cell(job: SweepJob, name: str, form: Form) -> str:
    measured, planned = job.row.get(name), job.row.get(f"planned_{name}")
    beside = f'<br><span class="beside">{escape(form(planned))}</span>' if planned is not None else ""
    return f"<td>{'-' if measured is None else escape(form(measured))}{beside}</td>"
