"""Report of one run: `report.html` in its folder."""

from collections.abc import Iterator
from pathlib import Path

from project.report import communication, curves, experts, gantt, memory, rank_map
from project.report.claims import claims
from project.report.escaped import escape
from project.report.page import Choice, Section, Tile, page, tiles
from project.report.run import Run
from project.report.style import Form, count, percent, seconds, size
from project.run_folder import write_atomically
from project.spec.figures import figure

NO_STEP = "No step was logged."
NO_EXPERTS = "No layer of this run has experts, or no step was logged."


def write_run_page(folder: str | Path) -> Path:
    """Writes the page from what the folder has by now, and returns its path."""
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
        f'<p class="facts">{escape(" · ".join(facts))}</p>{error}{tiles(key_figures(run))}'
    )


def key_figures(run: Run) -> Iterator[Tile]:
    """The numbers that a run is judged by."""
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


def sections(run: Run) -> list[Section]:
    """The page's sections in their order."""
    return [*layout_sections(run), *step_sections(run), *expert_sections(run), *document_sections(run)]


def layout_sections(run: Run) -> list[Section]:
    return [
        Section(
            "gantt",
            "Pipeline",
            "Faint stretches are ranks that wait for others: the bubble. Hover over an action to follow its microbatch "
            "through the stages.",
            choice=gantt_choice(run),
            absent="Neither traced nor planned: there is no trace.json here, and no timeline in plan.json.",
            wide=True,
        ),
        Section(
            "ranks",
            "Ranks",
            "Every rank's stage, layers and experts. Neighbours in a row exchange tokens and slices of matrices, rows "
            "hand activations to the row below.",
            figure=rank_map.figure(run),
            absent="Neither the summary nor a plan says which rank holds what.",
        ),
    ]


def step_sections(run: Run) -> list[Section]:
    return [
        Section(
            "losses",
            "Loss",
            "Training and validation should fall together; the balance loss is near 1 when experts are used evenly.",
            figure=curves.losses(run),
            absent=NO_STEP,
        ),
        Section(
            "throughput",
            "Throughput",
            "A level line is a healthy run; its first step, which builds and connects, is left out.",
            figure=curves.throughput(run),
            absent=NO_STEP,
        ),
        Section(
            "memory",
            "Memory",
            "What each rank's peak is made of; hatched is the plan. Everything else is the process, its code and its "
            f"buffers.{memory.remark(run)}",
            figure=memory.figure(run),
            absent="Memory was not measured and not planned.",
        ),
        Section(
            "communication",
            "Communication",
            "What the rank that sends most puts on each axis in one step. The longest bar is the axis that wants the "
            "fastest link.",
            figure=communication.figure(run),
            numbers=communication.numbers(run),
            absent="Communication was not measured and not planned.",
        ),
    ]


def expert_sections(run: Run) -> list[Section]:
    return [
        Section(
            "load",
            "Expert load",
            "Each row sums to 100 %. A row of one colour is an even layer, a dark cell an expert that learns little. "
            "Move the slider through the run.",
            choice=load_choice(run),
            absent=NO_EXPERTS,
        ),
        Section(
            "imbalance",
            "Expert imbalance",
            "The busiest expert's tokens over the mean: 1 is an even load; at 1.5 the ranks wait for one "
            "with half as many again.",
            figure=experts.imbalance(run),
            absent=NO_EXPERTS,
        ),
        Section(
            "entropy",
            "Router entropy",
            "Near the dotted line a router prefers no expert; near 0 it has made up its mind for every token.",
            figure=experts.entropy(run),
            absent=NO_EXPERTS,
        ),
    ]


def document_sections(run: Run) -> list[Section]:
    return [
        Section(
            "claims",
            "Claims",
            "What the strategy document says, and what arithmetic or measurement found.",
            body=claims(run),
            absent="There is no plan.json with claims in this run's folder.",
            wide=True,
        ),
        Section("config", "Configuration", "As resolved, without secrets.", body=configuration(run), wide=True),
    ]


def load_choice(run: Run) -> Choice | None:
    figures = experts.load_over_time(run)
    return Choice("Step", figures, len(figures) - 1, slider=True) if figures else None


def configuration(run: Run) -> str:
    return f"<details><summary>config.yaml</summary><pre>{escape(run.config)}</pre></details>" if run.config else ""


def gantt_choice(run: Run) -> Choice | None:
    """The traced steps, of which the typical one is shown first; without any, the plan alone."""
    typical = gantt.typical_step(run)
    if typical is None:
        planned = gantt.figure(run)
        return None if planned is None else Choice("Step", {"planned": planned})
    steps = gantt.steps_shown(run)
    figures = {f"step {step}": figure for step in steps if (figure := gantt.figure(run, step)) is not None}
    return Choice("Traced step", figures, steps.index(typical))
