"""Report of a sweep: `report.html` in its folder."""

from collections.abc import Callable, Sequence
from pathlib import Path

from project.report.escaped import escape
from project.report.page import Section, Tile, cells, page, table, tiles
from project.report.style import Form
from project.report.sweep_figures import RESULTS, are_timed, parallel_coordinates, time_against_memory
from project.run_folder import write_atomically
from project.spec.figures import WARMUP_STEPS
from project.sweep.jobs import Job, read_sweep

BEST: tuple[tuple[str, str, Callable], ...] = (
    ("fastest", "step_time_s", min),
    ("most tokens per second", "tokens_per_second", max),
    ("least memory", "peak_memory_bytes", min),
    ("least sent", "communication_bytes", min),
    ("lowest loss", "train_loss_last", min),
)


def write_sweep_page(folder: str | Path) -> Path:
    """Writes the page from the folder's `sweep.json`, and returns its path."""
    folder = Path(folder).absolute()
    jobs, number = read_sweep(folder)
    path = folder / "report.html"
    write_atomically(path, page(f"{folder.name}: sweep report", header(folder.name, jobs, number), sections(jobs)))
    return path


def header(name: str, jobs: Sequence[Job], number: int) -> str:
    """`number` is that of the sweep's jobs, begun or not."""
    done = sum(job.status == "completed" for job in jobs)
    status = "completed" if done == number else "failed"
    return (
        f'<h1>{escape(name)}<span class="status {status}">{done} of {number} jobs completed</span></h1>'
        f"{tiles(best(jobs))}"
    )


def best(jobs: Sequence[Job]) -> list[Tile]:
    found = []
    for words, name, choose in BEST:
        known = [job for job in jobs if job.status == "completed" and job.row.get(name) is not None]
        if known:
            job = choose(known, key=lambda job: job.row[name])
            value = RESULTS[name][1](job.row[name])
            found.append(Tile(words, value, f"job {job.name}: {job.layout}, {job.schedule()}"))
    return found


def sections(jobs: Sequence[Job]) -> list[Section]:
    done = [job for job in jobs if job.status == "completed"]
    colours = ", from green for the quickest step to blue for the slowest" if are_timed(done) else ""
    return [
        Section(
            "coordinates",
            "Choices and results",
            f"A line is a job{colours}. Hover to follow one, click to open its report.",
            figure=parallel_coordinates(jobs),
            absent="The completed jobs differ in fewer than two columns."
            if len(done) > 1
            else "Fewer than two jobs were completed.",
            wide=True,
        ),
        Section(
            "pareto",
            "Time against memory",
            "Nothing is better in both than a job on the front. A click opens a job's report.",
            figure=time_against_memory(jobs),
            absent=f"No completed job has a step time, the median without the first {WARMUP_STEPS} steps."
            if done
            else "No job was completed.",
            wide=True,
        ),
        Section(
            "jobs",
            "Jobs",
            "Measured, and under it planned. Each job opens its report.",
            body=table(
                ("job", "status", "layout", "schedule", *(words for words, _ in RESULTS.values()), "sets"),
                [row(job) for job in jobs],
                kind="jobs",
            ),
            wide=True,
        ),
    ]


def row(job: Job) -> list[str]:
    status = escape(job.status)
    error = f'<br><span class="error">{escape(job.row["error"])}</span>' if job.row.get("error") else ""
    return [
        f'<th scope="row"><a href="{escape(job.link)}">{escape(job.name)}</a></th>',
        f'<td><span class="{status}">{status}</span>{error}</td>',
        *cells([job.layout, job.schedule()], ("layout", "schedule")),
        *(result(job, name, form, words) for name, (words, form) in RESULTS.items()),
        f'<td><span class="sets">{escape(" ".join(job.row.get("overrides") or ()))}</span></td>',
    ]


def result(job: Job, name: str, form: Form, words: str) -> str:
    """The measured value with the planned one under it, as a table cell."""
    measured, planned = job.row.get(name), job.row.get(f"planned_{name}")
    beside = f'<br><span class="beside">{escape(form(planned))}</span>' if planned is not None else ""
    return f'<td data-column="{escape(words)}">{"-" if measured is None else escape(form(measured))}{beside}</td>'
