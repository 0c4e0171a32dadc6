"""Each rank's memory by category, beside what was planned."""

import plotly.graph_objects as go

from project.report.run import Run
from project.report.style import COLOURS, GREY, LEGEND, MB, size
from project.spec.partition import stages_of
from project.spec.schedules.file import is_schedule_file
from project.spec.sections import layout_of

REST = "everything else"
ORDER = ("weights", "parameters", "gradients", "optimizer", "optimizer states", "activations")


def figure(run: Run) -> go.Figure | None:
    """A bar a rank in MB; with a plan, the planned bar stands before the measured one."""
    measured, planned = measured_categories(run), planned_categories(run)
    sides = [(words, ranks) for words, ranks in (("planned", planned), ("measured", measured)) if ranks]
    if not sides:
        return None
    known = {name for _, ranks in sides for categories in ranks.values() for name in categories} - {REST}
    ordered = sorted(known, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    colours = dict(zip(ordered, COLOURS, strict=False)) | {REST: GREY}
    named = {name for categories in measured.values() for name in categories}
    chart = go.Figure()
    for name in (*ordered, REST):
        for words, ranks in sides:
            if any(name in categories for categories in ranks.values()):
                chart.add_trace(
                    go.Bar(
                        name=name,
                        x=[f"{rank}" for rank in sorted(ranks)],
                        y=[round(ranks[rank].get(name, 0) / MB, 3) for rank in sorted(ranks)],
                        offsetgroup=words,
                        legendgroup=name,
                        showlegend=words == sides[-1][0] or name not in named,
                        visible="legendonly" if name == REST and dwarfed(measured) else True,
                        marker={
                            "color": colours[name],
                            "line": {"width": 0},
                            "pattern": {"shape": "/" if words == "planned" else "", "size": 5, "solidity": 0.45},
                        },
                        hovertemplate=f"rank %{{x}}, {words}<br>{name}: %{{y:,.1f}} MB<extra></extra>",
                    )
                )
    chart.update_xaxes(title_text="rank", type="category", showgrid=False)
    chart.update_yaxes(title_text="MB")
    chart.update_layout(
        barmode="stack",
        bargap=0.25,
        height=360,
        margin={"l": 60, "r": 8, "t": 50, "b": 44},
        legend=LEGEND | {"traceorder": "normal"},
    )
    return chart


def remark(run: Run) -> str:
    """Says how the figure adds up to the measured peak, where `REST` is switched off in it."""
    measured = measured_categories(run)
    if not dwarfed(measured):
        return ""
    largest = max(measured.values(), key=lambda categories: sum(categories.values()))
    peak, rest = size(sum(largest.values())), size(largest[REST])
    return f" {REST.capitalize()} is switched off here: {rest} of the {peak} of the largest rank; the legend shows it."


def dwarfed(measured: dict[int, dict[str, float]]) -> bool:
    """True if `REST` would hide the other categories: on a CPU the process alone takes many times what a small model
    does."""
    rest = max((categories[REST] for categories in measured.values()), default=0)
    known = max((sum(categories.values()) - categories[REST] for categories in measured.values()), default=0)
    return 0 < 3 * known < rest


def measured_categories(run: Run) -> dict[int, dict[str, float]]:
    """Bytes by rank and category; without categories, the peak is all `REST`."""
    peaks: list[float] = run.summary.get("peak_memory_bytes_per_rank") or []
    parts: list[dict[str, float]] = run.summary.get("memory_by_category_per_rank") or [{} for _ in peaks]
    activations = activation_bytes(run)
    found: dict[int, dict[str, float]] = {}
    for rank, (peak, categories) in enumerate(zip(peaks, parts, strict=False)):
        known = categories | ({"activations": activations[rank]} if rank in activations else {})
        found[rank] = known | {REST: max(0, peak - sum(known.values()))}
    return found


def activation_bytes(run: Run) -> dict[int, float]:
    """Bytes by rank, each stage's being those of its largest rank. Empty where one was not measured, or where a
    schedule's file placed the stages."""
    stages: list[float] = run.summary.get("activation_bytes_peak_per_stage") or []
    if not stages or None in stages or not run.layout or is_schedule_file(run.layout["schedule"]):
        return {}
    layout = layout_of(run.layout)
    held = {pp: sum(stages[stage] for stage in stages_of(pp, layout)) for pp in range(layout.pp)}
    return {rank: held[layout.coordinates(rank).pp] for rank in range(layout.world_size)}


def planned_categories(run: Run) -> dict[int, dict[str, float]]:
    """Bytes by rank and category. The plan's `framework` is what a measurement cannot name, which is `REST`."""
    return {
        rank["rank"]: {REST if name == "framework" else name: held for name, held in rank["memory"].items() if held}
        for rank in run.plan.get("ranks") or ()
        if rank.get("memory")
    }
