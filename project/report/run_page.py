"""`report.html` of a run folder."""

from __future__ import annotations

from html import escape
from pathlib import Path

from project.report import gantt, losses
from project.report.key_figures import tiles
from project.report.page import page
from project.report.run import Run
from project.report.section import Choice, Section
from project.run_folder import write_atomically


def write_run_page(folder: str | Path) -> Path:
    """From whatever the folder has by now."""
    run = Run.read(folder)
    path = run.folder / "report.html"
    write_atomically(path, page(f"{run.name}: run report", header(run), sections(run)))
    return path


def header(run: Run) -> str:
    summary, layout = run.summary, run.layout
    status = summary.get("status") or "not begun"
    facts = []
    if layout:
        facts.append("PP {pp} x DP {dp} x TP {tp}, EP {ep} x ETP {etp} on {world_size} ranks".format(**layout))
        facts.append(f"{layout['schedule']}, {layout['microbatches']} microbatches")
    facts += [str(summary[key]) for key in ("device", "precision") if summary.get(key)]
    if summary.get("steps") is not None:
        facts.append(f"{summary['steps']:,} steps, {summary.get('tokens') or 0:,} tokens")
    error = f'<p class="error">{escape(summary["error"])}</p>' if summary.get("error") else ""
    return (
        f'<h1>{escape(run.name)}<span class="status {escape(status)}">{escape(status)}</span></h1>'
        f'<p class="facts">{escape(" · ".join(facts))}</p>{error}{tiles(run)}'
    )


def sections(run: Run) -> list[Section]:
    return [
        Section(
            "gantt",
            "Pipeline",
            "Faint stretches are ranks that wait for others: the bubble. Hover over an action to follow its microbatch "
            "through the stages.",
            choice=gantt_choice(run),
            absent="No step was traced: the run has no trace.json.",
            wide=True,
        ),
        Section(
            "losses",
            "Loss",
            "Training and validation should fall together; the balance loss is near its coefficient when experts are "
            "used evenly.",
            figure=losses.figure(run),
            absent="No step was logged.",
        ),
    ]


def gantt_choice(run: Run) -> Choice | None:
    if not run.traced_steps:
        return None
    typical = gantt.typical_step(run)
    figures = {f"step {step}": gantt.figure(run, step) for step in run.traced_steps if run.spans.get(step)}
    there = {label: figure for label, figure in figures.items() if figure is not None}
    return Choice("Traced step", there, list(there).index(f"step {typical}"))
